"""``solve``: a batch of reference solutions of a conservation law, with the balance of the conserved total."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._batching import Group, make_groups, run_groups
from solvers.finite_volume._semi_discretisation import ConvectiveScheme, DiffusiveScheme, Scheme
from solvers.finite_volume._sides import Side, make_sides
from solvers.finite_volume.boundary import AxisConditions, Dirichlet, Outflow, Periodic, per_axis, value_at
from solvers.finite_volume.fluxes import MUSCL, FaceMean, Godunov, IntegralMean, NumericalFlux, Reconstruction
from solvers.finite_volume.grid import CellGrid
from solvers.finite_volume.laws import ConvectiveLaw, DiffusiveLaw, Law
from solvers.finite_volume.stepping import SSPRK3, TRBDF2, State, Stepper, advance

_KINDS = {
    "stepper": (Stepper, "TRBDF2() or SSPRK3()"),
    "face_mean": (FaceMean, "IntegralMean() or ArithmeticMean()"),
    "flux": (NumericalFlux, "Godunov() or Rusanov()"),
    "reconstruction": (Reconstruction, "MUSCL() or WENO()"),
}

Initial = float | np.ndarray | Tensor | Callable[[Tensor], Tensor]


class SolveOptions(TypedDict, total=False):
    """Options of ``solve``, all with defaults.

    Attributes:
        start: Time of the initial field, 0 by default.
        stepper: Time stepper. Diffusive laws: ``TRBDF2()`` by default with the integral mean; with another mean
            ``SSPRK3()``, since an implicit step may have no solution if the conductivity is discontinuous (pass
            ``TRBDF2()`` if it is continuous). Convective laws: ``SSPRK3()``.
        face_mean: Diffusive laws: mean of the conductivity at faces, ``IntegralMean()`` by default.
        flux: Convective laws: numerical flux, ``Godunov()`` by default.
        reconstruction: Convective laws: states at faces, ``MUSCL()`` by default.
        progress: Whether to show a progress bar on standard error.
    """

    start: float
    stepper: Stepper
    face_mean: FaceMean
    flux: NumericalFlux
    reconstruction: Reconstruction
    progress: bool


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Cell averages at the output times and the balance of the conserved total; float64.

    Attributes:
        grid: The cells.
        times: Output times ``(t,)``.
        values: Cell averages ``(*batch, t, *space)``.
        initial_total: ∫ u dx at the start ``(*batch,)``.
        boundary_flux: Time-integrated flux through every side since the start, positive along +axis: first and last
            side of each axis in order, ``(*batch, t, 2d)``.
    """

    grid: CellGrid
    times: Float[Tensor, " t"]
    values: Tensor
    initial_total: Tensor
    boundary_flux: Tensor

    @property
    def total(self) -> Tensor:
        """Conserved total ∫ u dx at the output times ``(*batch, t)``."""
        return _total(self.values, self.grid)

    @property
    def inflow(self) -> Tensor:
        """Net inflow through all sides since the start ``(*batch, t)``."""
        return self.boundary_flux[..., ::2].sum(-1) - self.boundary_flux[..., 1::2].sum(-1)

    @property
    def imbalance(self) -> Tensor:
        """total − (initial total + net inflow) ``(*batch, t)``: round-off for every law and boundary condition."""
        return self.total - self.initial_total[..., None] - self.inflow


def solve(
    law: Law,
    grid: CellGrid,
    boundary: Sequence[Any],
    initial: Initial,
    times: Sequence[float] | np.ndarray | Tensor,
    **options: Unpack[SolveOptions],
) -> Solution:
    """Solves a conservation law for a whole batch in one call.

    The law's parameters ``(*batch,)``, the leading axes of ``initial`` and the boundary values ``(*batch, *face)``
    broadcast to the batch. Large batches are divided along the first axis into groups with common time
    steps, which run on as many threads as torch may use.

    Args:
        law: The law, an instance of a subclass of ``DiffusiveLaw`` or ``ConvectiveLaw``.
        grid: Cells of the domain.
        boundary: With one axis a pair (first, last) of conditions, with d axes one pair per axis.
        initial: Cell averages at the start: a number, an array that broadcasts to ``(*batch, *space)``, or a function
            of ``grid.points`` returning one.
        times: Increasing output times, none before the start.
        **options: See ``SolveOptions``.

    Returns:
        The solution at the output times.

    Raises:
        InvalidArgumentError: If an argument has the wrong type, shape or value.
        SolverDivergedError: If a time step fails at the smallest step; NaN or infinite states are never returned.
    """
    start = float(options.get("start", 0.0))
    output = _check_times(times, start)
    conditions = per_axis(boundary, grid.dimension)
    scheme, stepper = _choose(law, grid, conditions, options)
    u = _initial_field(initial, scheme, law, start)
    _check_law(law, u)
    groups = make_groups(law, conditions, u, grid.dimension)
    span = float(output[-1]) - start
    with _reporter(bool(options.get("progress", False)), span * len(groups)) as report:

        def work(group: Group) -> tuple[Tensor, Tensor]:
            part = scheme if len(groups) == 1 else _choose(group.law, grid, group.conditions, options)[0]
            return _integrate(part, stepper, group.initial, [start, *output.tolist()], report)

        parts = run_groups(work, groups)
    values, account = parts[0] if len(parts) == 1 else (torch.cat(each) for each in zip(*parts, strict=True))
    return Solution(grid=grid, times=output, values=values, initial_total=_total(u, grid), boundary_flux=account)


def _integrate(
    scheme: Scheme, stepper: Stepper, initial: Tensor, times: list[float], report: Callable[[float], None] | None
) -> tuple[Tensor, Tensor]:
    """Cell averages ``(*batch, t, *space)`` and boundary flux ``(*batch, t, 2d)`` at all times but the first."""
    dimension = scheme.grid.dimension
    state = State(
        u=initial,
        time=times[0],
        boundary_flux=initial.new_zeros((*initial.shape[: initial.ndim - dimension], 2 * dimension)),
        scale=_scale(initial, scheme, times),
        step=(times[-1] - times[0]) * stepper.first_fraction,
    )
    values, account = [], []
    with torch.no_grad():
        for time in times[1:]:
            advance(scheme, stepper, state, time, report)
            values.append(state.u)
            account.append(state.boundary_flux)
    return torch.stack(values, dim=-dimension - 1), torch.stack(account, dim=-2)


def _total(field: Tensor, grid: CellGrid) -> Tensor:
    return (field * grid.weights).flatten(-grid.dimension).sum(-1)


def _check_times(times: Sequence[float] | np.ndarray | Tensor, start: float) -> Tensor:
    output = torch.as_tensor(times, dtype=torch.float64).reshape(-1)
    increasing = bool((output.diff() > 0).all()) and bool(torch.isfinite(output).all())
    if output.numel() == 0 or not increasing or float(output[0]) < start:
        raise InvalidArgumentError(
            f"times must be finite, strictly increasing and not before start = {start:g}, got {output.tolist()[:8]}."
        )
    return output


def _choose(
    law: Law, grid: CellGrid, conditions: tuple[AxisConditions, ...], options: SolveOptions
) -> tuple[Scheme, Stepper]:
    """Scheme and stepper from the type of the law and the options."""
    if not isinstance(grid, CellGrid):
        raise InvalidArgumentError(f"grid must be a CellGrid (finite volumes use cell averages), got {grid!r}.")
    other = ("flux", "reconstruction") if isinstance(law, DiffusiveLaw) else ("face_mean",)
    unsuited = [name for name in options if name in other or name not in SolveOptions.__annotations__]
    if unsuited:
        suited = sorted(set(SolveOptions.__annotations__) - set(other))
        raise InvalidArgumentError(
            f"solve takes no option {', '.join(unsuited)} with {type(law).__name__}; "
            f"the options are {', '.join(suited)}."
        )
    _check_kinds(options)
    sides = make_sides(conditions, grid.spacing)
    if isinstance(law, DiffusiveLaw):
        mean = options.get("face_mean", IntegralMean())
        usual = TRBDF2() if isinstance(mean, IntegralMean) else SSPRK3()
        return DiffusiveScheme(law, grid, sides, mean), options.get("stepper", usual)
    if not isinstance(law, ConvectiveLaw):
        raise InvalidArgumentError(f"law must derive from DiffusiveLaw or ConvectiveLaw, got {type(law).__name__}.")
    stepper = options.get("stepper", SSPRK3())
    if not isinstance(stepper, SSPRK3):
        raise InvalidArgumentError(f"A convective law needs the explicit stepper SSPRK3, got {stepper!r}.")
    flux, reconstruction = options.get("flux", Godunov()), options.get("reconstruction", MUSCL())
    return ConvectiveScheme(law, grid, sides, flux, reconstruction), stepper


def _check_kinds(options: SolveOptions) -> None:
    """Raises an error for an option of the wrong type, such as a name or a class."""
    for name, (kind, examples) in _KINDS.items():
        if name in options and not isinstance(options[name], kind):
            raise InvalidArgumentError(f"{name} must be a {kind.__name__}, such as {examples}, got {options[name]!r}.")


def _initial_field(initial: Initial, scheme: Scheme, law: Law, start: float) -> Tensor:
    """Initial cell averages on the whole batch ``(*batch, *space)``, float64, a copy."""
    grid = scheme.grid
    field = torch.as_tensor(initial(grid.points) if callable(initial) else initial, dtype=torch.float64, device="cpu")
    space = field.shape[max(0, field.ndim - grid.dimension) :]
    if any(size not in (1, n) for size, n in zip(reversed(space), reversed(grid.shape), strict=False)):
        raise InvalidArgumentError(
            f"initial must broadcast to (*batch, *space) with space = {grid.shape}, got shape {tuple(field.shape)}."
        )
    if not bool(torch.isfinite(field).all()):
        raise InvalidArgumentError("initial is not finite; remove NaN and infinite entries.")
    shapes = [tuple(field.shape[: max(0, field.ndim - grid.dimension)])]
    for side in _stating(scheme):
        value = value_at(side.stated_value, start, side.name)
        shapes.append(tuple(value.shape[: max(0, value.ndim - grid.dimension + 1)]))
    try:
        batch = _law_batch(law, torch.broadcast_shapes(*shapes), grid.dimension)
    except RuntimeError:
        raise InvalidArgumentError(
            f"initial and boundary values have batch axes that do not broadcast: {shapes}; give them one batch shape."
        ) from None
    return field.expand(*batch, *grid.shape).clone(memory_format=torch.contiguous_format)


def _law_batch(law: Law, batch: tuple[int, ...], dimension: int) -> tuple[int, ...]:
    """Batch shape with the law's parameters: the fewest batch axes with which the law does not broadcast over space."""
    name = "conductivity" if isinstance(law, DiffusiveLaw) else "characteristic_speed"
    for axes in range(len(batch), len(batch) + 5):
        shape = _values_of(law, name, torch.zeros((1,) * (axes + dimension), dtype=torch.float64)).shape
        if len(shape) == axes + dimension and all(size == 1 for size in shape[axes:]):
            try:
                return tuple(torch.broadcast_shapes(shape[:axes], batch))
            except RuntimeError:
                break
    raise InvalidArgumentError(
        f"The parameters of {type(law).__name__} do not broadcast with the batch shape {tuple(batch)} of initial and "
        "boundary values; give parameters of shape (*batch,)."
    )


def _check_law(law: Law, u: Tensor) -> None:
    """Raises an error for a law whose methods do not return a value for every state."""
    diffusive = isinstance(law, DiffusiveLaw)
    for name in ("potential", "conductivity") if diffusive else ("convective_flux", "characteristic_speed"):
        values = _values_of(law, name, u)
        if values.shape != u.shape:
            raise _not_of_shape(law, name, f"shape {tuple(values.shape)} for u of shape {tuple(u.shape)}")


def _values_of(law: Law, name: str, u: Tensor) -> Tensor:
    """The result of a law's method for some states, a tensor with at least one axis."""
    values = getattr(law, name)(u)
    if not isinstance(values, Tensor):
        raise _not_of_shape(law, name, type(values).__name__)
    if values.ndim == 0:
        raise _not_of_shape(law, name, "a tensor without axes")
    return values


def _not_of_shape(law: Law, name: str, got: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{type(law).__name__}.{name}(u) must return a tensor of the shape of u, got {got}; for a constant c return "
        "c + 0.0 * u."
    )


def _stating(scheme: Scheme) -> Iterator[Side]:
    """Sides that state a value."""
    for pair in scheme.sides:
        for side in pair:
            if not isinstance(side.condition, Periodic | Outflow):
                yield side


def _scale(u: Tensor, scheme: Scheme, times: list[float]) -> Tensor:
    """Largest |u| per batch entry over the initial field and the Dirichlet values at the given times, never zero."""
    dimension = scheme.grid.dimension
    scale = u.abs().flatten(u.ndim - dimension).amax(-1)
    for side in _stating(scheme):
        if isinstance(side.condition, Dirichlet):
            edge = u.movedim(side.axis - dimension, -1)[..., :1]
            for time in times if callable(side.stated_value) else times[:1]:
                scale = torch.maximum(scale, side.value(time, edge).abs().flatten(u.ndim - dimension).amax(-1))
    return torch.where(scale > 0, scale, 1.0)


@contextmanager
def _reporter(show: bool, total: float) -> Iterator[Callable[[float], None] | None]:
    """A function that advances a progress bar on standard error, or None."""
    if not show:
        yield None
        return
    with Progress(console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("solving", total=total)
        yield lambda step: bar.advance(task, step)
