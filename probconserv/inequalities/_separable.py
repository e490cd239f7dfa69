"""Projection onto a law and inequalities for a diagonal Σ and one row: a search for one multiplier per field.

Values come from compiled loops; derivatives from the piece of the piecewise smooth projection on which the field lies,
in closed form: with the points at a bound and the pools of the order fixed, the minimiser is

    u_i = x_i − λ v_i w_i  (or the pool's mean of it),
    λ = (Σ_free w_i x_i + Σ_bound w_i u_i − b) / (Σ_free w_i² v_i + σ²)

which is what the implicit function theorem differentiates.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probconserv.errors import ConvergenceError
from probconserv.inequalities._feasible import FeasibleSet

_TOLERANCE = 1e-12  # of the law's residual, relative to |b| + Σ|w u|


def project_separable(
    fields: Float[Tensor, "s *batch n"], target: Float[Tensor, "s *batch k"], feasible: FeasibleSet
) -> Float[Tensor, "s *batch n"]:
    """argmin Σ_i (u_i − x_i)²/v_i over the set, for every field x.

    O(n) per evaluation of the law; a few are needed. Runs on the CPU, wherever the fields are.

    Args:
        fields: x, float64.
        target: b of every field, k ≤ 1.
        feasible: A separable set.

    Returns:
        Projections; zero-variance nodes keep their value.

    Raises:
        ConvergenceError: If the law is not met because float64 cannot resolve the scales.
    """
    fixed_by_law, feasible = bool(feasible.at_end.any()), feasible.reduced
    length = 0

    def arranged(values: Tensor) -> Tensor:
        return feasible.arranged(values).flatten(-2) if feasible.order else values

    if feasible.order:
        length = feasible.arranged(feasible.variance).shape[-1]
    lower, upper = (arranged(bound) for bound in feasible.tightened())
    variance = feasible.variance
    if fixed_by_law:
        variance = torch.where(feasible.lower == feasible.upper, 0.0, variance)
        target = torch.where(feasible.rows.any(dim=-1), target, 0.0)
    variance = arranged(variance)
    x = arranged(fields)
    if feasible.rows.shape[-2]:
        weights, noise = arranged(feasible.rows[..., 0, :]), feasible.noise[..., 0]
        b = target[..., 0]
    else:
        weights, noise, b = variance.new_zeros(variance.shape[-1:]), variance.new_zeros(()), variance.new_zeros(())
    parts = (x, variance, weights, torch.stack(torch.broadcast_tensors(lower, upper)), b, noise)
    u = _solve(parts, length)
    if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
        # The value is from the compiled search, the derivative from the smooth piece.
        on_piece = _on_piece(parts, u, length)
        u = u + (on_piece - on_piece.detach())
    return feasible.unarranged(u.unflatten(-1, (-1, length))) if length else u


def _solve(parts: tuple[Tensor, ...], length: int) -> Tensor:
    from probconserv.inequalities._kernels import project_rows  # numba, slow to import

    x, variance, weights, bounds, b, noise = (part.detach() for part in parts)
    batch, n = x.shape[1:-1], x.shape[-1]
    law = torch.stack(torch.broadcast_tensors(b, noise), dim=-1)
    law = law.expand(*x.shape[:-1], 2).reshape(-1, 2) if law.ndim > 1 else law.reshape(1, 2)
    shared = bounds.ndim == 2
    bounds = bounds[None] if shared else bounds.movedim(0, -2).expand(*batch, 2, n).reshape(-1, 2, n)
    u, residual = project_rows(
        _as_array(x.reshape(-1, n)),
        _as_array(_rows(variance, batch)),
        _as_array(_rows(weights, batch)),
        _as_array(bounds),
        _as_array(law),
        length,
    )
    if not bool((residual <= _TOLERANCE).all()):
        raise ConvergenceError(
            f"The law is missed by {np.max(residual):.3g} of |b| + Σ|w u| (required {_TOLERANCE:g}): the prior is "
            "further from the inequalities than float64 resolves. Check means and variances of the prior."
        )
    return torch.as_tensor(u, device=x.device).reshape(x.shape)


def _on_piece(parts: tuple[Tensor, ...], u: Tensor, length: int) -> Tensor:
    """The minimiser as a smooth function of its data, with the points at a bound and the pools of ``u``."""
    x, variance, weights, (lower, upper), b, noise = parts
    at_lower = u <= lower
    free = ~(at_lower | (u >= upper))
    at_bound = torch.where(at_lower, lower, torch.where(free, 0.0, upper))
    if not length:
        mean, rate = x, variance * weights
    else:
        precision = torch.where(free, 1.0 / torch.where(free, variance, 1.0), 0.0)
        first = torch.arange(1, u.shape[-1], device=u.device) % length == 0
        steps = ((u.diff() != 0) | first).cumsum(dim=-1)
        pool = torch.cat([torch.zeros_like(steps[..., :1]), steps], dim=-1)
        total = _pool(precision, pool)
        total = torch.where(free, total, 1.0)
        mean = _pool(precision * x, pool) / total
        rate = _pool(torch.where(free, weights, 0.0), pool) / total
    stiffness = torch.where(free, weights * rate, 0.0).sum(dim=-1) + noise
    excess = torch.where(free, weights * mean, weights * at_bound).sum(dim=-1) - b
    multiplier = excess / torch.where(stiffness == 0, 1.0, stiffness)
    return torch.where(free, mean - multiplier[..., None] * rate, at_bound)


def _pool(values: Tensor, pool: Tensor) -> Tensor:
    """The sum of the values over the pool of every point."""
    return torch.zeros_like(values).scatter_add(-1, pool, values).gather(-1, pool)


def _rows(values: Tensor, batch: torch.Size) -> Tensor:
    """One row for all fields, or one for each batch entry."""
    n = values.shape[-1]
    return values.reshape(1, n) if values.numel() == n else values.expand(*batch, n).reshape(-1, n)


def _as_array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.cpu().numpy())
