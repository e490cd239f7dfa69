"""Samplers of a flow under a law: one loop, which differs in how the clean estimate is corrected.

At time t the flow is at z. A step takes the clean estimate ẑ₁ = z + (1 − t) v(z, t), corrects it by the law, and goes
on to t′ ẑ₁ + (1 − t′) z₀ with the noise z₀. At the end the law is imposed on the field itself, in float64.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities.inequality import Inequality, JoinedConstraint
from probconserv.nonlinear.projection import equalities_of
from probconserv.surrogates.flow.coefficients import INFORMED, Correction, information_of, local_correction
from probconserv.surrogates.flow.corrections import (
    final_fields,
    identity_covariance,
    in_clean_metric,
    in_identity_metric,
    in_units_of,
    shared_information,
    shares_rows,
)
from probconserv.surrogates.flow.discrepancy import allowing_for
from probconserv.surrogates.flow.latent import KarhunenLoeve, Latent
from probconserv.surrogates.flow.particles import Population, population_of
from probconserv.surrogates.flow.steps import Flow, StateCorrection, clean_estimate, integrate
from probconserv.surrogates.flow.tasks import Sampler as Sampler
from probconserv.surrogates.flow.tasks import SamplingOptions, SamplingTask

_PRECISE, _MOST_PRECISE = 1e4, 3  # information in a direction, relative to that of the data, and such directions
_MOST_INFORMED, _MOST_EXACT = 32, 12  # directions that a law informs at all, and exact rows
_OF_PARTICLES = ("particles", "tolerance")
_WITHOUT_EFFECT = {
    "unconstrained": ("resample", "mixing", "local", *_OF_PARTICLES),
    "conditioned": ("resample", "mixing", *_OF_PARTICLES),
    "twisted": ("resample", "mixing", "local", "order"),
    "eci": ("local", *_OF_PARTICLES),
    "pcfm": ("local", *_OF_PARTICLES),
}


def unconstrained(flow: Flow, task: SamplingTask) -> Float[Tensor, "count n"]:
    """Draws by the flow alone, which takes no law."""
    _refuse(task.options, "unconstrained")
    if task.law is not None:
        raise InvalidArgumentError("unconstrained draws miss the law; leave law out, or take another sampler.")
    return flow.latent.decode(_integrate(flow, task, None, keeps_noise=False))


def conditioned(flow: Flow, task: SamplingTask) -> Float[Tensor, "count n"]:
    """Draws under a law in the metric of the uncertainty, with an exact final update.

    Every clean estimate is conditioned on the law with its covariance given z_t, which makes it the conditional mean
    E[z₁ | z_t, law] where data are Gaussian; the step is then that of the probability flow of the conditional
    distribution. Rows with noise (observations) act through these steps alone. Exact rows are met to
    round-off by a last projection of the field in the metric of the data's covariance, bounds and order by another one
    in that of its variances; a nonlinear law is met together with its bounds. Where rows have values that no field of
    the model has, a warning says so and the metric of these draws allows for it, see ``allowing_for``.
    """
    _refuse(task.options, "conditioned")
    fields = torch.empty(task.count, flow.latent.points, dtype=torch.float64)
    for draws, latent in allowing_for(flow.latent, task.law):
        fields[draws] = _conditioned(flow, task.part(draws), latent)
    return fields


def _conditioned(flow: Flow, task: SamplingTask, latent: Latent) -> Float[Tensor, "count n"]:
    """Draws of one group, in coordinates that allow for what their law needs."""
    if task.options.local:
        information = shared_information(latent, task.law)
        correct = None if information is None else local_correction(flow, information)
    else:
        correct = _without_state(in_clean_metric(latent, task.law))
    z = _integrate(flow, task, correct, keeps_noise=False)
    return final_fields(latent.decode(z), latent.clean_covariance(0.0), task.law)


def twisted(flow: Flow, task: SamplingTask) -> Float[Tensor, "count n"]:
    """Draws under one law with the right weights, by particles; rows are met exactly in the end, as by ``conditioned``.

    For few directions, noisy observations and bounds, in ``KarhunenLoeve`` coefficients. Unlike the other samplers it
    asks how likely the law makes each draw, so that modes of the data keep their weights given the law. It takes bounds
    for information: where training fields keep them and the network's errors cross them, draws are too flat. Then take
    ``conditioned``, or draw under the rows alone and ``project`` onto both.
    """
    return twisted_population(flow, task).fields(slice(None), task.generator)


def twisted_population(flow: Flow, task: SamplingTask) -> Population:
    """The particles that ``twisted`` draws from."""
    _refuse(task.options, "twisted")
    obstacle = _obstacle(flow.latent, task)
    if obstacle is not None:
        raise InvalidArgumentError(f"twisted is for {obstacle}; use conditioned.")
    return population_of(flow, task)


def sampler_for(flow: Flow, task: SamplingTask) -> tuple[Sampler, SamplingOptions]:
    """The sampler for a law, and its options.

    ``twisted`` where it can be, unless the law says much: more than three directions of the coefficients to a hundredth
    of their deviation, more than 32 at all, or more than twelve exact rows. Few particles survive such a law, and
    ``conditioned`` serves it better with the local covariance; ``draw`` goes on to it, too, where fewer than five
    ancestors are left. Options that only ``conditioned`` has ask for it; those of particles have an effect where
    ``twisted`` is chosen.
    """
    options, of_conditioned = task.options, options_for("conditioned", task.options)
    asked = options_for("twisted", options) != options
    if asked or not isinstance(flow.latent, KarhunenLoeve):
        return conditioned, replace(options, particles=of_conditioned.particles, tolerance=of_conditioned.tolerance)
    rows, possible = equalities_of(task.law), _obstacle(flow.latent, task) is None
    if rows is None:
        return (twisted, options) if possible else (conditioned, of_conditioned)
    if not shares_rows(rows):
        return conditioned, of_conditioned
    values = information_of(flow.latent, rows).values
    limits = ((values > _PRECISE, _MOST_PRECISE), (values > INFORMED, _MOST_INFORMED), (rows.noise == 0, _MOST_EXACT))
    much = any(int(counted.sum()) > most for counted, most in limits)
    return (twisted, options) if possible and not much else (conditioned, replace(of_conditioned, local=True))


def _obstacle(latent: Latent, task: SamplingTask) -> str | None:
    """Laws that ``twisted`` is for and this is not."""
    law = task.law
    if not isinstance(latent, KarhunenLoeve):
        return f"KarhunenLoeve coefficients, not for {type(latent).__name__}"
    joined = law.joined() if isinstance(law, Inequality) else law
    if not isinstance(joined, LinearConstraint | JoinedConstraint):
        return f"linear rows and bounds, not for {type(law).__name__}"
    if isinstance(joined, JoinedConstraint) and (joined.order or joined.rows is not None):
        return "rows and bounds, not for an order or inequalities between values"
    if joined.batch_shape:
        return "one law of all draws, not one for each"
    return None


def eci(flow: Flow, task: SamplingTask) -> Float[Tensor, "count n"]:
    """Extrapolation, correction, interpolation: the projection of the field in the identity metric (Cheng et al. 2025).

    Bounds and order, which the published method does not know, are met at the end.
    """
    _refuse(task.options, "eci")
    z = _integrate(flow, task, _without_state(in_identity_metric(flow.latent, task.law)), keeps_noise=True)
    return final_fields(flow.latent.decode(z), identity_covariance(flow.latent), in_units_of(flow.latent, task.law))


def pcfm(flow: Flow, task: SamplingTask) -> Float[Tensor, "count n"]:
    """One Gauss–Newton projection a step in the identity metric, with the noise of the start (Utkarsh et al. 2025).

    Their relaxed correction after the interpolation is left out; it is off in their examples in one dimension.
    """
    if task.options.mixing > 1 or task.options.resample is not None:
        raise InvalidArgumentError("pcfm has one evaluation a step and one noise; use eci or conditioned for others.")
    _refuse(task.options, "pcfm")
    return eci(flow, task)


def options_for(sampler: str, options: SamplingOptions) -> SamplingOptions:
    """The options, with the defaults of those that have no effect on a sampler."""
    usual = SamplingOptions()
    return replace(options, **{name: getattr(usual, name) for name in _WITHOUT_EFFECT[sampler]})


def _refuse(options: SamplingOptions, sampler: str) -> None:
    """Raises InvalidArgumentError if an option is set that has no effect on the sampler."""
    effective = options_for(sampler, options)
    for name in _WITHOUT_EFFECT[sampler]:
        if getattr(options, name) != getattr(effective, name):
            raise InvalidArgumentError(f"{name} has no effect on {sampler}; remove it, or take another sampler.")


def _without_state(correct: Correction | None) -> StateCorrection | None:
    """A correction that does not look at z."""
    return None if correct is None else lambda clean, _, t: correct(clean, t)


def _integrate(flow: Flow, task: SamplingTask, correct: StateCorrection | None, *, keeps_noise: bool) -> Tensor:
    """z at t = 1 ``(count, *state)``."""
    options, noise = task.options, flow.latent.noise(task.count, task.generator)
    if options.order == 2 and not keeps_noise:
        return integrate(flow, noise, correct, options.steps)
    z, evaluations = noise, 0
    for step in range(options.steps):
        t, after = step / options.steps, (step + 1) / options.steps
        for repetition in range(options.mixing):
            clean = clean_estimate(flow, z, t)
            clean = clean if correct is None else correct(clean, z, t)
            evaluations += 1
            if not keeps_noise:
                noise = (z - t * clean) / (1 - t)
            elif options.resample is not None and evaluations % options.resample == 0:
                noise = flow.latent.noise(task.count, task.generator)
            aim = after if repetition == options.mixing - 1 else t
            z = aim * clean + (1 - aim) * noise
    return z
