"""Divides large batches into groups that fit the processor's cache and run on several threads.

Every group has separate time steps. Its law has the same rows of every dataclass field whose length is that of the
batch, and so have its boundary values. If the law cannot be divided, which is checked by evaluating the parts, there is
one group.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from solvers.finite_volume.boundary import AxisConditions, BoundaryValue, Neumann, Outflow, Periodic
from solvers.finite_volume.laws import DiffusiveLaw, Law

Result = TypeVar("Result")

_CELLS_PER_GROUP = 16_000


@dataclass(frozen=True)
class Group:
    """Some rows along the first batch axis of a problem.

    Attributes:
        law: The law of these rows.
        conditions: Boundary conditions of these rows, one pair per axis.
        initial: Initial cell averages of these rows ``(rows, *rest of batch, *space)``.
    """

    law: Law
    conditions: tuple[AxisConditions, ...]
    initial: Tensor


def make_groups(law: Law, conditions: tuple[AxisConditions, ...], initial: Tensor, dimension: int) -> list[Group]:
    """Divides a problem along its first batch axis.

    Args:
        law: The law.
        conditions: Boundary conditions, one pair per axis.
        initial: Initial cell averages on the whole batch ``(*batch, *space)``.
        dimension: Number of space axes.

    Returns:
        Groups in the order of the batch; one if the problem is small, has no batch, or its law cannot be divided.
    """
    rows = 1 if initial.ndim == dimension else max(1, _CELLS_PER_GROUP * initial.shape[0] // initial.numel())
    if initial.ndim == dimension or initial.shape[0] <= rows:
        return [Group(law, conditions, initial)]
    batch = tuple(initial.shape[: initial.ndim - dimension])
    parts = [slice(start, start + rows) for start in range(0, batch[0], rows)]
    laws = _cut_laws(law, initial[(..., *[slice(1)] * dimension)], parts)
    if laws is None:
        return [Group(law, conditions, initial)]
    return [
        Group(cut, _condition_rows(conditions, batch, part), initial[part])
        for cut, part in zip(laws, parts, strict=True)
    ]


def run_groups(work: Callable[[Group], Result], groups: Sequence[Group]) -> list[Result]:
    """Applies ``work`` to every group, on as many threads as torch may use.

    Args:
        work: The function to apply.
        groups: The groups.

    Returns:
        Results in the order of the groups; the first exception is raised again.
    """
    workers = min(len(groups), torch.get_num_threads())
    if workers == 1:
        return [work(group) for group in groups]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, groups))


def _cut_laws(law: Law, states: Tensor, parts: Sequence[slice]) -> list[Law] | None:
    """The law divided into parts, or None if that is not possible.

    A user's law may fail in any way on some of the rows, in its checks or its formulas.
    """
    try:
        laws = [_law_rows(law, states.shape[0], part) for part in parts]
        return laws if _agree(law, laws, states, parts) else None
    except Exception:
        return None


def _law_rows(law: Law, count: int, part: slice) -> Law:
    if not (is_dataclass(law) and not isinstance(law, type)):
        return law
    values = {field.name: getattr(law, field.name) for field in fields(law) if field.init}
    cut = {name: value[part] for name, value in values.items() if _has_rows(value, count)}
    return replace(law, **cut)


def _has_rows(value: Any, count: int) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0 and value.shape[0] == count


def _agree(law: Law, cuts: Sequence[Law], states: Tensor, parts: Sequence[slice]) -> bool:
    """Whether the parts give the same values as the whole law, on the same rows of some states."""
    ramp = torch.linspace(0.0, 1.0, states.shape[0], dtype=states.dtype)
    states = states + ramp.reshape(-1, *[1] * (states.ndim - 1))
    diffusive = isinstance(law, DiffusiveLaw)
    for name in ("potential", "conductivity") if diffusive else ("convective_flux", "characteristic_speed"):
        expected = getattr(law, name)(states)
        for cut, part in zip(cuts, parts, strict=True):
            actual = getattr(cut, name)(states[part])
            if actual.shape != expected[part].shape or not torch.allclose(actual, expected[part], rtol=1e-12):
                return False
    return True


def _condition_rows(
    conditions: tuple[AxisConditions, ...], batch: tuple[int, ...], part: slice
) -> tuple[AxisConditions, ...]:
    def cut(condition: Any) -> Any:
        if isinstance(condition, Periodic | Outflow):
            return condition
        flux_or_gradient = "gradient" if getattr(condition, "flux", None) is None else "flux"
        name = flux_or_gradient if isinstance(condition, Neumann) else "value"
        return replace(condition, **{name: _value_rows(getattr(condition, name), len(batch), len(conditions), part)})

    return tuple((cut(first), cut(last)) for first, last in conditions)


def _value_rows(value: BoundaryValue, batch_axes: int, dimension: int, part: slice) -> BoundaryValue:
    """Rows of a value that broadcasts to ``(*batch, *face)``; if it is a function of time, of the value it returns."""

    def rows(array: Any) -> Tensor:
        values = torch.as_tensor(array, dtype=torch.float64)
        return values[part] if values.ndim == batch_axes + dimension - 1 and values.shape[0] > 1 else values

    return (lambda time: rows(value(time))) if callable(value) else rows(value)
