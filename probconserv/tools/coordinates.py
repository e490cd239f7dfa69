"""Coordinate networks u_θ(t, x) that meet initial value, walls and total for any weights."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probconserv.errors import InvalidArgumentError
from solvers import CellGrid, Dirichlet, NodeGrid
from solvers.recording import are_readable

Series = float | Callable[[Tensor], Tensor]
"""A number, or a function of time, called with a tensor of any shape."""


class ExactField(nn.Module):
    """u(t, x) around a network N(t, x) on an interval: right at the start, at walls with a value, and in its total.

        v = u₀(x) + (1 − ξ)(g₀(t) − g₀(t₀)) + ξ (g₁(t) − g₁(t₀)) + τ β(ξ) N(t, x),     ξ = (x − a)/(b − a)
        u = v + (Σ w u₀ + gain(t) − Σ w v(t, ·)) β(ξ) / Σ w β

    with τ = (t − t₀)/time_scale and β = ξ (1 − ξ), without the factor of a wall that is free. Sums are over the nodes
    of a grid, where the network is evaluated for every time. Derivatives by automatic differentiation are those of u:
    ``soft_penalty(law, field, points)`` is the residual of the constrained field.

    Args:
        network: From points ``(*batch, n, 2)``, columns t and x, to ``(*batch, n, 1)`` or ``(*batch, n)``.
        grid: The interval, and the quadrature of the total.
        initial: u₀, a function of x.
        walls: For either wall ``Dirichlet(value)``, a number or a function of t, or None where it is free.
        gain: What the total has gained until t, 0 at the start: 0.0 for a total that stays, or a function of t; None
            for no law.
        start: t₀.
        time_scale: Of the problem, in the units of t.

    Raises:
        InvalidArgumentError: If initial value, walls and gain contradict each other.
    """

    nodes: Tensor
    weights: Tensor

    def __init__(
        self,
        network: nn.Module,
        grid: NodeGrid | CellGrid,
        *,
        initial: Callable[[Tensor], Tensor],
        walls: tuple[Dirichlet | None, Dirichlet | None] = (None, None),
        gain: Series | None = None,
        start: float = 0.0,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(grid, NodeGrid | CellGrid) or grid.dimension != 1 or not time_scale > 0:
            raise InvalidArgumentError("ExactField needs a grid of one axis and a time_scale > 0.")
        if len(walls) != 2 or any(not (wall is None or isinstance(wall, Dirichlet)) for wall in walls):
            raise InvalidArgumentError(f"walls must be two of Dirichlet(value) and None, got {walls}.")
        values: list[Any] = [wall and wall.value for wall in walls]
        if any(
            wall and not (callable(value) or isinstance(value, int | float))
            for wall, value in zip(walls, values, strict=True)
        ):
            raise InvalidArgumentError("walls need their values here, a number or a function of t: Dirichlet(0.0).")
        self.network, self.initial, self.walls, self.gain = network, initial, values, gain
        self.low, self.high, self.start, self.time_scale = grid.low[0], grid.high[0], start, time_scale
        self.register_buffer("nodes", grid.points.flatten(), persistent=False)
        self.register_buffer("weights", grid.weights.flatten(), persistent=False)
        self._check_start()

    def forward(self, points: Float[Tensor, "*batch n 2"]) -> Float[Tensor, "*batch n"]:
        """u at points, columns t and x."""
        if points.ndim < 2 or points.shape[-1] != 2:
            raise InvalidArgumentError(
                f"points must be (*batch, n, 2) with columns t and x, got {tuple(points.shape)}."
            )
        t, x = points.unbind(-1)
        inside = (t >= self.start) & (x >= self.low) & (x <= self.high)
        if are_readable(points) and not bool(inside.all()):
            raise InvalidArgumentError(
                f"points must have t ≥ {self.start:g} in the first column and x from {self.low:g} to {self.high:g} in "
                "the second."
            )
        free = self._free(t, x)
        if self.gain is None:
            return free
        nodes, weights = self.nodes.to(t), self.weights.to(t)
        total = self._free(t[..., None].expand(*t.shape, len(nodes)), nodes.expand(*t.shape, -1)) @ weights
        wanted = self.initial(nodes) @ weights + _at(self.gain, t)
        return free + (wanted - total) * self._bump(x) / (self._bump(nodes) @ weights)

    def _free(self, t: Tensor, x: Tensor) -> Tensor:
        """v, which has no law."""
        xi, v = (x - self.low) / (self.high - self.low), self.initial(x)
        for wall, share in zip(self.walls, (1 - xi, xi), strict=True):
            if callable(wall):
                v = v + share * (_at(wall, t) - _at(wall, torch.full_like(t, self.start)))
        output = self.network(torch.stack([t, x], dim=-1))
        output = output[..., 0] if output.shape == (*t.shape, 1) else output
        if output.shape != t.shape:
            raise InvalidArgumentError(
                f"network must give one value a point, {tuple(t.shape)}, got {tuple(output.shape)}."
            )
        return v + (t - self.start) / self.time_scale * self._bump(x) * output

    def _bump(self, x: Tensor) -> Tensor:
        """β, 1 where no wall has a value."""
        xi = (x - self.low) / (self.high - self.low)
        first, last = (wall is not None for wall in self.walls)
        return torch.ones_like(x) * (xi if first else 1.0) * (1 - xi if last else 1.0)

    def _check_start(self) -> None:
        ends, t = self.nodes.new_tensor([self.low, self.high]), self.nodes.new_tensor([self.start])
        with torch.no_grad():
            u, gained = self.initial(ends), _at(self.gain or 0.0, t)
            scale = 1e-9 * max(1.0, float(self.initial(self.nodes).abs().max()))
            for wall, value, name in zip(self.walls, u, ("first", "last"), strict=True):
                held = value if wall is None else _at(wall, t)
                if bool((held - value).abs() > scale):
                    raise InvalidArgumentError(
                        f"At the start the {name} wall has the value {float(held):g}, but the initial field "
                        f"{float(value):g} there; both cannot hold."
                    )
        if bool(gained.abs() > scale):
            raise InvalidArgumentError(f"gain must be 0 at the start, got {float(gained):g}; the total starts with u₀.")


def _at(series: Any, t: Tensor) -> Tensor:
    """A series at times, with their shape."""
    values = series(t) if callable(series) else series
    return torch.as_tensor(values, dtype=t.dtype, device=t.device).expand(t.shape)
