"""Fluxes through the walls of an open system in the steps of a rollout.

Fluxes are positive along +axis on both sides, as for ``conservation``, and per unit of the face's area and of time;
those that are integrated over a step are per unit of area.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import as_tensor, cached
from probconserv._quadrature import integrate_intervals
from probconserv.balance import passed_between
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.rollout.flux_model import FluxModel
from probconserv.rollout.sides import Side, side_name
from solvers._former import warn_at_caller
from solvers.grids import Grid, NodeGrid
from solvers.recording import are_readable

Walls = Sequence[tuple[Any, Any] | None]
"""Data of both sides of every axis, None for a periodic one."""
WallFlux = Callable[[Tensor, Tensor], Tensor] | FluxModel
_EQUAL = 1e-6  # relative difference of equal values, some of them in float32
_UNLIKE = 1e-3  # of the spread of a channel; neighbours differ by more in most fields
AllFluxes = WallFlux | Sequence[tuple[WallFlux | None, WallFlux | None] | None] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Wall:
    """The first or the last side of an axis."""

    axis: int
    last: bool
    areas: Tensor  # quadrature weights of the face
    shape: tuple[torch.Size, int, int]  # batch axes of the fields, number of times, number k of totals
    function: WallFlux | None  # the flux by the field and the data
    data: Tensor | None = None  # at all times ``(*batch, t, m, *face)``, float64, where there is a function

    def __str__(self) -> str:
        return side_name(self.axis, self.last)

    def values(self, field: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Values at the wall ``(*batch, c, *face)`` of a field ``(*batch, c, *space)``."""
        return field.select(self.axis - self.areas.ndim - 1, -1 if self.last else 0)

    def rate(self, values: Float[Tensor, "..."], time: int) -> Float[Tensor, "*batch k"]:
        """Contribution of its function to the totals at a time, from values at the wall; per unit of time."""
        return self._total(self.function(values, self.known[time]))  # type: ignore[misc]

    def gain(self, field: Float[Tensor, "..."], time: int) -> Float[Tensor, "*batch k"]:
        """Contribution of its ``FluxModel`` to the totals in the step that starts at a time from a field."""
        flux = self.function(field, self.known[time], self.known[time + 1], self.axis, self.last)  # type: ignore[misc]
        return self._total(flux)

    @cached
    def known(self) -> tuple[Tensor, ...]:
        """The data at every time ``(*batch, m, *face)``."""
        return () if self.data is None else self.data.unbind(-self.areas.ndim - 2)

    def at_times(self, side: Side, times: Tensor) -> Tensor:
        """Data at the times ``(*batch, t, m, *face)``."""
        if isinstance(side, int | float):
            return self._checked(self.areas.new_full((len(times), 1, *self.areas.shape), side), (len(times),), None)
        return self._checked(side(times) if callable(side) else side, (len(times),), None)

    def passed(self, side: Side, times: Tensor, breakpoints: Sequence[float]) -> tuple[Tensor, Tensor | None]:
        """Its contribution to the totals in every step ``(*batch, steps, k)``, and the error of the quadrature."""
        if isinstance(side, int | float):
            lengths = times.diff().reshape(-1, 1, *[1] * self.areas.ndim)
            side = (side * lengths).expand(-1, self.shape[2], *self.areas.shape)
        if callable(side):
            of_time = lambda at: self._total(self._checked(side(at), (len(at),), self.shape[2])).mT  # noqa: E731
            passed, error = integrate_intervals(of_time, times, breakpoints)
            return passed.mT, None if are_readable(error) and not bool(error.any()) else error.mT
        values = self._total(self._checked(side, (len(times) - 1, len(times)), self.shape[2]))
        if values.shape[-2] < len(times):
            return values, None
        return passed_between(values.mT, times, ())[0].mT, _trapezoid_error(values, times)

    def _total(self, flux: Tensor) -> Tensor:
        wanted, shape = (self.shape[2], *self.areas.shape), tuple(getattr(flux, "shape", ()))
        if self.function is not None and shape[-len(wanted) :] != wanted:
            raise InvalidArgumentError(
                f"The flux at {self} must be (*batch, {', '.join(map(str, wanted))}), got {shape}."
            )
        total = integrated(flux, self.areas)
        return -total if self.last else total

    def _checked(self, values: Tensor | np.ndarray, counts: tuple[int, ...], totals: int | None) -> Tensor:
        """Values ``(*batch, t, k, *face)`` in float64; t one of the counts."""
        values, face = as_tensor(values), tuple(self.areas.shape)
        axes = 2 + len(face)
        times, channels, *rest = values.shape[-axes:] if values.ndim >= axes else (0, 0)
        if times not in counts or tuple(rest) != face or totals not in (None, channels):
            wanted = ", ".join(["*batch", " or ".join(map(str, counts)), str(totals or "channels"), *map(str, face)])
            raise InvalidArgumentError(
                f"The data of {self} must be ({wanted}): integrated over every step or values at the times, for every "
                f"channel and point of the face; got {tuple(values.shape)}."
            )
        batch, fields = values.shape[:-axes], self.shape[0]
        if len(batch) > len(fields) or any(b != 1 and b != f for b, f in zip(batch[::-1], fields[::-1], strict=False)):
            raise IncompatibleQueryError(
                f"The data of {self} have the batch axes {tuple(batch)} but the fields {tuple(fields)}; give data for "
                "every field, or the same for all."
            )
        if are_readable(values):
            refuse_missing(values, f"The data of {self} hold")
        return values


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """Exchange through the walls in a run."""

    gained: Tensor  # ∫ (F_first − F_last) dt of every step, as far as known ahead ``(*batch, steps, k)``, float64
    noise: Tensor | None  # variance of the error of its quadrature; None if that is exact
    during: list[Wall]  # whose flux depends on the field during a step
    before: list[Wall]  # whose flux depends on the field at the start of a step


def check_flux(flux: AllFluxes, grid: Grid) -> None:
    """Refuses functions of what a grid does not have, and sides that do not fit its axes."""
    pairs = [(flux, flux)] if flux is None or callable(flux) else flux
    if not (flux is None or callable(flux)) and len(flux) != grid.dimension:
        raise InvalidArgumentError(
            f"flux must be one function, or a pair (first, last) or None for each of {grid.dimension} axes, got "
            f"{len(flux)}."
        )
    for function in (function for pair in pairs if pair is not None for function in pair if function is not None):
        if isinstance(function, FluxModel):
            if function.grid != grid:
                raise InvalidArgumentError(f"The flux model was built for {function.grid}, not for {grid}.")
        elif grid.location == "cell":
            raise InvalidArgumentError(
                "A flux that depends on the value at its wall needs a NodeGrid, which has nodes there; on a CellGrid "
                "give the fluxes themselves."
            )


def exchange_of(
    grid: Grid,
    totals: Float[Tensor, "*batch k"],
    walls: Walls,
    times: Float[Tensor, " t"],
    flux: AllFluxes,
    breakpoints: Sequence[float],
) -> Exchange:
    """Exchange through the walls between times: data of all sides, and the totals at the start."""
    gained = totals.new_zeros(len(times) - 1, totals.shape[-1])
    errors, during, before = [], [], []
    shape = totals.shape[:-1], len(times), totals.shape[-1]
    for axis, pair in ((axis, pair) for axis, pair in enumerate(walls) if pair is not None):
        areas = torch.ones((), dtype=torch.float64, device=times.device)
        for along in (along for other, along in enumerate(grid.axis_weights) if other != axis):
            areas = areas[..., None] * along.to(areas)
        functions = (flux, flux) if flux is None or callable(flux) else flux[axis] or (None, None)
        for last in (False, True):
            wall = Wall(axis=axis, last=last, areas=areas, shape=shape, function=functions[last])
            if wall.function is not None:
                wall = replace(wall, data=wall.at_times(pair[last], times))
                (before if isinstance(wall.function, FluxModel) else during).append(wall)
                continue
            passed, error = wall.passed(pair[last], times, breakpoints)
            gained = gained + passed
            errors += [] if error is None else [error.square()]
    noise = torch.stack(torch.broadcast_tensors(*errors)).sum(dim=0) if errors else None
    return Exchange(gained=gained, noise=noise, during=during, before=before)


def warn_of_unlike_ends(fields: Tensor, grid: Grid, periodic: Sequence[bool]) -> None:
    """Warns where fields ``(*batch, c, *space)`` on nodes end, along a periodic axis, otherwise than they begin."""
    if not isinstance(grid, NodeGrid) or not are_readable(fields):
        return
    channels = fields.detach().double().movedim(-grid.dimension - 1, 0)
    spread = channels.flatten(1).std(dim=1)
    for axis in (axis for axis, repeated in enumerate(periodic) if repeated):
        first, last = (channels.select(axis - grid.dimension, end).flatten(1) for end in (0, -1))
        apart = float(((last - first).square().mean(dim=1).sqrt() / spread).nan_to_num().max())
        if apart > _UNLIKE:
            warn_at_caller(
                f"Axis {axis} is periodic, but its last node differs from its first by {apart:.2g} of the spread of "
                "the field. On a NodeGrid the two are one place. Fields without this repetition need a CellGrid, or "
                "their totals are wrong.",
            )


def warn_of_values(field: Tensor, walls: Walls, exchange: Exchange, grid: Grid, times: int) -> None:
    """Warns where fluxes at the times begin with the values that a field ``(*batch, c, *space)`` on nodes has there."""
    if not isinstance(grid, NodeGrid) or not are_readable(field):
        return
    read = {(wall.axis, wall.last) for wall in (*exchange.during, *exchange.before)}
    for axis, pair in enumerate(walls):
        for last, side in enumerate(pair or ()):
            if (axis, bool(last)) in read or not isinstance(side, Tensor | np.ndarray):
                continue
            given, values = as_tensor(side), field.double().select(axis - grid.dimension, -last)
            if given.shape != (*values.shape[: -grid.dimension], times, *values.shape[-grid.dimension :]):
                continue
            first = given.select(-grid.dimension - 1, 0).to(values)
            if bool(values.any()) and torch.allclose(first, values, rtol=_EQUAL, atol=0.0):
                warn_at_caller(
                    f"The fluxes given at {side_name(axis, last)} begin with the values of the field there. If they "
                    "are values, give what passes the side instead, or a flux= that computes it from values=."
                )


def integrated(density: Float[Tensor, "..."], weights: Float[Tensor, "*space"]) -> Float[Tensor, "*batch c"]:
    """∫ u dx of every channel ``(*batch, c, *space)``, float64; over a face with one point its value."""
    density = density.to(torch.float64)
    return density.flatten(-weights.ndim) @ weights.flatten() if weights.ndim else density * weights


def _trapezoid_error(values: Tensor, times: Tensor) -> Tensor | None:
    """Δt³/12 F″ of every step ``(*batch, steps, k)`` by second differences; None if there are too few values."""
    gaps = times.diff()[:, None]
    if len(gaps) < 2:
        return None
    second = 2 * (values.diff(dim=-2) / gaps).diff(dim=-2) / (gaps[1:] + gaps[:-1])
    second = torch.cat([second[..., :1, :], second, second[..., -1:, :]], dim=-2)
    return gaps.pow(3) / 24 * (second[..., 1:, :] + second[..., :-1, :])
