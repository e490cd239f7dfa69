"""A Gaussian prediction under a nonlinear law: the search in coordinates y ~ N(0, I) with u = m + R y, R Rᵀ = Σ.

Near an end, steps are Newton's, with the Hessian of the Lagrangian ½|y|² − λᵀ g, if that halves the error; with one row
the search is one for its multiplier, y = λ ∇g, by gradients alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probconserv._linalg.innovation import innovation_of
from probconserv._linalg.rows import SparseRows
from probconserv.constraints import rows_applied
from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    InfeasibleConstraintError,
    InvalidArgumentError,
)
from probconserv.nonlinear._search import Iterate, Newton, Space
from probconserv.nonlinear.law import NonlinearLaw, check_residual

_NEAR = 0.3  # error in standard deviations from which Newton steps are tried
_MANY = 8  # values from which their gradients are taken at once
_MEMORY = 8  # steps that an accelerated one combines
_CUT = 0.3  # length of a step below which the next one takes the Hessian into account
NEWTON_SIZE = 600  # largest number of coordinates for which the Hessian is formed


@dataclass(frozen=True, eq=False)
class Within:
    """Inequalities that hold as well.

    Args:
        target: From ∂g/∂y, y and g to the minimiser on the linearised law and the inequalities.
        active: For a target the rows ∂/∂y of the inequalities that hold with equality there ``(*batch, m, r)``, zero
            for the others.
    """

    target: Callable[[Tensor, Tensor, Tensor], Tensor]
    active: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitened(Space, Newton):
    """Coordinates of a prediction.

    Args:
        centre: Zeros ``(*batch, r)``.
        field_of: y to u; affine.
        law: The statements.
        is_sparse: Whether ∂g/∂u is the law's own sparse one, rather than by automatic differentiation row by row.
        scale: Standard deviations that u − m divided by gives y, if Σ is diagonal; sparse Jacobians stay sparse then.
        tolerance: Of residual and step, in standard deviations.
        within: Inequalities.
    """

    centre: Tensor
    field_of: Callable[[Tensor], Tensor]
    law: NonlinearLaw
    is_sparse: bool
    scale: Tensor | None
    tolerance: float
    within: Within | None = None

    def at(self, point: Tensor) -> Iterate:
        """See ``Space``; the error is the larger of residual and step, in standard deviations.

        Raises:
            ConvergenceError: If an entry is not finite or a gradient vanishes.
            DependentConstraintsError: If rows of J are dependent.
            InvalidArgumentError: If g has the wrong shape or does not depend on the field.
        """
        y = point.detach()
        residual, rows = self._linearised(y)
        scale = deviations(rows)
        if not bool(torch.isfinite(residual.sum() + scale.sum())):
            raise ConvergenceError(
                "Residual or Jacobian of residual_function is not finite at an iterate; start from a prior nearer to "
                "g(u) = 0."
            )
        if not bool((scale > 0).all()):
            raise ConvergenceError(
                f"The gradient of a residual vanishes at an iterate (largest |g| {float(residual.abs().max()):.3g}), "
                "so the update has no direction; start from another prior mean."
            )
        if self.within is None:
            multipliers = _multipliers(rows, rows_applied(rows, y) - residual, scale)
            target = _transposed(rows, multipliers)
        else:
            target = self.within.target(rows.to_dense(), y, residual)
            held = torch.cat([rows.to_dense(), self.within.active(target)], dim=-2)
            multipliers = torch.linalg.lstsq(held.mT, target[..., None], driver="gelsd").solution[..., 0]
            multipliers = multipliers[..., : residual.shape[-1]]
        size = y.abs().amax(dim=-1).clamp_min(1.0)
        error = torch.maximum((residual.abs() / scale).amax(dim=-1), (target - y).abs().amax(dim=-1) / size)
        return Iterate(point=y, residual=residual, rows=rows, target=target, multipliers=multipliers, error=error)

    def _linearised(self, y: Tensor) -> tuple[Tensor, Tensor | SparseRows]:
        """g and ∂g/∂y."""
        with torch.enable_grad():
            if self.scale is None:
                y = y.detach().requires_grad_()
                u = self.field_of(y)
            else:
                u = y = self.field_of(y).detach().requires_grad_()
            residual = self.law.statements(u)
            check_residual(residual, u)
            if self.is_sparse:
                assert self.scale is not None
                rows = self.law.jacobian_rows(u)
                return residual.detach(), replace(rows, entries=rows.entries * self.scale[rows.column])
            rows = stacked_gradients(residual, y).detach()
        return residual.detach(), rows if self.scale is None else rows * self.scale[..., None, :]

    def violation(self, point: Tensor) -> Tensor:
        """See ``Space``."""
        with torch.no_grad():
            return self.law.statements(self.field_of(point)).abs().sum(dim=-1)

    def product(self, first: Tensor, second: Tensor) -> Tensor:
        """See ``Space``."""
        return (first * second).sum(dim=-1)

    def better(self, at: Iterate) -> Iterate | None:
        """See ``Newton``."""
        if not bool((at.error <= _NEAR).all()):
            return None
        found = self._accelerated(at) if at.residual.shape[-1] == 1 and self.within is None else None
        return found or self._newton(at)

    def bent(self, at: Iterate, length: Tensor) -> Iterate:
        """See ``Newton``: Newton's step with the absolute eigenvalues of the Hessian, of which I is a poor model."""
        if self.within is not None or at.point.shape[-1] > NEWTON_SIZE or not bool((length < _CUT).any()):
            return at
        assert at.multipliers is not None
        y, rows = at.point, at.rows.to_dense()
        unit = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
        values, vectors = torch.linalg.eigh(unit - self.hessian(y, at.multipliers))
        size = values.abs().clamp_min(1e-8 * values.abs().amax(dim=-1, keepdim=True))
        inverse = (vectors / size[..., None, :]) @ vectors.mT
        cross = inverse @ rows.mT
        force = torch.linalg.solve(rows @ cross, (rows @ inverse @ y[..., None])[..., 0] - at.residual)
        return replace(at, target=y + (cross @ force[..., None])[..., 0] - (inverse @ y[..., None])[..., 0])

    def _accelerated(self, at: Iterate) -> Iterate | None:
        """Where steps lead from near by, combined as Anderson (1965) does; None if not to an end.

        With one row such a step costs one gradient.
        """
        changes: list[Tensor] = []  # of the step, and where it led
        moved: list[Tensor] = []
        vanishing = 1e-3 * deviations(at.rows)
        for _ in range(4 * _MEMORY):
            if not bool((at.error <= _NEAR).all() & (deviations(at.rows) > vanishing).all()):
                return None
            if bool((at.error <= self.tolerance).all()):
                return at
            y = at.target
            if changes:
                weights = torch.linalg.lstsq(torch.stack(changes, dim=-1), at.step[..., None], driver="gelsd").solution
                y = y - (torch.stack(moved, dim=-1) @ weights)[..., 0]
            last = at
            try:
                at = self.at(y)
            except ConvergenceError:
                return None
            changes = [*changes[1 - _MEMORY :], at.step - last.step]
            moved = [*moved[1 - _MEMORY :], at.target - last.target]
        return None

    def _newton(self, at: Iterate) -> Iterate | None:
        """Newton's step, if it is small enough to form, and halves the error of every entry."""
        if at.point.shape[-1] > NEWTON_SIZE:
            return None
        goals, active = [-at.point, -at.residual], None
        if self.within is not None:
            active = self.within.active(at.target)
            goals.append((active @ at.step[..., None])[..., 0])
        solution, info = torch.linalg.solve_ex(self.kkt_matrix(at, active), torch.cat(goals, dim=-1)[..., None])
        if bool(info.any()) or not bool(torch.isfinite(solution).all()):
            return None
        try:
            candidate = self.at(at.point + solution[..., : at.point.shape[-1], 0])
        except (ConvergenceError, DependentConstraintsError, InfeasibleConstraintError):
            return None
        new = candidate.error
        return candidate if bool(((new <= 0.5 * at.error) | (new <= 1e-13)).all()) else None

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

    def kkt_matrix(self, at: Iterate, active: Tensor | None = None) -> Tensor:
        """[[I − ∂²(λᵀ g), −Jᵀ], [J, 0]] ``(*batch, r + k, r + k)``; active inequalities are further rows, or zero."""
        assert at.multipliers is not None
        rows = at.rows.to_dense() if active is None else torch.cat([at.rows.to_dense(), active], dim=-2)
        unit = torch.eye(at.point.shape[-1], dtype=at.point.dtype, device=at.point.device)
        top = torch.cat([unit - self.hessian(at.point, at.multipliers), -rows.mT], dim=-1)
        corner = torch.diag_embed((~rows.any(dim=-1)).to(rows.dtype))
        return torch.cat([top, torch.cat([rows, corner], dim=-1)], dim=-2)


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


def deviations(rows: Tensor | SparseRows) -> Tensor:
    """√(J Jᵀ)_ii, the prior's standard deviation of every residual ``(*batch, k)``."""
    if isinstance(rows, SparseRows):
        return rows.gram(rows.entries.new_ones(rows.points)).sqrt()
    return torch.linalg.vector_norm(rows, dim=-1)


def _multipliers(rows: Tensor | SparseRows, goal: Tensor, scale: Tensor) -> Tensor:
    """λ = (J Jᵀ)⁻¹ goal ``(*batch, k)``, with the deviations of J.

    Raises:
        DependentConstraintsError: If rows of J are dependent.
    """
    if isinstance(rows, SparseRows):
        innovation = innovation_of(rows, rows.entries.new_ones(rows.points), torch.zeros_like(goal), checked=True)
        return innovation.solve(goal[..., None, :])[..., 0, :]
    k = goal.shape[-1]
    if k == 1:
        return goal / scale.square()
    unit = rows / scale[..., None]
    chol, info = torch.linalg.cholesky_ex(unit @ unit.mT)
    if bool(info.any()) or bool((chol.diagonal(dim1=-2, dim2=-1).square() <= 1e3 * k * 2.2e-16).any()):
        raise DependentConstraintsError(
            f"The {k} residuals have dependent gradients under this prior at an iterate; drop redundant residuals."
        )
    return torch.cholesky_solve((goal / scale)[..., None], chol)[..., 0] / scale


def _transposed(rows: Tensor | SparseRows, multipliers: Tensor) -> Tensor:
    """Jᵀ λ."""
    if isinstance(rows, SparseRows):
        return -rows.subtract(None, rows.entries.new_ones(rows.points), multipliers[None])[0]
    return (multipliers[..., None, :] @ rows)[..., 0, :]
