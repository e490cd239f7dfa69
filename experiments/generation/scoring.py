"""How far drawn fields are from the exact conditional distribution."""

import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.generation.cases import Case
from experiments.generation.methods import Method
from experiments.records.record import Arrays
from probconserv import FlowMatching, LinearConstraint, NonlinearLaw
from probconserv.surrogates.flow import KarhunenLoeve

_COEFFICIENTS = 10  # that the Fréchet distance looks at, as far as the fields have them
_SHOWN = 3  # draws that figures show
_REFERENCES, _MODES, _OTHER_DRAWS = 1, 2, 3  # what seeds are for: true fields, and draws of no flow


def score_method(case: Case, method: Method, group: int, weights: list[Path], seed: int) -> Arrays:
    """Scores of one row, see ``scores_of``, and what figures show: moments, some draws, seconds of sampling."""
    seed = 1000 * seed + 10 * group
    draws, seconds = drawn_by(case, method, weights, seed)
    shown = {
        "mean": draws.mean(dim=0).numpy(),
        "deviation": draws.std(dim=0).numpy(),
        "draws": draws[:_SHOWN].numpy(),
        "seconds": np.array(seconds),
        "draw_milliseconds": np.array(1000 * seconds / len(draws)),
    }
    return scores_of(draws, case, seed) | shown


def drawn_by(case: Case, method: Method, weights: Sequence[Path], seed: int) -> tuple[Float[Tensor, "s t x"], float]:
    """Fields of a row, and the seconds of the processor that they take."""
    if method.drawn is None:
        return _sampled(case, method, weights[0], seed)
    start = time.process_time()
    draws = method.drawn(case, seed + _OTHER_DRAWS)
    return draws, time.process_time() - start


def _sampled(case: Case, method: Method, weights: Path, seed: int) -> tuple[Float[Tensor, "s t x"], float]:
    """Fields that a sampler draws from a trained flow, and the seconds of the processor that it takes."""
    flow = FlowMatching.load(weights)
    law = (case.law_and_bounds if method.bounded else case.law) if method.conditional else None
    start = time.process_time()
    draws = flow.sample(case.draws, law=law, sampler=method.sampler, options=method.options(case), seed=seed)
    return draws, time.process_time() - start


def scores_of(draws: Float[Tensor, "s t x"], case: Case, seed: int) -> Arrays:
    """The scores of ``errors_of``, the published protocol, and the Fréchet distance."""
    references = _references(case, len(draws), seed + _REFERENCES)
    arrays = {"frechet": frechet(*(_coefficients(case, fields, seed) for fields in (draws, references)))}
    for name, errors in zip(("mean", "deviation"), _protocol(draws, references, case, seed), strict=True):
        arrays |= {f"protocol_{name}": errors.median(), f"protocol_{name}_90": errors.quantile(0.9)}
    return errors_of(draws, case) | {name: value.numpy() for name, value in arrays.items()}


def errors_of(draws: Float[Tensor, "s t x"], case: Case) -> Arrays:
    """Mean squared errors of the pointwise moments, values outside the bounds, and the law's residual."""
    mean, deviation = case.moments()
    arrays = {
        "mean_error": (draws.mean(dim=0) - mean).square().mean(),
        "deviation_error": (draws.std(dim=0) - deviation).square().mean(),
    }
    if case.problem.bounds is not None:
        arrays["outside"] = outside(draws, case.problem.bounds)
    if case.law is not None:
        arrays["law_residual"] = residual(draws, case.law)
    return {name: value.numpy() for name, value in arrays.items()}


@lru_cache(maxsize=1)
def _references(case: Case, count: int, seed: int) -> Tensor:
    """True fields, the same for all methods of a seed."""
    return case.truths(count, seed)


def outside(draws: Float[Tensor, "s t x"], bounds: tuple[float, float]) -> Float[Tensor, " s"]:
    """Fraction of the values of every field that lie outside of the bounds."""
    return ((draws < bounds[0]) | (draws > bounds[1])).double().flatten(1).mean(dim=-1)


def residual(draws: Float[Tensor, "s t x"], law: LinearConstraint | NonlinearLaw) -> Float[Tensor, " s"]:
    """Largest |G u − b| or |g(u)| of every field."""
    return law.residual(draws.flatten(1)).abs().amax(dim=-1)


def frechet(first: Float[Tensor, "s r"], second: Float[Tensor, "m r"]) -> Float[Tensor, ""]:
    """The Fréchet distance |μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁ C₂)^½) of the Gaussians with their moments."""
    distance = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    one, other = first.mT.cov(), second.mT.cov()
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp_min(0.0).sqrt() @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0.0).sqrt().sum()
    return (distance + one.trace() + other.trace() - 2 * cross).clamp_min(0.0)


def _coefficients(case: Case, fields: Tensor, seed: int) -> Tensor:
    """Leading coefficients of the unconditional fields, in units of their standard deviations."""
    true = case.problem.draws(20 * _COEFFICIENTS, case.sizes.nodes, seed + _MODES)
    size = min(_COEFFICIENTS, case.sizes.modes, case.problem.modes)
    return KarhunenLoeve.of(true, size).encode(fields.flatten(1))


def _protocol(draws: Tensor, references: Tensor, case: Case, seed: int) -> tuple[Tensor, Tensor]:
    """Errors of mean and standard deviation of few draws against few references, one per trial."""
    sizes, generator = case.sizes.protocol, torch.Generator().manual_seed(seed)
    first = _moments_of_subsets(draws, min(sizes.drawn, len(draws)), sizes.trials, generator)
    second = _moments_of_subsets(references, min(sizes.references, len(references)), sizes.trials, generator)
    mean, deviation = ((one - other).square().mean(dim=-1) for one, other in zip(first, second, strict=True))
    return mean, deviation


def _moments_of_subsets(fields: Tensor, size: int, trials: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pointwise mean and standard deviation of random subsets ``(trials, n)``, without repetition in a subset."""
    flat, chosen = fields.flatten(1), torch.zeros(trials, len(fields), dtype=torch.float64)
    for trial in chosen:
        trial[torch.randperm(len(fields), generator=generator)[:size]] = 1 / size
    mean = chosen @ flat
    variance = (chosen @ flat.square() - mean.square()) * size / (size - 1)
    return mean, variance.clamp_min(0.0).sqrt()
