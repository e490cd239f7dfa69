"""Bounds on fields with structured rows or a low-rank covariance: no matrix of the field's size squared.

With Σ = D + R Rᵀ, D diagonal, a field is u = x + R z + e with z ~ N(0, I), e ~ N(0, D), and the projection is

    min_z ½|z|² + ½ min_u (u − x − R z)ᵀ D⁻¹ (u − x − R z)    over u on the rows and between the bounds.

The inner problem falls apart into one search for a multiplier per row, since every point is in at most one row. The
outer one is convex, smooth and piecewise quadratic in the few numbers z: Newton's method, whose step is the exact
solution on the present piece, with the points at a bound fixed. That solution is also what derivatives come from.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator, LinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.covariance import as_double
from probconserv._linalg.rows import BlockRows, Rows, SparseRows, as_sparse_rows
from probconserv._linalg.structured import split, splits
from probconserv._linalg.values import cached
from probconserv.errors import ConvergenceError, InfeasibleConstraintError, InvalidArgumentError
from probconserv.inequalities._feasible import _all_finite, _check_fixed
from probconserv.inequalities.inequality import JoinedConstraint

LARGE = 1024  # points up to which a dense programme is solved where there is a choice
_ITERATIONS, _HALVINGS = 100, 40
_ROUNDING = 1e-13  # relative; a total this far outside the feasible interval is moved to its end
_TOLERANCE = 1e-12  # of a row's residual relative to |b| + Σ|w u|, and of z


@dataclass(frozen=True, kw_only=True, eq=False)
class StructuredSet:
    """{G u = b + ε, lower ≤ u ≤ upper} for disjoint rows, in the metric (D + R Rᵀ)⁻¹; see ``structured_set``.

    Args:
        variance: diag Σ ``(*batch, n)``.
        metric: D ``(*batch, n)``, zero only where Σ is.
        root: Rᵀ ``(*batch, r, n)``; r may be 0.
        law: G; without a law a row of zeros, which nothing has to meet.
        target: b ``(*batch, k)``.
        noise: σ² ``(*batch, k)``.
        lower: Lower bounds ``(*batch, n)``, or ``(n,)`` for all.
        upper: Upper bounds, likewise.
    """

    variance: Tensor
    metric: Tensor
    root: Tensor
    law: Rows
    target: Tensor
    noise: Tensor
    lower: Tensor
    upper: Tensor

    @cached
    def _sparse(self) -> SparseRows:
        return as_sparse_rows(self.law)

    @property
    def rows(self) -> Tensor:
        """The entries of G."""
        return self.law.entries

    def settled(self, u: Tensor) -> Tensor:
        """Restores bounds that rounding violates; see ``settle``."""
        inside = torch.minimum(torch.maximum(u.detach(), self.lower), self.upper).detach()
        return inside + (u - u.detach()) if u.requires_grad else inside

    def project(self, fields: Tensor, target: Tensor) -> Tensor:
        """The projections of fields ``(s, *batch, n)`` with totals ``(s, *batch, k)``.

        Raises:
            ConvergenceError: If the iteration does not settle, or float64 cannot resolve the scales.
        """
        with torch.no_grad():
            latent = self._latent(fields, target)
            u = self._separable(fields + self._shift(latent), target)
        tensors = (fields, target, self.variance, self.metric, self.root, self.rows, self.lower, self.upper)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            smooth = self._on_piece(fields, target, u)[1]
            u = u + (smooth - smooth.detach())
        return u

    def _latent(self, x: Tensor, target: Tensor) -> Tensor:
        """z at the minimum ``(s, *batch, r)``."""
        latent = x.new_zeros(*x.shape[:-1], self.root.shape[-2])
        if not self.root.shape[-2]:
            return latent
        u = self._separable(x, target)
        value = self._objective(latent, x, target, u)
        for _ in range(_ITERATIONS):
            step = self._on_piece(x, target, u)[0] - latent
            settled = step.abs().amax(dim=-1) <= _TOLERANCE * (1 + latent.abs().amax(dim=-1))
            if bool(settled.all()):
                return latent
            step = torch.where(settled[..., None], 0.0, step)
            latent, u, value = self._descend((latent, u, value), step, x, target)
        raise ConvergenceError(
            f"The projection onto the bounds did not settle in {_ITERATIONS} steps; the added variance is too small "
            "beside that of the members for float64. Raise noise_variance."
        )

    def _descend(
        self, state: tuple[Tensor, Tensor, Tensor], step: Tensor, x: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """z, u and the objective after the step, halved where that does not lower the objective enough."""
        latent, u, value = state
        slope, fraction = self._slope(latent, x, u, step), torch.ones_like(value)
        for _ in range(_HALVINGS):
            proposed = latent + fraction[..., None] * step
            u = self._separable(x + self._shift(proposed), target)
            lower = self._objective(proposed, x, target, u)
            # The last term is the rounding of the objective, which hides the descent near the minimum.
            missed = lower > value + 1e-4 * fraction * slope + 1e-13 * (1 + value)
            if not bool(missed.any()):
                return proposed, u, lower
            fraction = torch.where(missed, 0.5 * fraction, fraction)
        return latent, self._separable(x + self._shift(latent), target), value

    def _shift(self, latent: Tensor) -> Tensor:
        return (latent[..., None, :] @ self.root)[..., 0, :]

    def _pull(self, latent: Tensor, x: Tensor, u: Tensor) -> Tensor:
        """D⁻¹ (u − x − R z), zero where Σ is."""
        free = self.metric > 0
        return torch.where(free, u - x - self._shift(latent), 0.0) / torch.where(free, self.metric, 1.0)

    def _objective(self, latent: Tensor, x: Tensor, target: Tensor, u: Tensor) -> Tensor:
        pull = self._pull(latent, x, u)
        missed = self.law.functional(u[..., None, :])[..., 0, :] - target
        noisy = self.noise > 0
        misfit = torch.where(noisy, missed.square() / torch.where(noisy, self.noise, 1.0), 0.0).sum(dim=-1)
        return 0.5 * (latent.square().sum(dim=-1) + (self.metric * pull.square()).sum(dim=-1) + misfit)

    def _slope(self, latent: Tensor, x: Tensor, u: Tensor, step: Tensor) -> Tensor:
        """Derivative of the objective along the step, which is negative."""
        gradient = latent - (self.root @ self._pull(latent, x, u)[..., None])[..., 0]
        return (gradient * step).sum(dim=-1)

    def _on_piece(self, x: Tensor, target: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """z and the field as smooth functions of the data, with the points at a bound those of ``u``."""
        at_lower = u <= self.lower
        free = ~(at_lower | (u >= self.upper))
        held = torch.where(at_lower, self.lower, torch.where(free, 0.0, self.upper))
        loose = torch.where(free, self.metric, 0.0)
        stiffness = self.law.gram(loose) + self.noise
        stiffness = torch.where(stiffness == 0, 1.0, stiffness)
        excess = self.law.functional(torch.where(free, x, held)[..., None, :])[..., 0, :] - target
        latent = x.new_zeros(*x.shape[:-1], self.root.shape[-2])
        if self.root.shape[-2]:
            functional = self.law.functional(torch.where(free[..., None, :], self.root, 0.0))
            stiff = ~free & (self.metric > 0)
            precision = torch.where(stiff, 1.0 / torch.where(stiff, self.metric, 1.0), 0.0)[..., None, :]
            hessian = torch.eye(self.root.shape[-2], dtype=x.dtype, device=x.device)
            hessian = hessian + (self.root * precision) @ self.root.mT
            hessian = hessian + (functional / stiffness[..., None, :]) @ functional.mT
            held_back = torch.where(stiff, held - x, 0.0)[..., None]
            goal = (self.root * precision) @ held_back - functional @ (excess / stiffness)[..., None]
            latent = torch.linalg.solve(hessian, goal)[..., 0]
            x = x + self._shift(latent)
            excess = excess + (functional.mT @ latent[..., None])[..., 0]
        multipliers = (excess / stiffness)[..., None, :]
        field = self.law.subtract(x[..., None, :], loose, multipliers)[..., 0, :]
        return latent, torch.where(free, field, held)

    def _separable(self, x: Tensor, target: Tensor) -> Tensor:
        """argmin (u − x)ᵀ D⁻¹ (u − x) on rows and bounds, on the CPU wherever the fields are."""
        from probconserv.inequalities._segments import project_segments  # numba, slow to import

        n, k = x.shape[-1], target.shape[-1]
        rows, batch = self._sparse, x.shape[1:-1]
        bounds = torch.stack([self.lower, self.upper], dim=-2)
        bounds = bounds if bounds.ndim == 2 else bounds.expand(*batch, 2, n)
        law = torch.stack(torch.broadcast_tensors(target, self.noise), dim=-2)
        entries = rows.entries if rows.entries.ndim == 1 else rows.entries.expand(*batch, rows.entries.shape[-1])
        u, worst = project_segments(
            _array(x, n),
            _array(self.metric.expand(*batch, n), n),
            _array(bounds, 2, n),
            _array(law, 2, k),
            (rows.starts, rows.column.numpy(force=True), _array(entries, entries.shape[-1])),
        )
        if not worst <= _TOLERANCE:
            raise ConvergenceError(
                f"The law is missed by {worst:.3g} of |b| + Σ|w u| (required {_TOLERANCE:g}): the prior is further "
                "from the inequalities than float64 resolves. Check means and variances of the prior."
            )
        return torch.as_tensor(u, device=x.device).reshape(x.shape)


def structured_set(prior: MultivariateNormal, constraint: JoinedConstraint) -> StructuredSet | None:
    """The set for priors and laws whose structure can be kept, checked for a field that exists.

    Args:
        prior: N(μ, Σ) with the full batch of both.
        constraint: Law and bounds on its points.

    Returns:
        The set; None where the small dense programmes of ``feasible_set`` are to be used.

    Raises:
        InvalidArgumentError: If the prior is not finite or has a negative variance, or structured rows meet a prior or
            an order for which only a dense programme of more than a thousand points would do.
        InfeasibleConstraintError: If no field exists, or the span of a few samples cannot be expected to hold one.
    """
    covariance = as_double(prior.lazy_covariance_matrix)
    rows = _disjoint_rows(constraint, prior.event_shape[-1])
    structured_law = constraint.law is not None and isinstance(constraint.law.G, Rows)
    large = prior.event_shape[-1] > LARGE
    _refuse_what_only_dense_programmes_solve(covariance, constraint, large)
    keeps = rows is not None and constraint.order == 0 and splits(covariance)
    plain = isinstance(covariance, DiagLinearOperator) and not structured_law
    if not keeps or plain or not (structured_law or large):
        if structured_law and large:
            raise InvalidArgumentError(
                f"Inequalities on {prior.event_shape[-1]} points with these rows need rows that share no point, no "
                "order, and a prior with independent values or samples with noise_variance; got rows that overlap, an "
                "order, or another covariance."
            )
        return None
    assert rows is not None
    metric, root = split(covariance)
    mean, variance = prior.mean.to(torch.float64), covariance.diagonal()
    _check_prior(mean, metric, root)
    return _with_attainable_target(_assemble(mean, constraint, rows, (variance, metric, root)))


def _disjoint_rows(constraint: JoinedConstraint, n: int) -> Rows | None:
    """The law as rows that share no point; a row of zeros without a law."""
    law = constraint.law
    if law is None:
        return BlockRows(counts=(1,), sizes=(n,), entries=torch.zeros(n, dtype=torch.float64))
    if isinstance(law.G, Rows):
        return law.G if law.G.is_disjoint else None
    return BlockRows(counts=(1,), sizes=(n,), entries=law.rows[..., 0, :]) if law.G.shape[-2] == 1 else None


def _refuse_what_only_dense_programmes_solve(
    covariance: LinearOperator, constraint: JoinedConstraint, large: bool
) -> None:
    if not (large and isinstance(covariance, RootLinearOperator)):
        return
    bounds = torch.stack(torch.broadcast_tensors(constraint.lower, constraint.upper))
    if constraint.order or bool(torch.isfinite(bounds).any()):
        rank, n = covariance.root.shape[-1], covariance.shape[-1]
        raise InfeasibleConstraintError(
            f"The prior covers only the span of {rank} samples, which cannot meet inequalities at {n} points in "
            "general. Give the samples variance of their own: from_samples(samples, noise_variance=...)."
        )


def _check_prior(mean: Tensor, metric: Tensor, root: Tensor) -> None:
    if not all(_all_finite(part) for part in (mean, metric, root)) or (metric.detach() < 0).any():
        raise InvalidArgumentError(
            "The prior must be finite with variances that are not negative; repair the prediction before conditioning."
        )
    if root.shape[-2] and bool(((metric == 0) & (root != 0).any(dim=-2)).any()):
        raise InvalidArgumentError(
            "Samples under inequalities need a noise variance above 0 at every point where they differ."
        )


def _assemble(
    mean: Tensor, constraint: JoinedConstraint, rows: Rows, parts: tuple[Tensor, Tensor, Tensor]
) -> StructuredSet:
    variance, metric, root = parts
    bounds = torch.broadcast_tensors(constraint.lower.to(mean.device), constraint.upper.to(mean.device))
    lower, upper = (bound.expand(*bound.shape[:-1], mean.shape[-1]) for bound in bounds)
    fixed = variance == 0
    if bool(fixed.any()):
        _check_fixed(mean, fixed, lower, upper)
        lower, upper = (torch.where(fixed, mean, bound) for bound in (lower, upper))
    law, zero = constraint.law, mean.new_zeros(1)
    shape = (*mean.shape[:-1], rows.shape[-2])
    return StructuredSet(
        variance=variance,
        metric=metric,
        root=root,
        law=rows.to(mean.device),
        target=(zero if law is None else law.b).expand(shape),
        noise=(zero if law is None else law.noise).expand(shape),
        lower=lower,
        upper=upper,
    )


def _with_attainable_target(feasible: StructuredSet) -> StructuredSet:
    """Checks every exact total against the bounds; where it is an end of the interval, the bounds close on that end."""
    if bool((feasible.lower > feasible.upper).any()):
        raise InfeasibleConstraintError("Bounds and the values at zero-variance points contradict each other.")
    smallest = _extreme(feasible.law, feasible.lower, feasible.upper)
    largest = -_extreme(feasible.law, -feasible.upper, -feasible.lower)
    exact, target = feasible.noise == 0, feasible.target
    smallest, largest = smallest.expand(target.shape), largest.expand(target.shape)
    scale = target.abs() + sum(torch.where(torch.isfinite(end), end.abs(), 0.0) for end in (smallest, largest))
    outside = exact & ((target < smallest - _ROUNDING * scale) | (target > largest + _ROUNDING * scale))
    if bool(outside.any()):
        index = tuple(int(i) for i in outside.nonzero()[0])
        raise InfeasibleConstraintError(
            f"Row {index[-1]} of the law asks for {float(target[index]):g} (batch entry {index[:-1]}), but fields that "
            f"meet the inequalities have between {float(smallest[index]):g} and {float(largest[index]):g}; correct the "
            "total or the bounds."
        )
    moved = torch.where(exact, torch.minimum(torch.maximum(target, smallest), largest), target)
    lower, upper = feasible.lower, feasible.upper
    for sign, end in ((1.0, smallest), (-1.0, largest)):
        at_end = exact & (moved == end)
        if bool(at_end.any()):
            side = sign * _signs(feasible.law, at_end)
            lower, upper = torch.where(side < 0, upper, lower), torch.where(side > 0, lower, upper)
    return replace(feasible, target=target + (moved - target).detach(), lower=lower, upper=upper)


def _extreme(rows: Rows, lower: Tensor, upper: Tensor) -> Tensor:
    """Smallest G u between the bounds ``(*batch, k)``."""
    bounds = torch.stack([lower, upper], dim=-2)
    infinite = torch.isinf(bounds)
    weights = [rows.mapped(lambda entries: entries.clamp_min(0.0)), rows.mapped(lambda entries: entries.clamp_max(0.0))]
    finite = torch.where(infinite, 0.0, bounds)
    total = sum(part.functional(finite[..., [i], :])[..., 0, :] for i, part in enumerate(weights))
    unbounded = [part.functional(infinite[..., [i], :].to(bounds))[..., 0, :] != 0 for i, part in enumerate(weights)]
    return torch.where(unbounded[0] | unbounded[1], -math.inf, total)


def _signs(rows: Rows, chosen: Tensor) -> Tensor:
    """Sign of the weight of every point in a chosen row ``(*batch, n)``, 0 elsewhere."""
    unit = torch.ones(rows.shape[-1], dtype=torch.float64, device=rows.device)
    return -rows.mapped(torch.sign).subtract(None, unit, chosen.to(torch.float64)[..., None, :])[..., 0, :]


def _array(values: Tensor, *shape: int) -> np.ndarray:
    """Values with the batch axes flattened into one."""
    return np.ascontiguousarray(values.detach().reshape(-1, *shape).numpy(force=True))
