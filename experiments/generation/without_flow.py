"""Fields under a law without a flow: true ones, and the simplest alternatives to a flow, from its training fields."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from experiments.generation.cases import Case, Sizes
from experiments.generation.problems import GenerationProblem
from experiments.generation.training import training_of
from probconserv import FieldLatent, FlowMatching, KarhunenLoeve
from probconserv.surrogates.flow.corrections import final_fields
from probconserv.surrogates.flow.discrepancy import allowing_for
from probconserv.training import random_seed

NEAREST = 100
"""Training fields that are kept, more only where more of them meet the law."""
_LEAST = 1e-3  # deviation of a row's residual that it is measured in, relative to the largest
_MET = 1e-12  # distance up to which a field meets the law


def true_fields(case: Case, seed: int) -> Float[Tensor, "s t x"]:
    """Draws of the exact conditional distribution."""
    return case.truths(case.draws, seed)


def gaussian_fields(case: Case, seed: int) -> Float[Tensor, "s t x"]:
    """Draws of the Gaussian with the moments of the training fields, moved onto a linear law.

    The move is the last one of our sampler, with bounds, in the covariance of the fields. Without bounds these are
    draws of the conditioned Gaussian.
    """
    _, flow = _training_set(case.problem, case.sizes)
    modes = flow.latent.modes if isinstance(flow.latent, FieldLatent) else flow.latent
    assert isinstance(modes, KarhunenLoeve)
    root = torch.cat([modes.root, modes.rest])
    normals = torch.randn(case.draws, len(root), dtype=torch.float64, generator=_generator(seed))
    return _onto_law(case, flow, modes.mean + normals @ root)


def nearest_fields(case: Case, seed: int) -> Float[Tensor, "s t x"]:
    """Training fields that come closest to the law, drawn with replacement, and moved onto it in the same way.

    Residuals of rows are measured in their deviations over the training fields. This is rejection sampling with a
    linear adjustment in the manner of Beaumont, Zhang and Balding (Genetics 2002).
    """
    fields, flow = _training_set(case.problem, case.sizes)
    assert case.law is not None
    residuals = case.law.residual(fields.flatten(1))
    deviations = residuals.std(dim=0)
    least = max(_LEAST * float(deviations.max()), torch.finfo(fields.dtype).tiny)
    distance = (residuals / deviations.clamp_min(least)).square().mean(dim=-1).sqrt()
    kept = distance.argsort()[: max(NEAREST, int((distance <= _MET).sum()))]
    chosen = kept[torch.randint(len(kept), (case.draws,), generator=_generator(seed))]
    return _onto_law(case, flow, fields[chosen].flatten(1))


@lru_cache(maxsize=1)
def _training_set(problem: GenerationProblem, sizes: Sizes) -> tuple[Tensor, FlowMatching]:
    """The training fields of the first flow of an experiment, and this flow, of which coordinates alone are used."""
    training = training_of(problem, sizes, number=0, device="cpu")
    fields = training.fields()
    return fields, training.untrained(fields)


def _onto_law(case: Case, flow: FlowMatching, fields: Tensor) -> Tensor:
    [(_, latent)] = allowing_for(flow.latent, case.law)
    return final_fields(fields, latent.clean_covariance(0.0), case.law_and_bounds).reshape(-1, *flow.latent.shape)


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(random_seed(seed, 0, 0))
