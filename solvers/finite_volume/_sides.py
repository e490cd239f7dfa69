"""Boundary conditions of finite volumes: the state on a side and its dependence on the edge cell."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.boundary import (
    AxisConditions,
    BoundaryValue,
    Condition,
    Dirichlet,
    Neumann,
    Outflow,
    Periodic,
    Robin,
    value_at,
)

_SMALL_DENOMINATOR = 1e-8


@dataclass(frozen=True)
class Side:
    """One side of one axis.

    Args:
        condition: Boundary condition of the side.
        axis: Space axis, from 0.
        end: "first" or "last" side of the axis.
        spacing: Cell length h along the axis.

    Raises:
        InvalidArgumentError: If a Robin condition does not determine the state on the side, a + b c₀ ≈ 0 with the
            half-cell difference weight c₀ = ∓2/h.
    """

    condition: Condition
    axis: int
    end: Literal["first", "last"]
    spacing: float

    def __post_init__(self) -> None:
        a, b = self.mixed or (0.0, 1.0)
        weight = self.edge_weight
        if abs(a + b * weight) <= _SMALL_DENOMINATOR * (abs(a) + abs(b * weight)):
            raise InvalidArgumentError(
                f"{self.name}: Robin(a={a:g}, b={b:g}) does not determine the value on the side, a + b·c₀ = "
                f"{a + b * weight:.3g} with c₀ = {weight:g}; change a or b, or the number of cells."
            )

    @property
    def name(self) -> str:
        """Name of the side in error messages."""
        return f"boundary of axis {self.axis}, {self.end} side"

    @property
    def edge_weight(self) -> float:
        """c₀ = ∓2/h, with ∂u/∂x = c₀ (u_side − u_edge) over the half cell of the first or last side."""
        return (-2.0 if self.end == "first" else 2.0) / self.spacing

    @property
    def mixed(self) -> tuple[float, float] | None:
        """(a, b) of a gradient or Robin condition a·u + b·∂u/∂x = g; None for other conditions."""
        if isinstance(self.condition, Robin):
            return self.condition.a, self.condition.b
        if isinstance(self.condition, Neumann) and not self.gives_flux:
            return 0.0, 1.0
        return None

    @property
    def gives_flux(self) -> bool:
        """Whether the condition gives the flux through the side."""
        return isinstance(self.condition, Neumann) and self.condition.flux is not None

    @property
    def stated_value(self) -> BoundaryValue:
        """The value of the condition; None if there is none."""
        if isinstance(self.condition, Neumann):
            return self.condition.flux if self.gives_flux else self.condition.gradient
        return None if isinstance(self.condition, Periodic | Outflow) else self.condition.value

    def value(self, time: float, edge: Tensor) -> Tensor:
        """Value of the condition at a time, broadcast to the edge cells.

        Args:
            time: Time.
            edge: States of the cells at the side, ``(*batch, *face, 1)``.

        Returns:
            Values ``(*batch, *face, 1)``.

        Raises:
            InvalidArgumentError: If the value is missing, not finite, or does not broadcast.
        """
        value = value_at(self.stated_value, time, self.name)
        try:
            return value.expand(edge.shape[:-1])[..., None]
        except RuntimeError:
            raise InvalidArgumentError(
                f"{self.name}: a value of shape {tuple(value.shape)} does not broadcast to (*batch, *face) = "
                f"{tuple(edge.shape[:-1])}; give one value per batch entry, with one axis of size 1 per face axis."
            ) from None

    def side_state(self, value: Tensor, edge: Tensor) -> tuple[Tensor, float]:
        """State on the side from the value of the condition and the edge cell, second order in h.

        A Dirichlet value is the state; a·u + b·c₀ (u − u_edge) = g gives u = (g + b c₀ u_edge)/(a + b c₀).

        Args:
            value: Value of the condition ``(*batch, *face, 1)``.
            edge: States of the cells at the side, same shape.

        Returns:
            State on the side and its derivative by the edge state.
        """
        if isinstance(self.condition, Dirichlet):
            return value, 0.0
        if self.mixed is None:
            return edge, 1.0
        a, b = self.mixed
        pull = b * self.edge_weight / (a + b * self.edge_weight)
        return value / (a + b * self.edge_weight) + pull * edge, pull

    def gradient(self, value: Tensor, state: Tensor) -> tuple[Tensor, float]:
        """∂u/∂x on the side under a·u + b·∂u/∂x = g, and its derivative by the state on the side."""
        a, b = self.mixed or (0.0, 1.0)
        return (value - a * state) / b, -a / b


def make_sides(conditions: tuple[AxisConditions, ...], spacing: tuple[float, ...]) -> tuple[tuple[Side, Side], ...]:
    """One (first, last) pair of sides per axis."""
    return tuple(
        (Side(pair[0], axis, "first", h), Side(pair[1], axis, "last", h))
        for axis, (pair, h) in enumerate(zip(conditions, spacing, strict=True))
    )


def ghost_cells(side: Side, time: float, cells: Tensor, count: int) -> Tensor:
    """Ghost cells beyond a side, in the order of the axis.

    Periodic sides continue at the other end, Dirichlet repeats the value, Outflow and a given flux repeat the edge
    cell, the other conditions extrapolate linearly from the side.

    Args:
        side: The side.
        time: Time.
        cells: Field with the axis of the side last, ``(*batch, *face, n)``.
        count: Number of ghost cells.

    Returns:
        Ghost cells ``(*batch, *face, count)``.
    """
    first = side.end == "first"
    edge = cells[..., :1] if first else cells[..., -1:]
    shape = (*edge.shape[:-1], count)
    if isinstance(side.condition, Periodic):
        return cells[..., -count:] if first else cells[..., :count]
    if isinstance(side.condition, Outflow) or side.gives_flux:
        return edge.expand(shape)
    value = side.value(time, edge)
    state, _ = side.side_state(value, edge)
    if side.mixed is None:
        return state.expand(shape)
    distance = side.spacing * (torch.arange(count, dtype=cells.dtype) + 0.5)
    slope, _ = side.gradient(value, state)
    return state - slope * distance.flip(0) if first else state + slope * distance
