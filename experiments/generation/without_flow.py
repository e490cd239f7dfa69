"""Fields under a law without a flow: true ones, and the simplest alternatives to a flow, from its training fields."""

from dataclasses import replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from experiments.generation.cases import Case, Sizes
from experiments.generation.conditioning import OneField
from experiments.generation.problem import GenerationProblem
from experiments.generation.training import training_of
from probconserv import FlowMatching, LinearConstraint
from probconserv.nonlinear.projection import project
from probconserv.scores import energy_score
from probconserv.surrogates.flow import KarhunenLoeve
from probconserv.surrogates.flow.corrections import final_fields
from probconserv.surrogates.flow.discrepancy import allowing_for
from probconserv.training.loop import random_seed

NEAREST = 100
"""Training fields that are kept, more only where more of them meet the law."""
FACTORS = (1.0, 2.0, 4.0, 8.0)
"""By which a search may widen the noise of a law."""
_OF_TOTALS = 0.02  # deviation of a total in a search, relative to that of the training fields
_LEAST = 1e-3  # deviation of a row's residual that it is measured in, relative to the largest
_MET = 1e-12  # distance up to which a field meets the law


def true_fields(case: Case, seed: int) -> Float[Tensor, "s t x"]:
    """Draws of the exact conditional distribution."""
    return case.truths(case.draws, seed)


def gaussian_fields(case: Case, seed: int) -> Float[Tensor, "s t x"]:
    """Draws of the Gaussian with the moments of the training fields, moved onto a linear law.

    The move is the last one of our sampler, with bounds, in the covariance of the fields. Without bounds these are
    draws of the conditioned Gaussian, since rows with noise ask every draw for a value with an error of its own.
    """
    (_, flow), generator = _training_set(case.problem, case.sizes, case.group), _generator(seed)
    modes = flow.latent
    assert isinstance(modes, KarhunenLoeve)
    root = torch.cat([modes.root, modes.rest])
    normals = torch.randn(case.draws, len(root), dtype=torch.float64, generator=generator)
    return _onto_law(case, flow, modes.mean + normals @ root, generator)


def smoothed_fields(case: Case, seed: int) -> Float[Tensor, "s t x"]:
    """Training fields moved in the same way: an ensemble smoother (van Leeuwen and Evensen, Mon. Wea. Rev. 1996)."""
    (fields, flow), generator = _training_set(case.problem, case.sizes, case.group), _generator(seed)
    chosen = torch.randperm(len(fields), generator=generator)[: case.draws]
    return _onto_law(case, flow, fields[chosen].flatten(1), generator)


def nearest_fields(case: Case, seed: int) -> Float[Tensor, "s t x"]:
    """Training fields that come closest to the law, drawn with replacement, and moved onto it in the same way.

    Residuals of rows are measured in their deviations over the training fields. This is rejection sampling with a
    linear adjustment in the manner of Beaumont, Zhang and Balding (Genetics 2002).
    """
    fields, flow = _training_set(case.problem, case.sizes, case.group)
    assert case.law is not None
    residuals = case.law.residual(fields.flatten(1))
    deviations = residuals.std(dim=0)
    least = max(_LEAST * float(deviations.max()), torch.finfo(fields.dtype).tiny)
    distance = (residuals / deviations.clamp_min(least)).square().mean(dim=-1).sqrt()
    nearest = distance.argsort()[: max(NEAREST, int((distance <= _MET).sum()))]
    chosen = nearest[torch.randint(len(nearest), (case.draws,), generator=_generator(seed))]
    return _onto_law(case, flow, fields[chosen].flatten(1))


def likely_fields(case: OneField, seed: int) -> Float[Tensor, "s t x"]:
    """Training fields in proportion to the likelihood of the law, moved onto its exact rows and into the bounds.

    Rows count as noisier than they are by a factor that is chosen on other fields, since few training fields are near.
    """
    factor = _widening(replace(case, number=0, among=0))
    return _likely(case, factor, seed)


@lru_cache(maxsize=64)
def _widening(case: OneField) -> float:
    """The factor with the least mean energy score."""
    others = case.validation()

    def score(factor: float) -> float:
        drawn = [(each, _likely(each, factor, each.number).flatten(1)) for each in others]
        return sum(float(energy_score(each.truth.flatten(), draws)) for each, draws in drawn)

    return min(FACTORS, key=score)


def _likely(case: OneField, factor: float, seed: int) -> Tensor:
    (fields, flow), generator = _training_set(case.problem, case.sizes, case.group), _generator(seed)
    log_likelihood = torch.zeros(len(fields), dtype=torch.float64)
    if case.law is not None:
        residuals, noise = case.law.residual(fields.flatten(1)), case.law.noise.sqrt()
        width = factor * noise.where(noise > 0, _OF_TOTALS * residuals.std(dim=0))
        log_likelihood = -0.5 * (residuals / width).square().sum(dim=-1)
    chosen = log_likelihood.softmax(dim=0).multinomial(case.draws, replacement=True, generator=generator)
    return _onto_law(case, flow, fields[chosen].flatten(1))


@lru_cache(maxsize=3)
def _training_set(problem: GenerationProblem, sizes: Sizes, group: int) -> tuple[Tensor, FlowMatching]:
    """The training fields of a flow of an experiment, and this flow, of which coordinates alone are used."""
    training = training_of(problem, sizes, number=group, device="cpu")
    fields = training.fields()
    return fields, training.untrained(fields)


def _onto_law(case: Case, flow: FlowMatching, fields: Tensor, generator: Generator | None = None) -> Tensor:
    """Fields moved onto exact rows and into bounds, and before that, with a generator, by rows with noise."""
    law = case.law
    [(_, latent)] = allowing_for(flow.latent, law)
    covariance = latent.clean_covariance(0.0)
    if generator is not None and isinstance(law, LinearConstraint) and bool((law.noise > 0).any()):
        errors = law.noise.sqrt() * torch.randn(len(fields), len(law.b), dtype=torch.float64, generator=generator)
        fields = project(fields, covariance, LinearConstraint(law.G, law.b + errors, noise_variance=law.noise_variance))
    return final_fields(fields, covariance, case.law_and_bounds).reshape(-1, *flow.latent.shape)


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(random_seed(seed, 0, 0))
