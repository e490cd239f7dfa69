"""Flows on disk: coordinates, weights and settings in one safetensors file."""

import warnings
from pathlib import Path
from typing import Any

from torch import nn

from probconserv.errors import DataFileError, InvalidArgumentError
from probconserv.surrogates.flow.latent import KarhunenLoeve, Latent
from probconserv.surrogates.flow.network import ResidualVelocity
from probconserv.surrogates.weights import Weights, fill, read_weights, write_weights

_KIND = "FlowMatching"
_KNOWN = (KarhunenLoeve.__name__, ResidualVelocity.__name__)
_LEFT = ("FieldLatent", "ResidualFieldVelocity")  # classes that release 0.3 alone has


def write_flow(
    path: str | Path, latent: Latent, velocity: nn.Module, settings: dict[str, Any], notes: dict[str, Any]
) -> None:
    """Writes a flow; modules from outside this library store their tensors only.

    Raises:
        DataFileError: If the file cannot be written.
    """
    tensors = {f"latent.{name}": tensor for name, tensor in latent.state_dict().items()}
    tensors |= {f"velocity.{name}": tensor for name, tensor in velocity.state_dict().items()}
    config = {
        "shape": list(latent.shape),
        "latent": type(latent).__name__,
        "velocity": type(velocity).__name__,
        "network": velocity.config if isinstance(velocity, ResidualVelocity) else None,
        "settings": settings,
    }
    write_weights(path, Weights(_KIND, config, tensors, notes))


def read_flow(
    path: str | Path, latent: Latent | None, velocity: nn.Module | None
) -> tuple[Latent, nn.Module, dict[str, Any]]:
    """Reads a flow in its stored dtypes; modules from outside this library must be given, and are filled in place.

    A module of another class may have tensors of the same sizes and do something else with them; a warning names both.

    Raises:
        DataFileError: If the file is missing, damaged or of another model, or a module has other sizes.
    """
    weights = read_weights(path, _KIND)
    parts = {part: _under(weights.tensors, f"{part}.") for part in ("latent", "velocity")}
    config = weights.config
    given = {"latent": latent is not None, "velocity": velocity is not None}
    try:
        latent = _stored_latent(path, config, parts["latent"]) if latent is None else latent
        velocity = _stored_velocity(path, config, latent) if velocity is None else velocity
        settings = dict(config["settings"])
    except DataFileError:
        raise
    except (KeyError, TypeError, ValueError, InvalidArgumentError) as error:
        raise DataFileError(f"The config in '{path}' is not that of a flow ({error}); train again.") from error
    for part, module in (("latent", latent), ("velocity", velocity)):
        way_out, kind = "train again", config.get(part)
        if given[part] and kind in _KNOWN:
            way_out = f"leave {part}= out, since the file has all that a {kind} needs"
        elif given[part]:
            way_out = f"give, as {part}=, a {kind} of the sizes that were saved"
        fill(path, module, parts[part], way_out)
        if kind not in (None, type(module).__name__):
            warnings.warn(
                f"'{path}' holds a {part} {kind} and fills a {type(module).__name__}; the weights fit, but "
                "mean the same only if that class is the old one under a new name.",
                stacklevel=3,
            )
    return latent, velocity, settings


def _under(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _stored_latent(path: str | Path, config: dict[str, Any], tensors: dict[str, Any]) -> Latent:
    shape = tuple(config["shape"])
    _require_known(path, "latent", config["latent"], KarhunenLoeve)
    tensors.setdefault("spread", tensors["mean"].new_ones(len(tensors["basis"])))  # files before it was stored
    return KarhunenLoeve(**tensors, shape=shape)


def _stored_velocity(path: str | Path, config: dict[str, Any], latent: Latent) -> nn.Module:
    _require_known(path, "velocity", config["velocity"], ResidualVelocity)
    network = dict(config["network"])
    if network.pop("inputs", 0):  # parameters, of which flows of 0.2 could be functions
        raise DataFileError(f"'{path}' holds the velocity of a conditional flow, which this version does not know.")
    return ResidualVelocity(latent.state_shape[0], **network)


def _require_known(path: str | Path, part: str, kind: str, known: type[nn.Module]) -> None:
    if kind in _LEFT:
        raise DataFileError(
            f"'{path}' holds a {part} {kind}, which left the library with release 0.4. Read the file with release 0.3, "
            f"or give load a module of yours with the same tensors as {part}=."
        )
    if kind != known.__name__:
        raise DataFileError(
            f"'{path}' holds a {part} {kind}, of which it has the tensors only; give load a module of the same sizes "
            f"as {part}=."
        )
