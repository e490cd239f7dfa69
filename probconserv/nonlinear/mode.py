"""Nonlinear constraints g(u) = 0: the most probable field, and the Gaussian linearised there."""

from dataclasses import dataclass

import torch
from torch import Tensor

from probconserv.constraints import LinearConstraint, rows_applied
from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    InfeasibleConstraintError,
    InvalidArgumentError,
)
from probconserv.inequalities.inequality import JoinedConstraint
from probconserv.inequalities.most_probable import most_probable
from probconserv.inequalities.projected import Projected
from probconserv.nonlinear._problem import Problem, problem_of
from probconserv.nonlinear._redundancy import require_met
from probconserv.nonlinear._search import NEWTON_SIZE, search
from probconserv.nonlinear._space import Space, stacked_gradients
from probconserv.nonlinear.found import NonlinearMode
from probconserv.nonlinear.law import AnyLaw, NonlinearLaw
from probconserv.posterior import Posterior, posterior_of
from probconserv.prior import Parts

_SADDLE = -1e-6  # curvature along the law below which a stationary point is no minimum
_SAME = 10.0  # tolerances, relative to the objective plus one, within which two objectives belong to one mode
_SPREADS = (1.0, 3.0, 10.0)  # of the starts, in standard deviations of the prior, in turn


def condition_on_field_of(given: Parts, constraint: AnyLaw) -> Posterior | Projected:
    """The prediction under the law linearised at the most probable field that meets all statements of both.

    Args:
        given: One Gaussian, and the law and inequalities that it meets, which stay in force.
        constraint: A nonlinear law, or what a prediction under one has to meet as well.

    Returns:
        The conditioned prediction, with the ``NonlinearMode`` as ``search``.

    Raises:
        IncompatibleQueryError: If the law has another number of points or another batch than the prediction.
        ConvergenceError: If no start meets the tolerance; the text names batch entry, residual and step.
        InvalidArgumentError: If g does not give ``(s, k)`` or does not depend on u, or derivatives are asked for where
            there are none.
        DependentConstraintsError: If statements contradict each other, or rows of J are dependent at the mode alone.
    """
    law, options = constraint, given.options
    if given.search is not None:
        if given.search.law is None:
            raise InvalidArgumentError(
                "A copy of a prediction under a nonlinear law, or a part of it, has lost the function of the law, so "
                "that it cannot be conditioned again; condition the first prediction on all statements."
            )
        given, law = Parts(gaussian=given.gaussian), given.search.law & constraint
    assert isinstance(law, NonlinearLaw)
    problem = problem_of(given, law)
    best, runs = _best(problem)
    with torch.no_grad():
        require_met(problem.statements, problem.chosen, problem.space.field_of(best.point), problem.base)
    if problem.inequalities is None:
        with torch.no_grad():
            field = problem.space.field_of(best.point)
        return _linearised(problem, best, _mode_of(problem, field, best, runs))
    posterior = _linearised(problem, best, None)
    with torch.no_grad():  # within the bounds to the last bit
        field = most_probable(posterior.prior, _of_rows(posterior.constraint, problem.inequalities))
    found = _mode_of(problem, field, best, runs)
    return Projected(posterior, posterior.stated & problem.inequalities, search=found, **options)


def _mode_of(problem: Problem, field: Tensor, best: "_End", runs: list["_End"]) -> NonlinearMode:
    tolerance = problem.space.tolerance
    errors, objectives = torch.stack([run.error for run in runs]), torch.stack([run.objective for run in runs])
    converged = errors <= tolerance
    same = (objectives - best.objective).abs() <= max(1e-6, _SAME * tolerance) * (1 + best.objective)
    return NonlinearMode(
        law=problem.law,
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


def _best(problem: Problem) -> tuple[_End, list[_End]]:
    """The best mode that the starts reach, and where all of them ended."""
    begin, tolerance = problem.start, problem.space.tolerance
    if not bool(problem.chosen.any()):  # the prediction meets the law already
        met = _End(problem.admit(begin), begin.new_zeros(begin.shape[:-1]))
        return met, [met]
    iterations, starts = problem.law.max_iterations, problem.law.starts
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


def _together(space: Space, points: Tensor, iterations: int) -> list[_End]:
    """The ends of searches from all starts at once ``(starts, *batch, r)``, for one row without inequalities.

    Nothing if one of them does not converge, or the law does not treat the axis of starts as a batch.
    """
    if space.within is not None or space.structure is not None or len(points) < 2:
        return []
    try:
        with torch.no_grad():
            alone, together = (space.law.statements(space.field_of(each)) for each in (points[-1], points))
        shape = (len(points), *alone.shape)
        if (
            alone.shape[-1:] != (1,)
            or together.shape != shape
            or not torch.allclose(together[-1], alone, rtol=1e-9, atol=0)
        ):
            return []
        found = search(space, points, iterations)
    except (RuntimeError, ValueError, IndexError):
        return []
    if not bool((found.error <= space.tolerance).all()):
        return []
    return [_End(*parts) for parts in zip(found.point, found.error, strict=True)]


def _run(problem: Problem, point: Tensor, iterations: int, ends: list[_End], errors: list[Exception]) -> None:
    """Adds the end of the search from a start to the ends, or what stopped it to the errors."""
    try:
        found = search(problem.space, problem.admit(point), iterations)
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


def _not_converged(space: Space, best: _End, iterations: int, starts: int) -> ConvergenceError:
    entry = tuple(int(i) for i in torch.unravel_index(best.error.argmax(), best.error.shape)) if best.error.ndim else ()
    at = space.at(best.point)
    missed = float((at.residual.abs() / at.rows.deviations())[entry].max())
    return ConvergenceError(
        f"No field with g(u) = 0 was found for batch entry {entry} from {starts} starts, with at most {iterations} "
        f"iterations each: the residual is {missed:.3g} prior standard deviations (largest |g| "
        f"{float(at.residual[entry].abs().max()):.3g}), residual and step at best {float(best.error[entry]):.3g}, "
        f"required {space.tolerance:g}. Check that such a field exists; if it does, start from a prior nearer to it, "
        "allow more starts, or loosen the tolerance."
    )


def _linearised(problem: Problem, best: _End, found: NonlinearMode | None) -> Posterior:
    """The prior under the law linearised at the mode.

    Raises:
        DependentConstraintsError: If statements that are independent elsewhere are not so there.
    """
    law = _law_at(problem, best.point)
    posterior = posterior_of(problem.base, law if problem.rows is None else problem.rows & law, True, found)
    if posterior.constraint.b.shape[-1] < problem.independent:
        raise DependentConstraintsError(
            "The statements of the nonlinear law have dependent gradients at the most probable field that meets them, "
            "as where curves touch, so that the law cannot be linearised there; drop redundant residuals."
        )
    return posterior


def _of_rows(law: LinearConstraint, inequalities: JoinedConstraint) -> JoinedConstraint:
    return law & inequalities if law.b.shape[-1] else inequalities


def _law_at(problem: Problem, y: Tensor) -> LinearConstraint:
    """The law linearised at the mode, with the derivatives of the mode if prior or g have any."""
    space, law = problem.space, problem.statements
    with torch.enable_grad():
        u = space.field_of(y)
        residual = law.statements(u.detach())
    if space.structure is not None:
        residual, rows = law.linearise(u)
        return LinearConstraint(rows, rows_applied(rows, u.detach()) - residual)
    tracked = torch.is_grad_enabled() and (u.requires_grad or residual.requires_grad)
    with torch.enable_grad():
        u = space.field_of(_implicit(space, y)) if tracked and bool(problem.chosen.any()) else u
        point = u if u.requires_grad else u.detach().requires_grad_()
        residual = law.statements(point)
        jacobian = stacked_gradients(residual, point, create_graph=tracked)
        target = rows_applied(jacobian, point) - residual
    return LinearConstraint(jacobian, target) if tracked else LinearConstraint(jacobian.detach(), target.detach())


def _implicit(space: Space, point: Tensor) -> Tensor:
    """y with the derivatives that the optimality conditions imply: one Newton step with a constant matrix."""
    at = space.at(point)
    assert at.multipliers is not None
    matrix = space.kkt_matrix(at)
    y = point.detach().requires_grad_()
    with torch.enable_grad():
        residual = space.law.statements(space.field_of(y))
        (force,) = torch.autograd.grad((residual * at.multipliers).sum(), y, create_graph=True)
        conditions = torch.cat([y.detach() - force, residual], dim=-1)
        return point - torch.linalg.solve(matrix, conditions[..., None])[..., : point.shape[-1], 0]
