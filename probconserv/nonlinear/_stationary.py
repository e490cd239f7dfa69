"""Search for the most probable field on {g(u) = 0}: sequential quadratic programming with a line search.

In coordinates y with u = m + R y, R Rᵀ = Σ, the field minimises ½|y|² on {g = 0}. A step goes towards the minimiser on
the linearised law (Gauss–Newton), as far as the merit function ½|y|² + ν |g|₁ falls (Han 1977); near the end it is
Newton's, with the Hessian of the Lagrangian ½|y|² − λᵀ g, if that halves the error.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    InfeasibleConstraintError,
    InvalidArgumentError,
)

_HALVINGS = 30
_NEAR = 0.3  # error in standard deviations from which Newton steps are tried
_MANY = 8  # values from which their gradients are taken at once
_MEMORY = 8  # steps that an accelerated one combines
_CUT = 0.3  # length of a step below which the next one takes the Hessian into account
_CLOSE = 1e-3  # relative size of a step below which rounding decides whether the merit falls
NEWTON_SIZE = 600  # largest number of coordinates for which the Hessian is formed


@dataclass(frozen=True, kw_only=True, eq=False)
class Linearised:
    """The law at one iterate.

    Args:
        y: Coordinates ``(*batch, r)``.
        u: Field ``(*batch, n)``.
        residual: g ``(*batch, k)``.
        jacobian: ∂g/∂y ``(*batch, k, r)``, dense, or sparse without batch axes.
        field_jacobian: ∂g/∂u, if it was computed by the caller's function.
    """

    y: Tensor
    u: Tensor
    residual: Tensor
    jacobian: Tensor
    field_jacobian: Tensor | None = None

    @property
    def scale(self) -> Tensor:
        """√(J Jᵀ)_ii, the prior's standard deviation of every residual ``(*batch, k)``."""
        if self.jacobian.is_sparse:
            return torch.sparse.sum(self.jacobian * self.jacobian, dim=1).to_dense().sqrt()
        return torch.linalg.vector_norm(self.jacobian, dim=-1)

    @property
    def error(self) -> Tensor:
        """Largest residual in standard deviations ``(*batch,)``."""
        return (self.residual.abs() / self.scale).amax(dim=-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Law:
    """g in the coordinates y.

    Args:
        field_of: y to u; affine.
        residual_function: u to g.
        jacobian_function: u to ∂g/∂u, dense or sparse; by automatic differentiation if None.
        scale: Standard deviations that u − m divided by gives y, if Σ is diagonal; sparse Jacobians stay sparse then.
    """

    field_of: Callable[[Tensor], Tensor]
    residual_function: Callable[[Tensor], Tensor]
    jacobian_function: Callable[[Tensor], Tensor] | None
    scale: Tensor | None

    def linearise(self, y: Tensor) -> Linearised:
        """g and its Jacobian at y.

        Raises:
            ConvergenceError: If an entry is not finite or a gradient vanishes.
            InvalidArgumentError: If g has the wrong shape or does not depend on the field.
        """
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            u = self.field_of(y)
            residual = self.residual_function(u)
            check_residual(residual, u)
            given = None
            if self.jacobian_function is not None:
                given = self._given(u.detach(), residual)
                jacobian = self._pulled(given, u, y)
            else:
                jacobian = stacked_gradients(residual, y)
        values = jacobian.coalesce().values() if jacobian.is_sparse else jacobian
        if not bool(torch.isfinite(residual).all() & torch.isfinite(values).all()):
            raise ConvergenceError(
                "Residual or Jacobian of residual_function is not finite at an iterate; start from a prior nearer to "
                "g(u) = 0."
            )
        result = Linearised(
            y=y.detach(), u=u.detach(), residual=residual.detach(), jacobian=jacobian.detach(), field_jacobian=given
        )
        if not bool((result.scale > 0).all()):
            raise ConvergenceError(
                f"The gradient of a residual vanishes at an iterate (largest |g| "
                f"{float(result.residual.abs().max()):.3g}), so the update has no direction; start from another prior "
                "mean."
            )
        return result

    def residual(self, y: Tensor) -> Tensor:
        """g(u(y)) without derivatives."""
        with torch.no_grad():
            return self.residual_function(self.field_of(y))

    def hessian(self, y: Tensor, multipliers: Tensor) -> Tensor:
        """∂²(λᵀ g)/∂y² ``(*batch, r, r)``."""
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            weighed = (self.residual_function(self.field_of(y)) * multipliers).sum()
            (gradient,) = torch.autograd.grad(weighed, y, create_graph=True)
        if not gradient.requires_grad:
            return y.new_zeros(*y.shape, y.shape[-1])
        hessian = stacked_gradients(gradient, y, strict=False).detach()
        return 0.5 * (hessian + hessian.mT)

    def _given(self, u: Tensor, residual: Tensor) -> Tensor:
        assert self.jacobian_function is not None
        given = self.jacobian_function(u).to(torch.float64)
        given = given.to_sparse_coo().coalesce() if given.layout != torch.strided else given
        shape = (*u.shape[:-1], residual.shape[-1], u.shape[-1])
        if given.shape != shape:
            raise InvalidArgumentError(f"jacobian must give {shape}, got {tuple(given.shape)}.")
        return given

    def _pulled(self, given: Tensor, u: Tensor, y: Tensor) -> Tensor:
        """∂g/∂y from ∂g/∂u."""
        if given.is_sparse and self.scale is not None:
            values = given.values() * self.scale[given.indices()[1]]
            return torch.sparse_coo_tensor(
                given.indices(), values, given.shape, is_coalesced=True, check_invariants=False
            )
        rows = given.to_dense().unbind(dim=-2)
        return torch.stack([torch.autograd.grad(u, y, row, retain_graph=True)[0] for row in rows], dim=-2)


def check_shape(residual: Tensor, u: Tensor) -> None:
    """Raises InvalidArgumentError unless residuals are ``(*batch, k)``."""
    if residual.ndim != u.ndim or residual.shape[:-1] != u.shape[:-1] or not residual.shape[-1]:
        raise InvalidArgumentError(
            f"residual_function must turn {tuple(u.shape)} into (*batch, k) with the same batch and k ≥ 1, got "
            f"{tuple(residual.shape)}."
        )


def check_residual(residual: Tensor, u: Tensor) -> None:
    """Raises InvalidArgumentError unless residuals are ``(*batch, k)`` and depend on the field."""
    check_shape(residual, u)
    if not residual.requires_grad:
        raise InvalidArgumentError("The residuals of residual_function do not depend on the field by torch operations.")


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


def aim_at_law(at: Linearised) -> Tensor:
    """The y of least norm on the linearised law: Jᵀ λ."""
    multipliers = multipliers_of(at)
    if at.jacobian.is_sparse:
        return at.jacobian.mT @ multipliers
    return (multipliers[..., None, :] @ at.jacobian)[..., 0, :]


def multipliers_of(at: Linearised) -> Tensor:
    """λ = (J Jᵀ)⁻¹ (J y − g) ``(*batch, k)``.

    Raises:
        DependentConstraintsError: If rows of J are dependent.
    """
    k = at.residual.shape[-1]
    if at.jacobian.is_sparse:
        from scipy.sparse import csc_matrix
        from scipy.sparse.linalg import splu  # slow to import, rarely needed

        jacobian = at.jacobian.coalesce()
        rows, columns = jacobian.indices().numpy(force=True)
        matrix = csc_matrix((jacobian.values().numpy(force=True), (rows, columns)), shape=jacobian.shape)
        goal = matrix @ at.y.numpy(force=True) - at.residual.numpy(force=True)
        try:
            solved = splu((matrix @ matrix.T).tocsc()).solve(goal)
        except RuntimeError as error:
            raise _dependent(k) from error
        return torch.as_tensor(solved, device=at.y.device)
    unit = at.jacobian / at.scale[..., None]
    goal = (at.jacobian @ at.y[..., None])[..., 0] - at.residual
    chol, info = torch.linalg.cholesky_ex(unit @ unit.mT)
    if bool(info.any()) or bool((chol.diagonal(dim1=-2, dim2=-1).square() <= 1e3 * k * 2.2e-16).any()):
        raise _dependent(k)
    return torch.cholesky_solve((goal / at.scale)[..., None], chol)[..., 0] / at.scale


def _dependent(k: int) -> DependentConstraintsError:
    return DependentConstraintsError(
        f"The {k} residuals have dependent gradients under this prior at an iterate; drop redundant residuals."
    )


def kkt_matrix(law: Law, at: Linearised, multipliers: Tensor, active: Tensor | None = None) -> Tensor:
    """[[I − ∂²(λᵀ g), −Jᵀ], [J, 0]] ``(*batch, r + k, r + k)``; active inequalities are further rows, or zero."""
    rows = at.jacobian.to_dense()
    rows = rows if active is None else torch.cat([rows, active], dim=-2)
    unit = torch.eye(at.y.shape[-1], dtype=at.y.dtype, device=at.y.device)
    top = torch.cat([unit - law.hessian(at.y, multipliers), -rows.mT], dim=-1)
    corner = torch.diag_embed((~rows.any(dim=-1)).to(rows.dtype))
    return torch.cat([top, torch.cat([rows, corner], dim=-1)], dim=-2)


@dataclass(frozen=True, eq=False)
class Aim:
    """The minimiser on the linearised law, and inequalities.

    Args:
        target: Its coordinates.
        active: For a target the rows ∂/∂y of the inequalities that hold with equality there ``(*batch, m, r)``, zero
            for the others; None without inequalities.
    """

    target: Callable[[Linearised], Tensor] = aim_at_law
    active: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """Where a search from one start ended.

    Args:
        at: The law there.
        error: The larger of residual and step, in standard deviations ``(*batch,)``.
        objective: |y|² ``(*batch,)``.
    """

    at: Linearised
    error: Tensor

    @property
    def objective(self) -> Tensor:
        return self.at.y.square().sum(dim=-1)


def search(law: Law, start: Tensor, aim: Aim, tolerance: float, max_iterations: int) -> Search:
    """Runs the iteration from one start, for all batch entries together, until all meet the tolerance.

    Args:
        law: g.
        start: y ``(*batch, r)``.
        aim: The minimiser on the linearised law, and inequalities.
        tolerance: Of residual and step, in standard deviations.
        max_iterations: Largest number of steps.

    Returns:
        The last iterate; its error may exceed the tolerance.
    """
    at = law.linearise(start)
    weight, length = at.y.new_zeros(at.y.shape[:-1]), at.y.new_ones(at.y.shape[:-1])
    for _ in range(max_iterations):
        step = aim.target(at) - at.y
        error = _error(at, step)
        if bool((error <= tolerance).all()):
            break
        newton = _accelerated(law, at, aim, tolerance) if at.residual.shape[-1] == 1 and aim.active is None else None
        newton = newton or _newton(law, at, aim, step)
        if newton is not None:
            at = newton
            continue
        if aim.active is None and at.y.shape[-1] <= NEWTON_SIZE and bool((length < _CUT).any()):
            step = _convexified_step(law, at)
        weight = torch.maximum(weight, _merit_weight(at, step))
        length = _step_length(law, at, step, weight, length)
        if bool(((length < 2.0**-_HALVINGS * 1.5) | (error <= tolerance)).all()):
            break  # no entry that is left can descend
        at = law.linearise(at.y + length[..., None] * step)
    return Search(at=at, error=_error(at, aim.target(at) - at.y))


def _error(at: Linearised, step: Tensor) -> Tensor:
    size = at.y.abs().amax(dim=-1).clamp_min(1.0)
    return torch.maximum(at.error, step.abs().amax(dim=-1) / size)


def _accelerated(law: Law, at: Linearised, aim: Aim, tolerance: float) -> Linearised | None:
    """Where steps to the linearised law lead from near by, combined as Anderson (1965) does; None if not to an end.

    With one row such a step costs one gradient, and the search is one for its multiplier: y = λ ∇g.
    """
    steps: list[Tensor] = []
    points: list[Tensor] = []
    vanishing = 1e-3 * at.scale
    for _ in range(4 * _MEMORY):
        step = aim.target(at) - at.y
        error = _error(at, step)
        if bool((error <= tolerance).all() & (at.scale > vanishing).all()):
            return at
        if not bool((error <= _NEAR).all() & (at.scale > vanishing).all()):
            return None
        points, steps = [*points[-_MEMORY:], at.y], [*steps[-_MEMORY:], step]
        y = at.y + step
        if len(steps) > 1:
            changes, moved = (torch.stack(values, dim=-1).diff(dim=-1) for values in (steps, points))
            weights = torch.linalg.lstsq(changes, step[..., None], driver="gelsd").solution
            y = y - ((moved + changes) @ weights)[..., 0]
        try:
            at = law.linearise(y)
        except ConvergenceError:
            return None
    return None


def _newton(law: Law, at: Linearised, aim: Aim, step: Tensor) -> Linearised | None:
    """Newton's step, if it is near, small enough to form, and halves the error of every entry."""
    error, size = _error(at, step), at.y.shape[-1]
    if size > NEWTON_SIZE or not bool((error <= _NEAR).all()):
        return None
    active = None if aim.active is None else aim.active(at.y + step)
    goals, multipliers = [-at.y, -at.residual], None
    if active is None:
        multipliers = multipliers_of(at)
    else:
        rows = torch.cat([at.jacobian.to_dense(), active], dim=-2)
        solved = torch.linalg.lstsq(rows.mT, (at.y + step)[..., None], driver="gelsd").solution[..., 0]
        multipliers = solved[..., : at.residual.shape[-1]]
        goals.append((active @ step[..., None])[..., 0])
    matrix = kkt_matrix(law, at, multipliers, active)
    solution, info = torch.linalg.solve_ex(matrix, torch.cat(goals, dim=-1)[..., None])
    if bool(info.any()) or not bool(torch.isfinite(solution).all()):
        return None
    try:
        candidate = law.linearise(at.y + solution[..., :size, 0])
        new = _error(candidate, aim.target(candidate) - candidate.y)
    except (ConvergenceError, DependentConstraintsError, InfeasibleConstraintError):
        return None
    return candidate if bool(((new <= 0.5 * error) | (new <= 1e-13)).all()) else None


def _convexified_step(law: Law, at: Linearised) -> Tensor:
    """Newton's step with the absolute eigenvalues of the Hessian, where the unit matrix is a poor model of it."""
    jacobian = at.jacobian.to_dense()
    unit = torch.eye(at.y.shape[-1], dtype=at.y.dtype, device=at.y.device)
    values, vectors = torch.linalg.eigh(unit - law.hessian(at.y, multipliers_of(at)))
    size = values.abs().clamp_min(1e-8 * values.abs().amax(dim=-1, keepdim=True))
    inverse = (vectors / size[..., None, :]) @ vectors.mT
    cross = inverse @ jacobian.mT
    force = torch.linalg.solve(jacobian @ cross, (jacobian @ inverse @ at.y[..., None])[..., 0] - at.residual)
    return (cross @ force[..., None])[..., 0] - (inverse @ at.y[..., None])[..., 0]


def _merit_weight(at: Linearised, step: Tensor) -> Tensor:
    """ν for which the step descends (Nocedal & Wright 2006, eq. 18.36)."""
    change = (at.y * step).sum(dim=-1) + 0.5 * step.square().sum(dim=-1)
    violation = at.residual.abs().sum(dim=-1)
    return torch.where(violation > 0, 2 * change / violation.clamp_min(1e-300), 0.0).clamp_min(0.0)


def _step_length(law: Law, at: Linearised, step: Tensor, weight: Tensor, last: Tensor) -> Tensor:
    """Largest of 1, ½, ¼ … for which the merit falls; the last length where rounding hides the fall."""
    violation = at.residual.abs().sum(dim=-1)
    merit = 0.5 * at.y.square().sum(dim=-1) + weight * violation
    slope = (at.y * step).sum(dim=-1) - weight * violation
    close = _error(at, step) <= _CLOSE
    length, accepted = torch.where(close, last, 1.0), close.clone()
    for _ in range(_HALVINGS):
        if bool(accepted.all()):
            break
        y = at.y + length[..., None] * step
        value = 0.5 * y.square().sum(dim=-1) + weight * law.residual(y).abs().sum(dim=-1)
        accepted |= value <= merit + 1e-4 * length * slope
        length = torch.where(accepted, length, 0.5 * length)
    return length
