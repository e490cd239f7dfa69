"""The most probable field under law and inequalities for any Σ: a small dense quadratic programme per field.

With C u ≥ d the inequalities,

    minimise (u − m)ᵀ Σ′⁺ (u − m)   subject to   C u ≥ d,   u − m in the range of Σ′

where m and Σ′ are mean and covariance conditioned on the rows. With Σ′ = R′ R′ᵀ it is the least ‖z‖ with
C R′ z ≥ d − C m, a problem with a diagonal metric. The inequalities found active are then exact rows, and the field is
the linear update by rows and active inequalities together. Truncated Gaussians and nonlinear laws start from it; the
projection of draws does not need it.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_dense
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator
from torch import Tensor

from probconserv._linalg.covariance import Covariance, covariance_of
from probconserv._linalg.gain import factorise
from probconserv._linalg.gaussian import structure_of
from probconserv.errors import InfeasibleConstraintError
from probconserv.inequalities._feasible import FeasibleSet, feasible_set
from probconserv.inequalities.inequality import JoinedConstraint
from probconserv.inequalities.least_norm import least_norm

DEPENDENT = 1e-10  # relative to an inequality's prior standard deviation; below it the rows determine its value
SEPARATED = 1e-9  # relative violation beyond rounding
_ROUNDING = 16 * torch.finfo(torch.float64).eps  # of a value of an inequality, relative to its terms
UNMET = (
    "Law and prior determine a value that violates a bound or the order; correct the right-hand sides, the bounds or "
    "the prior variance."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Programme:
    """The programme of one batch entry.

    Args:
        covariance: Σ ``(n, n)``.
        root: R with R Rᵀ = Σ ``(n, r)``, without gradients.
        rows: G ``(k, n)``, with a row for every fixed value; ``target`` is b and ``noise`` σ² ``(k,)``.
        inequalities: C ``(m, n)``; ``limits`` is d ``(m,)``.
        epsilon: Machine epsilon of the prior's dtype.
    """

    covariance: Covariance
    root: Tensor
    rows: Tensor
    target: Tensor
    noise: Tensor
    inequalities: Tensor
    limits: Tensor
    epsilon: float

    @cached_property
    def conditioned_root(self) -> Tensor:
        """R′ with R′ R′ᵀ = Σ′ ``(n, r + k)``."""
        rows, k = self.rows.detach(), self.rows.shape[0]
        root = torch.cat([self.root, self.root.new_zeros(len(self.root), k)], dim=1)
        if not k:
            return root
        measured = torch.cat([rows @ self.root, torch.diag(self.noise.detach().sqrt())], dim=1)
        basis = torch.linalg.qr(measured.mT).Q
        return root - (root @ basis) @ basis.mT

    @cached_property
    def directions(self) -> tuple[Tensor, Tensor]:
        """C R′ with rows of length one ``(m, r + k)``, and these lengths; zero where the rows determine C u."""
        directions = self.inequalities @ self.conditioned_root
        length = torch.linalg.vector_norm(directions, dim=1)
        free = length > DEPENDENT * torch.linalg.vector_norm(self.inequalities @ self.root, dim=1)
        length = torch.where(free, length, 0.0)
        return directions / torch.where(free, length, 1.0)[:, None] * free[:, None], length

    def rounding(self, u: Tensor) -> Tensor:
        """That of d − C u ``(m,)``."""
        return _ROUNDING * (self.inequalities.abs() @ u.abs() + self.limits.abs())

    def tightened(self, margin: float) -> "Programme":
        """The programme with every inequality tightened by a multiple of its standard deviation given the rows."""
        return replace(self, limits=self.limits + margin * self.directions[1])

    def solve(self, x: Tensor, active: Tensor) -> Tensor:
        """The field on the rows and the active inequalities."""
        rows = torch.cat([self.rows, self.inequalities[active]])
        if not len(rows):
            return x
        noise = torch.cat([self.noise, self.noise.new_zeros(len(rows) - len(self.noise))])
        target = torch.cat([self.target, self.limits[active]])
        gain = factorise(self.covariance, rows, noise, self.epsilon)
        return gain.correct(x[None], target[None])[0]

    def find_active(self, x: Tensor) -> Tensor:
        """The inequalities that hold with equality at the minimiser and are independent ``(m,)``.

        They are those of the least z with C R′ z ≥ d − C m, found by ``least_norm``.
        """
        u, (directions, length) = self.solve(x, torch.zeros(len(self.limits), dtype=torch.bool)), self.directions
        gap, free = self.limits - self.inequalities @ u, length > 0
        if bool((gap[~free] > SEPARATED * (u.abs().max() + self.limits.abs().max())).any()):
            raise InfeasibleConstraintError(UNMET)
        active = torch.zeros_like(free)
        if not bool((gap[free] > 0).any()):
            return active
        parts = directions[free], *(part[free] / length[free] for part in (gap, self.rounding(u)))
        try:
            none = directions[:0].numpy(force=True)
            multipliers = least_norm(none, none[:, 0], *(part.numpy(force=True) for part in parts))[1]
        except InfeasibleConstraintError as error:
            raise InfeasibleConstraintError(
                "No field of this prior meets law and inequalities together. Correct the right-hand sides or the "
                "bounds; a prior made of samples covers only the span of its samples (noise_variance > 0 widens it)."
            ) from error
        active[free] = torch.as_tensor(multipliers > 0, device=active.device)
        return active


def most_probable(prior: MultivariateNormal, constraint: JoinedConstraint) -> Tensor:
    """argmin (u − μ)ᵀ Σ⁻¹ (u − μ) + Σ_i (G u − b)_i²/σ_i² over the fields that meet exact rows and inequalities.

    Fields ``(*batch, n)``, float64, differentiable through the linear update by rows and active inequalities, with the
    active set fixed. Σ may be singular; then u − μ stays in its range.

    Raises:
        InfeasibleConstraintError: If no field meets law and inequalities.
        DependentConstraintsError: If rows and active inequalities are not independent under the prior.
        ConvergenceError: If the active set keeps changing.
    """
    feasible = feasible_set(prior, constraint)
    prior, mean = feasible.prior, feasible.prior.mean.to(torch.float64)
    if structure_of(prior).is_independent:
        return feasible.nearest(mean[None], feasible.target[None])[0]
    fields = []
    for programme, x in zip(programmes_of(feasible), mean.reshape(-1, mean.shape[-1]), strict=True):
        with torch.no_grad():
            active = programme.find_active(x)
        fields.append(programme.solve(x, active))
    return feasible.clamp_roundoff(torch.stack(fields).reshape(mean.shape)) if fields else mean


def programmes_under(prior: MultivariateNormal, constraint: JoinedConstraint) -> tuple[list[Programme], bool]:
    """One programme per batch entry, and whether derivatives are recorded; errors are those of ``most_probable``."""
    feasible = feasible_set(prior, constraint)
    return programmes_of(feasible), feasible.is_tracked


def programmes_of(feasible: FeasibleSet) -> list[Programme]:
    """One programme per batch entry."""
    prior = feasible.prior
    law, covariance = feasible.constraint.law, structure_of(prior)
    batch, n = prior.batch_shape, prior.event_shape[0]
    count, k = batch.numel(), 0 if law is None else law.b.shape[-1]
    epsilon = torch.finfo(prior.mean.dtype).eps

    def flat(values: Tensor, *own: int) -> Tensor:
        return values.to(prior.mean.device).expand(*batch, *own).reshape(count, *own)

    with torch.no_grad():
        roots = [to_dense(root) for root in covariance.detached().roots(epsilon)]
        root = torch.cat([part.expand(*batch, *part.shape[-2:]) for part in roots], dim=-1)
        root = root.reshape(count, n, -1)
    if covariance.is_independent:
        parts = [covariance_of(DiagLinearOperator(v)) for v in flat(covariance.variance, n)]
    else:
        parts = [covariance_of(DenseLinearOperator(s)) for s in flat(covariance.to_dense(), n, n)]
    rows = prior.mean.new_zeros(count, 0, n, dtype=torch.float64) if law is None else flat(law.rows, k, n)
    target, noise = flat(feasible.target[..., :k], k), flat(feasible.noise[..., :k], k)
    lower, upper = flat(feasible.lower, n), flat(feasible.upper, n)
    free = flat(feasible.variance > 0, n)
    programmes = []
    for j in range(count):
        fixed = free[j] & (lower[j] == upper[j])
        active = (rows[j] * ~fixed).any(dim=-1)
        inequalities, limits = _stack(j, (lower[j], upper[j]), free[j] & ~fixed, feasible)
        unit = torch.eye(n, dtype=torch.float64, device=root.device)[fixed]
        programmes.append(
            Programme(
                covariance=parts[j],
                root=root[j],
                rows=torch.cat([rows[j][active], unit]),
                target=torch.cat([target[j][active], lower[j][fixed]]),
                noise=torch.cat([noise[j][active], noise.new_zeros(len(unit))]),
                inequalities=inequalities,
                limits=limits,
                epsilon=epsilon,
            )
        )
    return programmes


def _stack(entry: int, bounds: tuple[Tensor, Tensor], free: Tensor, feasible: FeasibleSet) -> tuple[Tensor, Tensor]:
    """C and d of finite bounds at points with positive variance, of the order, and of −A u ≥ −c."""
    lower, upper = bounds
    constraint, n = feasible.constraint, len(lower)
    unit = torch.eye(n, dtype=torch.float64, device=lower.device)
    below, above = free & torch.isfinite(lower), free & torch.isfinite(upper)
    inequalities, limits = [unit[below], -unit[above]], [lower[below], -upper[above]]
    if constraint.order:
        index = constraint.split(torch.arange(n, device=lower.device))
        index = index.flip(-1) if constraint.order < 0 else index
        first, second = index[..., :-1].flatten(), index[..., 1:].flatten()
        pairs = free[first] | free[second]
        inequalities.append((unit[second] - unit[first])[pairs])
        limits.append(lower.new_zeros(int(pairs.sum())))
    if constraint.rows is not None:
        A = constraint.rows.A if isinstance(constraint.rows.A, Tensor) else constraint.rows.A.to_dense()
        inequalities.append(-A.expand(*feasible.target.shape[:-1], *A.shape[-2:]).reshape(-1, *A.shape[-2:])[entry])
        limits.append(-feasible.target[..., -A.shape[-2] :].reshape(-1, A.shape[-2])[entry])
    return torch.cat(inequalities), torch.cat(limits)
