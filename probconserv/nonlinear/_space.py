"""A nonlinear law in coordinates y ~ N(0, I) of a Gaussian, u = c + R y with R Rᵀ = Σ: what every search runs in.

The field nearest to c in Σ⁻¹ is that with the shortest y, also where Σ is singular. Rows ∂g/∂y are a matrix, or, for a
sparse ∂g/∂u and Σ = D + B Bᵀ, the factorised update of structured rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from probconserv._linalg.covariance import Covariance
from probconserv._linalg.rows import SparseRows
from probconserv._linalg.structured import StructuredGain, factorise_rows, variance_of_rows
from probconserv.constraints import rows_applied
from probconserv.errors import ConvergenceError, DependentConstraintsError, InvalidArgumentError
from probconserv.nonlinear.law import NonlinearLaw, check_residual

_MANY = 8  # values from which their gradients are taken at once


@dataclass(frozen=True, eq=False)
class MatrixRows:
    """∂g/∂y by its entries.

    Args:
        matrix: ``(*batch, k, r)``.
    """

    matrix: Tensor

    def deviations(self) -> Tensor:
        """The prior's standard deviation of every residual ``(*batch, k)``."""
        return torch.linalg.vector_norm(self.matrix, dim=-1)

    def applied(self, y: Tensor) -> Tensor:
        """∂g/∂y y."""
        return (self.matrix @ y[..., None])[..., 0]

    def transposed(self, multipliers: Tensor) -> Tensor:
        """(∂g/∂y)ᵀ λ."""
        return (multipliers[..., None, :] @ self.matrix)[..., 0, :]

    def multipliers(self, goal: Tensor) -> Tensor:
        """λ = S⁻¹ goal ``(*batch, k)`` with S = ∂g/∂y (∂g/∂y)ᵀ.

        Raises:
            DependentConstraintsError: If rows are dependent.
        """
        k, scale = goal.shape[-1], self.deviations()
        if k == 1:
            return goal / scale.square()
        unit = self.matrix / scale[..., None]
        chol, info = torch.linalg.cholesky_ex(unit @ unit.mT)
        if bool(info.any()) or bool((chol.diagonal(dim1=-2, dim2=-1).square() <= 1e3 * k * 2.2e-16).any()):
            raise DependentConstraintsError(
                f"The {k} residuals have dependent gradients under this prior at an iterate; drop redundant residuals."
            )
        return torch.cholesky_solve((goal / scale)[..., None], chol)[..., 0] / scale

    def to_dense(self) -> Tensor:
        """The matrix."""
        return self.matrix


@dataclass(frozen=True, eq=False)
class StructuredRows:
    """∂g/∂y by a sparse ∂g/∂u and Σ = D + B Bᵀ; members are those of ``MatrixRows``.

    Args:
        rows: ∂g/∂u ``(*batch, k, n)``.
        structure: That of Σ.
        noise: Variances by which the rows may be missed ``(*batch, k)``.
    """

    rows: SparseRows
    structure: "Structure"
    noise: Tensor

    @cached_property
    def gain(self) -> StructuredGain:
        """The factorised update by the rows."""
        return factorise_rows(self.structure.covariance, self.rows, self.noise)

    def deviations(self) -> Tensor:
        """See ``MatrixRows``."""
        return variance_of_rows(self.structure.covariance, self.rows).sqrt()

    def applied(self, y: Tensor) -> Tensor:
        """See ``MatrixRows``."""
        return rows_applied(self.rows, self.structure.change(y))

    def transposed(self, multipliers: Tensor) -> Tensor:
        """See ``MatrixRows``."""
        unit = multipliers.new_ones(self.rows.points)
        return self.structure.transposed(-self.rows.subtract(None, unit, multipliers[..., None, :])[..., 0, :])

    def multipliers(self, goal: Tensor) -> Tensor:
        """See ``MatrixRows``."""
        return self.gain.multipliers(goal[..., None, :])[..., 0, :]

    def to_dense(self) -> Tensor:
        """See ``MatrixRows``."""
        return self.structure.transposed(self.rows.to_dense())


Rows = MatrixRows | StructuredRows


@dataclass(frozen=True, eq=False)
class Structure:
    """Σ = D + B Bᵀ without batch axes, which ``splits``, and R = (√D, B)."""

    covariance: Covariance

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        """√D ``(n,)`` and Bᵀ ``(r, n)``."""
        metric, root = self.covariance.split()
        return metric.sqrt(), root

    def change(self, y: Tensor) -> Tensor:
        """R y ``(*batch, n)``."""
        deviation, root = self._parts
        apart, common = y.split([len(deviation), len(root)], dim=-1)
        return apart * deviation + common @ root if len(root) else apart * deviation

    def transposed(self, rows: Tensor) -> Tensor:
        """Rows ``(*batch, n)`` times R ``(*batch, n + r)``."""
        deviation, root = self._parts
        return torch.cat([rows * deviation, rows @ root.mT], dim=-1)

    def coordinates(self, change: Tensor) -> Tensor:
        """Coordinates of a change ``(*batch, n)`` of points with a variance of their own, all of it in D."""
        deviation, root = self._parts
        apart = torch.where(deviation > 0, change / torch.where(deviation > 0, deviation, 1.0), 0.0)
        return torch.cat([apart, change.new_zeros(*change.shape[:-1], len(root))], dim=-1)

    def linearised(self, law: NonlinearLaw, u: Tensor) -> tuple[Tensor, StructuredRows]:
        """g and ∂g/∂y at fields ``(*batch, n)``.

        Raises:
            ConvergenceError: If an entry is not finite or a gradient is zero.
        """
        residual, rows = law.linearise(u)
        _require_gradients(rows.norms().expand(residual.shape), residual)
        return residual, StructuredRows(rows, self, torch.zeros_like(residual))


@dataclass(frozen=True, kw_only=True, eq=False)
class Iterate:
    """A point of a search, and where the next step leads.

    Args:
        point: y ``(*batch, r)``.
        residual: g ``(*batch, k)``.
        rows: ∂g/∂y.
        target: The shortest coordinates that meet the linearised law ``(*batch, r)``.
        multipliers: λ with target = (∂g/∂y)ᵀ λ ``(*batch, k)``; None where the target is not final.
        error: How far the point is from an end ``(*batch,)``.
        active: Rows of the inequalities that hold with equality at the target ``(*batch, m, r)``, zero for the others.
    """

    point: Tensor
    residual: Tensor
    rows: Rows
    target: Tensor
    multipliers: Tensor | None
    error: Tensor
    active: Tensor | None = None

    @property
    def step(self) -> Tensor:
        """Target − point."""
        return self.target - self.point


Target = Callable[[Rows, Tensor, Tensor], tuple[Tensor, Tensor | None, Tensor | None]]
"""From ∂g/∂y, y and g to the shortest coordinates on the linearised law and the inequalities, the multipliers of the
law, and the rows of the inequalities that are active, zero for the others.

There are no multipliers if the active inequalities did not become final, and no rows if there are no Newton steps.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Coordinates of a Gaussian, and a law.

    Args:
        field_of: y to u.
        law: The statements.
        structure: That of Σ, if rows are structured ones.
        tolerance: Of the error: the larger of residual and step, in standard deviations.
        relative: Whether the error is instead the largest step, relative to the largest value of the field, and there
            are no Newton steps.
        within: Inequalities.
    """

    field_of: Callable[[Tensor], Tensor]
    law: NonlinearLaw
    structure: Structure | None
    tolerance: float
    relative: bool = False
    within: Target | None = None

    def at(self, point: Tensor) -> Iterate:
        """The law linearised at a point, and the step from there.

        Raises:
            ConvergenceError: If an entry is not finite or a gradient vanishes.
            DependentConstraintsError: If rows are dependent.
            InvalidArgumentError: If g has the wrong shape or does not depend on the field.
        """
        y = point.detach()
        u, residual, rows = self._linearised(y)
        active = None
        if self.within is None:
            multipliers = rows.multipliers(rows.applied(y) - residual)
            target = rows.transposed(multipliers)
        else:
            target, multipliers, active = self.within(rows, y, residual)
        if self.relative:
            error = (self.field_of(target) - u).abs().amax(dim=-1) / u.abs().amax(dim=-1).clamp_min(1e-300)
        else:
            step = (target - y).abs().amax(dim=-1) / y.abs().amax(dim=-1).clamp_min(1.0)
            error = torch.maximum((residual.abs() / rows.deviations()).amax(dim=-1), step)
        return Iterate(
            point=y,
            residual=residual,
            rows=rows,
            target=target,
            multipliers=multipliers,
            error=error,
            active=active,
        )

    def _linearised(self, y: Tensor) -> tuple[Tensor, Tensor, Rows]:
        """u, g and ∂g/∂y."""
        if self.structure is not None:
            u = self.field_of(y).detach()
            return u, *self.structure.linearised(self.law, u)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            u = self.field_of(y)
            residual = self.law.statements(u)
            check_residual(residual, u)
            rows = MatrixRows(stacked_gradients(residual, y).detach())
        residual, deviations = residual.detach(), rows.deviations()
        if not bool(torch.isfinite(residual.sum() + deviations.sum())):
            raise ConvergenceError(
                "Residual or Jacobian of residual_function is not finite at an iterate; start from a prior nearer to "
                "g(u) = 0."
            )
        _require_gradients(deviations, residual)
        return u.detach(), residual, rows

    def violation(self, point: Tensor) -> Tensor:
        """|g|₁ ``(*batch,)``."""
        with torch.no_grad():
            return self.law.statements(self.field_of(point)).abs().sum(dim=-1)

    def hessian(self, y: Tensor, multipliers: Tensor) -> Tensor:
        """∂²(λᵀ g)/∂y² ``(*batch, r, r)``."""
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            weighed = (self.law.statements(self.field_of(y)) * multipliers).sum()
            (gradient,) = torch.autograd.grad(weighed, y, create_graph=True)
            if not gradient.requires_grad:
                return y.new_zeros(*y.shape, y.shape[-1])
            hessian = stacked_gradients(gradient, y, strict=False).detach()
        return 0.5 * (hessian + hessian.mT)

    def kkt_matrix(self, at: Iterate) -> Tensor:
        """[[I − ∂²(λᵀ g), −Jᵀ], [J, 0]] ``(*batch, r + k, r + k)``; active inequalities are further rows, or zero."""
        assert at.multipliers is not None
        rows = at.rows.to_dense() if at.active is None else torch.cat([at.rows.to_dense(), at.active], dim=-2)
        unit = torch.eye(at.point.shape[-1], dtype=at.point.dtype, device=at.point.device)
        top = torch.cat([unit - self.hessian(at.point, at.multipliers), -rows.mT], dim=-1)
        corner = torch.diag_embed((~rows.any(dim=-1)).to(rows.dtype))
        return torch.cat([top, torch.cat([rows, corner], dim=-1)], dim=-2)


def _require_gradients(sizes: Tensor, residual: Tensor) -> None:
    """Raises ConvergenceError if the gradient of a residual is zero, so that its row says nothing."""
    if not bool((sizes > 0).all()):
        index = tuple(int(i) for i in (sizes == 0).nonzero()[0])
        raise ConvergenceError(
            f"The gradient of residual {index[-1]} of the nonlinear law is zero at a field (there g = "
            f"{float(residual[index]):.3g}), so that the search has no direction; start from another field or prior "
            "mean."
        )


def stacked_gradients(values: Tensor, point: Tensor, strict: bool = True, create_graph: bool = False) -> Tensor:
    """∂ values_i/∂ point ``(*batch, k, n)``.

    Raises:
        InvalidArgumentError: If a value does not depend on the point and ``strict`` is set; otherwise its row is zero.
    """
    if not strict and values.shape[-1] > _MANY:
        try:
            return _batched_gradients(values, point)
        except RuntimeError:  # an operation without a rule for it
            pass
    rows = [
        torch.autograd.grad(row.sum(), point, retain_graph=True, create_graph=create_graph, allow_unused=True)[0]
        for row in values.unbind(dim=-1)
    ]
    if strict and any(row is None for row in rows):
        raise InvalidArgumentError("A residual of residual_function does not depend on the field; drop it.")
    return torch.stack([torch.zeros_like(point) if row is None else row for row in rows], dim=-2)


def _batched_gradients(values: Tensor, point: Tensor) -> Tensor:
    """The same by one backward pass that is vectorised over the values."""
    count = values.shape[-1]
    unit = torch.eye(count, dtype=values.dtype, device=values.device)
    units = unit.reshape(count, *[1] * (values.ndim - 1), count).expand(count, *values.shape)
    (rows,) = torch.autograd.grad(
        values, point, units, retain_graph=True, is_grads_batched=True, materialize_grads=True
    )
    return rows.movedim(0, -2)
