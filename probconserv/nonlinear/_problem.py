"""A Gaussian prediction under a nonlinear law in the coordinates of its search, with inequalities or without."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from probconserv._linalg.checks import require_finite_prior
from probconserv._linalg.gaussian import FieldGaussian, structure_of
from probconserv._linalg.roots import apply_roots
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError, InfeasibleConstraintError, InvalidArgumentError
from probconserv.inequalities.inequality import JoinedConstraint
from probconserv.inequalities.least_norm import least_norm
from probconserv.inequalities.most_probable import DEPENDENT, SEPARATED, UNMET, Programme, programmes_under
from probconserv.nonlinear._redundancy import independent_statements, selected
from probconserv.nonlinear._space import MatrixRows, Space, Structure, StructuredRows
from probconserv.nonlinear.law import NonlinearLaw
from probconserv.posterior import Posterior, posterior_of
from probconserv.prior import Parts

_ELASTICITY = 1e-2  # deviation of a linearised law that inequalities contradict, relative to that of the prior


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A prediction under a law, as the search sees it.

    Args:
        law: All that is stated.
        base: The Gaussian.
        rows: Linear rows that hold exactly in all coordinates, with redundant ones, or None.
        statements: The others, with redundant ones.
        chosen: Mask ``(k,)`` of the statements that are searched for.
        independent: Number of the rows and statements that are not redundant.
        inequalities: Inequalities that hold.
        space: The chosen statements in coordinates.
        start: The coordinates of the mean ``(*batch, r)``.
        admit: Makes a start admissible.
    """

    law: NonlinearLaw
    base: MultivariateNormal
    rows: LinearConstraint | None
    statements: NonlinearLaw
    chosen: Tensor
    independent: int
    inequalities: JoinedConstraint | None
    space: Space
    start: Tensor
    admit: Callable[[Tensor], Tensor] = lambda start: start


def problem_of(given: Parts, law: NonlinearLaw) -> Problem:
    """What prediction and law state together; errors are those of ``condition_on_field_of``."""
    base, rows, inequalities = given.gaussian, given.law, given.inequalities
    _check(law, base)
    stated = reduce(NonlinearLaw.__and__, [part for part in (rows, inequalities) if part is not None], law)
    if law.linear is not None and (rows is not None or not law.has_plain_rows):
        rows, law = law.linear if rows is None else rows & law.linear, replace(law, linear=None)
    exact = None if rows is None else posterior_of(base, rows, True).constraint
    known = 0 if exact is None else exact.b.shape[-1]
    covariance = structure_of(base)
    gaussian = FieldGaussian(base.mean.to(torch.float64), covariance.operator)
    gaussian = gaussian if exact is None or not known else Posterior(gaussian, exact)
    field_of, size = _coordinates(gaussian, torch.finfo(base.mean.dtype).eps)
    start = gaussian.mean.detach().new_zeros(*gaussian.batch_shape, size)
    chosen = independent_statements(law, covariance, field_of, start)
    searched = selected(law, chosen)
    structured = not known and covariance.is_independent and not gaussian.batch_shape
    structured = structured and _has_sparse_rows(searched, field_of(start))
    structure = Structure(covariance) if structured else None
    problem = Problem(
        law=stated,
        base=base,
        rows=rows,
        statements=law,
        chosen=chosen,
        independent=known + int(chosen.sum()),
        inequalities=stated.inequalities,
        space=Space(field_of=field_of, law=searched, structure=structure, tolerance=law.tolerance),
        start=start,
    )
    return problem if stated.inequalities is None else _within(problem, gaussian, stated.inequalities)


def _check(law: NonlinearLaw, base: MultivariateNormal) -> None:
    """Raises unless the law has the size and the batch of the prediction, which is finite."""
    if law.points != base.mean.shape[-1]:
        raise IncompatibleQueryError(
            f"The law acts on {law.points} points but the prediction has {base.mean.shape[-1]}; build both on one grid."
        )
    if law.batch_shape not in (torch.Size(), base.batch_shape):
        raise IncompatibleQueryError(
            f"The linear rows of the law have right-hand sides for a batch {tuple(law.batch_shape)} but the prediction "
            f"has the batch {tuple(base.batch_shape)}; give rows without batch axes, or one entry per prediction."
        )
    require_finite_prior(base.mean, structure_of(base).variance)


def _has_sparse_rows(law: NonlinearLaw, u: Tensor) -> bool:
    """Whether several statements are linearised at a field of no batch, and no derivatives are recorded."""
    values = law.statements(u.detach())
    tracked = torch.is_grad_enabled() and (u.requires_grad or values.requires_grad)
    return values.shape[-1] > 1 and not tracked


def _coordinates(gaussian: MultivariateNormal, epsilon: float) -> tuple[Callable[[Tensor], Tensor], int]:
    """The map from y ~ N(0, I) to the fields of a Gaussian, and the number of coordinates."""
    if isinstance(gaussian, Posterior):
        return lambda y: gaussian.rsample(base_samples=y), gaussian.base_sample_shape[0]
    mean, roots = gaussian.mean, structure_of(gaussian).roots(epsilon)
    if len(roots) == 1 and isinstance(roots[0], DiagLinearOperator):
        deviation = roots[0].diagonal()
        return lambda y: mean + y * deviation, deviation.shape[-1]
    size = sum(root.shape[-1] for root in roots)
    return lambda y: mean + apply_roots(roots, y[..., None, :])[..., 0, :], size


def _within(problem: Problem, gaussian: MultivariateNormal, inequalities: JoinedConstraint) -> Problem:
    """The problem with steps to the shortest coordinates on linearised law and inequalities."""
    field_of, zero = problem.space.field_of, problem.start
    base = gaussian.prior if isinstance(gaussian, Posterior) else gaussian
    (programmes, tracked), centre = programmes_under(base, inequalities), field_of(zero)
    if tracked or centre.requires_grad or problem.law.statements(centre).requires_grad:
        raise InvalidArgumentError(
            "Fields on a nonlinear law within inequalities have no derivatives; use torch.no_grad(), or no inequality."
        )
    with torch.no_grad():
        units = torch.eye(zero.shape[-1], dtype=zero.dtype, device=zero.device)
        root = torch.stack([field_of(unit.expand(zero.shape)) - centre for unit in units], dim=-1)
        places = centre.reshape(-1, centre.shape[-1]), root.reshape(-1, *root.shape[-2:])
        polyhedra = [_Polyhedron.of(*entry) for entry in zip(programmes, *places, strict=True)]

    def nearest(origin: Tensor, rows: Tensor, goal: Tensor, deviation: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        flat = [part.reshape(len(polyhedra), *part.shape[zero.ndim - 1 :]) for part in (origin, rows, goal)]
        found = [each.nearest(*entry, deviation) for each, *entry in zip(polyhedra, *flat, strict=True)]
        y, multipliers, active = (pad_sequence(list(part), True) for part in zip(*found, strict=True))
        batch = zero.shape[:-1]
        return y.reshape(zero.shape), multipliers.reshape(goal.shape), active.reshape(*batch, *active.shape[1:])

    def target(rows: MatrixRows | StructuredRows, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        E, along = rows.to_dense(), rows.applied(y)
        try:
            return nearest(zero, E, along - residual)
        except InfeasibleConstraintError:  # once it is linearised, no field meets the law together with them
            return nearest(zero, E, along - residual, _ELASTICITY)

    def admit(start: Tensor) -> Tensor:
        # Around the mode rather than the mean, which may be so far off that all draws project to one corner.
        none = zero.new_zeros(*zero.shape[:-1], 0, zero.shape[-1])
        mode = nearest(zero, none, none[..., 0])[0]
        return nearest(mode + start, none, none[..., 0])[0]

    return replace(problem, space=replace(problem.space, within=target), admit=admit)


@dataclass(frozen=True, eq=False)
class _Polyhedron:
    """Inequalities A y ≥ b and fixed values of one batch entry in coordinates.

    Args:
        fixed: Rows of fixed values ``(f, r)``; ``values`` is their right-hand side ``(f,)``.
        normals: A ``(m, r)``, rows of length one, and ``limits`` b ``(m,)``.
        rounding: That of the limits ``(m,)``.
    """

    fixed: Tensor
    values: Tensor
    normals: Tensor
    limits: Tensor
    rounding: Tensor

    @classmethod
    def of(cls, programme: Programme, centre: Tensor, root: Tensor) -> "_Polyhedron":
        """That of a programme, where u = centre + root y."""
        normals, own = programme.inequalities @ root, programme.directions[1]
        length = torch.linalg.vector_norm(normals, dim=-1)
        free = length > DEPENDENT * own
        gap = programme.limits - programme.inequalities @ centre
        if bool((gap[~free] > SEPARATED * (centre.abs().max() + programme.limits.abs().max())).any()):
            raise InfeasibleConstraintError(UNMET)
        fixed, values, scale = programme.rows @ root, programme.target - programme.rows @ centre, length[free]
        size = torch.linalg.vector_norm(programme.rows @ programme.root, dim=-1)
        moves = torch.linalg.vector_norm(fixed, dim=-1) > DEPENDENT * size
        limits, rounding = (part[free] / scale for part in (gap, programme.rounding(centre)))
        return cls(fixed[moves], values[moves], normals[free] / scale[:, None], limits, rounding)

    def nearest(self, origin: Tensor, rows: Tensor, goal: Tensor, deviation: float) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest point to an origin with rows y = goal, the multipliers of these, and the rows of what is active.

        Rows of inequalities that are not active are zero. Rows may be missed by a deviation, relative to the prior's.
        """
        E, goal, normals, size = (
            torch.cat([rows, self.fixed]),
            torch.cat([goal, self.values]),
            self.normals,
            len(origin),
        )
        if deviation:
            elastic = torch.diag(deviation * torch.linalg.vector_norm(E, dim=-1))
            E, normals = torch.cat([E, elastic], dim=-1), pad(normals, (0, len(E)))
            origin = pad(origin, (0, len(E)))
        length = torch.linalg.vector_norm(E, dim=-1)
        stated = (
            E / length[:, None],
            (goal - E @ origin) / length,
            normals,
            self.limits - normals @ origin,
            self.rounding,
        )
        found = least_norm(*(part.numpy(force=True) for part in stated))
        change, multipliers = (torch.as_tensor(part, device=origin.device) for part in found)
        active = torch.cat([self.fixed, self.normals * (multipliers[len(E) :] > 0)[:, None]])
        return (origin + change)[:size], (multipliers[: len(E)] / length)[: len(rows)], active
