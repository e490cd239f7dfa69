"""Values as tensors, the root of a variance, and results that are computed once."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from probconserv.errors import InvalidArgumentError

Array = Tensor | np.ndarray
"""Numbers that public functions take."""
Value = TypeVar("Value")


def as_tensor(value: Any, dtype: torch.dtype | None = torch.float64, name: str = "values") -> Tensor:
    """Numbers as people have them as a tensor.

    Args:
        value: A number, a tensor, an array of NumPy or JAX, one with labels of xarray or pandas, or a list, of tensors
            too. Arrays are copied, since they may be read-only, reversed or of another byte order, as tensors cannot.
        dtype: Precision of the result; None keeps that of the value, which is float64 for a list of numbers.
        name: Of the argument, for errors.

    Returns:
        The tensor, on the device of the value.

    Raises:
        InvalidArgumentError: If the value is complex, holds no numbers, has masked entries or rows of several lengths.
    """
    if not isinstance(value, Tensor | int | float | complex):
        value = _from_array(value, name)
    if isinstance(value, complex) or (isinstance(value, Tensor) and value.is_complex()):
        raise InvalidArgumentError("Rows and right-hand sides are real, got complex numbers; take their real part.")
    if isinstance(value, Tensor):  # torch.as_tensor would make it a constant of a traced graph
        return value if dtype is None else value.to(dtype)
    return torch.as_tensor(value, dtype=dtype)


def _from_array(value: Any, name: str) -> Tensor:
    kind = type(value).__name__
    try:
        if isinstance(value, list | tuple) and value and all(isinstance(each, Tensor) for each in value):
            return torch.stack(tuple(value))
        labelled: Any = value
        array = labelled.to_numpy() if hasattr(value, "to_numpy") else np.asanyarray(value)
    except (ValueError, RuntimeError) as error:
        raise InvalidArgumentError(f"{name} must be rows of equal length, got {kind}.") from error
    if np.ma.is_masked(array):
        raise InvalidArgumentError(
            "An array has masked entries, behind which stand fill values; drop their rows, or fill them: weights "
            "with 0, labels of regions with −1."
        )
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise InvalidArgumentError(
            f"{name} must hold numbers, got {kind} of {getattr(value, 'dtype', 'other values')}; choose the columns of "
            "numbers, and fill or drop what is missing."
        ) from error


def copied(value: Tensor | np.ndarray | float, dtype: torch.dtype | None = torch.float64) -> Tensor:
    """The same in memory that its giver does not overwrite."""
    tensor = as_tensor(value, dtype)
    return tensor.clone() if tensor is value else tensor


def floating(values: Tensor) -> Tensor:
    """Values as they are, whole numbers and truths in float64."""
    return values if values.is_floating_point() else values.to(torch.float64)


def are_finite(values: Tensor) -> bool:
    """Whether all entries are finite; their sum says so at once, unless it overflows."""
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())


def square_root(variance: Tensor) -> Tensor:
    """√v, with derivative 0 where v = 0: in v it is infinite there, but a value that is certain stays so."""
    certain = variance == 0
    return torch.where(certain, 1.0, variance).sqrt().masked_fill(certain, 0.0)


class cached(Generic[Value]):
    """``functools.cached_property`` for tensors, and lists of them.

    It has no lock, which ``torch.compile`` cannot trace in Python 3.11. A value that has derivatives is not stored
    where none are recorded, since it would have lost them for later uses.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        if instance is None:
            return self
        recorded = torch.is_grad_enabled()
        with nullcontext() if recorded else torch.enable_grad():
            value = self._function(instance)
        if not recorded and _has_derivatives(value):
            return self._function(instance)
        object.__setattr__(instance, self._name, value)
        return value


def _has_derivatives(value: Any) -> bool:
    parts = value if isinstance(value, tuple | list) else (value,)
    return any(getattr(part, "requires_grad", False) for part in parts)
