"""Operators as files: weights in safetensors, everything needed to build the operator again as JSON metadata in it."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from boon.elimination import Elimination
from boon.errors import InvalidArgumentError, StoredOperatorError
from boon.extension import SmoothExtension
from boon.family import Correction, Prescription
from boon.fno import FNO, FNOConfig
from boon.matched import MatchedTransform
from boon.operator import BOON
from solvers import Dirichlet, Neumann, Periodic, Robin

FORMAT = "boon-1"
_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (Dirichlet, Neumann, Robin, Periodic, Prescription, Elimination, SmoothExtension, MatchedTransform)
}


def save(operator: FNO | BOON, path: str | Path, notes: Mapping[str, Any] | None = None) -> None:
    """Writes an operator to one file, atomically.

    Args:
        operator: An ``FNO``, or a ``BOON`` around one whose conditions have numbers as values, or none.
        path: Where to; conventionally ``*.safetensors``.
        notes: Whatever else shall be kept with it (how it was trained), as JSON can hold it; see ``read_notes``.

    Raises:
        InvalidArgumentError: If the operator holds something that a file cannot: another Module, tensors or functions
            as boundary values, a correction of your own.
    """
    path = Path(path)
    metadata = {"format": FORMAT, "operator": json.dumps(_describe(operator)), "notes": json.dumps(dict(notes or {}))}
    tensors = {name: _as_real(tensor).contiguous() for name, tensor in operator.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path) -> FNO | BOON:
    """Reads an operator written by ``save``, in the precision it was saved in, on the CPU.

    Raises:
        StoredOperatorError: If the file is missing, damaged or no operator of this package.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise _foreign(path)
        operator = _build(json.loads(metadata["operator"]))
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise StoredOperatorError(f"{path} cannot be read as an operator ({error}); save it again.") from error
    if any(tensor.dtype == torch.float64 for tensor in tensors.values()):
        operator = operator.double()
    state = operator.state_dict()
    if {name: _as_real(tensor).shape for name, tensor in state.items()} != {n: t.shape for n, t in tensors.items()}:
        raise StoredOperatorError(f"{path} holds weights that do not fit its configuration; save the operator again.")
    for name, tensor in tensors.items():
        state[name] = torch.view_as_complex(tensor) if state[name].is_complex() else tensor
    operator.load_state_dict(state)
    return operator


def read_notes(path: str | Path) -> dict[str, Any]:
    """The notes that ``save`` kept with an operator.

    Raises:
        StoredOperatorError: If the file is missing, damaged or no operator of this package.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise _foreign(path)
        return json.loads(metadata.get("notes", "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise StoredOperatorError(f"{path} cannot be read as an operator ({error}); save it again.") from error


def _foreign(path: str | Path) -> StoredOperatorError:
    return StoredOperatorError(f"{path} holds no operator of format {FORMAT}; write it with boon.save.")


def _describe(operator: nn.Module) -> dict[str, Any]:
    if isinstance(operator, FNO):
        return {"class": "FNO", "config": dataclasses.asdict(operator.config)}
    if isinstance(operator, BOON) and isinstance(operator.operator, FNO):
        return {
            "class": "BOON",
            "operator": _describe(operator.operator),
            "conditions": [pair and [_encode(side) for side in pair] for pair in operator.conditions],
            "lengths": operator.lengths,
            "correction": _encode(operator.correction),
            "order": operator.order,
        }
    raise InvalidArgumentError(
        f"save takes an FNO or a BOON around an FNO, got {type(operator).__name__}; store its state_dict yourself."
    )


def _build(description: dict[str, Any]) -> FNO | BOON:
    if description["class"] == "FNO":
        entries: dict[str, Any] = description["config"]
        return FNO(FNOConfig(**{key: _as_tuple(value) for key, value in entries.items()}))
    correction = _decode(description["correction"])
    assert isinstance(correction, Correction)
    return BOON(
        _build(description["operator"]),
        [pair and tuple(_decode(side) for side in pair) for pair in description["conditions"]],
        description["lengths"],
        correction,
        description["order"],
    )


def _encode(value: Any) -> dict[str, Any]:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if _CLASSES.get(type(value).__name__) is not type(value) or not all(
        entry is None or isinstance(entry, bool | int | float) for entry in fields.values()
    ):
        raise InvalidArgumentError(
            f"{value!r} cannot be written to a file; only this package's conditions and corrections with numbers (or "
            "nothing) as values can. Give functions and tensors at the call."
        )
    return {"class": type(value).__name__, **fields}


def _decode(description: dict[str, Any]) -> Any:
    options = dict(description)
    return _CLASSES[options.pop("class")](**options)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
