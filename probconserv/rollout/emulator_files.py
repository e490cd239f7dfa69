"""Files of an emulator: what they hold, and whether they fit a grid and conditions."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from probconserv.errors import DataFileError
from probconserv.rollout.data_checks import kinds_of
from probconserv.rollout.flux_model import FluxModel
from probconserv.rollout.regression import ComponentRegression
from probconserv.rollout.sides import side_name
from probconserv.rollout.step_network import EmulatorConfig, StepNetwork
from probconserv.rollout.trajectories import Functions, Setting, given_sides
from probconserv.training.fingerprint import difference_between, fingerprint
from solvers._former import warn_at_caller
from solvers.grids import Grid
from solvers.tensor_files import decode_tensors, encode_tensors, existing, write_atomically

_FORMAT = "emulator-1"
_FORMER_SIDE = re.compile(r"walls\[(\d+)\]\[([01])\]")


def described(config: EmulatorConfig, known: Functions, base: nn.Module, flux: FluxModel | None) -> dict[str, Any]:
    """What a file says to build an emulator again."""
    return {
        "config": asdict(config),
        "grid": repr(known.setting.grid),
        "interval": known.setting.interval,
        "conditions": kinds_of(known.setting.conditions),
        "stated": _stated_by(known.setting),
        "sides": given_sides(known.walls),
        "measured": known.setting.measured,
        "channels": known.channels,
        "kernel": asdict(base.kernel) if isinstance(base, ComponentRegression) else None,
        "layout": base.layout if isinstance(base, StepNetwork) else None,
        "flux": flux and dict(zip(("channels", "data", "totals"), flux.counts, strict=True)),
    }


def write(path: str | Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Writes tensors and what is said about them, atomically."""
    metadata = {"format": _FORMAT, "content": json.dumps(content)}
    write_atomically(Path(path), encode_tensors(tensors, metadata))


def read(path: str | Path, grid: Grid) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``write`` wrote; a DataFileError if it is damaged, no emulator, or of another grid."""
    path = existing(path, "file of an emulator")
    try:
        tensors, metadata = decode_tensors(path.read_bytes())
        content = json.loads(metadata["content"])
    except (OSError, LookupError, ValueError) as error:
        raise DataFileError(f"'{path}' cannot be read as an emulator ({error}); save it again.") from error
    if metadata.get("format") != _FORMAT or content["grid"] != repr(grid):
        raise DataFileError(
            f"'{path}' holds no emulator of format {_FORMAT} on {grid}, but {metadata.get('format')} on "
            f"{content.get('grid')}; load it on its grid."
        )
    for part in ("channels", "ranges"):  # names of 0.4
        if part in content:
            content[part] = {_FORMER_SIDE.sub(_side, name): each for name, each in content[part].items()}
    return tensors, content


def _side(former: re.Match[str]) -> str:
    return side_name(int(former[1]), int(former[2]))


def setting_of(
    path: str | Path,
    content: Mapping[str, Any],
    grid: Grid,
    conditions: Sequence[Any] | None,
    law: Mapping[str, Any] | None,
) -> Setting:
    """The setting that a file was fitted in; a DataFileError if it has other conditions or another law.

    Files of 0.4 have networks that are not periodic on axes without walls, and say so in their conditions.
    """
    options = conditions, law, content["interval"]
    given, closed = (Setting.of(grid, *options, of, content.get("measured", ())) for of in ((), content["sides"]))
    kinds = [kinds_of(each.conditions) for each in (closed, given)]
    fitted = content.get("conditions", kinds[1])  # files of 0.3 do not say
    if fitted not in kinds:
        raise DataFileError(
            f"'{path}' holds an emulator with the conditions {fitted}, not {kinds[1]}; load it with those that it was "
            "fitted with."
        )
    setting = (closed, given)[kinds.index(fitted)]
    _check_stated(path, content, setting)
    return setting


def _stated_by(setting: Setting) -> dict[str, Any]:
    """Conditions with their values and the law, as JSON."""
    sides = {f"axis {axis}": fingerprint(pair) for axis, pair in enumerate(setting.conditions)}
    return {"conditions": sides, "law": fingerprint(setting.law)}


def _check_stated(path: str | Path, content: Mapping[str, Any], setting: Setting) -> None:
    if "stated" not in content:  # files of 0.4
        if content["flux"] and setting.law is None:
            raise DataFileError(
                f"'{path}' holds an emulator with a model of fluxes, fitted under a law; load it with that law."
            )
        warn_at_caller(
            f"'{path}' is of release 0.4 and does not hold the values of its conditions and its balance; make sure "
            "that those given are those of its fit."
        )
        return
    difference = difference_between(content["stated"], _stated_by(setting))
    if difference is not None:
        raise DataFileError(
            f"'{path}' holds an emulator of other conditions or another law ({difference}); load it with those that it "
            "was fitted with."
        )


def below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with this one, without it."""
    return {key.removeprefix(f"{name}."): each for key, each in tensors.items() if key.startswith(f"{name}.")}
