"""Projection of a batch of fields onto a nonlinear law: the search around each of them, with sparse Jacobians.

Once steps are small, Newton's iteration in the same metric brings the residual down to round-off. With bounds, a step
goes to the projection onto the linearised law and the bounds: points at a bound are further exact rows, and which
points these are follows from the sign of their multipliers (a primal-dual active set).
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from linear_operator import to_dense
from linear_operator.operators import LinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.covariance import covariance_of
from probconserv._linalg.gaussian import FieldGaussian
from probconserv._linalg.rows import stacked
from probconserv.constraints import LinearConstraint, rows_applied
from probconserv.errors import ConvergenceError
from probconserv.nonlinear._search import search
from probconserv.nonlinear._space import Rows, Space, Structure, StructuredRows
from probconserv.nonlinear.law import NonlinearLaw
from probconserv.nonlinear.mode import condition_on_field_of
from probconserv.prior import Parts

_STEP = 1e-6  # largest change of a value in the last step, relative to the field's largest value
_RESIDUAL = 1e-13  # largest |g_i| in the end, relative to Σ_j |J_ij| times the field's largest value
_ITERATIONS = 200
_STEPS = 20  # tried for fields together
_ACTIVE_SETS = 20  # tried for one linearised law
_SOFT = 1e-8  # variance of a point at a bound, relative to that of the prior, so that the law may determine it as well
_OUTSIDE = 1e-12  # distance from a bound, relative to the field's largest value, up to which a point counts as inside
_CHUNK = 1 << 24  # numbers in memory at once


def project_nonlinear(fields: Tensor, covariance: LinearOperator, law: NonlinearLaw, epsilon: float) -> Tensor:
    """The fields on {g = 0}, within bounds, that are stationary for the distance from the given ones.

    Args:
        fields: x ``(s, n)``, float64.
        covariance: Σ ``(n, n)``, float64; unless it is diagonal or low rank plus diagonal, each field is the mode of a
            prediction around it.
        law: g, linear rows and bounds.
        epsilon: Machine epsilon of the dtype in which Σ was computed.

    Returns:
        The projections ``(s, n)``.

    Raises:
        InvalidArgumentError: If Σ is indefinite beyond round-off.
        ConvergenceError: If a field does not converge, or a gradient is zero; the text names it and its residual.
        DependentConstraintsError: If rows of J are dependent under Σ.
    """
    form = covariance_of(covariance)
    if not form.splits:
        root = torch.cat([to_dense(part) for part in form.roots(epsilon)], dim=-1)
        whole = _Fields(fields, Structure(covariance_of(RootLinearOperator(root))), law, 0)
        modes = [whole.part(slice(entry, entry + 1))._most_probable() for entry in range(len(fields))]
        return torch.stack(modes) if modes else fields
    whole = _Fields(fields, Structure(form), law, 0)
    rank = form.split()[1].shape[-2]
    size = 1 if law.inequalities is not None else max(1, _CHUNK // ((10 + rank) * law.points))
    parts = [whole.part(slice(first, first + size)).projections() for first in range(0, len(fields), size)]
    return torch.cat(parts) if parts else fields


def linear_step(fields: Tensor, covariance: LinearOperator, law: NonlinearLaw) -> Tensor:
    """One Gauss–Newton step from the fields themselves, u − Σ Jᵀ (J Σ Jᵀ)⁻¹ g(u), as within a sampler."""
    structure = Structure(covariance_of(covariance))
    residual, rows = structure.linearised(law, fields)
    return fields + _step(rows, residual)[0]


@dataclass(eq=False)
class _Fields:
    """Some of the fields, one if there are bounds.

    Args:
        centre: Fields to project ``(s, n)``.
        structure: That of Σ.
        law: g.
        first: Number of the first field among all, for messages.
        held: Points at a bound ``(s, n)``: 1 at the lower, −1 at the upper one.
    """

    centre: Tensor
    structure: Structure
    law: NonlinearLaw
    first: int
    held: Tensor = field(init=False)

    def part(self, chosen: slice) -> "_Fields":
        """Some of them."""
        law = self.law
        if law.linear is not None and law.batch_shape and law.batch_shape[0] != 1:
            law = replace(law, linear=LinearConstraint(law.linear.G, law.linear.b[chosen]))
        return _Fields(self.centre[chosen], self.structure, law, self.first + chosen.start)

    def projections(self) -> Tensor:
        """The projections ``(s, n)``: of all fields together, then one by one where these steps do not become small."""
        bounded = self.law.inequalities is not None
        if bounded:
            self.held = self._beyond(self.centre)
        start = self.structure.coordinates(self._inside(self.centre) - self.centre)
        at = search(self._space, start, _STEPS)
        u, unfinished = self._field_of(at.target), (at.error > _STEP) | (at.multipliers is None)
        for entry in unfinished.nonzero()[:, 0].tolist():
            u[entry] = self.part(slice(entry, entry + 1))._most_probable()
        if bounded and bool(unfinished):
            self.held = self._beyond(u, -_OUTSIDE * u.abs().amax())
        return self._polished(u)

    def _most_probable(self) -> Tensor:
        """The one field as the mode of a prediction around it, with second derivatives.

        Starts are several, or the field itself if there are bounds, under which a search takes longer.
        """
        law = self.law if self.law.inequalities is None else replace(self.law, starts=1)
        if law.linear is not None:
            law = replace(law, linear=LinearConstraint(law.linear.G, law.linear.b.reshape(-1)))
        gaussian = FieldGaussian(self.centre[0], self.structure.covariance.operator)
        try:
            return condition_on_field_of(Parts(gaussian=gaussian), law).mode
        except ConvergenceError as error:
            starts = "the field" if law.starts == 1 else f"{law.starts} starts"
            raise self._failure(self.centre, f"no search from {starts} ended") from error

    @cached_property
    def _space(self) -> Space:
        return Space(
            field_of=self._field_of,
            law=self.law,
            structure=self.structure,
            tolerance=_STEP,
            relative=True,
            within=None if self.law.inequalities is None else self._nearest_within,
        )

    def _field_of(self, y: Tensor) -> Tensor:
        return self._inside(self.centre + self.structure.change(y))

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds ``(s, n)``."""
        bounds, x = self.law.inequalities, self.centre
        assert bounds is not None
        return bounds.lower.to(x).expand(x.shape), bounds.upper.to(x).expand(x.shape)

    def _inside(self, u: Tensor) -> Tensor:
        if self.law.inequalities is None:
            return u
        return torch.minimum(torch.maximum(u, self.bounds[0]), self.bounds[1])

    def _beyond(self, u: Tensor, slack: Tensor | float = 0.0) -> Tensor:
        """1 at points below the lower bound, −1 at those above the upper one, 0 between them."""
        lower, upper = self.bounds
        return (u < lower - slack).to(torch.int8) - (u > upper + slack).to(torch.int8)

    def _nearest_within(self, rows: Rows, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """See ``Target``; no multipliers if the points at a bound did not settle."""
        u, target = self._field_of(y), y
        for _ in range(_ACTIVE_SETS):
            held = self.held
            change, target, multipliers, pull = self._held_step(self.centre, u, residual, rows)
            nearest = self.centre + change
            stays = (held.sign() * pull < 0).to(torch.int8) * held
            new = torch.where(held == 0, self._beyond(nearest, _OUTSIDE * nearest.abs().amax()), stays)
            if torch.equal(new, held):
                return target, multipliers, None
            self.held = new
        return target, None, None

    def _held_step(
        self, base: Tensor, u: Tensor, residual: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From base to the linearised law and the points at a bound: the change, its coordinates, λ of both."""
        assert isinstance(rows, StructuredRows)
        points, sparse = self.held[0].nonzero()[:, 0], rows.rows
        missed = residual + rows_applied(sparse, base - u)
        if len(points):
            places = torch.stack([torch.arange(len(points)), points])
            one, size = torch.ones(len(points), dtype=torch.float64), (len(points), self.law.points)
            sparse = stacked(sparse, torch.sparse_coo_tensor(places, one, size, check_invariants=False))
            missed = torch.cat([missed, (base - self._limit())[:, points]], dim=-1)
            soft = _SOFT * self.structure.covariance.variance[points].expand(1, len(points))
            noise = torch.cat([torch.zeros_like(residual), soft], dim=-1)
            rows = StructuredRows(sparse, self.structure, noise)
        change, target, multipliers = _step(rows, missed)
        pull = torch.zeros_like(u)
        pull[:, points] = -multipliers[:, residual.shape[-1] :]
        return change, target, multipliers[:, : residual.shape[-1]], pull

    def _polished(self, u: Tensor) -> Tensor:
        """Newton's iteration from fields that nearly meet the law.

        Points at a bound end exactly there; rounding may take others across theirs.
        """
        bounded = self.law.inequalities is not None
        for _ in range(_ITERATIONS):
            held = self._inside(torch.where(self.held == 0, u, self._limit())) if bounded else u
            residual, rows = self.structure.linearised(self.law, held)
            size = rows.rows.norms() * held.abs().amax(dim=-1, keepdim=True)
            if float((residual.abs() / size.clamp_min(1e-300)).max()) <= _RESIDUAL:
                return held
            if bounded:
                self.held = torch.where(self.held == 0, self._beyond(u), self.held)
                u = u + self._held_step(u, held, residual, rows)[0]
            else:
                u = u + _step(rows, residual)[0]
        reason = "rounding or a kink of g keeps it from the required residual"
        raise self._failure(u, "law and bounds may have no field in common" if bounded else reason)

    def _limit(self) -> Tensor:
        """The bounds at which points are held."""
        return torch.where(self.held > 0, *self.bounds)

    def _failure(self, u: Tensor, reason: str) -> ConvergenceError:
        residual = self.law.residual(u).abs().amax(dim=-1)
        worst = int(residual.argmax())
        return ConvergenceError(
            f"The projection onto the nonlinear law did not converge ({reason}): "
            f"field {self.first + worst} has a largest |g| of {float(residual[worst]):.3g}. Check that a field with "
            "g(u) = 0 exists near it. If one does, give fields nearer to it or, within bounds, condition a prediction "
            "around the field, whose search is slower and finds more."
        )


def _step(rows: StructuredRows, missed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The change −Σ Jᵀ S⁻¹ missed, its coordinates, and λ = −S⁻¹ missed."""
    multipliers = -rows.multipliers(missed)
    y = rows.transposed(multipliers)
    return rows.structure.change(y), y, multipliers
