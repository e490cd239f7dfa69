"""What passes the walls of an open system in the steps of a rollout.

Fluxes are positive along +axis on both sides, as for ``conservation``, and per unit of the face's area and of time;
those that are integrated over a step are per unit of area.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import as_tensor
from probconserv.balance import integrate_intervals
from probconserv.errors import InvalidArgumentError
from probconserv.rollout.flux_model import FluxModel
from solvers.grids import Grid
from solvers.recording import are_readable

Side = Tensor | np.ndarray | float | Callable[[Tensor], Tensor]
Walls = Sequence[tuple[Side, Side] | None]
WallFlux = Callable[[Tensor, Tensor], Tensor] | FluxModel
AllFluxes = WallFlux | Sequence[tuple[WallFlux | None, WallFlux | None] | None] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class WallRate:
    """A flux that depends on the field at its wall, as a rate of change of the totals.

    Args:
        function: From values at the wall ``(*batch, c, *face)`` and data there ``(*batch, m, *face)`` to the flux
            ``(*batch, k, *face)``.
        data: Data at all times ``(*batch, t, m, *face)``, float64.
        axis: Axis normal to the wall.
        last: Whether the wall is the last side.
        areas: Quadrature weights of the face.
        totals: Number k of totals.
    """

    function: WallFlux
    data: Tensor
    axis: int
    last: bool
    areas: Tensor
    totals: int

    @property
    def batch_shape(self) -> torch.Size:
        """Batch axes of the data."""
        return self.data.shape[: self.data.ndim - self.areas.ndim - 2]

    def at(self, field: Float[Tensor, "..."], time: int) -> Float[Tensor, "*batch k"]:
        """∫ F over the wall, with the sign of a gain, of a field ``(*batch, c, *space)`` at one of the times.

        Of a ``FluxModel`` integrated over the step that starts then.
        """
        faces = self.areas.ndim
        wall, data = field.select(self.axis - faces - 1, -1 if self.last else 0), self.data.select(-faces - 2, time)
        if isinstance(self.function, FluxModel):
            after = self.data.select(-faces - 2, time + 1)
            flux = self.function(field, data, after, self.axis, self.last).to(torch.float64)
        else:
            flux = self.function(wall, data)
        if tuple(flux.shape[-faces - 1 :]) != (self.totals, *self.areas.shape):
            raise InvalidArgumentError(
                f"The flux at {_name(self.axis, self.last)} must be (*batch, {self.totals}, *face) with the face "
                f"{tuple(self.areas.shape)}, got {tuple(flux.shape)} from wall values {tuple(wall.shape)}."
            )
        total = over_face(flux, self.areas)
        return -total if self.last else total


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """What passes the walls in a run.

    Args:
        gained: ∫ (F_first − F_last) dt of every step, as far as it is known ahead ``(*batch, steps, k)``, float64.
        noise: Variance of its error by the trapezoid rule, of the same shape; None if no flux is given by values.
        rates: Fluxes that depend on the field.
        ahead: Fluxes that depend on the field at the start of a step.
    """

    gained: Tensor
    noise: Tensor | None
    rates: tuple[WallRate, ...]
    ahead: tuple[WallRate, ...]


def exchange_of(grid: Grid, totals: int, walls: Walls, times: Float[Tensor, " t"], flux: AllFluxes) -> Exchange:
    """What passes the walls between the times; arguments are those of ``Rollout``."""
    if not isinstance(walls, Sequence) or len(walls) != grid.dimension:
        count = len(walls) if isinstance(walls, Sequence) else type(walls).__name__
        raise InvalidArgumentError(
            f"walls needs one pair (first, last) for each of the {grid.dimension} axes, None for a periodic one, got "
            f"{count}; a closed wall has the flux 0.0."
        )
    gained = torch.zeros(len(times) - 1, totals, dtype=torch.float64, device=times.device)
    errors, rates, ahead = [], [], []
    for axis, pair in enumerate(walls):
        if pair is None:
            continue
        areas = _areas(grid, axis).to(times.device)
        for last in (False, True):
            side, name = _side_of(pair, axis, last), _name(axis, last)
            function = _function_of(flux, axis, last)
            if function is not None:
                data = _at_times(side, times, areas.shape, name)
                (ahead if isinstance(function, FluxModel) else rates).append(
                    WallRate(function=function, data=data, axis=axis, last=last, areas=areas, totals=totals)
                )
                continue
            passed, error = _integrated(side, times, areas, totals, name)
            gained = gained - passed if last else gained + passed
            errors += [] if error is None else [error.square()]
    return Exchange(
        gained=gained,
        noise=torch.stack(torch.broadcast_tensors(*errors)).sum(dim=0) if errors else None,
        rates=tuple(rates),
        ahead=tuple(ahead),
    )


def over_face(flux: Float[Tensor, "*lead_and_face"], areas: Float[Tensor, "*face"]) -> Float[Tensor, "*lead"]:
    """∫ F over a face."""
    return (flux * areas).flatten(-areas.ndim).sum(dim=-1) if areas.ndim else flux


def totals_of(density: Float[Tensor, "..."], weights: Float[Tensor, "*space"]) -> Float[Tensor, "*batch c"]:
    """∫ u dx of every channel ``(*batch, c, *space)``, float64."""
    return (density.to(torch.float64) * weights).flatten(-weights.ndim).sum(dim=-1)


def _areas(grid: Grid, axis: int) -> Tensor:
    """Quadrature weights of the face normal to an axis."""
    weights = torch.ones((), dtype=torch.float64)
    for other, along in enumerate(grid.axis_weights):
        weights = weights if other == axis else weights[..., None] * along
    return weights


def _name(axis: int, last: bool) -> str:
    return f"the {'last' if last else 'first'} side of axis {axis}"


def _side_of(pair: tuple[Side, Side], axis: int, last: bool) -> Side:
    if not isinstance(pair, tuple | list) or len(pair) != 2 or pair[last] is None:
        raise InvalidArgumentError(
            f"The flux through {_name(axis, last)} is missing: walls[{axis}] must be a pair (first, last), got "
            f"{pair if isinstance(pair, tuple | list) and len(pair) < 2 else type(pair).__name__}; give the flux "
            "integrated over every step, its values at the times or a function of time, 0.0 for a closed wall."
        )
    return pair[last]


def _function_of(flux: AllFluxes, axis: int, last: bool) -> WallFlux | None:
    if flux is None or callable(flux):
        return flux
    pair = flux[axis]
    return None if pair is None else pair[last]


def _checked(
    values: Tensor | np.ndarray, face: torch.Size, counts: tuple[int, ...], totals: int | None, name: str
) -> Tensor:
    """Values ``(*batch, t, k, *face)`` in float64; t one of the counts."""
    values, axes = as_tensor(values), 2 + len(face)
    times, channels, *rest = values.shape[-axes:] if values.ndim >= axes else (0, 0)
    if times not in counts or tuple(rest) != tuple(face) or totals not in (None, channels):
        wanted = ", ".join(["*batch", " or ".join(map(str, counts)), str(totals or "channels"), *map(str, face)])
        raise InvalidArgumentError(
            f"The data of {name} must be ({wanted}): integrated over every step or values at the times, for every "
            f"channel and point of the face; got {tuple(values.shape)}."
        )
    if are_readable(values):
        refuse_missing(values, f"The data of {name} hold")
    return values


def _at_times(side: Side, times: Tensor, face: torch.Size, name: str) -> Tensor:
    """Data of a wall at the times ``(*batch, t, m, *face)``."""
    if isinstance(side, int | float):
        return torch.full((len(times), 1, *face), float(side), dtype=torch.float64, device=times.device)
    return _checked(side(times) if callable(side) else side, face, (len(times),), None, name)


def _integrated(side: Side, times: Tensor, areas: Tensor, totals: int, name: str) -> tuple[Tensor, Tensor | None]:
    """The flux of a wall integrated over every step ``(*batch, steps, k)``, and the error of the trapezoid rule."""
    if isinstance(side, int | float):
        return float(side) * areas.sum() * times.diff()[:, None], None
    if callable(side):

        def passing(at: Tensor) -> Tensor:
            return over_face(_checked(side(at), areas.shape, (len(at),), totals, name), areas).mT

        return integrate_intervals(passing, times).mT, None
    steps = len(times) - 1
    values = over_face(_checked(side, areas.shape, (steps, steps + 1), totals, name), areas)
    if values.shape[-2] == steps:
        return values, None
    return integrate_intervals(values.mT, times).mT, _trapezoid_error(values, times)


def _trapezoid_error(values: Tensor, times: Tensor) -> Tensor | None:
    """Δt³/12 F″ of every step ``(*batch, steps, k)`` by second differences; None if there are too few values."""
    gaps = times.diff()[:, None]
    if len(gaps) < 2:
        return None
    second = 2 * (values.diff(dim=-2) / gaps).diff(dim=-2) / (gaps[1:] + gaps[:-1])
    second = torch.cat([second[..., :1, :], second, second[..., -1:, :]], dim=-2)
    return gaps.pow(3) / 24 * (second[..., 1:, :] + second[..., :-1, :])
