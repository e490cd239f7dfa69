"""Projection of a batch of fields onto a nonlinear law: the search in the fields themselves, with sparse Jacobians.

Once steps are small, Newton's iteration in the same metric brings the residual down to round-off. With bounds, a step
goes to the projection onto the linearised law and the bounds: points at a bound are further exact rows, and which
points these are follows from the sign of their multipliers (a primal-dual active set).
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import whitened, whitening
from probconserv._linalg.rows import SparseRows, stacked
from probconserv._linalg.structured import StructuredGain, factorise_rows, split, splits
from probconserv.constraints import LinearConstraint, rows_applied
from probconserv.errors import ConvergenceError, InvalidArgumentError
from probconserv.nonlinear._search import Iterate, Space, search
from probconserv.nonlinear.law import NonlinearLaw

_STEP = 1e-6  # largest change of a value in the last step, relative to the field's largest value
_RESIDUAL = 1e-13  # largest |g_i| in the end, relative to Σ_j |J_ij| times the field's largest value
_ITERATIONS = 200
_ACTIVE_SETS, _TOGETHER = 200, 20  # tried for one linearised law; of these with all points changed together
_SOFT = 1e-8  # variance of a point at a bound, relative to that of the prior, so that the law may determine it as well
_OUTSIDE = 1e-12  # distance from a bound, relative to the field's largest value, up to which a point counts as inside
_CHUNK = 1 << 24  # numbers in memory at once


def project_nonlinear(
    fields: Tensor, covariance: LinearOperator, law: NonlinearLaw, start: Tensor | None = None
) -> Tensor:
    """The fields on {g = 0}, within bounds, that are stationary for the distance from the given ones.

    Args:
        fields: x ``(s, n)``, float64.
        covariance: Σ ``(n, n)``, diagonal or low rank plus diagonal.
        law: g, linear rows and bounds.
        start: Where the search starts ``(s, n)``: a field that nearly meets the law, from a step before; x without it.

    Returns:
        The projections ``(s, n)``.

    Raises:
        InvalidArgumentError: If Σ has another structure.
        ConvergenceError: If a field does not converge, or a gradient is zero; the text names it and its residual.
        DependentConstraintsError: If rows of J are dependent under Σ.
    """
    if not splits(covariance):
        raise InvalidArgumentError(
            "A nonlinear law needs a covariance that is diagonal, or low rank plus diagonal as from_samples(samples, "
            f"noise_variance=...) gives, got {type(covariance).__name__}."
        )
    rank = 0 if isinstance(covariance, DiagLinearOperator) else split(covariance)[1].shape[-2]
    size = 1 if law.inequalities is not None else max(1, _CHUNK // ((10 + rank) * law.points))
    parts = []
    for first in range(0, len(fields), size):
        part, part_law = slice(first, first + size), law
        if law.linear is not None and law.batch_shape and law.batch_shape[0] != 1:
            part_law = replace(law, linear=LinearConstraint(law.linear.G, law.linear.b[part]))
        chosen = _Fields(fields[part], covariance, part_law, first)
        parts.append(chosen.projections(fields[part] if start is None else start[part]))
    return torch.cat(parts) if parts else fields


def linear_step(fields: Tensor, covariance: LinearOperator, law: NonlinearLaw) -> Tensor:
    """One Gauss–Newton step from the fields themselves, u − Σ Jᵀ (J Σ Jᵀ)⁻¹ g(u), as within a sampler."""
    residual, rows = law.linearise(fields)
    return _corrected(_factorised(covariance, rows, residual), fields, residual)[0]


@dataclass(eq=False)
class _Fields(Space):
    """Some of the fields, one if there are bounds.

    Args:
        centre: Fields to project ``(s, n)``.
        covariance: Σ.
        law: g.
        first: Number of the first field among all, for messages.
        held: Points at a bound ``(s, n)``: 1 at the lower, −1 at the upper one.
    """

    centre: Tensor
    covariance: LinearOperator
    law: NonlinearLaw
    first: int
    held: Tensor = field(init=False)

    def projections(self, start: Tensor) -> Tensor:
        """The projections ``(s, n)``."""
        bounded = self.law.inequalities is not None
        if bounded:  # a start lies on its bounds, the fields themselves beyond them
            (lower, upper), given = self.bounds, start is not self.centre
            self.held = (
                (start <= lower).to(torch.int8) - (start >= upper).to(torch.int8) if given else self._beyond(start)
            )
            start = self._inside(start)
        at = search(self, start, _STEP, _ITERATIONS)
        if at.multipliers is None or not bool((at.error <= _STEP).all()):
            more = ", or the points at a bound did not settle" if bounded else ""
            raise self._failure(at.point, f"the steps did not become small{more}")
        return self._polished(at.target)

    def at(self, point: Tensor) -> Iterate:
        """See ``Space``; the error is the largest step, relative to the field's largest value."""
        residual, rows = self.law.linearise(point)
        if self.law.inequalities is None:
            gain = _factorised(self.covariance, rows, residual)
            target, multipliers = _corrected(gain, self.centre, residual + rows_applied(rows, self.centre - point))
        else:
            target, multipliers = self._nearest_within(point, residual, rows)
        size = point.abs().amax(dim=-1).clamp_min(1e-300)
        return Iterate(
            point=point,
            residual=residual,
            rows=rows,
            target=target,
            multipliers=multipliers,
            error=(target - point).abs().amax(dim=-1) / size,
        )

    def violation(self, point: Tensor) -> Tensor:
        """See ``Space``."""
        return self.law.residual(point).abs().sum(dim=-1)

    def product(self, first: Tensor, second: Tensor) -> Tensor:
        """See ``Space``; points without variance do not change."""
        weights, orthogonal = self._whitening
        white = [whitened(orthogonal, (part * weights).mT) for part in (first, second)]
        return (white[0] * white[1]).sum(dim=0)

    @cached_property
    def _whitening(self) -> tuple[Tensor, Tensor]:
        metric, root = split(self.covariance)
        weights = torch.where(metric > 0, torch.where(metric > 0, metric, 1.0).rsqrt(), 0.0)
        return weights, whitening(root.mT, weights)[0]

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds ``(s, n)``."""
        bounds, x = self.law.inequalities, self.centre
        assert bounds is not None
        return bounds.lower.to(x).expand(x.shape), bounds.upper.to(x).expand(x.shape)

    def _inside(self, u: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(u, self.bounds[0]), self.bounds[1])

    def _beyond(self, u: Tensor, slack: Tensor | float = 0.0) -> Tensor:
        """1 at points below the lower bound, −1 at those above the upper one, 0 between them."""
        lower, upper = self.bounds
        return (u < lower - slack).to(torch.int8) - (u > upper + slack).to(torch.int8)

    def _nearest_within(self, u: Tensor, residual: Tensor, rows: SparseRows) -> tuple[Tensor, Tensor | None]:
        """x projected onto the law linearised at u and the bounds; multipliers if the points at a bound settled."""
        target = u
        for attempt in range(_ACTIVE_SETS):
            held = self.held
            target, multipliers, pull = self._held_step(self.centre, u, residual, rows)
            stays = (held.sign() * pull < 0).to(torch.int8) * held
            new = torch.where(held == 0, self._beyond(target, _OUTSIDE * (1 + target.abs().amax())), stays)
            if torch.equal(new, held):
                return self._inside(target), multipliers
            if attempt >= _TOGETHER:  # only the first point changes, which ends cycles (Murty 1974)
                changes = new != held
                new = torch.where(changes & (changes.cumsum(dim=-1) == 1), new, held)
            self.held = new
        return self._inside(target), None

    def _held_step(self, base: Tensor, u: Tensor, residual: Tensor, rows: SparseRows) -> tuple[Tensor, Tensor, Tensor]:
        """Base projected onto the linearised law and the points at a bound; multipliers of the law and the points."""
        missed, soft = residual + rows_applied(rows, base - u), None
        points = self.held[0].nonzero()[:, 0]
        if len(points):
            places = torch.stack([torch.arange(len(points)), points])
            one, size = torch.ones(len(points), dtype=torch.float64), (len(points), self.law.points)
            rows = stacked(rows, torch.sparse_coo_tensor(places, one, size, check_invariants=False))
            missed = torch.cat([missed, (base - self._limit())[:, points]], dim=-1)
            soft = _SOFT * self.covariance.diagonal()[points].expand(1, len(points))
        target, multipliers = _corrected(_factorised(self.covariance, rows, residual, soft), base, missed)
        pull = torch.zeros_like(u)
        pull[:, points] = multipliers[:, residual.shape[-1] :]
        return target, multipliers[:, : residual.shape[-1]], pull

    def _polished(self, u: Tensor) -> Tensor:
        """Newton's iteration from fields that nearly meet the law.

        Points at a bound end exactly there; rounding may take others across theirs.
        """
        bounded = self.law.inequalities is not None
        for _ in range(_ITERATIONS):
            held = self._inside(torch.where(self.held == 0, u, self._limit())) if bounded else u
            residual, rows = self.law.linearise(held)
            size = rows.norms() * held.abs().amax(dim=-1, keepdim=True)
            if float((residual.abs() / size.clamp_min(1e-300)).max()) <= _RESIDUAL:
                return held
            if bounded:
                self.held = torch.where(self.held == 0, self._beyond(u), self.held)
                u = self._held_step(u, u, *self.law.linearise(u))[0]
            else:
                u = _corrected(_factorised(self.covariance, rows, residual), u, residual)[0]
        reason = "rounding or a kink of g keeps it from the required residual"
        raise self._failure(u, "law and bounds may have no field in common" if bounded else reason)

    def _limit(self) -> Tensor:
        """The bounds at which points are held."""
        return torch.where(self.held > 0, *self.bounds)

    def _failure(self, u: Tensor, reason: str) -> ConvergenceError:
        residual = self.law.residual(u).abs().amax(dim=-1)
        worst = int(residual.argmax())
        return ConvergenceError(
            f"The projection onto the nonlinear law did not converge in {_ITERATIONS} steps ({reason}): "
            f"field {self.first + worst} has a largest |g| of {float(residual[worst]):.3g}. Check that a field with "
            "g(u) = 0 exists near it, or start from one that nearly meets the law."
        )


def _factorised(
    covariance: LinearOperator, rows: SparseRows, residual: Tensor, soft: Tensor | None = None
) -> StructuredGain:
    """The factorised update by linearised rows, exact ones and then those with the variances ``soft``.

    Raises:
        ConvergenceError: If the gradient of a residual is zero, so that its row says nothing.
    """
    flat = rows.norms()[..., : residual.shape[-1]] == 0
    if bool(flat.any()):
        entry, row = (int(i) for i in flat.expand(residual.shape).nonzero()[0])
        raise ConvergenceError(
            f"The gradient of residual {row} of the nonlinear law is zero at a field (there g = "
            f"{float(residual[entry, row]):.3g}), so that the search has no direction; start from another field."
        )
    exact = torch.zeros_like(residual)
    return factorise_rows(covariance, rows, exact if soft is None else torch.cat([exact, soft], dim=-1))


def _corrected(gain: StructuredGain, base: Tensor, missed: Tensor) -> tuple[Tensor, Tensor]:
    """base − Σ Jᵀ S⁻¹ missed, and λ = S⁻¹ missed."""
    multipliers = gain.multipliers(missed[:, None, :])
    moved = gain.rows.subtract(None, gain.metric, multipliers)
    if gain.root.shape[-2]:
        spread = -gain.rows.subtract(None, torch.ones_like(gain.metric), multipliers)
        moved = moved - (spread @ gain.root.mT) @ gain.root
    return base + moved[:, 0, :], multipliers[:, 0, :]
