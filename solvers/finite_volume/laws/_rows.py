"""Laws and sources on some rows of a flattened batch.

A dataclass is cut: its parameters are flattened like the batch and indexed. Objects of other classes see the states of
some rows as they are. Whatever cannot be cut (functions, objects whose parts give other values than the whole) is
evaluated on the whole batch, so that its author sees ``(*batch, *space)``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws.coefficients import Arguments, Field, Values

NO_GRADIENT = "{name} requires a gradient, which does not flow through solve; pass a detached tensor."


@dataclass(frozen=True)
class BatchRows:
    """Some rows of a flattened batch.

    Attributes:
        batch: Shape of the whole batch.
        dimension: Number of space axes.
        index: The rows ``(rows,)``, integers.
    """

    batch: tuple[int, ...]
    dimension: int
    index: np.ndarray

    @classmethod
    def whole(cls, batch: tuple[int, ...], dimension: int) -> "BatchRows":
        """All rows."""
        return cls(batch, dimension, np.arange(prod(batch)))

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.index)

    @cached_property
    def complete(self) -> bool:
        """Whether these are all rows in their order."""
        return np.array_equal(self.index, np.arange(prod(self.batch)))

    def take(self, index: np.ndarray) -> "BatchRows":
        """Some of these rows."""
        return replace(self, index=self.index[index])

    def scatter(self, rows: Tensor) -> Tensor:
        """Values per row ``(rows, *points)`` on the whole batch ``(*batch, *points)``; the first fills the gaps."""
        if self.complete:
            return rows.reshape(*self.batch, *rows.shape[1:])
        full = rows[:1].expand(prod(self.batch), *rows.shape[1:]).clone()
        full[torch.from_numpy(self.index)] = rows
        return full.reshape(*self.batch, *rows.shape[1:])

    def gather(self, values: Tensor) -> Tensor:
        """Values ``(rows, *points)`` from ``(*batch, *points)``, a view if the rows are complete."""
        flat = values.reshape(prod(self.batch), *values.shape[len(self.batch) :])
        return flat if self.complete else flat[torch.from_numpy(self.index)]

    def times(self, time: Any) -> Tensor:
        """Times per row on the whole batch ``(*batch, 1, …, 1)``."""
        time = np.broadcast_to(np.asarray(time, dtype=float), (self.size,)).copy()
        return self.scatter(torch.from_numpy(time).reshape(-1, *[1] * self.dimension))

    def repeated(self, count: int) -> "BatchRows":
        """These rows so many times, in a batch with an axis for them before the others."""
        index = np.arange(count)[:, None] * prod(self.batch) + self.index
        return replace(self, batch=(count, *self.batch), index=index.ravel())

    def select(self, whole: Any) -> Any:
        """A dataclass with the parameters of these rows, ``(rows,)`` or ``(rows or 1, *points)``; else the object."""
        return _with_values(whole, self._cut_value)

    def broadcast(self, whole: Any) -> Any:
        """A dataclass whose parameters per batch entry broadcast over an axis before the batch; else the object."""
        return _with_values(whole, self._broadcast_value)

    def _broadcast_value(self, value: Any) -> Any:
        if isinstance(value, Arguments):
            return replace(value, values=tuple(self._broadcast_value(each) for each in value.values))
        if isinstance(value, Field | Values):
            whole = value.values.ndim - self.dimension == len(self.batch)
            return type(value)(value.values[None]) if whole else value
        whole = isinstance(value, Tensor | np.ndarray) and 0 < value.ndim == len(self.batch)
        return value[None] if whole else value

    def _cut_value(self, value: Any) -> Any:
        if isinstance(value, Arguments):
            return replace(value, values=tuple(self._cut_value(each) for each in value.values))
        if isinstance(value, Field | Values):
            lead = value.values.ndim - self.dimension
            points = value.values.shape[lead:]
            if prod(value.values.shape[:lead]) == 1:
                return type(value)(value.values.reshape(1, *points))
            return type(value)(self.gather(value.values.expand(*self.batch, *points)))
        if not isinstance(value, Tensor | np.ndarray) or value.ndim == 0 or value.ndim > len(self.batch):
            return value
        try:
            return self.gather(torch.as_tensor(value).expand(self.batch))
        except RuntimeError:
            return value


def _with_values(whole: Any, change: Callable[[Any], Any]) -> Any:
    """A dataclass with changed parameters; any other object as it is."""
    if not is_dataclass(whole) or isinstance(whole, type):
        return whole
    values = {field.name: getattr(whole, field.name) for field in fields(whole) if field.init}
    results = {name: change(value) for name, value in values.items()}
    changed = {name: value for name, value in results.items() if value is not values[name]}
    return replace(whole, **changed) if changed else whole


def cached_rows(term: Any, index: np.ndarray) -> Any:
    """A law or source on some rows; the result of the last call is cached."""
    last = term.__dict__.setdefault("_last", [None, None])
    if last[0] is None or not np.array_equal(last[0], index):
        last[:] = index.copy(), term.take(index)
    return last[1]


def name_of(owner: Any) -> str:
    """The name of a law or source in error messages."""
    return getattr(owner, "label", type(owner).__name__)


def require_batch_axes(owner: Any, batch: tuple[int, ...]) -> None:
    """Raises an error for an array among the coefficients of a law or source that has fewer axes than the batch."""
    arrays = {name: getattr(owner, name, None) for name in owner.varying}
    velocity = getattr(owner, "velocity", None)
    given = getattr(owner, "arguments", None)
    arrays |= {} if given is None else dict(zip(given.names, given.values, strict=True))
    arrays |= {f"velocity[{axis}]": part for axis, part in enumerate(velocity if isinstance(velocity, tuple) else ())}
    for name, value in arrays.items():
        if isinstance(value, Tensor | np.ndarray) and 0 < value.ndim < len(batch):
            raise InvalidArgumentError(
                f"{name_of(owner)}: {name} of shape {tuple(value.shape)} must have as many axes as the batch "
                f"{batch}, with size 1 where it does not vary: for example values[:, None] or values[None, :]."
            )


def is_divisible(whole: Any, rows: BatchRows, states: Tensor, evaluate: Callable[[Any, Tensor], Sequence[Any]]) -> bool:
    """Whether parts of a law or source give the same values as the whole, at states ``(rows, *points)``.

    ``evaluate`` gives values at states, in their shape. A user's code may fail in any way on some of the rows, in its
    checks or its formulas.
    """
    parts = [np.array([0]), np.array([rows.size - 1]), np.arange(0, rows.size, 2), np.arange(1, rows.size, 2)]
    try:
        expected = [rows.gather(values) for values in evaluate(whole, rows.scatter(states))]
        return all(
            values.shape == right[index].shape
            and torch.allclose(values, right[index], rtol=1e-12, atol=0.0, equal_nan=True)
            for index in parts
            for values, right in zip(evaluate(rows.take(index).select(whole), states[index]), expected, strict=True)
        )
    except Exception:
        return False


def result_of(call: str, function: Callable[[], Any], u: Tensor, *, shaped: bool = True) -> Tensor:
    """Values of a user's formula at states u; an error unless it is a new tensor of their precision.

    It must have their shape, too, if it is ``shaped``. ``call`` names it in the error, as ``Cubic.potential(u)``.
    """
    version, values = u._version, function()
    if not isinstance(values, Tensor):
        raise not_of_shape(call, type(values).__name__)
    if u._version != version:
        raise InvalidArgumentError(f"{call} changes u in place; it must return a new tensor and leave u.")
    if shaped and values.shape != u.shape:
        raise not_of_shape(call, f"shape {tuple(values.shape)} for u of shape {tuple(u.shape)}")
    if values.dtype != u.dtype:
        raise InvalidArgumentError(f"{call} must keep the precision of u, {u.dtype}, got {values.dtype}.")
    if values.requires_grad:
        raise InvalidArgumentError(NO_GRADIENT.format(name=f"the result of {call}"))
    return values


def not_of_shape(call: str, got: str) -> InvalidArgumentError:
    """The error for a formula that does not return a value for every state."""
    return InvalidArgumentError(
        f"{call} must return a tensor of the shape of u, got {got}; for a constant c return c + 0.0 * u."
    )
