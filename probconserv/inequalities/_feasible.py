"""The set of fields that meet a law and inequalities, arranged for the solver and checked for a field that exists."""

import math
from dataclasses import dataclass

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from probconserv._linalg.checks import check_batch, require_finite_prior
from probconserv._linalg.gaussian import structure_of
from probconserv._linalg.rows import Rows
from probconserv.errors import IncompatibleQueryError, InfeasibleConstraintError
from probconserv.inequalities._nearest import nearest
from probconserv.inequalities._region import Region
from probconserv.inequalities.inequality import JoinedConstraint
from solvers.recording import are_readable

_ROUNDING = 1e-13  # relative; a total this far outside the feasible interval counts as its end
_RESOLVED = 64 * torch.finfo(torch.float64).eps  # of the prior's values; a total that close to an end counts as the end


@dataclass(frozen=True, kw_only=True, eq=False)
class FeasibleSet:
    """{G u = b + ε, A u ≤ c, lower ≤ u ≤ upper, u in order} with the metric diag Σ; build it with ``feasible_set``.

    Args:
        prior: N(μ, Σ) with the full batch; ``variance`` is diag Σ ``(*batch, n)``.
        lower: Lower bounds ``(*batch, n)`` or ``(n,)`` that all statements of one point, the order and totals at their
            end imply; ``upper`` likewise.
        target: b and c ``(*batch, k)``; exact totals that rounding put outside the feasible interval are at its end.
        noise: σ² ``(*batch, k)``, 0 for c.
        region: The same for the solver.
    """

    prior: MultivariateNormal
    constraint: JoinedConstraint
    variance: Tensor
    lower: Tensor
    upper: Tensor
    target: Tensor
    noise: Tensor
    region: Region

    def nearest(self, fields: Tensor, target: Tensor) -> Tensor:
        """The nearest fields in the set to fields ``(s, *batch, n)``, with totals ``(s, *batch, k)``."""
        lines = _arranged(self.constraint, fields)
        u = nearest(self.region, lines.flatten(-2), self.constraint.division.sorted(target))
        return _unarranged(self.constraint, u.unflatten(-1, lines.shape[-2:]))

    @property
    def is_tracked(self) -> bool:
        """Whether derivatives are recorded and needed."""
        tensors = [self.prior.mean, self.variance, self.target, self.noise, self.lower, self.upper]
        tensors += [part.entries if isinstance(part, Rows) else part for part in self.constraint.parts]
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def clamp_roundoff(self, u: Tensor) -> Tensor:
        """Fields ``(*shape, *batch, n)`` in the set up to rounding, with bounds and order restored that it violates."""
        inside = torch.minimum(torch.maximum(u.detach(), self.lower.detach()), self.upper.detach())
        if self.constraint.order:
            inside = _unarranged(self.constraint, _arranged(self.constraint, inside).cummax(dim=-1).values)
        return inside + (u - u.detach()) if u.requires_grad else inside


def feasible_set(prior: MultivariateNormal, constraint: JoinedConstraint, totals: Tensor | None = None) -> FeasibleSet:
    """Brings prior and constraint to common shapes and checks that a field exists, where numbers can be read.

    Args:
        prior: N(μ, Σ).
        constraint: Law and inequalities.
        totals: Other right-hand sides of the law ``(*batch, k)``.

    Raises:
        InfeasibleConstraintError: If a zero-variance node violates a bound or the order, or a row cannot be met.
    """
    batch = _common_batch(prior, constraint)
    prior = prior if prior.batch_shape == batch else prior.expand(batch)
    mean, variance = prior.mean.to(torch.float64), structure_of(prior).variance
    readable = are_readable(mean, variance)
    smallest = require_finite_prior(mean, variance) if readable else 0.0
    n = mean.shape[-1]
    bounds = torch.broadcast_tensors(constraint.lower.to(mean.device), constraint.upper.to(mean.device))
    lower, upper = (bound.expand(*bound.shape[:-1], n) for bound in bounds)
    if smallest == 0:
        fixed = variance == 0
        if readable:
            _check_fixed(mean, fixed, lower, upper)
        lower, upper = (torch.where(fixed, mean, bound) for bound in (lower, upper))
    if constraint.order:
        lower, upper = _tightened(constraint, lower, upper)
    target, noise = _stated(constraint, mean, totals)
    near, far = constraint.division.rows(constraint.parts, n)
    near, far = None if near is None else near.to(mean.device), far.to(mean.device)
    division, first = constraint.division, 0 if constraint.law is None else constraint.law.G.shape[-2]
    bounded = division.places.to(mean.device) >= first
    rows = _Rows(near, far, division.sorted(target), division.sorted(noise), bounded, bool(constraint.order))
    size = mean.detach().abs() + variance.detach().clamp_min(0.0).sqrt()
    lower, upper, target = rows.closed(lower, upper, size)
    if constraint.order:
        lower, upper = _tightened(constraint, lower, upper)
    arranged = [_arranged(constraint, values) for values in (variance, lower, upper, far)]
    return FeasibleSet(
        prior=prior,
        constraint=constraint,
        variance=variance,
        lower=lower,
        upper=upper,
        target=division.unsorted(target),
        noise=noise,
        region=Region(
            metric=arranged[0].flatten(-2),
            lower=arranged[1].flatten(-2),
            upper=arranged[2].flatten(-2),
            near=near,
            far=arranged[3].flatten(-2),
            noise=rows.noise,
            bounded=bounded,
            length=arranged[0].shape[-1] if constraint.order else 0,
        ),
    )


def _common_batch(prior: MultivariateNormal, constraint: JoinedConstraint) -> torch.Size:
    """Batch shape of prior and constraint together."""
    n = prior.event_shape[-1]
    widths = {bound.shape[-1] for bound in (constraint.lower, constraint.upper) if bound.ndim} - {1}
    widths |= set() if constraint.law is None else {constraint.law.points}
    widths |= set() if constraint.rows is None else {constraint.rows.A.shape[-1]}
    if len(prior.event_shape) != 1 or widths - {n}:
        raise IncompatibleQueryError(
            f"The prediction has {tuple(prior.event_shape)} points but the constraint acts on {sorted(widths)}; build "
            "the constraint on the query points."
        )
    return check_batch(prior.batch_shape, constraint.batch_shape)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows, the near ones first, with right-hand sides ``(*batch, k)``."""

    near: Rows | None
    far: Tensor
    target: Tensor
    noise: Tensor
    bounded: Tensor
    ordered: bool

    def closed(self, lower: Tensor, upper: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bounds and totals: where a row requires the least or most that the bounds allow, its points are fixed there.

        Where rows are searched together, it does within the rounding of values of that ``size`` ``(*batch, n)``
        already, in which multipliers are resolved. Points that one row fixes may leave another no choice.

        Raises:
            InfeasibleConstraintError: If a row requires more or less than the bounds allow.
        """
        if not self.target.shape[-1]:
            return lower, upper, self.target
        readable, target = are_readable(self.target, lower, upper), self.target
        together = self.far.shape[-2] > 0 and self.target.shape[-1] > 1  # one multiplier resolves any total
        slack = self._sizes(_RESOLVED * size if together else 0.0 * size)
        exact = (self.noise == 0) & ~self.bounded
        for _ in range(self.target.shape[-1]):
            smallest, largest = self._ends(lower, upper)
            within = (target > smallest + slack) & (self.bounded | (target < largest - slack))
            if readable and bool(((self.noise > 0) | within).all()):
                break
            smallest, largest = self._checked((smallest, largest), slack, readable)
            at_smallest = (exact | self.bounded) & (target <= smallest + slack)
            at_largest = exact & (target >= largest - slack) & ~at_smallest
            attained = torch.where(at_smallest, smallest, torch.where(at_largest, largest, target))
            lost = (attained - target).detach()
            slack, target = slack + self._sizes(self._changes(lost)), target + lost
            low = self._touches(at_smallest, 1.0) | self._touches(at_largest, -1.0)
            high = self._touches(at_smallest, -1.0) | self._touches(at_largest, 1.0)
            if readable and bool((low & high & (lower < upper)).any()):
                raise InfeasibleConstraintError(
                    "Rows of the law require the smallest or largest totals that the inequalities allow, and so two "
                    "different values at one point; correct the right-hand sides or the bounds."
                )
            before = lower, upper
            lower, upper = torch.where(high, upper, lower), torch.where(low, lower, upper)
            if not readable or all(torch.equal(*pair) for pair in zip(before, (lower, upper), strict=True)):
                break
        self._checked(self._ends(lower, upper), slack, readable)
        return lower, upper, target

    def _sizes(self, values: Tensor) -> Tensor:
        """Σ_j |G_ij| values_j of values ``(*batch, n)`` that are not negative, without derivatives ``(*batch, k)``."""
        columns = values[..., None, :]
        sizes = [(columns @ self.far.detach().abs().mT)[..., 0, :]]
        if self.near is not None:
            sizes.insert(0, self.near.mapped(torch.abs).functional(columns)[..., 0, :].detach())
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in sizes))
        return torch.cat([part.expand(*batch, part.shape[-1]) for part in sizes], dim=-1)

    def _changes(self, lost: Tensor) -> Tensor:
        """By how much a point may change ``(*batch, n)`` if totals change so ``(*batch, k)`` and it alone follows."""
        k, lost = 0 if self.near is None else self.near.shape[-2], lost.abs()
        used = self.far != 0
        far = torch.where(used, lost[..., k:, None] / torch.where(used, self.far, 1.0).abs(), 0.0).detach()
        changes = far.sum(dim=-2)
        if self.near is None:
            return changes
        inverse = self.near.mapped(lambda w: torch.where(w == 0, 0.0, 1.0 / torch.where(w == 0, 1.0, w).abs()))
        unit = self.near.entries.new_ones(self.near.shape[-1])
        return changes - inverse.subtract(None, unit, lost[..., None, :k])[..., 0, :].detach()

    def _checked(self, ends: tuple[Tensor, Tensor], slack: Tensor, readable: bool) -> tuple[Tensor, Tensor]:
        """The ends for every right-hand side, with an error where one is outside."""
        smallest, largest = (end.expand(self.target.shape) for end in ends)
        if not readable:
            return smallest, largest
        scale = self.target.abs() + sum(torch.where(end.isfinite(), end.abs(), 0.0) for end in (smallest, largest))
        scale = _ROUNDING * scale + slack
        outside = ((self.noise == 0) & (self.target < smallest - scale)) | (
            (self.noise == 0) & ~self.bounded & (self.target > largest + scale)
        )
        if bool(outside.any()):
            index = tuple(int(i) for i in outside.nonzero()[0])
            verb = "allows at most" if bool(self.bounded[index[-1]]) else "asks for"
            asked, least, most = (float(part.detach()[index]) for part in (self.target, smallest, largest))
            raise InfeasibleConstraintError(
                f"Row {index[-1]} of the law {verb} {asked:g} (batch entry {index[:-1]}), but fields that meet the "
                f"inequalities have between {least:g} and {most:g}; correct the total or the bounds."
            )
        return smallest, largest

    def _ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest totals between the bounds ``(*batch, k)``; infinite for orders and mixed signs."""
        products = (bound[..., None, :] * self.far for bound in (lower, upper))
        ends = [torch.where(self.far == 0, 0.0, product) for product in products]  # 0 · ∞ is undefined
        smallest, largest = torch.minimum(*ends).sum(dim=-1), torch.maximum(*ends).sum(dim=-1)
        if self.ordered:
            mixed = (self.far > 0).any(dim=-1) & (self.far < 0).any(dim=-1)
            smallest, largest = torch.where(mixed, -math.inf, smallest), torch.where(mixed, math.inf, largest)
        if self.near is not None:
            near = _extreme(self.near, lower, upper), -_extreme(self.near, -upper, -lower)
            if not self.far.shape[-2]:
                return near
            batch = torch.broadcast_shapes(near[0].shape[:-1], smallest.shape[:-1])
            parts = zip(near, (smallest, largest), strict=True)
            smallest, largest = (torch.cat([end.expand(*batch, -1) for end in pair], dim=-1) for pair in parts)
        return smallest, largest

    def _touches(self, chosen: Tensor, sign: float) -> Tensor:
        """Mask of points with a weight of that sign in a chosen row ``(*batch, n)``."""
        k = 0 if self.near is None else self.near.shape[-2]
        touched = (chosen[..., k:, None] & (sign * self.far > 0)).any(dim=-2)
        if self.near is None:
            return touched
        unit = self.near.entries.new_ones(self.near.shape[-1])
        signs = self.near.mapped(lambda w: (sign * w > 0).to(w))
        return touched | (signs.subtract(None, unit, chosen[..., None, :k].to(unit))[..., 0, :] < 0)


def _extreme(rows: Rows, lower: Tensor, upper: Tensor) -> Tensor:
    """Smallest G u between the bounds ``(*batch, k)``."""
    total, endless = lower.new_zeros(()), torch.zeros((), dtype=torch.bool, device=lower.device)
    for sign, bound in ((1.0, lower), (-1.0, upper)):
        infinite, part = torch.isinf(bound), rows.mapped(lambda weights, s=sign: (s * weights).clamp_min(0.0))
        total = total + sign * part.functional(torch.where(infinite, 0.0, bound)[..., None, :])[..., 0, :]
        endless = endless | (part.functional(infinite.to(bound)[..., None, :])[..., 0, :] > 0)
    return torch.where(endless, -math.inf, total)


def _stated(constraint: JoinedConstraint, mean: Tensor, totals: Tensor | None) -> tuple[Tensor, Tensor]:
    """Right-hand sides and σ² of all rows ``(*batch, k)``, those of the law first."""
    batch, law, rows = mean.shape[:-1], constraint.law, constraint.rows
    parts = [] if law is None else [(law.b if totals is None else totals, law.noise)]
    parts += [] if rows is None else [(rows.c, torch.zeros_like(rows.c))]
    if not parts:
        return mean[..., :0], mean[..., :0]
    target, noise = (
        [values.to(mean.device).expand(*batch, values.shape[-1]) for values in side]
        for side in ([part[0] for part in parts], [part[1] for part in parts])
    )
    return torch.cat(target, dim=-1), torch.cat(noise, dim=-1)


def _tightened(constraint: JoinedConstraint, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds that the order implies as well: the running maximum of lower, the running minimum of upper."""
    if constraint.order:
        lower = _unarranged(constraint, _arranged(constraint, lower).cummax(dim=-1).values)
        upper = _unarranged(constraint, _arranged(constraint, upper).flip(-1).cummin(dim=-1).values.flip(-1))
    if are_readable(lower, upper) and bool((lower > upper).any()):
        raise InfeasibleConstraintError(
            "Bounds, order and the values at zero-variance points contradict each other: no field meets them all. "
            "Widen the bounds or drop the order."
        )
    return lower, upper


def _arranged(constraint: JoinedConstraint, values: Tensor) -> Tensor:
    """Values ``(*batch, n)`` line by line, reversed if the order falls: an ordered field increases along the last axis
    of ``(*batch, lines, length)``."""
    lines = constraint.split(values)
    return lines.flip(-1) if constraint.order < 0 else lines


def _unarranged(constraint: JoinedConstraint, lines: Tensor) -> Tensor:
    """The inverse of ``_arranged``."""
    lines = lines.flip(-1) if constraint.order < 0 else lines
    return lines[..., 0, :] if constraint.lines is None else constraint.lines.join(lines)


def _check_fixed(mean: Tensor, fixed: Tensor, lower: Tensor, upper: Tensor) -> None:
    broken = fixed & ((mean < lower) | (mean > upper))
    if bool(broken.any()):
        index = tuple(int(i) for i in broken.nonzero()[0])
        raise InfeasibleConstraintError(
            f"The prior fixes the value {float(mean[index]):g} at point {index[-1]} (zero variance), outside the "
            f"bounds [{float(lower.expand(mean.shape)[index]):g}, {float(upper.expand(mean.shape)[index]):g}]; "
            "correct the prior or widen the bounds."
        )
