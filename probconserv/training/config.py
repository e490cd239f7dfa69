"""How a training goes: its length, learning rate, precision, seed and device."""

import math
from dataclasses import dataclass
from typing import Literal

from probconserv.errors import InvalidArgumentError

Precision = Literal["32-true", "bf16-mixed", "64-true"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Length, learning rate, precision, seed and device of a training.

    Args:
        steps: Optimiser steps.
        peak_rate: Largest learning rate, reached after the warm-up.
        warmup: Fraction of the steps in which the rate rises linearly; it then falls along a cosine.
        gradient_norm: Gradients are clipped to this norm.
        weight_decay: Decoupled weight decay of AdamW.
        validate_every: Steps between validations.
        checkpoint_every: Steps between checkpoints.
        precision: Number format; ``bf16-mixed`` multiplies matrices in bfloat16.
        seed: Seed of the initial weights and of all data.
        device: ``cpu``, ``cuda`` or ``cuda:1``. Losses may need float64, which other devices lack.
        processes: World size; above one, start with ``torchrun``. Each process draws its rows of every batch from its
            own seed, so trainings in one and in two processes differ as those of two seeds do.
    """

    steps: int
    peak_rate: float = 1e-3
    warmup: float = 0.1
    gradient_norm: float = 1.0
    weight_decay: float = 0.0
    validate_every: int = 500
    checkpoint_every: int = 500
    precision: Precision = "bf16-mixed"
    seed: int = 0
    device: str = "cpu"
    processes: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "validate_every", "checkpoint_every", "processes"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("peak_rate", "gradient_norm"):
            if not getattr(self, name) > 0:
                raise InvalidArgumentError(f"{name} must be positive, got {getattr(self, name)}.")
        if not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise InvalidArgumentError(
                f"warmup must lie in [0, 1) and weight_decay not be negative, got {self.warmup}, {self.weight_decay}."
            )


def one_cycle(step: int, config: TrainingConfig) -> float:
    """Learning rate after a number of steps: linear rise to ``peak_rate``, then half a cosine to a thousandth of it."""
    rise = max(1, round(config.warmup * config.steps))
    if step < rise:
        return config.peak_rate * (step + 1) / rise
    fall = (step - rise) / max(1, config.steps - rise)
    return config.peak_rate * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * fall)))
