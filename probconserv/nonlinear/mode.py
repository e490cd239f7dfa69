"""Nonlinear constraints g(u) = 0: the most probable field, and the Gaussian linearised there."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probconserv.constraints import LinearConstraint, rows_applied
from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    InfeasibleConstraintError,
    InvalidArgumentError,
)
from probconserv.inequalities.most_probable import most_probable
from probconserv.inequalities.projected import Projected
from probconserv.nonlinear._problem import Problem, ResidualFunction, problem_of
from probconserv.nonlinear._search import search
from probconserv.nonlinear._whitened import NEWTON_SIZE, Whitened, deviations, stacked_gradients
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
    problem = problem_of(prior, law, jacobian, tolerance)
    return _conditioned(problem, _best(problem, max_iterations, starts)[0])


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
    problem = problem_of(prior, law, jacobian, tolerance)
    best, runs = _best(problem, max_iterations, starts)
    with torch.no_grad():
        field = problem.space.field_of(best.point)
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


@dataclass(frozen=True, eq=False)
class _End:
    """Where searches ended.

    Args:
        point: y ``(*batch, r)``.
        error: The larger of residual and step, in standard deviations ``(*batch,)``.
    """

    point: Tensor
    error: Tensor

    @property
    def objective(self) -> Tensor:
        """|y|² ``(*batch,)``."""
        return self.point.square().sum(dim=-1)


def _best(problem: Problem, iterations: int, starts: int) -> tuple[_End, list[_End]]:
    """The end with the least objective of every batch entry, and all ends.

    Raises:
        ConvergenceError: If an entry met the tolerance from no start.
    """
    begin, tolerance = problem.space.centre, problem.space.tolerance
    if not tolerance > 0 or iterations < 1 or starts < 1:
        raise InvalidArgumentError(
            f"tolerance must be positive, max_iterations and starts at least 1, got {tolerance}, {iterations} and "
            f"{starts}."
        )
    generator, points = torch.Generator(begin.device).manual_seed(0), [begin]
    for number in range(1, starts):
        normals = torch.randn(begin.shape, dtype=begin.dtype, device=begin.device, generator=generator)
        points.append(_SPREADS[number % 3] * normals)
    errors: list[Exception] = []
    ends = _together(problem.space, torch.stack(points), iterations)
    for point in () if ends else points:
        _run(problem, point, iterations, ends, errors)
    best = _least(ends, tolerance)
    for _ in range(3):
        direction = None if best is None else _descent(problem, best)
        if best is None or direction is None:
            break
        _run(problem, best.point + direction, iterations, ends, errors)
        best = _least(ends, tolerance)
    if best is not None and bool((best.error <= tolerance).all()):
        return best, ends
    raise errors[0] if errors or best is None else _not_converged(problem.space, best, iterations, starts)


def _together(space: Whitened, points: Tensor, iterations: int) -> list[_End]:
    """The ends of searches from all starts at once ``(starts, *batch, r)``, for one row without inequalities.

    Nothing if one of them does not converge, or the law does not treat the axis of starts as a batch.
    """
    if space.within is not None or space.jacobian_function is not None or len(points) < 2:
        return []
    try:
        with torch.no_grad():
            alone, together = (space.residual_function(space.field_of(each)) for each in (points[-1], points))
        shape = (len(points), *alone.shape)
        if alone.shape[-1:] != (1,) or together.shape != shape or not torch.allclose(together[-1], alone, rtol=1e-9):
            return []
        found = search(space, points, space.tolerance, iterations, space)
    except (RuntimeError, ValueError, IndexError):
        return []
    if not bool((found.error <= space.tolerance).all()):
        return []
    return [_End(*parts) for parts in zip(found.point, found.error, strict=True)]


def _run(problem: Problem, point: Tensor, iterations: int, ends: list[_End], errors: list[Exception]) -> None:
    """Adds the end of the search from a start to the ends, or what stopped it to the errors."""
    try:
        found = search(problem.space, problem.admit(point), problem.space.tolerance, iterations, problem.space)
        ends.append(_End(found.point, found.error))
    except (ConvergenceError, DependentConstraintsError, InfeasibleConstraintError) as error:
        errors.append(error)


def _least(ends: list[_End], tolerance: float) -> _End | None:
    """For every batch entry the end that converged to the least objective, or came nearest to converging."""
    if not ends:
        return None
    errors = torch.stack([end.error for end in ends])
    objectives = torch.stack([end.objective for end in ends])
    rank = torch.where(errors <= tolerance, objectives, 1e300 + 1e290 * errors.clamp_max(1e9))
    index = rank.argmin(dim=0)[None]
    points = torch.stack([end.point for end in ends])
    chosen = points.gather(0, index[..., None].expand(1, *points.shape[1:]))[0]
    return _End(chosen, errors.gather(0, index)[0])


def _descent(problem: Problem, best: _End) -> Tensor | None:
    """A step off stationary points that are no minima, along the law, by the most negative curvature; or None."""
    if problem.inequalities is not None or best.point.shape[-1] > NEWTON_SIZE:
        return None
    try:
        at = problem.space.at(best.point)
    except (ConvergenceError, DependentConstraintsError):
        return None
    assert at.multipliers is not None
    jacobian = at.rows.to_dense()
    unit = torch.eye(at.point.shape[-1], dtype=at.point.dtype, device=at.point.device)
    hessian = unit - problem.space.hessian(at.point, at.multipliers)
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
    size = 0.1 * at.point.abs().amax(dim=-1).clamp_min(1.0)
    return torch.where(values[..., :1] < _SADDLE, size[..., None] * step, 0.0)


def _not_converged(space: Whitened, best: _End, iterations: int, starts: int) -> ConvergenceError:
    entry = tuple(int(i) for i in torch.unravel_index(best.error.argmax(), best.error.shape)) if best.error.ndim else ()
    at = space.at(best.point)
    missed = float((at.residual.abs() / deviations(at.rows))[entry].max())
    return ConvergenceError(
        f"No field with g(u) = 0 was found for batch entry {entry} from {starts} starts, with at most {iterations} "
        f"iterations each: the residual is {missed:.3g} prior standard deviations (largest |g| "
        f"{float(at.residual[entry].abs().max()):.3g}), residual and step at best {float(best.error[entry]):.3g}, "
        f"required {space.tolerance:g}. Check that such a field exists; if it does, start from a prior nearer to it, "
        "allow more starts, or loosen the tolerance."
    )


def _conditioned(problem: Problem, best: _End) -> Posterior | Projected:
    """The prior under the law linearised at the mode."""
    law = _law_at(problem.space, best.point)
    law = law if problem.exact is None else problem.exact & law
    if problem.inequalities is not None:
        return Projected(problem.base, law & problem.inequalities)
    return Posterior(problem.base, law)


def _law_at(space: Whitened, y: Tensor) -> LinearConstraint:
    """The law linearised at the mode, with the derivatives of the mode if prior or g have any."""
    with torch.enable_grad():
        u = space.field_of(y)
        residual = space.residual_function(u.detach())
    tracked = torch.is_grad_enabled() and (u.requires_grad or residual.requires_grad)
    if tracked and (space.jacobian_function is not None or space.within is not None):
        raise InvalidArgumentError(
            "Fields on a nonlinear law with a given Jacobian or inequalities have no derivatives; use torch.no_grad(), "
            "or neither of them."
        )
    if space.jacobian_function is not None:
        rows = space.field_rows(u, residual)
        return LinearConstraint(rows, rows_applied(rows, u.detach()) - residual.detach())
    with torch.enable_grad():
        u = space.field_of(_implicit(space, y)) if tracked else u
        point = u if u.requires_grad else u.detach().requires_grad_()
        residual = space.residual_function(point)
        jacobian = stacked_gradients(residual, point, create_graph=tracked)
        target = rows_applied(jacobian, point) - residual
    return LinearConstraint(jacobian, target) if tracked else LinearConstraint(jacobian.detach(), target.detach())


def _implicit(space: Whitened, point: Tensor) -> Tensor:
    """y with the derivatives that the optimality conditions imply: one Newton step with a constant matrix."""
    at = space.at(point)
    assert at.multipliers is not None
    matrix = space.kkt_matrix(at)
    y = point.detach().requires_grad_()
    with torch.enable_grad():
        residual = space.residual_function(space.field_of(y))
        (force,) = torch.autograd.grad((residual * at.multipliers).sum(), y, create_graph=True)
        conditions = torch.cat([y.detach() - force, residual], dim=-1)
        return point - torch.linalg.solve(matrix, conditions[..., None])[..., : point.shape[-1], 0]
