"""Samplers of a flow under a law: one loop, which differs in how the clean estimate is corrected.

At time t the flow is at z. A step takes the clean estimate ẑ₁ = z + (1 − t) v(z, t), corrects it by the law, and goes
on to t′ ẑ₁ + (1 − t′) z₀ with the noise z₀. At the end the law is imposed on the field itself, in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from probconserv.errors import InvalidArgumentError
from probconserv.nonlinear.projection import AnyLaw
from probconserv.surrogates.flow.coefficients import Correction, Flow, local_correction
from probconserv.surrogates.flow.corrections import (
    final_fields,
    identity_covariance,
    in_clean_metric,
    in_identity_metric,
    part_of,
    shared_information,
)
from probconserv.surrogates.flow.discrepancy import allowing_for, warn_of_small_noise
from probconserv.surrogates.flow.latent import Latent


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a flow is integrated.

    Args:
        steps: Steps from t = 0 to 1.
        mixing: Evaluations per step; all but the last return to the same time.
        renewal: Fraction c of the noise's standard deviation that ``conditioned`` and ``unconstrained`` draw anew at
            every evaluation: z₀ ← √(1 − c²) z₀ + c ε with z₀ = (z − t ẑ₁)/(1 − t), the noise that belongs to the clean
            estimate. For small c this is a step of Langevin's equation, which corrects errors; 0 is deterministic.
        local: Whether ``conditioned`` takes the covariance of the clean estimate from the Jacobian of the velocity, for
            linear rows and ``KarhunenLoeve`` coefficients; a product with it for every direction that rows inform. Data
            on a curved set of few dimensions need it.
        resample: Evaluations after which ``eci`` draws its noise anew; without it and in ``pcfm`` the first one stays.
    """

    steps: int = 100
    mixing: int = 1
    renewal: float = 0.0
    local: bool = False
    resample: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.mixing < 1 or (self.resample is not None and self.resample < 1):
            raise InvalidArgumentError(
                f"steps, mixing and resample must be at least 1, got {self.steps}, {self.mixing} and {self.resample}."
            )
        if not 0 <= self.renewal <= 1:
            raise InvalidArgumentError(f"renewal must lie in [0, 1], got {self.renewal}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingTask:
    """What is drawn.

    Args:
        count: Number of fields.
        law: Law of all of them, or with one batch entry for each.
        inputs: Parameters of every field ``(count, d)``, for a conditional flow.
        options: Steps and noise.
        generator: Source of random numbers.
    """

    count: int
    law: AnyLaw | None = None
    inputs: Float[Tensor, "count d"] | None = None
    options: SamplingOptions = field(default_factory=SamplingOptions)
    generator: Generator = field(default_factory=Generator)

    def part(self, draws: slice | Tensor) -> "SamplingTask":
        """The task of some of the draws, given by their positions."""
        count = len(torch.arange(self.count)[draws])
        inputs = None if self.inputs is None else self.inputs[draws]
        return replace(self, count=count, law=part_of(self.law, draws), inputs=inputs)


Sampler = Callable[[Flow, SamplingTask], Tensor]
"""(flow, task) → fields ``(count, n)``, float64. Options that play no part in a sampler must be left alone."""


def unconstrained(flow: Flow, task: SamplingTask) -> Float[Tensor, "count n"]:
    """Draws by Euler's method, or with renewed noise, whatever the law."""
    _refuse(task.options, "unconstrained", "resample")
    _require_renewal(task.options, "unconstrained")
    return flow.latent.decode(_integrate(flow, task, None, keeps_noise=False))


def conditioned(flow: Flow, task: SamplingTask) -> Float[Tensor, "count n"]:
    """Draws under a law in the metric of the uncertainty, with an exact final update.

    Every clean estimate is conditioned on the law with its covariance given z_t, which makes it the conditional mean
    E[z₁ | z_t, law] where data are Gaussian; without ``renewal`` the step is then that of the probability flow of the
    conditional distribution. Rows with noise (observations) act through these steps alone. Exact rows are met to
    round-off by a last projection of the field in the metric of the data's covariance, bounds and order by another one
    in that of its variances; a nonlinear law is met together with its bounds. Where rows have values that no field of
    the model has, a warning says so and the metric of these draws allows for it, see ``allowing_for``.
    """
    _refuse(task.options, "conditioned", "resample")
    _require_renewal(task.options, "conditioned")
    warn_of_small_noise(flow.latent, task.law)
    fields = torch.empty(task.count, flow.latent.points, dtype=torch.float64)
    for draws, latent in allowing_for(flow.latent, task.law):
        fields[draws] = _conditioned(flow, task.part(draws), latent)
    return fields


def _conditioned(flow: Flow, task: SamplingTask, latent: Latent) -> Float[Tensor, "count n"]:
    """Draws of one group, in coordinates that allow for what their law needs."""
    if task.options.local:
        information = shared_information(latent, task.law)
        correct = None if information is None else local_correction(flow, information, task.inputs)
    else:
        correct = _without_state(in_clean_metric(latent, task.law))
    z = _integrate(flow, task, correct, keeps_noise=False)
    return final_fields(latent.decode(z), latent.clean_covariance(0.0), task.law)


def eci(flow: Flow, task: SamplingTask) -> Float[Tensor, "count n"]:
    """Extrapolation, correction, interpolation: the projection of the field in the identity metric (Cheng et al. 2025).

    Bounds and order, which the published method does not know, are met at the end.
    """
    _refuse(task.options, "eci", "renewal", "local")
    z = _integrate(flow, task, _without_state(in_identity_metric(flow.latent, task.law)), keeps_noise=True)
    return final_fields(flow.latent.decode(z), identity_covariance(flow.latent), task.law)


def pcfm(flow: Flow, task: SamplingTask) -> Float[Tensor, "count n"]:
    """One Gauss–Newton projection a step in the identity metric, with the noise of the start (Utkarsh et al. 2025).

    Their relaxed correction after the interpolation is left out; it is off in their examples in one dimension.
    """
    if task.options.mixing > 1 or task.options.resample is not None:
        raise InvalidArgumentError("pcfm has one evaluation a step and one noise; use eci or conditioned for others.")
    _refuse(task.options, "pcfm", "renewal", "local")
    return eci(flow, task)


def _refuse(options: SamplingOptions, sampler: str, *names: str) -> None:
    """Raises InvalidArgumentError if one of these options is set, which play no part in the sampler."""
    usual = SamplingOptions()
    for name in names:
        if getattr(options, name) != getattr(usual, name):
            raise InvalidArgumentError(f"{name} plays no part in {sampler}; leave it out, or take another sampler.")


def _require_renewal(options: SamplingOptions, sampler: str) -> None:
    if options.mixing > 1 and not options.renewal:
        raise InvalidArgumentError(
            f"mixing > 1 needs new noise for {sampler}; set renewal, for instance to 0.3, or leave mixing at 1."
        )


_StateCorrection = Callable[[Tensor, Tensor, float], Tensor]
"""(clean estimate, z, t) → the clean estimate under the law."""


def _without_state(correct: Correction | None) -> _StateCorrection | None:
    """A correction that does not look at z."""
    return None if correct is None else lambda clean, _, t: correct(clean, t)


def _integrate(flow: Flow, task: SamplingTask, correct: _StateCorrection | None, *, keeps_noise: bool) -> Tensor:
    """z at t = 1 ``(count, *state)``."""
    options, noise = task.options, flow.latent.noise(task.count, task.generator)
    z, evaluations = noise, 0
    for step in range(options.steps):
        t, after = step / options.steps, (step + 1) / options.steps
        for repetition in range(options.mixing):
            clean = z + (1 - t) * _velocity(flow, z, t, task.inputs)
            clean = clean if correct is None else correct(clean, z, t)
            evaluations += 1
            if not keeps_noise:
                noise = _renewed((z - t * clean) / (1 - t), flow, task)
            elif options.resample is not None and evaluations % options.resample == 0:
                noise = flow.latent.noise(task.count, task.generator)
            aim = after if repetition == options.mixing - 1 else t
            z = aim * clean + (1 - aim) * noise
    return z


def _renewed(noise: Tensor, flow: Flow, task: SamplingTask) -> Tensor:
    """√(1 − c²) z₀ + c ε."""
    fraction = task.options.renewal
    if not fraction:
        return noise
    return (1 - fraction**2) ** 0.5 * noise + fraction * flow.latent.noise(task.count, task.generator)


def _velocity(flow: Flow, z: Tensor, t: float, inputs: Tensor | None) -> Tensor:
    """The velocity, checked."""
    velocity: Any = flow.evaluate(z, t, inputs)
    if not isinstance(velocity, Tensor) or velocity.shape != z.shape:
        got = tuple(velocity.shape) if isinstance(velocity, Tensor) else type(velocity).__name__
        raise InvalidArgumentError(f"The velocity must return a tensor of the shape of z, {tuple(z.shape)}, got {got}.")
    wrong = ~torch.isfinite(velocity.flatten(1)).all(dim=-1)
    if bool(wrong.any()):
        raise InvalidArgumentError(
            f"The velocity is NaN or infinite for {int(wrong.sum())} of {len(z)} draws at t = {t:.3g}, where |z| is at "
            f"most {float(z.abs().max()):.3g}; check its weights, or train it in precision 32-true."
        )
    return velocity
