"""Network and data of a training as JSON, which a checkpoint holds so that another training is not resumed from it."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_DIGITS = 16  # of a hash: 64 bits


def fingerprint(value: Any) -> Any:
    """Numbers and texts as they are, tensors and arrays by dtype, shape and hash, and all else by its parts.

    Of an object that has no known parts, such as a function, it holds the type alone.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        return _of_tensor(torch.as_tensor(value))
    if isinstance(value, Mapping):
        return {str(name): fingerprint(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [fingerprint(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | {
            entry.name: fingerprint(getattr(value, entry.name)) for entry in fields(value)
        }
    return type(value).__name__


def network_fingerprint(model: nn.Module) -> dict[str, Any]:
    """Class and options of every module inside, by its name: in them networks of the same parameters can differ.

    Options are what a module prints, its frozen dataclasses, alone or in tuples, buffers that it does not store, and
    which parameters are frozen. Initial weights are none, so that a script without a seed for them resumes.
    """
    return {name or "model": _of_module(module) for name, module in model.named_modules()}


def _of_module(module: nn.Module) -> dict[str, Any]:
    stored = module.state_dict()
    return {
        "type": f"{type(module).__name__}({module.extra_repr()})",
        "frozen": [name for name, each in module.named_parameters(recurse=False) if not each.requires_grad],
        **{name: fingerprint(value) for name, value in vars(module).items() if name[0] != "_" and _is_option(value)},
        **{name: fingerprint(each) for name, each in module.named_buffers(recurse=False) if name not in stored},
    }


def _is_option(value: Any) -> bool:
    """True for frozen dataclasses, and for tuples of them."""
    if isinstance(value, tuple):
        return any(map(_is_option, value))
    return is_dataclass(value) and not isinstance(value, type) and type(value).__dataclass_params__.frozen  # type: ignore[attr-defined]


def _of_tensor(tensor: Tensor) -> str:
    content = tensor.detach().cpu().resolve_conj().contiguous().flatten().view(torch.uint8)
    digest = hashlib.sha256(content.numpy().data).hexdigest()
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} {digest[:_DIGITS]}"


def difference_between(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str | None:
    """The first entry in which two nested dictionaries differ; None if they agree."""
    for name in sorted(stored.keys() | wanted.keys()):
        old, new = stored.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and old != new:
            return difference_between(old, new, f"{prefix}{name}.")
        if old != new:
            return f"{prefix}{name} is {old!r} there and {new!r} here"
    return None
