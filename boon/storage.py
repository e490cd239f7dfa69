"""Operators as files: weights in safetensors, with all that is needed to rebuild the operator as JSON metadata.

Format boon-2 names the Fourier transform of an ``FNO``. Version 0.1 wrote boon-1, which does not: its operators have
``NodeFourier()``, and are read as such. Operators that are given a grid are in boon-3, which versions below 0.4 refuse.
"""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boon.channels import ChannelBOON
from boon.conditions.parts import Part
from boon.conditions.sides import AxisSides, Side
from boon.corrections.correction import Correction
from boon.corrections.elimination import Elimination
from boon.corrections.extension import SmoothExtension
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.domain import Domain
from boon.errors import DataFileError, InvalidArgumentError
from boon.fno import FNO, FNOConfig
from boon.normalisation import Normalised
from boon.operator import BOON
from boon.transforms import FourierTransform, NodeFourier
from solvers import CellGrid, Dirichlet, Neumann, NodeGrid, Periodic, Robin
from solvers.grids import Grid
from solvers.tensor_files import encode_notes, encode_tensors, existing, parse_tensors, write_atomically

FORMAT, OLDER, WITH_GRID = "boon-2", "boon-1", "boon-3"
_AXES = 3
_KEEP_STATE = "keep operator.state_dict() with torch.save and load it into an operator that is built alike"
_FOREIGN, _INSIDE = "Module", "operator."
_GRID = '"cells": '  # in the description of an operator with a grid
_UNLISTED: dict[str, type] = {
    cls.__name__: cls for cls in (Dirichlet, Neumann, Robin, Periodic, EliminationWithoutSchur)
}


Operator = FNO | Normalised | BOON | ChannelBOON
"""Types that ``load`` returns."""


def save(operator: nn.Module, path: str | Path, notes: Mapping[str, Any] | None = None) -> None:
    """Writes an operator to one file, atomically.

    Args:
        operator: An ``FNO``, a ``Normalised`` or a ``BOON`` whose conditions have numbers as values, or none, and hold
            on sides or on intervals of them. Where these are around another Module, or it is of a class of its own
            derived from one of these, the file holds a ``state_dict``, and ``load`` is given such a Module.
        path: The file, by convention ``*.safetensors``; its folder must exist.
        notes: Further metadata (how it was trained), as JSON values; arrays and tensors become numbers or lists of
            numbers. See ``read_notes``.

    Raises:
        InvalidArgumentError: If the operator contains what cannot be stored: tensors or functions as boundary values, a
            user's correction or transform, a ``BOON`` inside another operator, NaN or infinity; or the notes contain
            what JSON does not know.
        DataFileError: If the file cannot be written.
    """
    path = Path(path)
    description = json.dumps(_describe(operator))
    kind = WITH_GRID if _GRID in description else FORMAT
    metadata = {"format": kind, "operator": description, "notes": encode_notes(notes or {})}
    state = _state(operator)
    for name, entry in state.items():
        if not bool(torch.isfinite(entry).all()):
            raise InvalidArgumentError(
                f"'{name}' holds NaN or infinity and is not written: the training has diverged, or it is a buffer such "
                "as a mask; register that one with persistent=False."
            )
    content = encode_tensors({name: _as_real(entry) for name, entry in state.items()}, metadata)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise DataFileError(f"'{path}' cannot be written ({error.strerror}); choose another folder.") from error


def load(path: str | Path, module: nn.Module | None = None) -> Operator:
    """Reads an operator written by ``save``, in its stored dtype, on the CPU.

    Args:
        path: The file.
        module: Where the operator is around a Module that is not of this package: one built like it. Its state is
            replaced by the stored one.

    Raises:
        InvalidArgumentError: If such a Module is needed and not given, or the reverse.
        DataFileError: If the file is missing, damaged or not an operator of this package, or the Module is not
            built like the one in it.
    """
    tensors, metadata = _read(path)
    try:
        description = json.loads(metadata["operator"])
        foreign = _innermost(description)["class"] == _FOREIGN
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise DataFileError(f"{path} cannot be read as an operator ({error}); save it again.") from error
    if foreign != (module is not None):
        raise InvalidArgumentError(_which_module(path, _innermost(description), module))
    if module is None and not {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.float64}:
        raise DataFileError(f"{path} holds weights that are not float32 or float64; save the operator again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that are replaced, and of what was said when it was built
            operator = _build(description, tensors, module)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise DataFileError(f"{path} cannot be read as an operator ({error}); save it again.") from error
    _fill(operator, tensors, path, foreign)
    return operator


def read_notes(path: str | Path) -> dict[str, Any]:
    """The notes that ``save`` stored with an operator.

    Raises:
        DataFileError: If the file is missing, damaged or not an operator of this package.
    """
    _, metadata = _read(path)
    try:
        notes = json.loads(metadata.get("notes", "{}"))
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"The notes in {path} cannot be read ({error}); save it again.") from error
    if not isinstance(notes, dict):
        raise DataFileError(f"The notes in {path} are not a JSON object; save it again.")
    return notes


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file of this format, which must match its checksum if it has one."""
    path = existing(path, "file of an operator")
    try:
        file = parse_tensors(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path} cannot be read as an operator ({error}); save it again.") from error
    if file.metadata.get("format") not in (FORMAT, OLDER, WITH_GRID):
        raise DataFileError(f"{path} holds no operator of format {FORMAT}; write it with boon.save.")
    if file.infinite:
        raise DataFileError(f"{path} holds NaN or infinity in '{file.infinite[0]}'; train again.")
    if file.mismatch:
        raise DataFileError(f"{path} is damaged: {file.mismatch}.")
    return file.tensors, file.metadata


def _describe(operator: nn.Module, inside: bool = False) -> dict[str, Any]:
    """Types that ``_build`` makes an operator of; subclasses count as Modules."""
    if type(operator) is FNO:
        return {"class": "FNO", "config": _describe_config(operator.config)}
    if type(operator) is Normalised:
        inner = _describe(operator.operator, inside=True)
        return {"class": "Normalised", "operator": inner, **({"cells": True} if operator.cells else {})}
    if type(operator) in (BOON, ChannelBOON) and inside:
        raise InvalidArgumentError(
            f"A {type(operator).__name__} inside another operator is not written; conditions come last: "
            "BOON(Normalised.fit(operator, inputs, outputs), conditions)."
        )
    if type(operator) is ChannelBOON:
        parts = [_describe(channel) for channel in operator.channels]
        return {"class": "ChannelBOON", "operator": _describe(operator.operator, inside=True), "channels": parts}
    if type(operator) is BOON:
        return {
            "class": "BOON",
            "operator": _describe(operator.operator, inside=True),
            "conditions": [None if axis.is_free else _encode_axis(axis) for axis in operator.sides],
            "lengths": operator.domain.lengths,
            "correction": _encode(operator.correction),
            "order": operator.order,
            **_describe_grid(operator.domain),
        }
    return {"class": _FOREIGN, "name": f"{type(operator).__module__}.{type(operator).__qualname__}"}


def _describe_grid(domain: Domain) -> dict[str, Any]:
    """The grid of an operator; nothing for nodes from 0 on, as in versions below 0.4."""
    plain = not domain.cells and not any(domain.low)
    return {} if plain else {"grid": dataclasses.asdict(domain)}


def _grid_of(description: dict[str, Any] | None) -> Grid | None:
    if description is None:
        return None
    low, high, kind = description["low"], description["high"], CellGrid if description["cells"] else NodeGrid
    return kind(low, high, [2] * len(low))


def _describe_config(config: FNOConfig) -> dict[str, Any]:
    entries = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return entries | {"transform": _encode(config.transform)}


def _innermost(description: dict[str, Any]) -> dict[str, Any]:
    return _innermost(description["operator"]) if "operator" in description else description


def _which_module(path: str | Path, description: dict[str, Any], module: nn.Module | None) -> str:
    if module is None:
        return (
            f"{path} holds an operator around {description.get('name')}; build one like it and call load(path, module)."
        )
    return f"{path} holds an operator of this package, got a module {type(module).__name__} as well; call load(path)."


def _build(description: dict[str, Any], tensors: Mapping[str, Tensor], module: nn.Module | None) -> Operator:
    """The operator of a description; ValueError if these tensors are too few or too small for it."""
    if description["class"] == "ChannelBOON":
        return _build_channels(description, tensors, module)
    if description["class"] != "BOON":
        return _build_inside(description, tensors, module)
    correction = _decode(description["correction"])
    if not isinstance(correction, Correction):
        raise TypeError(f"{correction} is not a correction")
    inside = _of_inside(tensors)
    outside = sum(each.numel() for name, each in tensors.items() if not name.startswith(_INSIDE))
    hidden = (
        outside if correction.hidden and any(pair and _is_sided(pair) for pair in description["conditions"]) else None
    )
    grid = _grid_of(description.get("grid"))
    return BOON(
        _build_inside(description["operator"], inside, module, hidden),
        [pair and tuple(side and _decode_side(side) for side in pair) for pair in description["conditions"]],
        description["lengths"] if grid is None else None,
        correction,
        description["order"],
        grid=grid,
    )


def _of_inside(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the operator inside, by their names there."""
    return {name.removeprefix(_INSIDE): each for name, each in tensors.items() if name.startswith(_INSIDE)}


def _build_channels(
    description: dict[str, Any], tensors: Mapping[str, Tensor], module: nn.Module | None
) -> ChannelBOON:
    if len(description["channels"]) > len(tensors):
        raise ValueError("it has more channels than tensors")
    channels = [_build(channel, {}, nn.Identity()) for channel in description["channels"]]
    operator = ChannelBOON(_build_inside(description["operator"], _of_inside(tensors), module), [[None]])
    operator.channels = nn.ModuleList(channels)
    return operator


def _build_inside(
    description: dict[str, Any], tensors: Mapping[str, Tensor], module: nn.Module | None, hidden: int | None = None
) -> Any:
    """An operator without conditions; ``hidden`` further numbers, if it has conditions of hidden features."""
    if description["class"] == "Normalised":
        numbers = [tensors[name] for name in ("input_mean", "input_scale", "output_mean", "output_scale")]
        inner = _build_inside(description["operator"], _of_inside(tensors), module, hidden)
        return Normalised(inner, *numbers, cells=bool(description.get("cells")))
    if description["class"] == _FOREIGN:
        return module
    return _build_fno(description, tensors, hidden)


def _fill(operator: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, foreign: bool) -> None:
    """Gives an operator the stored tensors, in their dtypes."""
    state = _state(operator)
    if {name: _as_real(entry).shape for name, entry in state.items()} != {n: t.shape for n, t in tensors.items()}:
        way_out = (
            "the Module that was given; give the network inside, built as it was, without BOON or Normalised around it"
            if foreign
            else "its configuration; save the operator again"
        )
        raise DataFileError(f"{path} holds weights that do not fit {way_out}.")
    filled = {name: torch.view_as_complex(t) if state[name].is_complex() else t for name, t in tensors.items()}
    for name, entry in (*operator.named_parameters(), *operator.named_buffers()):
        if name in filled:
            entry.data = entry.data.to(filled[name].dtype)
    operator.load_state_dict(filled, strict=False)  # some Modules add entries that are no tensors


def _state(operator: nn.Module) -> dict[str, Tensor]:
    return {name: entry for name, entry in operator.state_dict().items() if isinstance(entry, Tensor)}


def _is_sided(pair: Any) -> bool:
    return any(side and (isinstance(side, list) or side["class"] != Periodic.__name__) for side in pair)


def _build_fno(description: dict[str, Any], tensors: Mapping[str, Tensor], hidden: int | None) -> FNO:
    entries = dict(description["config"])
    for name in ("norm", "factorisation"):
        if entries.pop(name, None) is not None:
            raise ValueError(f"its FNO has the option {name}, which left with version 0.4; version 0.3 reads it")
    transform = _decode(entries.pop("transform", {"class": NodeFourier.__name__}))
    if not isinstance(transform, FourierTransform):
        raise TypeError(f"{transform} is not a transform")
    config = FNOConfig(**{key: _as_tuple(value) for key, value in entries.items()}, transform=transform)
    projection, width = config.projection or 2 * config.width, config.width
    least = config.depth * width * (width * prod(config.modes) + 2 * config.mlp_channels)
    least += projection * (width + config.out_channels) + config.in_channels * width
    if config.dimension > _AXES:
        raise ValueError(f"it has {config.dimension} axes, but operators have at most {_AXES}")
    stored = sum(tensor.numel() for tensor in tensors.values())
    features = 0 if hidden is None else config.depth * width * config.out_channels
    if stored < least or config.depth > len(tensors) or features > (hidden or 0):  # before memory is taken for them
        raise ValueError(
            f"it holds {stored} numbers in {len(tensors)} tensors, but an operator of its configuration has at least "
            f"{least} in {config.depth} layers, and {features} more"
        )
    return FNO(config)


def _encode_axis(axis: AxisSides) -> list[Any]:
    """Both sides of an axis, ``Periodic`` twice where it is periodic."""
    return [_encode(Periodic()) if axis.periodic else _encode_side(side) for side in axis.ends]


def _encode_side(side: Side) -> Any:
    """A condition, a list of parts with where each holds, or None."""
    if any(part.where is not None and part.intervals is None for part in side.parts):
        raise InvalidArgumentError(
            "A part of a side cannot be written to a file where a function or an array gives its nodes; give intervals "
            f"such as where=(0.0, 0.3), or {_KEEP_STATE}."
        )
    parts = [{"condition": _encode(part.condition), "where": part.where} for part in side.parts]
    if side.split:
        return parts
    return parts[0]["condition"] if parts else None


def _decode_side(description: Any) -> Any:
    if not isinstance(description, list):
        return _decode(description)
    return [Part(_decode(part["condition"]), _as_tuple(part["where"])) for part in description]


def _encode(value: Any) -> dict[str, Any]:
    fields = {field.name: _of_python(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if _class_of(type(value).__name__) is not type(value) or not all(map(_is_number, fields.values())):
        raise InvalidArgumentError(
            f"{value!r} cannot be written to a file; only this package's conditions and corrections with numbers (or "
            f"nothing) as values can. Give functions and tensors at the call, or {_KEEP_STATE}."
        )
    return {"class": type(value).__name__, **fields}


def _class_of(name: str) -> type | None:
    """Classes that a file may name: a correction of ``boon/__init__.pyi``, a transform, or one of the unlisted."""
    listed = name in import_module("boon").__all__
    cls = getattr(import_module("boon" if listed else "boon.transforms"), name, None)
    allowed = isinstance(cls, type) and issubclass(cls, Correction | FourierTransform)
    return cls if allowed else _UNLISTED.get(name)


def _decode(description: dict[str, Any]) -> Any:
    options = dict(description)
    cls = _class_of(options.pop("class"))
    if cls is Elimination and "block" in options:  # files of versions 0.1 to 0.3
        cls = None if options.pop("block") else EliminationWithoutSchur
    if cls is None:
        raise LookupError(f"this version has no {description}; version 0.2 may read it")
    if cls is SmoothExtension:
        options.setdefault("reach", 0.0)  # files of version 0.1
    if not all(map(_is_number, options.values())):
        raise TypeError(f"{cls.__name__} takes numbers, got {options}")
    return cls(**options)


def _of_python(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
