"""The search for the field nearest to a given one on {g(u) = 0}, which every use of a nonlinear law shares.

From a point y a step goes to the shortest coordinates t on the law linearised there (Gauss–Newton), as far as the merit
½ |y|² + ν |g|₁ falls (Han 1977). Second derivatives help near an end: steps are Newton's, with the Hessian of the
Lagrangian ½ |y|² − λᵀ g, if that halves the error; with one row the search is one for its multiplier, y = λ ∇g, by
gradients alone.
"""

from dataclasses import replace

import torch
from torch import Tensor

from probconserv.errors import ConvergenceError, DependentConstraintsError, InfeasibleConstraintError
from probconserv.nonlinear._space import Iterate, Space

_HALVINGS = 12
_CLOSE = 1e-3  # error below which rounding decides whether the merit falls
_NEAR = 0.3  # error in standard deviations from which Newton steps are tried
_MEMORY = 8  # steps that an accelerated one combines
_CUT = 0.3  # length of a step below which the next one takes the Hessian into account
NEWTON_SIZE = 600  # largest number of coordinates for which the Hessian is formed


def search(space: Space, start: Tensor, iterations: int) -> Iterate:
    """Runs the iteration from a start, for all batch entries together, until all meet the tolerance.

    Args:
        space: Coordinates and law.
        start: y ``(*batch, r)``.
        iterations: Largest number of steps.

    Returns:
        The last iterate; its error may exceed the tolerance.
    """
    at, newton = space.at(start), not space.relative
    weight, length = torch.zeros_like(at.error), torch.ones_like(at.error)
    for _ in range(iterations):
        if at.multipliers is None or bool((at.error <= space.tolerance).all()):
            break
        better = _better(space, at) if newton else None
        if better is not None:
            at = better
            continue
        at = _bent(space, at, length) if newton else at
        assert at.multipliers is not None
        weight = torch.maximum(weight, 1.1 * at.multipliers.abs().amax(dim=-1))
        length = _length(space, at, weight)
        if newton and bool(((length <= 0.5**_HALVINGS) | (at.error <= space.tolerance)).all()):
            break  # no entry that is left can descend
        at = space.at(at.point + length[..., None] * at.step)
    return at


def _length(space: Space, at: Iterate, weight: Tensor) -> Tensor:
    """Largest of 1, ½, ¼ … for which the merit falls, 1 for steps that are small ``(*batch,)``."""
    y, step, violation = at.point, at.step, weight * at.residual.abs().sum(dim=-1)
    merit = 0.5 * y.square().sum(dim=-1) + violation
    slope = (y * step).sum(dim=-1) - violation  # along the step the violation falls by itself to first order
    accepted, length = at.error <= _CLOSE, torch.ones_like(merit)
    for _ in range(_HALVINGS):
        if bool(accepted.all()):
            break
        trial = y + length[..., None] * step
        value = 0.5 * trial.square().sum(dim=-1) + weight * space.violation(trial)
        accepted = accepted | (value <= merit + 1e-4 * length * slope + 1e-12 * merit.abs())
        length = torch.where(accepted, length, 0.5 * length)
    return length


def _better(space: Space, at: Iterate) -> Iterate | None:
    """A point much nearer to an end, if there is a way to one that is faster than steps."""
    if not bool((at.error <= _NEAR).all()):
        return None
    found = _accelerated(space, at) if at.residual.shape[-1] == 1 and space.within is None else None
    return found or _newton(space, at)


def _bent(space: Space, at: Iterate, length: Tensor) -> Iterate:
    """Newton's step with the absolute eigenvalues of the Hessian, of which I is a poor model if a step was cut."""
    if space.within is not None or at.point.shape[-1] > NEWTON_SIZE or not bool((length < _CUT).any()):
        return at
    assert at.multipliers is not None
    y, rows = at.point, at.rows.to_dense()
    unit = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    values, vectors = torch.linalg.eigh(unit - space.hessian(y, at.multipliers))
    size = values.abs().clamp_min(1e-8 * values.abs().amax(dim=-1, keepdim=True))
    inverse = (vectors / size[..., None, :]) @ vectors.mT
    cross = inverse @ rows.mT
    force = torch.linalg.solve(rows @ cross, (rows @ inverse @ y[..., None])[..., 0] - at.residual)
    return replace(at, target=y + (cross @ force[..., None])[..., 0] - (inverse @ y[..., None])[..., 0])


def _accelerated(space: Space, at: Iterate) -> Iterate | None:
    """Where steps lead from near by, combined as Anderson (1965) does; None if not to an end.

    With one row such a step costs one gradient.
    """
    changes: list[Tensor] = []  # of the step, and where it led
    moved: list[Tensor] = []
    vanishing = 1e-3 * at.rows.deviations()
    for _ in range(4 * _MEMORY):
        if not bool((at.error <= _NEAR).all() & (at.rows.deviations() > vanishing).all()):
            return None
        if bool((at.error <= space.tolerance).all()):
            return at
        y = at.target
        if changes:
            weights = torch.linalg.lstsq(torch.stack(changes, dim=-1), at.step[..., None], driver="gelsd").solution
            y = y - (torch.stack(moved, dim=-1) @ weights)[..., 0]
        last = at
        try:
            at = space.at(y)
        except ConvergenceError:
            return None
        changes = [*changes[1 - _MEMORY :], at.step - last.step]
        moved = [*moved[1 - _MEMORY :], at.target - last.target]
    return None


def _newton(space: Space, at: Iterate) -> Iterate | None:
    """Newton's step, if it is small enough to form, and halves the error of every entry."""
    if at.point.shape[-1] > NEWTON_SIZE:
        return None
    goals = [-at.point, -at.residual]
    if at.active is not None:
        goals.append((at.active @ at.step[..., None])[..., 0])
    solution, info = torch.linalg.solve_ex(space.kkt_matrix(at), torch.cat(goals, dim=-1)[..., None])
    if bool(info.any()) or not bool(torch.isfinite(solution).all()):
        return None
    try:
        candidate = space.at(at.point + solution[..., : at.point.shape[-1], 0])
    except (ConvergenceError, DependentConstraintsError, InfeasibleConstraintError):
        return None
    new, met = candidate.error, 1e-3 * space.tolerance
    return candidate if bool(((new <= 0.5 * at.error) | (new <= met)).all()) else None
