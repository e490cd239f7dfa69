"""Projection of a batch of fields onto a nonlinear law, by Gauss–Newton steps with sparse Jacobians.

A step goes to the projection of the given field x onto the law linearised at the present one,

    u ← x − Σ Jᵀ (J Σ Jᵀ)⁻¹ (g(u) + J (x − u)),

as far as the merit ½ |u − x|²_{Σ⁻¹} + ν |g|₁ falls. Once steps are small, Newton's iteration in the same metric brings
the residual down to round-off. With bounds, a step goes to the projection onto the linearised law and the bounds:
points at a bound are further exact rows, and which points these are follows from the sign of their multipliers (a
primal-dual active set).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import whitened, whitening
from probconserv._linalg.rows import SparseRows, stacked
from probconserv._linalg.structured import StructuredGain, factorise_rows, split, splits
from probconserv.constraints import LinearConstraint
from probconserv.errors import ConvergenceError, InvalidArgumentError
from probconserv.nonlinear.law import NonlinearLaw

_HALVINGS = 12
_CLOSE = 1e-3  # relative size of a step below which rounding decides whether the merit falls
_ACTIVE_SETS, _TOGETHER = 200, 20  # tried for one linearised law; of these with all points changed together
_SOFT = 1e-8  # variance of a point at a bound, relative to that of the prior, so that the law may determine it as well
_OUTSIDE = 1e-12  # distance from a bound, relative to the field's largest value, up to which a point counts as inside
_CHUNK = 1 << 24  # numbers in memory at once


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """When a projection has converged.

    Args:
        residual: Largest |g_i| relative to Σ_j |J_ij| times the field's largest value.
        step: Largest change of a value in a step, relative to the field's largest value.
        iterations: Largest number of steps.
    """

    residual: float = 1e-13
    step: float = 1e-6
    iterations: int = 200


def project_nonlinear(
    fields: Tensor,
    covariance: LinearOperator,
    law: NonlinearLaw,
    start: Tensor | None = None,
    options: SearchOptions | None = None,
) -> Tensor:
    """The fields on {g = 0}, within bounds, that are stationary for the distance from the given ones.

    Args:
        fields: x ``(s, n)``, float64.
        covariance: Σ ``(n, n)``, diagonal or low rank plus diagonal.
        law: g, linear rows and bounds.
        start: Where the search starts ``(s, n)``: a field that nearly meets the law, from a step before; x without it.
        options: When it ends.

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
    options = options or SearchOptions()
    size = 1 if law.inequalities is not None else max(1, _CHUNK // ((10 + _rank(covariance)) * law.points))
    batches = law.batch_shape
    parts = []
    for first in range(0, len(fields), size):
        part = slice(first, first + size)
        part_law = law if not batches or batches[0] == 1 else _part(law, part)
        search = _Search(fields[part], covariance, part_law, options, first)
        begin = None if start is None else start[part]
        parts.append(search.free(begin) if law.inequalities is None else search.bounded(begin))
    return torch.cat(parts) if parts else fields


def linear_step(fields: Tensor, covariance: LinearOperator, law: NonlinearLaw) -> Tensor:
    """One Gauss–Newton step from the fields themselves, u − Σ Jᵀ (J Σ Jᵀ)⁻¹ g(u), as within a sampler."""
    residual, rows = law.linearise(fields)
    gain = _factorised(covariance, rows, torch.zeros_like(residual), residual)
    return _corrected(gain, fields, rows, residual)[0]


@dataclass(frozen=True, eq=False)
class _Search:
    """The search for some of the fields.

    Args:
        x: Fields to project ``(s, n)``.
        covariance: Σ.
        law: g.
        options: When the search ends.
        first: Number of the first field among all, for messages.
    """

    x: Tensor
    covariance: LinearOperator
    law: NonlinearLaw
    options: SearchOptions
    first: int

    def free(self, start: Tensor | None) -> Tensor:
        """The projections without bounds."""
        u, weight = self.x if start is None else start, self.x.new_zeros(len(self.x))
        for _ in range(self.options.iterations):
            residual, rows = self.law.linearise(u)
            gain = _factorised(self.covariance, rows, torch.zeros_like(residual), residual)
            missed = residual + _times(rows, self.x - u)
            target, multipliers = _corrected(gain, self.x, rows, missed)
            step = target - u
            if self._is_small(step, u):
                return self._polished(target)
            weight = torch.maximum(weight, 1.1 * multipliers.abs().amax(dim=-1))
            u = u + self._length(u, step, residual, weight)[:, None] * step
        raise self._failure(u, "the steps did not become small")

    def bounded(self, start: Tensor | None) -> Tensor:
        """The projection of one field within bounds."""
        assert self.law.inequalities is not None
        bounds = self.law.inequalities
        lower, upper = (bound.to(self.x).expand(self.x.shape) for bound in (bounds.lower, bounds.upper))
        u = torch.minimum(torch.maximum(self.x if start is None else start, lower), upper)
        weight = u.new_zeros(1)
        # Points at a bound: 1 at the lower, −1 at the upper one. A start lies on its bounds, other fields beyond them.
        held = _sides(self.x, lower, upper)
        if start is not None:
            held = (start <= lower).to(torch.int8) - (start >= upper).to(torch.int8)
        for _ in range(self.options.iterations):
            residual, rows = self.law.linearise(u)
            target, held, multipliers = self._nearest_within((residual, rows, u), held, (lower, upper))
            step = torch.minimum(torch.maximum(target, lower), upper) - u
            if multipliers is not None and self._is_small(step, u):
                return self._polished_within(u + step, held, lower, upper)
            if multipliers is not None:
                weight = torch.maximum(weight, 1.1 * multipliers.abs().amax(dim=-1))
            u = u + self._length(u, step, residual, weight)[:, None] * step
        raise self._failure(u, "the steps did not become small, or the points at a bound did not settle")

    def _nearest_within(
        self, at: tuple[Tensor, SparseRows, Tensor], held: Tensor, bounds: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """x projected onto the law linearised at u and the bounds; the points at a bound; multipliers if it settled."""
        target, multipliers = at[2], at[0]
        for attempt in range(_ACTIVE_SETS):
            target, multipliers, pull = self._held_step(self.x, at, held, bounds)
            slack = _OUTSIDE * (1 + target.abs().amax())
            stays = (held.sign() * pull < 0).to(torch.int8) * held
            new = torch.where(held == 0, _sides(target, bounds[0] - slack, bounds[1] + slack), stays)
            if torch.equal(new, held):
                return target, held, multipliers
            held = new if attempt < _TOGETHER else _first_change(held, new)
        return target, held, None

    def _held_step(
        self, base: Tensor, at: tuple[Tensor, SparseRows, Tensor], held: Tensor, bounds: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Base projected onto the linearised law and the points at a bound; multipliers of the law and the points."""
        residual, rows, u = at
        missed, noise = residual + _times(rows, base - u), torch.zeros_like(residual)
        points = held[0].nonzero()[:, 0]
        if len(points):
            limit = torch.where(held > 0, bounds[0], bounds[1])
            unit = torch.sparse_coo_tensor(
                torch.stack([torch.arange(len(points)), points]),
                torch.ones(len(points), dtype=torch.float64),
                (len(points), self.law.points),
                check_invariants=False,
            )
            rows = stacked(rows, unit)
            missed = torch.cat([missed, (base - limit)[:, points]], dim=-1)
            soft = _SOFT * self.covariance.diagonal()[points].expand(1, len(points))
            noise = torch.cat([noise, soft], dim=-1)
        gain = _factorised(self.covariance, rows, noise, residual)
        target, multipliers = _corrected(gain, base, rows, missed)
        pull = torch.zeros_like(u)
        pull[:, points] = multipliers[:, residual.shape[-1] :]
        return target, multipliers[:, : residual.shape[-1]], pull

    def _polished(self, u: Tensor) -> Tensor:
        """Newton's iteration from fields that nearly meet the law."""
        for _ in range(self.options.iterations):
            residual, rows = self.law.linearise(u)
            if self._error(residual, rows, u) <= self.options.residual:
                return u
            gain = _factorised(self.covariance, rows, torch.zeros_like(residual), residual)
            u = _corrected(gain, u, rows, residual)[0]
        raise self._failure(u, "rounding or a kink of g keeps it from the required residual")

    def _polished_within(self, u: Tensor, held: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """The same with points at a bound, which end exactly there; rounding may take others across theirs."""
        for _ in range(self.options.iterations):
            limit = torch.where(held > 0, lower, upper)
            settled = torch.minimum(torch.maximum(torch.where(held == 0, u, limit), lower), upper)
            residual, rows = self.law.linearise(settled)
            if self._error(residual, rows, settled) <= self.options.residual:
                return settled
            held = torch.where(held == 0, _sides(u, lower, upper), held)
            u = self._held_step(u, (*self.law.linearise(u), u), held, (lower, upper))[0]
        raise self._failure(u, "law and bounds may have no field in common")

    def _length(self, u: Tensor, step: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
        """Largest of 1, ½, ¼ … for which the merit falls, 1 for steps that are small ``(s,)``."""
        violation = weight * residual.abs().sum(dim=-1)
        merit = self._distance(u - self.x) + violation
        # Along the step the violation falls by itself to first order.
        slope = self._product(u - self.x, step) - violation
        accepted = step.abs().amax(dim=-1) <= _CLOSE * u.abs().amax(dim=-1)
        length = torch.ones_like(merit)
        for _ in range(_HALVINGS):
            trial = u + length[:, None] * step
            value = self._distance(trial - self.x) + weight * self.law.residual(trial).abs().sum(dim=-1)
            accepted = accepted | (value <= merit + 1e-4 * length * slope + 1e-12 * merit.abs())
            if bool(accepted.all()):
                break
            length = torch.where(accepted, length, 0.5 * length)
        return length

    def _distance(self, change: Tensor) -> Tensor:
        return 0.5 * self._product(change, change)

    def _product(self, first: Tensor, second: Tensor) -> Tensor:
        """aᵀ Σ⁻¹ b of changes; points without variance do not change."""
        weights, orthogonal = self._whitening
        white = [whitened(orthogonal, (part * weights).mT) for part in (first, second)]
        return (white[0] * white[1]).sum(dim=0)

    @cached_property
    def _whitening(self) -> tuple[Tensor, Tensor]:
        metric, root = split(self.covariance)
        weights = torch.where(metric > 0, torch.where(metric > 0, metric, 1.0).rsqrt(), 0.0)
        return weights, whitening(root.mT, weights)[0]

    def _is_small(self, step: Tensor, u: Tensor) -> bool:
        size = u.abs().amax(dim=-1).clamp_min(1e-300)
        return bool((step.abs().amax(dim=-1) <= self.options.step * size).all())

    def _error(self, residual: Tensor, rows: SparseRows, u: Tensor) -> float:
        """Largest residual relative to Σ_j |J_ij| times the field's largest value."""
        size = rows.norms() * u.abs().amax(dim=-1, keepdim=True)
        return float((residual.abs() / size.clamp_min(1e-300)).max())

    def _failure(self, u: Tensor, reason: str) -> ConvergenceError:
        residual = self.law.residual(u).abs().amax(dim=-1)
        worst = int(residual.argmax())
        return ConvergenceError(
            f"The projection onto the nonlinear law did not converge in {self.options.iterations} steps ({reason}): "
            f"field {self.first + worst} has a largest |g| of {float(residual[worst]):.3g}. Check that a field with "
            "g(u) = 0 exists near it, or start from one that nearly meets the law."
        )


def _factorised(covariance: LinearOperator, rows: SparseRows, noise: Tensor, residual: Tensor) -> StructuredGain:
    """The factorised update by linearised rows.

    Raises:
        ConvergenceError: If the gradient of a residual is zero, so that its row says nothing.
    """
    flat = rows.norms()[..., : residual.shape[-1]] == 0
    if bool(flat.any()):
        field, row = (int(i) for i in flat.expand(residual.shape).nonzero()[0])
        raise ConvergenceError(
            f"The gradient of residual {row} of the nonlinear law is zero at a field (there g = "
            f"{float(residual[field, row]):.3g}), so that the search has no direction; start from another field."
        )
    return factorise_rows(covariance, rows, noise)


def _sides(u: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """1 at points below the lower bound, −1 at those above the upper one, 0 between them."""
    return (u < lower).to(torch.int8) - (u > upper).to(torch.int8)


def _first_change(held: Tensor, new: Tensor) -> Tensor:
    """Only the first point changes, which ends cycles (Murty 1974)."""
    point = (new != held)[0].nonzero()[0, 0]
    changed = held.clone()
    changed[0, point] = new[0, point]
    return changed


def _times(rows: SparseRows, u: Tensor) -> Tensor:
    return rows.functional(u[:, None, :])[:, 0, :]


def _rank(covariance: LinearOperator) -> int:
    return 0 if isinstance(covariance, DiagLinearOperator) else split(covariance)[1].shape[-2]


def _part(law: NonlinearLaw, part: slice) -> NonlinearLaw:
    assert law.linear is not None
    linear = LinearConstraint(law.linear.G, law.linear.b[part])
    return replace(law, linear=linear)


def _corrected(gain: StructuredGain, base: Tensor, rows: SparseRows, missed: Tensor) -> tuple[Tensor, Tensor]:
    """base − Σ Jᵀ S⁻¹ missed, and λ = S⁻¹ missed."""
    multipliers = gain.multipliers(missed[:, None, :])
    moved = rows.subtract(None, gain.metric, multipliers)
    if gain.root.shape[-2]:
        spread = -rows.subtract(None, torch.ones_like(gain.metric), multipliers)
        moved = moved - (spread @ gain.root.mT) @ gain.root
    return base + moved[:, 0, :], multipliers[:, 0, :]
