"""The set of fields that meet a law and inequalities under a prior."""

import math
from dataclasses import dataclass, replace

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import as_double
from probconserv._linalg.values import cached
from probconserv.errors import IncompatibleQueryError, InfeasibleConstraintError, InvalidArgumentError
from probconserv.inequalities.inequality import JoinedConstraint, Lines
from probconserv.posterior import check_batch

_ROUNDING = 1e-13  # relative; a total this far outside the feasible interval is moved to its end


@dataclass(frozen=True, kw_only=True, eq=False)
class FeasibleSet:
    """{G u = b + ε, lower ≤ u ≤ upper, u in order} with the metric Σ⁻¹; build it with ``feasible_set``. All float64.

    Args:
        covariance: Σ ``(*batch, n, n)``.
        variance: Its diagonal ``(*batch, n)``.
        rows: G ``(*batch, k, n)`` or without batch axes; k may be 0.
        target: b ``(*batch, k)``.
        noise: σ² ``(*batch, k)``.
        lower: Lower bounds ``(*batch, n)``, or ``(n,)`` for all; the node's value at a zero-variance node.
        upper: Upper bounds, likewise.
        order: See ``JoinedConstraint``.
        lines: See ``JoinedConstraint``.
        epsilon: Machine epsilon of the prior's dtype.
    """

    covariance: LinearOperator
    variance: Tensor
    rows: Tensor
    target: Tensor
    noise: Tensor
    lower: Tensor
    upper: Tensor
    order: int
    epsilon: float
    lines: Lines | None = None

    @property
    def is_separable(self) -> bool:
        """Whether a search for one multiplier suffices: diagonal Σ, at most one row, bounds that allow pooling."""
        if not isinstance(self.covariance, DiagLinearOperator) or self.rows.shape[-2] > 1:
            return False
        if self.order == 0:
            return True
        one_sign = bool((self.rows >= 0).all() | (self.rows <= 0).all())
        free = self.variance > 0
        return one_sign and _is_constant(self.lower, free) and _is_constant(self.upper, free)

    def tightened(self) -> tuple[Tensor, Tensor]:
        """Bounds that the order implies as well: the running maximum of lower, the running minimum of upper."""
        if self.order == 0:
            return self.lower, self.upper
        lower = self.unarranged(self.arranged(self.lower).cummax(dim=-1).values)
        upper = self.unarranged(self.arranged(self.upper).flip(-1).cummin(dim=-1).values.flip(-1))
        return lower, upper

    def arranged(self, values: Tensor) -> Tensor:
        """Values ``(*batch, n)`` line by line, reversed if the order falls: an ordered field increases along the last
        axis of ``(*batch, lines, length)``."""
        lines = values[..., None, :] if self.lines is None else self.lines.split(values)
        return lines.flip(-1) if self.order < 0 else lines

    def unarranged(self, lines: Tensor) -> Tensor:
        """The inverse of ``arranged``."""
        lines = lines.flip(-1) if self.order < 0 else lines
        return lines[..., 0, :] if self.lines is None else self.lines.join(lines)

    @cached
    def attainable(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest G u ``(*batch, k)``; infinite for ordered fields and a row with both signs."""
        products = (bound[..., None, :] * self.rows for bound in self.tightened())
        at_lower, at_upper = (torch.where(self.rows == 0, 0.0, each) for each in products)  # 0 · ∞ is undefined
        smallest, largest = torch.minimum(at_lower, at_upper).sum(dim=-1), torch.maximum(at_lower, at_upper).sum(dim=-1)
        if self.order == 0:
            return smallest, largest
        one_sign = (self.rows >= 0).all(dim=-1) | (self.rows <= 0).all(dim=-1)
        return torch.where(one_sign, smallest, -math.inf), torch.where(one_sign, largest, math.inf)

    @cached
    def at_end(self) -> Tensor:
        """Which exact rows ask for the smallest or largest total in the set ``(*batch, k)``.

        Such a total (zero for a non-negative field) puts every point with non-zero weight on a bound.
        """
        smallest, largest = self.attainable
        return (self.noise == 0) & ((self.target == smallest) | (self.target == largest))

    @cached
    def reduced(self) -> "FeasibleSet":
        """The same set with the values that rows at an end determine as equal bounds; such rows become zero.

        Raises:
            InfeasibleConstraintError: If two rows determine different values at one point.
        """
        if not bool(self.at_end.any()):
            return self
        lower, upper = (bound[..., None, :] for bound in self.tightened())
        at_smallest = (self.target == self.attainable[0])[..., None]
        value = torch.where((self.rows > 0) == at_smallest, lower, upper)
        weighed = self.at_end[..., None] & (self.rows != 0)
        lower = torch.where(weighed, value, lower).amax(dim=-2)
        upper = torch.where(weighed, value, upper).amin(dim=-2)
        if bool((lower > upper).any()):
            raise InfeasibleConstraintError(
                "Rows of the law require the smallest or largest totals that the inequalities allow, and so two "
                "different values at one point; correct the right-hand sides or the bounds."
            )
        rows = torch.where(self.at_end[..., None], 0.0, self.rows)
        return replace(self, rows=rows, target=torch.where(self.at_end, 0.0, self.target), lower=lower, upper=upper)


def settle(u: Tensor, feasible: FeasibleSet) -> Tensor:
    """Restores bounds and order that rounding violates, by a few units in the last digit.

    Args:
        u: Fields ``(*shape, *batch, n)`` in the set up to rounding.
        feasible: The set.

    Returns:
        Fields in the set, with the derivatives of ``u``.
    """
    lower, upper = feasible.tightened()
    settled = torch.minimum(torch.maximum(u.detach(), lower.detach()), upper.detach())
    if isinstance(feasible, FeasibleSet) and feasible.order:
        settled = feasible.unarranged(feasible.arranged(settled).cummax(dim=-1).values)
    return settled + (u - u.detach()) if u.requires_grad else settled


def feasible_set(prior: MultivariateNormal, constraint: JoinedConstraint) -> FeasibleSet:
    """Brings prior and constraint to common shapes and checks that a field exists.

    Args:
        prior: N(μ, Σ) with the full batch of both.
        constraint: Law, bounds and order on its points.

    Returns:
        The set; exact totals that rounding put outside the feasible interval are moved to its end.

    Raises:
        InvalidArgumentError: If the prior is not finite or has a negative variance.
        InfeasibleConstraintError: If a zero-variance node violates a bound or the order, or an exact row has an
            infeasible total.
    """
    covariance = as_double(prior.lazy_covariance_matrix)
    mean, variance = prior.mean.to(torch.float64), covariance.diagonal()
    smallest = float(variance.detach().min()) if variance.numel() else 0.0
    if not (smallest >= 0 and _all_finite(mean) and _all_finite(variance)):
        raise InvalidArgumentError(
            "The prior must be finite with variances that are not negative; repair the prediction before conditioning."
        )
    batch, n = mean.shape[:-1], mean.shape[-1]
    law = constraint.law
    rows = mean.new_zeros(0, n) if law is None else law.rows
    target = mean.new_zeros(0) if law is None else law.b
    noise = mean.new_zeros(0) if law is None else law.noise
    bounds = torch.broadcast_tensors(constraint.lower.to(mean.device), constraint.upper.to(mean.device))
    lower, upper = (bound.expand(*bound.shape[:-1], n) for bound in bounds)
    if smallest == 0:
        fixed = variance == 0
        _check_fixed(mean, fixed, lower, upper)
        lower, upper = (torch.where(fixed, mean, bound) for bound in (lower, upper))
    feasible = FeasibleSet(
        covariance=covariance,
        variance=variance,
        rows=rows,
        target=target.expand(*batch, target.shape[-1]),
        noise=noise.expand(*batch, noise.shape[-1]),
        lower=lower,
        upper=upper,
        order=constraint.order,
        lines=constraint.lines,
        epsilon=torch.finfo(prior.mean.dtype).eps,
    )
    return _with_attainable_target(feasible)


def common_batch(prior: MultivariateNormal, constraint: JoinedConstraint) -> torch.Size:
    """Batch shape of prior and constraint together.

    Raises:
        IncompatibleQueryError: If the numbers of points differ or the batches do not broadcast.
    """
    n = prior.event_shape[-1]
    widths = {bound.shape[-1] for bound in (constraint.lower, constraint.upper) if bound.ndim} - {1}
    widths |= set() if constraint.law is None else {constraint.law.points}
    if len(prior.event_shape) != 1 or widths - {n}:
        raise IncompatibleQueryError(
            f"The prediction has {tuple(prior.event_shape)} points but the constraint acts on {sorted(widths)}; build "
            "the constraint on the query points."
        )
    return check_batch(prior.batch_shape, constraint.batch_shape)


def _check_fixed(mean: Tensor, fixed: Tensor, lower: Tensor, upper: Tensor) -> None:
    broken = fixed & ((mean < lower) | (mean > upper))
    if bool(broken.any()):
        index = tuple(int(i) for i in broken.nonzero()[0])
        raise InfeasibleConstraintError(
            f"The prior fixes the value {float(mean[index]):g} at point {index[-1]} (zero variance), outside the "
            f"bounds [{float(lower.expand(mean.shape)[index]):g}, {float(upper.expand(mean.shape)[index]):g}]; "
            "correct the prior or widen the bounds."
        )


def _with_attainable_target(feasible: FeasibleSet) -> FeasibleSet:
    """Checks the total of every exact row against the bounds."""
    lower, upper = feasible.tightened()
    if bool((lower > upper).any()):
        raise InfeasibleConstraintError(
            "Bounds, order and the values at zero-variance points contradict each other: no field meets them all. "
            "Widen the bounds or drop the order."
        )
    smallest, largest = feasible.attainable
    exact, target = feasible.noise == 0, feasible.target
    finite = (torch.where(torch.isfinite(bound), bound, 0.0)[..., None, :] for bound in (lower, upper))
    at_lower, at_upper = ((bound * feasible.rows).abs().sum(dim=-1) for bound in finite)
    scale = target.abs() + torch.maximum(at_lower, at_upper)
    outside = exact & ((target < smallest - _ROUNDING * scale) | (target > largest + _ROUNDING * scale))
    if bool(outside.any()):
        index = tuple(int(i) for i in outside.nonzero()[0])
        interval = [float(end.expand(target.shape)[index]) for end in (smallest, largest)]
        raise InfeasibleConstraintError(
            f"Row {index[-1]} of the law asks for {float(target[index]):g} (batch entry {index[:-1]}), but fields that "
            f"meet the inequalities have between {interval[0]:g} and {interval[1]:g}; correct the total or the bounds."
        )
    moved = torch.where(exact, torch.minimum(torch.maximum(target, smallest), largest) - target, 0.0)
    return replace(feasible, target=target + moved.detach())


def _all_finite(values: Tensor) -> bool:
    """Whether every entry is finite; the sum, which is faster to test, is finite only if they are."""
    return bool(torch.isfinite(values.detach().sum())) or bool(torch.isfinite(values).all())


def _is_constant(bound: Tensor, free: Tensor) -> bool:
    """Whether a bound is constant over the points with positive variance, for every field."""
    largest = torch.where(free, bound, -math.inf).amax(dim=-1)
    smallest = torch.where(free, bound, math.inf).amin(dim=-1)
    return bool(((largest == smallest) | ~free.any(dim=-1)).all())
