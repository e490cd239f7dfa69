"""``solve_system``: a batch of solutions of a system of conservation laws, with the balance of every component."""

from collections.abc import Callable, Sequence
from math import inf, isfinite
from numbers import Real
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from solvers._arguments import output_times, reporter
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection.schemes import MUSCL, Reconstruction
from solvers.grids import CellGrid
from solvers.systems._law_kernels import Law, admissible, check_law
from solvers.systems._run import Run, Setting
from solvers.systems.boundary import Side, make_sides
from solvers.systems.laws import HLL, ShallowWater, SystemFlux
from solvers.systems.reactions import ReactionDiffusion, solve_reactions
from solvers.systems.solution import SystemSolution, as_field, totals_of

Initial = np.ndarray | Tensor | Callable[[Tensor], Tensor]
Bottom = np.ndarray | Tensor | Callable[[Tensor], Tensor]

_FLOOR = 1e-12


class SystemOptions(TypedDict, total=False):
    """Options of ``solve_system``, all with defaults.

    Attributes:
        start: Time of the initial field, 0 by default.
        bottom: ``ShallowWater`` only: height of the bottom, cell averages that broadcast to ``(*batch, *cells)`` or a
            function of ``grid.points`` that returns them; level by default.
        flux: Numerical flux, ``HLL()`` by default, or ``HLLC()`` for shallow water with two axes.
        reconstruction: States at faces, ``MUSCL()`` by default: of the components, for ``ShallowWater`` of depth,
            surface and velocity.
        courant: Fraction of a cell that the fastest signal may cross in a step, the axes added up, 0.4 by default and
            at most 0.5, which keeps depths positive.
        largest_step: Upper bound of the step, none by default.
        progress: Whether to show a progress bar on standard error.
        tolerance: ``ReactionDiffusion`` only: allowed mean |error| of a step over the spread of every unknown, 1e-4 by
            default.
        breakpoints: Times at which steps end. States that are functions of time are examined over the span: steps see
            what changes, and end where something jumps. Only of an event shorter than 1/4096 of the span (1/300 with
            ``ReactionDiffusion``) begin and end must be given here.
    """

    start: float
    bottom: Bottom | None
    flux: SystemFlux
    reconstruction: Reconstruction
    courant: float
    largest_step: float
    progress: bool
    tolerance: float
    breakpoints: Sequence[float]


def solve_system(
    law: Law | ReactionDiffusion,
    grid: CellGrid,
    boundary: Sequence[Any],
    initial: Initial,
    times: Sequence[float] | np.ndarray | Tensor,
    **options: Unpack[SystemOptions],
) -> SystemSolution:
    """Solves a system of conservation laws, or of reaction and diffusion, for a whole batch in one call.

    Finite volumes of second order where the solution is smooth (at sides with given states first), SSPRK3 in time.
    Every batch entry takes its own steps, so that its result is the same alone and in any batch.

    Args:
        law: The law: ``ShallowWater(gravity)``, ``Euler``, an instance of your subclass of ``PointwiseLaw``; or a
            ``ReactionDiffusion``, with the conditions of ``solve`` and the options ``start``, ``tolerance``,
            ``largest_step`` and ``breakpoints``.
        grid: Cells of the domain.
        boundary: With one axis a pair (first, last) of conditions, with d axes one pair per axis: ``Reflecting()``,
            ``Periodic()``, ``Outflow()`` or ``Dirichlet(state)`` with a state ``(c,)`` or one that broadcasts to
            ``(*batch, c, *face)``.
        initial: Cell averages at the start that broadcast to ``(*batch, c, *cells)``, with all c components, or a
            function of ``grid.points`` that returns them.
        times: Increasing output times, none before the start.
        **options: See ``SystemOptions``.

    Returns:
        The solution at the output times.

    Raises:
        InvalidArgumentError: If an argument has the wrong type, shape or value.
        SolverDivergedError: If an entry has no admissible state at the smallest step; NaN is never returned.
    """
    if isinstance(law, ReactionDiffusion):
        return solve_reactions(law, grid, boundary, initial, times, **options)
    _check_kinds(law, grid, options)
    start = float(options.get("start", 0.0))
    output = output_times(times, start)
    components = len(law.components(grid.dimension))
    sides = make_sides(boundary, grid.dimension)
    field = _field(initial, grid, components)
    level = _bottom(options.get("bottom"), law, grid)
    batch = _batch(field, level, sides, grid, start)
    u = field.expand(*batch, components, *grid.shape).reshape(-1, components, *grid.shape).contiguous()
    _check_states(law, u, batch, grid.dimension)
    if level is not None:
        level = level.expand(*batch, *grid.shape).reshape(-1, *grid.shape)
    setting = Setting(
        law=law,
        grid=grid,
        sides=sides,
        batch=batch,
        components=components,
        flux=options.get("flux", HLL()),
        reconstruction=options.get("reconstruction", MUSCL()),
        span=(start, float(output[-1])),
        breakpoints=options.get("breakpoints", ()),
    )
    with torch.no_grad():
        return _integrate(Run(setting, u, level), u, output, options)


def _integrate(run: Run, u: Tensor, times: Tensor, options: SystemOptions) -> SystemSolution:
    """Runs the steps and collects the output."""
    setting, (start, end) = run.setting, run.setting.span
    values, totals = [], []
    with reporter(bool(options.get("progress", False)), end - start) as report:
        largest, smallest = options.get("largest_step", inf), _FLOOR * max(abs(end), end - start)
        for time in times.tolist():
            run.advance(time, (options.get("courant", 0.4), largest, smallest), report)
            values.append(run.u.copy())
            totals.append(run.total.copy())
    run.sides.check(run.sampled)
    total = torch.from_numpy(np.stack(totals, axis=1)).reshape(*setting.batch, len(times), -1, setting.components)
    return SystemSolution(
        grid=setting.grid,
        times=times,
        values=torch.from_numpy(np.stack(values, axis=1)).reshape(*setting.batch, len(times), *u.shape[1:]),
        initial_total=totals_of(u, setting.grid).reshape(*setting.batch, -1),
        boundary_flux=total[..., :-1, :].clone(),
        source=total[..., -1, :].clone(),
        steps=torch.from_numpy(run.steps).reshape(setting.batch),
    )


def _check_kinds(law: Law, grid: CellGrid, options: SystemOptions) -> None:
    """Raises an error for an argument of the wrong type or an option that is unknown."""
    if not isinstance(law, Law):
        raise InvalidArgumentError(
            f"law must be ShallowWater(), Euler(), a ReactionDiffusion or derive from PointwiseLaw, got {law!r}; for "
            "one unknown use solve."
        )
    if not isinstance(grid, CellGrid):
        raise InvalidArgumentError(f"grid must be a CellGrid (finite volumes use cell averages), got {grid!r}.")
    known = sorted(set(SystemOptions.__annotations__) - {"tolerance"})
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidArgumentError(
            f"solve_system takes no option {', '.join(unknown)}; the options are {', '.join(known)}."
        )
    for name, kind, choices in (
        ("flux", SystemFlux, "HLL(), HLLC() or Rusanov()"),
        ("reconstruction", Reconstruction, "MUSCL() or Constant()"),
    ):
        if name in options and not isinstance(options[name], kind):
            raise InvalidArgumentError(f"{name} must be {choices}, got {options[name]!r}.")
    courant = options.get("courant", 0.4)
    if not (isinstance(courant, Real) and 0 < courant <= 0.5):
        raise InvalidArgumentError(f"courant must be a number in (0, 0.5], got {courant!r}.")
    largest = options.get("largest_step", inf)
    if not (isinstance(largest, Real) and largest > 0):
        raise InvalidArgumentError(f"largest_step must be a positive number, got {largest!r}.")
    start = options.get("start", 0.0)
    if not (isinstance(start, Real) and isfinite(start)):
        raise InvalidArgumentError(f"start must be a finite number, got {start!r}.")


def _field(initial: Initial, grid: CellGrid, components: int) -> Tensor:
    """Initial cell averages ``(*batch, c, *space)`` with space axes that broadcast to the grid."""
    field = as_field("initial", initial, grid)
    shape, d = tuple(field.shape), grid.dimension
    if (
        len(shape) < d + 1
        or shape[-d - 1] != components
        or any(size not in (1, n) for size, n in zip(shape[-d:], grid.shape, strict=True))
    ):
        raise InvalidArgumentError(
            f"initial must have the shape (*batch, c, *cells) with c = {components} and cells = {grid.shape} (or 1 "
            f"where it is constant), got {shape}; stack the components along axis {-d - 1}."
        )
    return field


def _bottom(bottom: Bottom | None, law: Law, grid: CellGrid) -> Tensor | None:
    """Cell averages of the bottom with at least the axes of the grid, or None."""
    if bottom is None:
        return None
    if not isinstance(law, ShallowWater):
        raise InvalidArgumentError(f"bottom is for ShallowWater only, got it with {type(law).__name__}; drop it.")
    level = as_field("bottom", bottom, grid)
    shape, d = tuple(level.shape), grid.dimension
    if len(shape) < d or any(size not in (1, n) for size, n in zip(shape[-d:], grid.shape, strict=True)):
        raise InvalidArgumentError(
            f"bottom must broadcast to (*batch, *cells) with cells = {grid.shape} and all its axes, got {shape}."
        )
    return level


def _batch(
    field: Tensor, level: Tensor | None, sides: tuple[tuple[Side, Side], ...], grid: CellGrid, start: float
) -> tuple[int, ...]:
    """Batch shape of the initial field, the bottom and the boundary states."""
    d = grid.dimension
    shapes = [tuple(field.shape[: field.ndim - d - 1])]
    if level is not None:
        shapes.append(tuple(level.shape[: level.ndim - d]))
    for side in (side for pair in sides for side in pair):
        value = getattr(side.condition, "value", None)
        if value is not None:
            state = as_field(side.name, value(start) if callable(value) else value, grid)
            shapes.append(tuple(state.shape[: max(0, state.ndim - d)]))
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise InvalidArgumentError(
            f"initial, bottom and boundary states have batch axes that do not broadcast: {shapes}; give them one batch "
            "shape."
        ) from None


def _check_states(law: Law, u: Tensor, batch: tuple[int, ...], dimension: int) -> None:
    """Raises an error for a law that is not a hyperbolic system, or initial states outside it."""
    states = u.movedim(1, -1).reshape(-1, u.shape[1])
    check_law(law, states, dimension)
    bad = torch.nonzero(~admissible(law, u, dimension))
    if len(bad):
        entry, cell = int(bad[0, 0]), tuple(bad[0, 1:].tolist())
        raise InvalidArgumentError(
            f"initial is not admissible for {type(law).__name__} in cell {cell}, entry {entry} of the batch "
            f"{batch}: {u[(entry, slice(None), *cell)].tolist()}; give the conserved components."
        )
