"""Cost of the most probable non-negative field with a given total, against non-negative least squares."""

from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.distributions import Normal

from experiments.benchmarks.measure import best_of, compared, difference_within, fields_with_totals, report
from probconserv import JoinedConstraint, LinearConstraint, NonNegative, condition

POINTS = 201
# Weight of the law in the least squares, in prior standard deviations of the total: the error falls with its square,
# to about 1e-6 here, while rounding grows with it.
_WEIGHT = 1e5


def run(slices: int = 2200) -> dict[str, Any]:
    """Times the batch at once, and one field at a time, under a diagonal covariance.

    The baseline is SciPy's ``nnls`` on the dense Cholesky factor, slice by slice: minimise ‖Lᵀ(u − μ)‖² +
    ω² (wᵀu − b)² over u ≥ 0 with L Lᵀ = Σ⁻¹ and a large ω. What it leaves of the law is taken out for the comparison
    of the minimisers, ``difference``, by solving once more with b moved by as much, which is not timed. Our ``law
    residual`` is relative to |b| + Σ|w u|.
    """
    mean, scale, law = fields_with_totals(slices, POINTS)
    joined, each = law & NonNegative(), [LinearConstraint(law.G, b) & NonNegative() for b in law.b]
    batched, ours = best_of(lambda: _most_probable(mean, scale, joined), repeats=5)
    looped, _ = best_of(lambda: [_most_probable(*parts) for parts in zip(mean, scale, each, strict=True)], repeats=1)
    baseline, theirs = best_of(lambda: _by_least_squares(mean, scale, law), repeats=1)
    moved = LinearConstraint(law.G, law.b - law.residual(theirs))
    difference = difference_within(ours, _by_least_squares(mean, scale, moved), 1e-8)
    size = law.b[:, 0].abs() + (law.rows.abs() @ ours.abs()[..., None])[:, 0, 0]
    checks = {"difference": difference, "law residual": float((law.residual(ours)[:, 0].abs() / size).max())}
    name = f"{slices:,} slices of {POINTS} points, non-negative with a total"
    other = "scipy nnls on the dense Cholesky factor, looped"
    ways = {"batched": batched, "looped": looped}
    return report("inequality", [compared(f"{name}, {way}", ways[way], other, baseline, **checks) for way in ways])


def _most_probable(mean: Tensor, scale: Tensor, joined: JoinedConstraint) -> Tensor:
    return condition(Normal(mean, scale, validate_args=False), joined).mode


def _by_least_squares(mean: Tensor, scale: Tensor, law: LinearConstraint) -> Tensor:
    weights = law.rows[0].numpy()
    fields = []
    for m, s, b in zip(mean.numpy(), scale.numpy(), law.b[:, 0].numpy(), strict=True):
        variance = np.diag(s**2)
        factor = np.linalg.cholesky(np.linalg.inv(variance)).T
        row = _WEIGHT / np.sqrt(weights @ variance @ weights)
        fields.append(nnls(np.vstack([factor, row * weights]), np.append(factor @ m, row * b))[0])
    return torch.as_tensor(np.stack(fields))
