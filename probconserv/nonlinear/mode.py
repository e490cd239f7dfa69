"""Nonlinear constraints g(u) = 0: the most probable field, and the Gaussian linearised there."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probconserv.constraints import LinearConstraint
from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    InfeasibleConstraintError,
    InvalidArgumentError,
)
from probconserv.inequalities.most_probable import most_probable
from probconserv.inequalities.projected import Projected
from probconserv.nonlinear._problem import Problem, ResidualFunction, linear_law, problem_of
from probconserv.nonlinear._stationary import (
    NEWTON_SIZE,
    Law,
    Linearised,
    Search,
    kkt_matrix,
    multipliers_of,
    search,
    stacked_gradients,
)
from probconserv.nonlinear.law import NonlinearLaw
from probconserv.posterior import Posterior
from probconserv.update import Gaussian

_SADDLE = -1e-6  # curvature along the law below which a stationary point is no minimum
_SAME = 10.0  # tolerances, relative to the objective plus one, within which two objectives belong to one mode
_SPREADS = (1.0, 3.0, 10.0)  # of the starts, in standard deviations of the prior, in turn


@dataclass(frozen=True, kw_only=True, eq=False)
class NonlinearMode:
    """The best of the modes that the starts reached: local, unless g has only one.

    Args:
        field: u ``(*batch, n)``, float64.
        objective: (u − μ)ᵀ Σ⁻¹ (u − μ) ``(*batch,)``.
        converged: How many starts met the tolerance ``(*batch,)``.
        agreeing: How many of them reached this objective ``(*batch,)``; few of many mean that a still better mode may
            have been missed.
    """

    field: Float[Tensor, "*batch n"]
    objective: Float[Tensor, " *batch"]
    converged: Int[Tensor, " *batch"]
    agreeing: Int[Tensor, " *batch"]


def condition_nonlinear(
    prior: Gaussian | Projected | Tensor,
    law: NonlinearLaw | ResidualFunction,
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    *,
    starts: int = 5,
    jacobian: ResidualFunction | None = None,
) -> Posterior | Projected:
    """Conditions a Gaussian prediction on a law g(u) = 0, linearised at the most probable field on {g = 0}.

    The field minimises (u − μ)ᵀ Σ⁻¹ (u − μ) on {g = 0}: the best local minimum that several starts reach by sequential
    quadratic programming. It is the global one if a start lies in its basin; ``nonlinear_mode`` tells how many
    starts agree. Covariance and draws of the result are those of the linearisation there (Laplace's approximation with
    the Gauss–Newton Hessian): its mean meets g = 0, its draws meet it to first order.

    Results can be differentiated once, by the implicit function theorem at the mode.

    Args:
        prior: As for ``condition``, but one Gaussian. The exact rows of a conditioned prediction, and the inequalities
            of a ``Projected`` one, stay in force; with inequalities every step solves a quadratic programme.
        law: A ``NonlinearLaw``, with its linear rows and bounds, or g alone: a function from fields ``(*batch, n)`` in
            float64 to residuals ``(*batch, k)``, by torch operations; batch entries must not mix.
        tolerance: Largest |g_i(u)| in units of the prior's standard scale of g_i, √(J Σ Jᵀ)_ii, and largest step, in
            standard deviations or relative to the field's largest distance from the mean.
        max_iterations: Largest number of steps from one start.
        starts: Number of starts: the prior mean, then draws of the prior, by turns spread three and ten times as far,
            with a fixed seed. More starts make it likelier that the global mode is among the modes found.
        jacobian: ∂g/∂u from fields, ``(*batch, k, n)``, or a sparse tensor ``(k, n)`` for a single field, which stays
            sparse under a diagonal Σ; by automatic differentiation, row by row, if not given. With it results have no
            derivatives. A ``NonlinearLaw`` finds its own, which is sparse for a single field under a diagonal Σ.

    Returns:
        The conditioned Gaussian, in the precision of the prior (which must resolve the tolerance). With
        inequalities, of the prediction or of the law, a ``Projected`` one under the linearised law, without
        derivatives; its mode is the field if Σ is diagonal, and else the mean projected in the metric of the variances.

    Raises:
        IncompatibleQueryError: If a ``NonlinearLaw`` has another number of points or another batch than the prediction.
        ConvergenceError: If no start meets the tolerance; the text names batch entry, residual and step.
        InvalidArgumentError: If g does not give ``(*batch, k)`` or does not depend on u, or derivatives are asked for
            where there are none.
        DependentConstraintsError: If rows of J are dependent under the prior.
    """
    problem = problem_of(prior, law, jacobian)
    best = _best(problem, _Options(tolerance, max_iterations, starts))[0]
    return _conditioned(problem, best)


def nonlinear_mode(
    prior: Gaussian | Projected | Tensor,
    law: NonlinearLaw | ResidualFunction,
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    *,
    starts: int = 5,
    jacobian: ResidualFunction | None = None,
) -> NonlinearMode:
    """The most probable field that ``condition_nonlinear`` linearises at, with what the starts say of it.

    Arguments are those of ``condition_nonlinear``.

    Returns:
        The field without derivatives, its objective, and how many starts agree.

    Raises:
        ConvergenceError: If no start meets the tolerance.
    """
    problem = problem_of(prior, law, jacobian)
    best, runs = _best(problem, _Options(tolerance, max_iterations, starts))
    field = best.at.u
    if problem.inequalities is not None:
        with torch.no_grad():
            within = _conditioned(problem, best)
            assert not isinstance(within, Posterior)
            field = most_probable(within.prior, within.constraint)  # within the bounds to the last bit
    errors, objectives = torch.stack([run.error for run in runs]), torch.stack([run.objective for run in runs])
    converged = errors <= tolerance
    same = (objectives - best.objective).abs() <= max(1e-6, _SAME * tolerance) * (1 + best.objective)
    return NonlinearMode(
        field=field,
        objective=best.objective,
        converged=converged.sum(dim=0),
        agreeing=(converged & same).sum(dim=0),
    )


@dataclass(frozen=True)
class _Options:
    """Tolerance, iterations and starts of ``condition_nonlinear``."""

    tolerance: float
    max_iterations: int
    starts: int

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.max_iterations < 1 or self.starts < 1:
            raise InvalidArgumentError(
                f"tolerance must be positive, max_iterations and starts at least 1, got {self.tolerance}, "
                f"{self.max_iterations} and {self.starts}."
            )


def _best(problem: Problem, options: _Options) -> tuple[Search, list[Search]]:
    """The search with the least objective of every batch entry, and all searches.

    Raises:
        ConvergenceError: If an entry met the tolerance from no start.
    """
    errors: list[Exception] = []
    generator = torch.Generator(problem.start.device).manual_seed(0)
    begin, starts = problem.start, [problem.start]
    for number in range(1, options.starts):
        normals = torch.randn(begin.shape, dtype=begin.dtype, device=begin.device, generator=generator)
        starts.append(_SPREADS[number % 3] * normals)
    runs = _together(problem, torch.stack(starts), options)
    if not runs:
        for start in starts:
            _run(problem, start, options, runs, errors)
    best = _least(runs, options.tolerance)
    for _ in range(3):
        direction = None if best is None else _descent(problem, best)
        if best is None or direction is None:
            break
        _run(problem, best.at.y + direction, options, runs, errors)
        best = _least(runs, options.tolerance)
    if best is not None and bool((best.error <= options.tolerance).all()):
        return best, runs
    raise errors[0] if errors else _not_converged(best or runs[0], options)


def _together(problem: Problem, starts: Tensor, options: _Options) -> list[Search]:
    """The searches from all starts at once ``(starts, *batch, r)``, for one row without inequalities.

    Nothing if one of them does not converge, or the law does not treat the axis of starts as a batch.
    """
    law = problem.law
    if problem.inequalities is not None or law.jacobian_function is not None or len(starts) < 2:
        return []
    alone = torch.stack([law.residual(start) for start in starts])
    try:
        together = law.residual(starts)
        if alone.shape[-1] != 1 or together.shape != alone.shape or not torch.allclose(together, alone, rtol=1e-9):
            return []
        found = search(law, starts, problem.aim, options.tolerance, options.max_iterations)
    except (RuntimeError, ValueError, IndexError):
        return []
    if not bool((found.error <= options.tolerance).all()):
        return []
    at = found.at
    return [
        Search(at=replace(at, y=y, u=u, residual=residual, jacobian=jacobian), error=error)
        for y, u, residual, jacobian, error in zip(at.y, at.u, at.residual, at.jacobian, found.error, strict=True)
    ]


def _run(problem: Problem, start: Tensor, options: _Options, runs: list[Search], errors: list[Exception]) -> None:
    """Adds the search from a start to the runs, or what stopped it to the errors."""
    try:
        runs.append(search(problem.law, problem.admit(start), problem.aim, options.tolerance, options.max_iterations))
    except (ConvergenceError, DependentConstraintsError, InfeasibleConstraintError) as error:
        errors.append(error)


def _least(runs: list[Search], tolerance: float) -> Search | None:
    """For every batch entry the search that converged to the least objective, or came nearest to converging."""
    if not runs:
        return None
    errors = torch.stack([run.error for run in runs])
    objectives = torch.stack([run.objective for run in runs])
    rank = torch.where(errors <= tolerance, objectives, 1e300 + 1e290 * errors.clamp_max(1e9))
    index = rank.argmin(dim=0)
    y = torch.stack([run.at.y for run in runs])
    u = torch.stack([run.at.u for run in runs])
    residual = torch.stack([run.at.residual for run in runs])

    def chosen(values: Tensor) -> Tensor:
        return values.gather(0, index[None, ..., None].expand(1, *values.shape[1:]))[0]

    at = replace(runs[0].at, y=chosen(y), u=chosen(u), residual=chosen(residual))
    return Search(at=at, error=errors.gather(0, index[None])[0])


def _descent(problem: Problem, best: Search) -> Tensor | None:
    """A step off stationary points that are no minima, along the law, by the most negative curvature; or None."""
    if problem.inequalities is not None or best.at.y.shape[-1] > NEWTON_SIZE:
        return None
    try:
        at = problem.law.linearise(best.at.y)
        multipliers = multipliers_of(at)
    except (ConvergenceError, DependentConstraintsError):
        return None
    jacobian = at.jacobian.to_dense()
    unit = torch.eye(at.y.shape[-1], dtype=at.y.dtype, device=at.y.device)
    hessian = unit - problem.law.hessian(at.y, multipliers)
    normal = torch.linalg.qr(jacobian.mT).Q
    along = hessian - normal @ (normal.mT @ hessian)
    along = along - (along @ normal) @ normal.mT + normal @ normal.mT
    if not bool(torch.linalg.cholesky_ex(along - _SADDLE * unit).info.any()):
        return None
    basis = torch.linalg.svd(jacobian, full_matrices=True).Vh[..., jacobian.shape[-2] :, :]
    if not basis.shape[-2]:
        return None
    values, vectors = torch.linalg.eigh(basis @ hessian @ basis.mT)
    if not bool((values[..., 0] < _SADDLE).any()):
        return None
    step = (vectors[..., None, :, 0] @ basis)[..., 0, :]
    size = 0.1 * at.y.abs().amax(dim=-1).clamp_min(1.0)
    return torch.where(values[..., :1] < _SADDLE, size[..., None] * step, 0.0)


def _not_converged(best: Search, options: _Options) -> ConvergenceError:
    worst = best.error.argmax() if best.error.ndim else torch.tensor(0)
    entry = tuple(int(i) for i in torch.unravel_index(worst, best.error.shape)) if best.error.ndim else ()
    size = float(best.at.residual[entry].abs().max())
    return ConvergenceError(
        f"No field with g(u) = 0 was found for batch entry {entry} from {options.starts} starts, with at most "
        f"{options.max_iterations} iterations each: the residual is {float(best.at.error[entry]):.3g} prior standard "
        f"deviations (largest |g| {size:.3g}), residual and step at best {float(best.error[entry]):.3g}, "
        f"required {options.tolerance:g}. Check that such a field exists; if it does, start from a prior nearer to it, "
        "allow more starts, or loosen the tolerance."
    )


def _conditioned(problem: Problem, best: Search) -> Posterior | Projected:
    """The prior under the law linearised at the mode."""
    law = _law_at(problem, problem.law.linearise(best.at.y))
    law = law if problem.exact is None else problem.exact & law
    if problem.inequalities is not None:
        return Projected(problem.base, law & problem.inequalities)
    return Posterior(problem.base, law)


def _law_at(problem: Problem, at: Linearised) -> LinearConstraint:
    """The law linearised at the mode, with the derivatives of the mode if prior or g have any."""
    with torch.enable_grad():
        u = problem.law.field_of(at.y)
        tracked = u.requires_grad or problem.law.residual_function(u.detach()).requires_grad
    tracked = tracked and torch.is_grad_enabled()
    if tracked and (at.field_jacobian is not None or problem.inequalities is not None):
        raise InvalidArgumentError(
            "Fields on a nonlinear law with a given Jacobian or inequalities have no derivatives; use torch.no_grad(), "
            "or neither of them."
        )
    if at.field_jacobian is not None:
        return linear_law(at.field_jacobian, at)
    with torch.enable_grad():
        u = problem.law.field_of(_implicit(problem.law, at) if tracked else at.y)
        point = u if u.requires_grad else u.detach().requires_grad_()
        residual = problem.law.residual_function(point)
        jacobian = stacked_gradients(residual, point, create_graph=tracked)
        target = (jacobian @ point[..., None])[..., 0] - residual
    return LinearConstraint(jacobian, target) if tracked else LinearConstraint(jacobian.detach(), target.detach())


def _implicit(law: Law, at: Linearised) -> Tensor:
    """y with the derivatives that the optimality conditions imply: one Newton step with a constant matrix."""
    multipliers = multipliers_of(at)
    matrix = kkt_matrix(law, at, multipliers)
    y = at.y.detach().requires_grad_()
    with torch.enable_grad():
        residual = law.residual_function(law.field_of(y))
        (force,) = torch.autograd.grad((residual * multipliers).sum(), y, create_graph=True)
        conditions = torch.cat([y.detach() - force, residual], dim=-1)
        return at.y - torch.linalg.solve(matrix, conditions[..., None])[..., : at.y.shape[-1], 0]
