"""Projection onto a law and inequalities for any Σ and any number of rows: a small dense quadratic programme per field.

With C u ≥ d the bounds and the order,

    minimise (u − m)ᵀ Σ′⁺ (u − m)   subject to   C u ≥ d,   u − m in the range of Σ′

where m and Σ′ are field and covariance conditioned on the rows. With Σ′ = R′ R′ᵀ it is the least ‖z‖ with
C R′ z ≥ d − C m, which Lawson & Hanson (1974, ch. 23) turn into non-negative least squares. The inequalities found
active are then exact rows, and the field is the linear update by rows and active inequalities together; a
primal-dual active set iteration confirms them.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from linear_operator import to_dense
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator, LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import square_roots
from probconserv._linalg.gain import factorise
from probconserv.errors import ConvergenceError, InfeasibleConstraintError
from probconserv.inequalities._feasible import FeasibleSet, settle

_ITERATIONS = 50
_SLACK = 1e-13  # largest violation due to rounding, relative to the largest number in field, draw and bounds
_DEPENDENT = 1e-10  # relative to an inequality's prior standard deviation; below it the rows determine its value
_SEPARATED = 1e-9  # least-squares residual below which no field meets the inequalities


@dataclass(frozen=True, kw_only=True, eq=False)
class _Programme:
    """The programme of one batch entry.

    Args:
        covariance: Σ ``(n, n)``.
        root: R with R Rᵀ = Σ ``(n, r)``, without gradients.
        rows: G ``(k, n)``.
        noise: σ² ``(k,)``.
        inequalities: C ``(m, n)``.
        limits: d ``(m,)``.
        epsilon: Machine epsilon of the prior's dtype.
        kept: Which rows of the law are among the rows ``(k of the law,)``.
        fixed_values: Right-hand sides of the other rows, each of which fixes one value.
    """

    covariance: LinearOperator
    root: Tensor
    rows: Tensor
    noise: Tensor
    inequalities: Tensor
    limits: Tensor
    epsilon: float
    kept: Tensor
    fixed_values: Tensor

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
        free = length > _DEPENDENT * torch.linalg.vector_norm(self.inequalities @ self.root, dim=1)
        length = torch.where(free, length, 0.0)
        return directions / torch.where(free, length, 1.0)[:, None] * free[:, None], length

    def tightened(self, margin: float) -> "_Programme":
        """The programme with every inequality tightened by a multiple of its standard deviation given the rows."""
        return replace(self, limits=self.limits + margin * self.directions[1])

    def solve(self, x: Tensor, target: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """The field on the rows and the active inequalities, and the multipliers ν of the latter."""
        rows = torch.cat([self.rows, self.inequalities[active]])
        if not len(rows):
            return x, x.new_zeros(0)
        noise = torch.cat([self.noise, self.noise.new_zeros(len(rows) - len(self.noise))])
        target = torch.cat([target, self.limits[active]])
        gain = factorise(self.covariance, rows, noise, self.epsilon)
        u = gain.correct(x[None], target[None])[0]
        multipliers = -gain.multipliers(((rows @ x) - target)[None])[0]
        return u, multipliers[len(self.rows) :]

    def guess(self, u: Tensor) -> Tensor:
        """Active inequalities ``(m,)`` by non-negative least squares, from the field ``u`` on the rows."""
        from scipy.optimize import nnls  # slow to import, rarely needed

        directions, length = self.directions
        gap = self.limits - self.inequalities @ u
        free = length > 0
        if bool((gap[~free] > _SEPARATED * (u.abs().max() + self.limits.abs().max())).any()):
            raise InfeasibleConstraintError(
                "Law and prior determine a value that violates a bound or the order; correct the right-hand sides, the "
                "bounds or the prior variance."
            )
        distance = torch.where(free, gap / torch.where(free, length, 1.0), 0.0)
        scaled = distance / distance.max().clamp_min(torch.finfo(torch.float64).tiny)
        matrix = torch.cat([directions[free].mT, scaled[free][None]]).numpy(force=True)
        goal = torch.zeros(matrix.shape[0], dtype=torch.float64)
        goal[-1] = 1.0
        try:
            weights, residual = nnls(matrix, goal.numpy(), maxiter=10 * matrix.shape[1] + 100)
        except RuntimeError as error:
            raise ConvergenceError(f"Non-negative least squares on {matrix.shape[1]} inequalities: {error}.") from error
        if residual < _SEPARATED:
            raise InfeasibleConstraintError(
                "No field of this prior meets law and inequalities together. Correct the right-hand sides or the "
                "bounds; a prior made of samples covers only the span of its samples (noise_variance > 0 widens it)."
            )
        active = torch.zeros_like(free)
        active[free] = torch.as_tensor(weights > 0, device=free.device)
        return active

    def find_active(self, x: Tensor, target: Tensor) -> Tensor:
        """The inequalities that hold with equality at the minimiser ``(m,)``."""
        active = torch.zeros(len(self.limits), dtype=torch.bool, device=x.device)
        size, excess = torch.cat([x, self.limits]).abs().max(), x
        for iteration in range(_ITERATIONS):
            u, multipliers = self.solve(x, target, active)
            excess = self.limits - self.inequalities @ u
            violated = excess > _SLACK * (size + u.abs().max())
            released = torch.zeros_like(active)
            if len(multipliers):
                released[active] = multipliers < -_SEPARATED * multipliers.abs().max()
            if not bool((violated & ~active).any() | released.any()):
                return active
            active = self.guess(u) if iteration == 0 else (active | violated) & ~released
        raise ConvergenceError(
            f"The active set still changed after {_ITERATIONS} steps, with a largest violation of "
            f"{float(excess.max()):.3g}; the prior covariance is too ill-conditioned for these inequalities."
        )


def project_general(
    fields: Float[Tensor, "s *batch n"], target: Float[Tensor, "s *batch k"], feasible: FeasibleSet
) -> Float[Tensor, "s *batch n"]:
    """argmin (u − x)ᵀ Σ⁻¹ (u − x) + Σ_i (G u − b)_i²/σ_i² over the set, for every field x, one after the other.

    Differentiable through the linear update by rows and active inequalities, with the active set fixed.

    Args:
        fields: x, float64.
        target: b of every field.
        feasible: The set; Σ may be singular, then u − x stays in its range.

    Returns:
        Projections.

    Raises:
        InfeasibleConstraintError: If no field meets law and inequalities.
        DependentConstraintsError: If rows and active inequalities are not independent under the prior.
        ConvergenceError: If the active set does not settle.
    """
    programmes = programmes_of(feasible.reduced)
    projected = []
    for row, (x, b) in enumerate(zip(fields.flatten(0, -2), target.flatten(0, -2), strict=True)):
        programme = programmes[row % len(programmes)]
        b = torch.cat([b[programme.kept], programme.fixed_values])
        with torch.no_grad():
            active = programme.find_active(x, b)
        projected.append(programme.solve(x, b, active)[0])
    return settle(torch.stack(projected).reshape(fields.shape), feasible.reduced)


def programmes_of(feasible: FeasibleSet) -> list[_Programme]:
    """One programme per batch entry."""
    batch, n = feasible.target.shape[:-1], feasible.rows.shape[-1]
    count, k = batch.numel(), feasible.rows.shape[-2]
    covariance = feasible.covariance
    with torch.no_grad():
        roots = [to_dense(root) for root in square_roots(covariance.detach(), feasible.epsilon)]
        root = torch.cat([part.expand(*batch, *part.shape[-2:]) for part in roots], dim=-1)
        root = root.reshape(count, n, -1)
    if isinstance(covariance, DiagLinearOperator):
        parts = [DiagLinearOperator(v) for v in covariance.diagonal().expand(*batch, n).reshape(count, n)]
    else:
        parts = [DenseLinearOperator(s) for s in covariance.to_dense().expand(*batch, n, n).reshape(count, n, n)]
    rows = feasible.rows.expand(*batch, k, n).reshape(count, k, n)
    noise = feasible.noise.reshape(count, k)
    lower, upper = (bound.expand(*batch, n).reshape(count, n) for bound in (feasible.lower, feasible.upper))
    free = (feasible.variance > 0).expand(*batch, n).reshape(count, n)
    programmes = []
    for j in range(count):
        fixed = free[j] & (lower[j] == upper[j])
        kept = (rows[j] * ~fixed).any(dim=-1)
        _check_determined(rows[j][~kept], feasible.target.reshape(count, k)[j][~kept], lower[j])
        inequalities, limits = _stack(lower[j], upper[j], free[j] & ~fixed, feasible)
        unit = torch.eye(n, dtype=torch.float64, device=root.device)[fixed]
        programmes.append(
            _Programme(
                covariance=parts[j],
                root=root[j],
                rows=torch.cat([rows[j][kept], unit]),
                noise=torch.cat([noise[j][kept], noise.new_zeros(len(unit))]),
                inequalities=inequalities,
                limits=limits,
                epsilon=feasible.epsilon,
                kept=kept,
                fixed_values=lower[j][fixed],
            )
        )
    return programmes


def _check_determined(rows: Tensor, target: Tensor, values: Tensor) -> None:
    """Rows that weigh fixed values only must hold for them."""
    values = torch.where((rows != 0).any(dim=0), values, 0.0)
    size = target.abs() + rows.abs() @ values.abs()
    if bool(((rows @ values - target).abs() > 1e-12 * size).any()):
        raise InfeasibleConstraintError(
            "The bounds, or a row that requires the smallest or largest total they allow, determine a field that "
            "violates another row; correct the right-hand sides or the bounds."
        )


def _stack(lower: Tensor, upper: Tensor, free: Tensor, feasible: FeasibleSet) -> tuple[Tensor, Tensor]:
    """C and d of finite bounds at points with positive variance, and of the order."""
    unit = torch.eye(len(lower), dtype=torch.float64, device=lower.device)
    below, above = free & torch.isfinite(lower), free & torch.isfinite(upper)
    inequalities, limits = [unit[below], -unit[above]], [lower[below], -upper[above]]
    if feasible.order:
        index = feasible.arranged(torch.arange(len(lower), device=lower.device))
        first, second = index[..., :-1].flatten(), index[..., 1:].flatten()
        pairs = free[first] | free[second]
        inequalities.append((unit[second] - unit[first])[pairs])
        limits.append(lower.new_zeros(int(pairs.sum())))
    return torch.cat(inequalities), torch.cat(limits)
