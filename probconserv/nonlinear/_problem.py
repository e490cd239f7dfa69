"""A Gaussian prediction under a nonlinear law in the coordinates of its search, with inequalities or without."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from probconserv._linalg.covariance import apply_roots, as_double, square_roots
from probconserv._linalg.gaussian import FieldGaussian
from probconserv._linalg.rows import Rows
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError
from probconserv.inequalities.inequality import JoinedConstraint
from probconserv.inequalities.most_probable import most_probable
from probconserv.inequalities.projected import Projected
from probconserv.nonlinear._space import MatrixRows, Space, Structure, StructuredRows, Within
from probconserv.nonlinear.law import NonlinearLaw
from probconserv.posterior import Posterior
from probconserv.redundancy import posterior_of

_TOUCHING = 1e-10  # relative distance from a bound within which it counts as active


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A prediction under a law, as the search sees it.

    Args:
        law: All that is stated.
        base: The Gaussian.
        exact: Rows that it meets exactly.
        inequalities: Inequalities that hold.
        space: The law in coordinates.
        start: The coordinates of the mean ``(*batch, r)``.
        admit: Makes a start admissible.
    """

    law: NonlinearLaw
    base: MultivariateNormal
    exact: LinearConstraint | None
    inequalities: JoinedConstraint | None
    space: Space
    start: Tensor
    admit: Callable[[Tensor], Tensor] = lambda start: start


def problem_of(prior: MultivariateNormal | Projected, law: NonlinearLaw) -> Problem:
    """What prior and law state together; errors are those of ``condition_on_field_of``."""
    base, exact, inequalities = _parts_of(prior)
    _check(law, base)
    stated = reduce(NonlinearLaw.__and__, [part for part in (exact, inequalities) if part is not None], law)
    if law.linear is not None and (exact is not None or not law.has_plain_rows):
        joined = law.linear if exact is None else exact & law.linear
        exact, law = posterior_of(base, joined, True).constraint, replace(law, linear=None)
    covariance = as_double(base.lazy_covariance_matrix)
    gaussian = FieldGaussian(base.mean.to(torch.float64), covariance)
    gaussian = gaussian if exact is None else Posterior(gaussian, exact)
    field_of, size = _coordinates(gaussian, torch.finfo(base.mean.dtype).eps)
    start = gaussian.mean.detach().new_zeros(*gaussian.batch_shape, size)
    structured = exact is None and isinstance(covariance, DiagLinearOperator) and not gaussian.batch_shape
    structured = structured and _has_sparse_rows(law, field_of(start))
    structure = Structure(covariance) if structured else None
    space = Space(field_of=field_of, law=law, structure=structure, tolerance=law.tolerance)
    problem = Problem(law=stated, base=base, exact=exact, inequalities=stated.inequalities, space=space, start=start)
    return problem if stated.inequalities is None else _within(problem, gaussian, stated.inequalities)


def _parts_of(
    prior: MultivariateNormal | Projected,
) -> tuple[MultivariateNormal, LinearConstraint | None, JoinedConstraint | None]:
    """The Gaussian, the exact rows and the inequalities of a prediction."""
    if isinstance(prior, Projected):
        return prior.prior, prior.constraint.law, replace(prior.constraint, law=None)
    if isinstance(prior, Posterior):
        return prior.prior, prior.constraint, None
    return prior, None, None


def _check(law: NonlinearLaw, base: MultivariateNormal) -> None:
    """Raises unless the law has the size and the batch of the prediction."""
    if law.points != base.mean.shape[-1]:
        raise IncompatibleQueryError(
            f"The law acts on {law.points} points but the prediction has {base.mean.shape[-1]}; build both on one grid."
        )
    if law.batch_shape not in (torch.Size(), base.batch_shape):
        raise IncompatibleQueryError(
            f"The linear rows of the law have right-hand sides for a batch {tuple(law.batch_shape)} but the prediction "
            f"has the batch {tuple(base.batch_shape)}; give rows without batch axes, or one entry per prediction."
        )


def _has_sparse_rows(law: NonlinearLaw, u: Tensor) -> bool:
    """Whether several statements are linearised at a field of no batch, and no derivatives are recorded."""
    values = law.statements(u.detach())
    tracked = torch.is_grad_enabled() and (u.requires_grad or values.requires_grad)
    return values.shape[-1] > 1 and not tracked


def _coordinates(gaussian: MultivariateNormal, epsilon: float) -> tuple[Callable[[Tensor], Tensor], int]:
    """The map from y ~ N(0, I) to the fields of a Gaussian, and the number of coordinates."""
    if isinstance(gaussian, Posterior):
        return lambda y: gaussian.rsample(base_samples=y), gaussian.base_sample_shape[0]
    mean, roots = gaussian.mean, square_roots(gaussian.lazy_covariance_matrix, epsilon)
    if len(roots) == 1 and isinstance(roots[0], DiagLinearOperator):
        deviation = roots[0].diagonal()
        return lambda y: mean + y * deviation, deviation.shape[-1]
    size = sum(root.shape[-1] for root in roots)
    return lambda y: mean + apply_roots(roots, y[..., None, :])[..., 0, :], size


def _within(problem: Problem, gaussian: MultivariateNormal, inequalities: JoinedConstraint) -> Problem:
    """The problem with steps towards the most probable field on linearised law and inequalities."""
    field_of, zero = problem.space.field_of, problem.start
    with torch.no_grad():
        centre = field_of(zero)
        units = torch.eye(zero.shape[-1], dtype=zero.dtype, device=zero.device)
        root = torch.stack([field_of(unit.expand(zero.shape)) - centre for unit in units], dim=-1)
        inverse = torch.linalg.pinv(root)
    base, exact = (gaussian.prior, gaussian.constraint) if isinstance(gaussian, Posterior) else (gaussian, None)

    def coordinates(prior: MultivariateNormal, constraint: JoinedConstraint) -> Tensor:
        with torch.no_grad():
            mode = most_probable(prior, constraint)
        return (inverse @ (mode - centre)[..., None])[..., 0]

    def target(rows: MatrixRows | StructuredRows, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        of_field, moved = rows.to_dense() @ inverse, rows.applied(y) - residual
        linear = LinearConstraint(of_field, (of_field @ centre[..., None])[..., 0] + moved)
        nearest = coordinates(base, (linear if exact is None else exact & linear) & inequalities)
        held = torch.cat([rows.to_dense(), active(nearest)], dim=-2)
        multipliers = torch.linalg.lstsq(held.mT, nearest[..., None], driver="gelsd").solution[..., 0]
        return nearest, multipliers[..., : residual.shape[-1]]

    within = inequalities if exact is None else exact & inequalities
    mode = centre + (root @ coordinates(base, within)[..., None])[..., 0]

    def admit(start: Tensor) -> Tensor:
        # Around the mode rather than the mean, which may be so far off that all draws project to one corner.
        drawn = mode + (root @ start[..., None])[..., 0]
        return coordinates(FieldGaussian(drawn, base.lazy_covariance_matrix), within)

    def active(y: Tensor) -> Tensor:
        u = centre + (root @ y[..., None])[..., 0]
        slack = _TOUCHING * (1 + u.abs().amax(dim=-1, keepdim=True))
        bound = ((u - inequalities.lower).abs() <= slack) | ((u - inequalities.upper).abs() <= slack)
        rows = torch.where(bound[..., None], root, 0.0)
        if inequalities.rows is not None:
            A = inequalities.rows.A
            A = A.to_dense() if isinstance(A, Rows) else A
            touched = (inequalities.rows.excess(u) >= -slack * A.abs().sum(dim=-1))[..., None]
            rows = torch.cat([rows, torch.where(touched, A @ root, 0.0)], dim=-2)
        if not inequalities.order:
            return rows
        index = inequalities.split(torch.arange(u.shape[-1], device=u.device))
        first, second = index[:, :-1].flatten(), index[:, 1:].flatten()
        tied = ((u[..., second] - u[..., first]).abs() <= slack) & ~(bound[..., first] & bound[..., second])
        return torch.cat([rows, torch.where(tied[..., None], root[..., second, :] - root[..., first, :], 0.0)], dim=-2)

    return replace(problem, space=replace(problem.space, within=Within(target, active)), admit=admit)
