"""``solve``: a batch of reference solutions of a balance law, with the balance of the conserved total."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from numbers import Real
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from solvers._arguments import output_times
from solvers.conditions import per_axis
from solvers.errors import InvalidArgumentError
from solvers.finite_volume._groups import Plan, default_stepper, integrate, plan_groups
from solvers.finite_volume._operator import Initial, Law, build_operator, check_laws, initial_field, parts_of
from solvers.finite_volume.convection.schemes import NumericalFlux, Reconstruction
from solvers.finite_volume.diffusion.face_means import FaceMean
from solvers.finite_volume.laws.laws import Source
from solvers.finite_volume.laws.scalar import ScalarLaw
from solvers.finite_volume.steppers.steppers import LeastCost, Stepper
from solvers.grids import CellGrid

_KINDS = {
    "stepper": (Stepper, "TRBDF2(), ESDIRK4(), RKL2(), SSPRK3() or LeastCost()"),
    "face_mean": (FaceMean, "IntegralMean() or ArithmeticMean()"),
    "flux": (NumericalFlux, "Godunov() or Rusanov()"),
    "reconstruction": (Reconstruction, "MUSCL() or Constant()"),
}
_ELSEWHERE = {"rtol", "atol", "tol", "tolerance", "method", "max_step", "dt", "courant"}


@dataclass(frozen=True, kw_only=True)
class Work:
    """The stepper of each batch entry, and its numbers of steps.

    Attributes:
        steppers: The steppers used.
        choice: Index into ``steppers`` ``(*batch,)``.
        estimates: Estimated nanoseconds per cell of every stepper that ``LeastCost`` could choose ``(*batch,)``; empty
            without ``LeastCost``.
        steps: Accepted steps ``(*batch,)``.
        rejected: Rejected steps ``(*batch,)``.
        evaluations: Evaluations of the rates, Newton iterations included ``(*batch,)``.
    """

    steppers: tuple[Stepper, ...]
    choice: Int[Tensor, "*batch"]
    estimates: dict[str, Float[Tensor, "*batch"]]
    steps: Int[Tensor, "*batch"]
    rejected: Int[Tensor, "*batch"]
    evaluations: Int[Tensor, "*batch"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Solution:
    """Cell averages at the output times and the balance of the conserved total; float64.

    Attributes:
        grid: The cells.
        times: Output times ``(t,)``.
        values: Cell averages ``(*batch, t, *space)``.
        initial_total: ∫ u dx at the start ``(*batch,)``.
        boundary_flux: Time-integrated flux through every side since the start, positive along +axis: first and last
            side of each axis in order, ``(*batch, t, 2d)``. A rate is not given; a law of the update on ∫ u dx takes
            ``total``.
        source_total: Time integral of ∫ s dx since the start ``(*batch, t)``; zero without a source.
        work: Steppers, steps and evaluations of every batch entry.
        error_estimate: Largest difference over the cells from a run at a tenth of the tolerance, with half of every
            other limit on the steps ``(*batch, t)``: an estimate of the error of all steps together on the same cells,
            mostly .5 to 1 times the true one. None unless ``estimate_error=True``.
    """

    grid: CellGrid
    times: Float[Tensor, " t"]
    values: Tensor
    initial_total: Tensor
    boundary_flux: Tensor
    source_total: Tensor
    work: Work
    error_estimate: Tensor | None = None

    def __repr__(self) -> str:
        times = f"{len(self.times)} times from {self.times[0]:g} to {self.times[-1]:g}"
        return f"Solution(values {tuple(self.values.shape)} at {times} on {self.grid})"

    @property
    def total(self) -> Tensor:
        """Conserved total ∫ u dx at the output times ``(*batch, t)``."""
        return total_of(self.values, self.grid)

    @property
    def inflow(self) -> Tensor:
        """Net inflow through all sides since the start ``(*batch, t)``."""
        return self.boundary_flux[..., ::2].sum(-1) - self.boundary_flux[..., 1::2].sum(-1)

    @property
    def imbalance(self) -> Tensor:
        """total − (initial total + net inflow + source total) ``(*batch, t)``.

        It proves the bookkeeping: nothing is lost between the cells, and the budget holds the fluxes and sources that
        the steps used. It says nothing about accuracy: fluxes may be inaccurate and still balance. Compare with a run
        at a hundredth of the tolerance, or with more cells, to learn the error.
        """
        return self.total - self.initial_total[..., None] - self.inflow - self.source_total


def total_of(field: Tensor, grid: CellGrid) -> Tensor:
    """∫ u dx of cell averages ``(*batch, *space)``: ``(*batch,)``."""
    return (field * grid.weights).flatten(-grid.dimension).sum(-1)


class SolveOptions(TypedDict, total=False):
    """Options of ``solve``, all with defaults.

    Attributes:
        source: s(u, x, t), a ``Source`` or a function of u ``(*batch, *space)``, the grid's points and times that
            broadcast to u, returning the shape of u.
        start: Time of the initial field, 0 by default.
        stepper: Time stepper. By default, diffusion on a line takes ``ESDIRK4(1e-5)`` if the law is ``Diffusion``
            without a source, and ``TRBDF2(1e-4)`` otherwise; convection and several axes take ``LeastCost()``, which
            chooses one for every batch entry. ``Solution.work`` says which were used.
        face_mean: Laws with diffusion: mean of the conductivity at faces, ``IntegralMean()`` by default.
        flux: Laws with convection: numerical flux, ``Godunov()`` by default.
        reconstruction: Laws with convection: states at faces, ``MUSCL()`` by default.
        breakpoints: Times at which boundary data, coefficients or sources jump or have a kink; steps end there. All of
            them are examined over the span, and jumps and short events are found where a few hundred times show them.
            Give the times at which a shorter event begins and ends. Where it makes no difference, one call takes many
            times: a source or coefficient then sees one more axis, before those of the batch.
        progress: Whether to show a progress bar on standard error.
        estimate_error: Whether to solve again at a tenth of the tolerance, for ``Solution.error_estimate``; without an
            error control with steps of half the length.
    """

    source: Source | Callable[..., Tensor] | None
    start: float
    stepper: Stepper | LeastCost | None
    face_mean: FaceMean
    flux: NumericalFlux
    reconstruction: Reconstruction
    breakpoints: Sequence[float]
    progress: bool
    estimate_error: bool


def solve(
    law: Law,
    grid: CellGrid,
    boundary: Sequence[Any],
    initial: Initial,
    times: Sequence[float] | np.ndarray | Tensor,
    **options: Unpack[SolveOptions],
) -> Solution:
    """Solves u_t + ∇·f(u, x, t) = ∇·(k(u, x, t) ∇u) + s(u, x, t) for a whole batch in one call.

    The law's parameters ``(*batch,)``, the leading axes of ``initial`` and the boundary values ``(*batch, *face)``
    broadcast to the batch. Every batch entry has separate time steps, chosen by its error relative to the present
    spread of its solution, so its result does not depend on the others. Large batches run on as many threads as torch
    may use.

    Args:
        law: The law, an instance of a subclass of ``DiffusiveLaw`` or ``ConvectiveLaw``, or a ``ConvectionDiffusion``.
        grid: Cells of the domain.
        boundary: With one axis a pair (first, last) of conditions, with d axes one pair per axis.
        initial: Cell averages at the start: a number, an array that broadcasts to ``(*batch, *space)``, or a function
            of ``grid.points`` returning one.
        times: Increasing output times, none before the start. Output within a step costs no further steps.
        **options: See ``SolveOptions``.

    Returns:
        The solution at the output times.

    Raises:
        InvalidArgumentError: If an argument has the wrong type, shape or value, or a law contradicts itself.
        BoundarySamplingError: If the steps missed an event in the boundary data.
        SolverDivergedError: If a time step fails at the smallest step; NaN or infinite states are never returned.
    """
    _check_options(law, grid, options)
    if isinstance(law, ScalarLaw):
        law.check(grid)
        options = _with_source(law, options)
    start = float(options.get("start", 0.0))
    output = output_times(times, start)
    conditions = per_axis(boundary, grid.dimension)
    given = {**options, "span": (start, float(output[-1]))}
    u = initial_field(initial, law, grid, conditions, given)
    operator = build_operator(law, grid, u, conditions, given)
    batch, rows = tuple(u.shape[: u.ndim - grid.dimension]), u.reshape(-1, prod(grid.shape)).numpy()
    check_laws(operator, rows)
    plan = plan_groups(operator, rows, options.get("stepper") or default_stepper(operator))
    course = integrate(operator, plan, rows, (start, *output.tolist()), bool(options.get("progress", False)))
    estimate = None
    if options.get("estimate_error"):
        groups = tuple((stepper.tightened(), part) for stepper, part in plan.groups)
        finer = integrate(operator.refined(), replace(plan, groups=groups), rows, (start, *output.tolist()), False)
        estimate = torch.from_numpy(np.abs(finer.values - course.values).max(-1)).reshape(*batch, len(output))
    sides = 2 * grid.dimension
    budget = torch.from_numpy(course.budget).reshape(*batch, len(output), sides + 1)
    return Solution(
        grid=grid,
        times=output,
        values=torch.from_numpy(course.values).reshape(*batch, len(output), *grid.shape),
        initial_total=total_of(u, grid),
        boundary_flux=budget[..., :sides],
        source_total=budget[..., sides],
        work=_work(plan, course, batch),
        error_estimate=estimate,
    )


def _with_source(law: ScalarLaw, options: SolveOptions) -> SolveOptions:
    """The options with the source of a law."""
    if law.reaction is not None and options.get("source") is not None:
        raise InvalidArgumentError("source is given twice, in ScalarLaw and to solve; give it once.")
    return options if law.reaction is None else {**options, "source": law.reaction}


def _work(plan: Plan, course: Any, batch: tuple[int, ...]) -> Work:
    def shaped(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).reshape(batch)

    return Work(
        steppers=plan.steppers,
        choice=shaped(plan.choice),
        estimates={type(stepper).__name__: shaped(cost) for stepper, cost in plan.estimates.items()},
        steps=shaped(course.steps),
        rejected=shaped(course.rejected),
        evaluations=shaped(course.evaluations),
    )


def _check_options(law: Law, grid: CellGrid, options: SolveOptions) -> None:
    """Raises an error for options that do not suit the law or have the wrong type, such as a name or a class."""
    if not isinstance(grid, CellGrid):
        raise InvalidArgumentError(f"grid must be a CellGrid (finite volumes use cell averages), got {grid!r}.")
    convects, diffuses = (part is not None for part in parts_of(law))
    other = (() if convects else ("flux", "reconstruction")) + (() if diffuses else ("face_mean",))
    unsuited = [name for name in options if name in other or name not in SolveOptions.__annotations__]
    if unsuited:
        way = " Tolerances and methods are those of the stepper, such as stepper=TRBDF2(tolerance)." * bool(
            _ELSEWHERE & set(unsuited)
        )
        suited = sorted(set(SolveOptions.__annotations__) - set(other))
        raise InvalidArgumentError(
            f"solve takes no option {', '.join(unsuited)} with {type(law).__name__}; "
            f"the options are {', '.join(suited)}.{way}"
        )
    for name, (kind, examples) in _KINDS.items():
        given = options.get(name)
        chosen = name == "stepper" and isinstance(given, LeastCost | None)
        if name in options and not isinstance(given, kind) and not chosen:
            raise InvalidArgumentError(f"{name} must be a {kind.__name__}, such as {examples}, got {given!r}.")
    start = options.get("start", 0.0)
    if not isinstance(start, Real) or not isfinite(start):
        raise InvalidArgumentError(f"start must be a finite number, got {start!r}.")
    stepper = options.get("stepper")
    if isinstance(stepper, Stepper) and not stepper.suits(convects, diffuses):
        raise InvalidArgumentError(
            f"{type(stepper).__name__} does not suit {type(law).__name__}: "
            f"{'a convective law needs SSPRK3' if not diffuses else 'with convection take TRBDF2 or SSPRK3'}, got "
            f"{stepper!r}."
        )
