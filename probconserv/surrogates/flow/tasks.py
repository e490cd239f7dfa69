"""Draws from a flow: options and task of its samplers."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from probconserv.errors import InvalidArgumentError
from probconserv.nonlinear.law import AnyLaw
from probconserv.surrogates.flow.corrections import part_of
from probconserv.surrogates.flow.steps import Flow


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a flow is integrated.

    Args:
        steps: Steps from t = 0 to 1.
        particles: Particles of ``twisted``, more where more draws are asked for.
        tolerance: Standard deviation by which ``twisted`` may miss what a law says along any direction, in those of the
            fields; exact rows are met at the end.
        mixing: Evaluations per step of ``eci``; all but the last return to the same time.
        local: Whether ``conditioned`` takes the covariance of the clean estimate from the Jacobian of the velocity, for
            linear rows and ``KarhunenLoeve`` coefficients; a product with it for every direction that rows inform. Data
            on a curved set of few dimensions need it.
        resample: Evaluations after which ``eci`` draws its noise anew; without it and in ``pcfm`` the first one stays.
        order: Order of the steps of ``conditioned`` and ``unconstrained``: 2, or 1 for Euler's method with steps of one
            length, as in release 0.2, and as ``eci`` and ``pcfm`` have.
    """

    steps: int = 50
    mixing: int = 1
    local: bool = False
    resample: int | None = None
    order: int = 2
    particles: int = 1024
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.mixing < 1 or (self.resample is not None and self.resample < 1):
            raise InvalidArgumentError(
                f"steps, mixing and resample must be at least 1, got {self.steps}, {self.mixing} and {self.resample}."
            )
        if self.order not in (1, 2):
            raise InvalidArgumentError(f"order must be 1 or 2, got {self.order}.")
        if self.particles < 2:
            raise InvalidArgumentError(f"particles must be at least 2, got {self.particles}; 1024 are usual.")
        if not 0 <= self.tolerance < math.inf:
            raise InvalidArgumentError(f"tolerance must be a finite number, not negative, got {self.tolerance}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingTask:
    """The draws that are wanted.

    Args:
        count: Number of fields.
        law: Law of all of them, or with one batch entry for each.
        options: Steps and noise.
        generator: Source of random numbers.
    """

    count: int
    law: AnyLaw | None = None
    options: SamplingOptions = field(default_factory=SamplingOptions)
    generator: Generator = field(default_factory=Generator)

    def part(self, draws: slice | Tensor) -> "SamplingTask":
        """The task of some of the draws, given by their positions."""
        count = len(torch.arange(self.count)[draws])
        return replace(self, count=count, law=part_of(self.law, draws))


Sampler = Callable[[Flow, SamplingTask], Tensor]
"""(flow, task) → fields ``(count, n)``, float64. Options that a sampler ignores must not be set."""
