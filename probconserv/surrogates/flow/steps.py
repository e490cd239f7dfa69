"""Steps of a flow: where they lie, the clean estimate ẑ₁ = z + (1 − t) v(z, t), and the sampler without weights.

With D for the clean estimate, corrected or not, the flow is dz/dt = (D − z)/(1 − t). For Gaussian data of standard
deviations s, z_t has the deviations σ_t = √((1 − t)² + t² s²) and y = z/σ_t stands still. Steps of second order are
those of Adams and Bashforth in y: one evaluation each, and none of their error is that of the Gaussian.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from probconserv.errors import InvalidArgumentError
from probconserv.surrogates.flow.latent import Latent

LAST = 0.01  # 1 − t at the last node before 1: about a third of the finest scale of fields


class Flow(Protocol):
    """A model as samplers use it."""

    latent: Latent

    def evaluate(self, z: Tensor, t: float) -> Tensor:
        """dz/dt at ``(s, *state)``, float64, by operations that ``torch.func`` differentiates."""
        ...


StateCorrection = Callable[[Tensor, Tensor, float], Tensor]
"""(clean estimate, z, t) → the clean estimate under the law."""


def nodes_of(count: int) -> list[float]:
    """Times 0, …, 0.99, 1 of ``count`` evaluations: 1 − t is half geometric and half uniform, from 1 to 0.01."""
    if count == 1:
        return [0.0, 1.0]
    share = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    return [*(1 - 0.5 * (LAST**share + 1 - (1 - LAST) * share)).tolist(), 1.0]


def clean_estimate(flow: Flow, z: Tensor, t: float) -> Tensor:
    """ẑ₁ = z + (1 − t) v(z, t), with the velocity checked."""
    velocity: Any = flow.evaluate(z, t)
    if not isinstance(velocity, Tensor) or velocity.shape != z.shape:
        got = tuple(velocity.shape) if isinstance(velocity, Tensor) else type(velocity).__name__
        raise InvalidArgumentError(f"The velocity must return a tensor of the shape of z, {tuple(z.shape)}, got {got}.")
    wrong = ~torch.isfinite(velocity.flatten(1)).all(dim=-1)
    if bool(wrong.any()):
        raise InvalidArgumentError(
            f"The velocity is NaN or infinite for {int(wrong.sum())} of {len(z)} draws at t = {t:.3g}, where |z| is at "
            f"most {float(z.abs().max()):.3g}; check its weights, or train it in precision 32-true."
        )
    return z + (1 - t) * velocity


def integrate(flow: Flow, z: Tensor, correct: StateCorrection | None, steps: int) -> Tensor:
    """z at t = 1 ``(count, *state)`` from z at t = 0, by steps of second order."""
    before, rate, slope = 0.0, None, torch.zeros_like(z)
    for t, after in pairwise(nodes_of(steps)):
        clean = clean_estimate(flow, z, t)
        clean = clean if correct is None else correct(clean, z, t)
        spread, growth = flow.latent.spread_at(t)
        last, rate = rate, ((clean - z) / (1 - t) - growth * z) / spread  # dy/dt
        if last is not None:
            slope = (rate - last) / (t - before)
        step, before = after - t, t
        z = flow.latent.spread_at(after)[0] * (z / spread + step * (rate + 0.5 * step * slope))
    return z
