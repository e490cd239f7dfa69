"""Cost of the ProbConserv update: against the dense n × n form, and for a long field against copying its arrays."""

import json
import subprocess
import sys
from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import Tensor
from torch.distributions import Normal

from experiments.benchmarks.measure import best_of, peak_memory, report
from experiments.errors import ExperimentError
from probconserv import LinearConstraint, condition, integral
from solvers import NodeGrid

SLICES = 2200
POINTS = 201
CHUNK = 100
LONG = 10**7


def run() -> dict[str, Any]:
    """Times the update with one constraint and a diagonal covariance, mean and variance materialised.

    The dense form makes Σ, the gain K = Σ Gᵀ S⁻¹ and Σ′ = Σ − K G Σ as n × n matrices, with the product taken from
    left to right as the formula is written, or from right to left, which saves the n³ product.

    Returns:
        Cases whose ``ratio`` is baseline over ours. For the long field also ``times copying``, ours over making copies
        of mean and variance; ``times copying in place``, the same with the memory of the copies already there; and
        ``memory over input``, the peak of the process, inputs included, over the size of mean and variance.
    """
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(SLICES, POINTS, dtype=torch.float64, generator=generator)
    scale = torch.rand(SLICES, POINTS, dtype=torch.float64, generator=generator) + 0.1
    law = integral(NodeGrid(0.0, 1.0, POINTS), torch.rand(SLICES, dtype=torch.float64, generator=generator))
    laws = [LinearConstraint(law.G, b) for b in law.b]
    batched, ours = best_of(lambda: _update(mean, scale, law), repeats=5)
    looped, _ = best_of(lambda: [_update(*parts) for parts in zip(mean, scale, laws, strict=True)])
    cases = []
    for name, left_to_right in (("left to right", True), ("right to left", False)):
        dense, theirs = best_of(lambda order=left_to_right: _dense_in_chunks(mean, scale, law, order), repeats=2)
        dense_looped, _ = best_of(lambda order=left_to_right: _dense_looped(mean, scale, law, order), repeats=1)
        _require_agreement(ours, theirs)
        for case, seconds, baseline, baseline_seconds in (
            ("batched", batched, f"dense, {name}, batched", dense),
            ("batched", batched, f"dense, {name}, looped", dense_looped),
            ("looped", looped, f"dense, {name}, looped", dense_looped),
        ):
            cases.append(
                {
                    "case": f"{SLICES:,} slices of {POINTS} points, {case}",
                    "seconds": seconds,
                    "baseline": baseline,
                    "baseline_seconds": baseline_seconds,
                    "ratio": baseline_seconds / seconds,
                }
            )
    return report("update", [*cases, _long_field()])


def measure_long_field() -> dict[str, float]:
    """Seconds and peak memory of one update of 10⁷ points, to be run in a process of its own.

    A short update comes first, so that the memory counted is that of fields and not of compiled code.
    """
    short = torch.rand(40_000, dtype=torch.float64)
    _update(short, 1.0 + short, integral(NodeGrid(0.0, 1.0, len(short)), torch.tensor(0.5)))
    before = peak_memory()
    row = torch.full((1, LONG), 1.0 / LONG, dtype=torch.float64)
    law = LinearConstraint(row, torch.tensor([0.3], dtype=torch.float64))
    mean = torch.rand(LONG, dtype=torch.float64)
    variance = torch.rand(LONG, dtype=torch.float64)
    prior = MultivariateNormal(mean, DiagLinearOperator(variance))

    def update() -> None:
        posterior = condition(prior, law)
        _ = posterior.mean, posterior.variance

    seconds, _ = best_of(update, repeats=5)
    memory = peak_memory() - before
    cloned, copies = best_of(lambda: (mean.clone(), variance.clone()), repeats=5)
    copied, _ = best_of(lambda: (copies[0].copy_(mean), copies[1].copy_(variance)), repeats=5)
    return {"seconds": seconds, "cloned": cloned, "copied": copied, "memory": memory / (2 * 8 * LONG)}


def _long_field() -> dict[str, Any]:
    program = (
        "import json; from experiments.benchmarks.update import measure_long_field; "
        "print(json.dumps(measure_long_field()))"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ExperimentError(f"The measurement of the long field failed: {finished.stderr.strip()[-500:]}")
    found = json.loads(finished.stdout.splitlines()[-1])
    return {
        "case": f"one field of {LONG:,} points",
        "seconds": found["seconds"],
        "baseline": "copying mean and variance",
        "baseline_seconds": found["cloned"],
        "ratio": found["cloned"] / found["seconds"],
        "times copying": found["seconds"] / found["cloned"],
        "times copying in place": found["seconds"] / found["copied"],
        "memory over input": found["memory"],
    }


def _update(mean: Tensor, scale: Tensor, law: LinearConstraint) -> tuple[Tensor, Tensor]:
    posterior = condition(Normal(mean, scale, validate_args=False), law)
    return posterior.mean, posterior.variance


def _dense(mean: Tensor, scale: Tensor, G: Tensor, b: Tensor, left_to_right: bool) -> tuple[Tensor, Tensor]:
    """The update with every matrix formed, for one slice or a batch of them."""
    covariance = torch.diag_embed(scale.square())
    cross = covariance @ G.mT
    gain = torch.linalg.solve(G @ cross, cross.mT).mT
    updated = mean - (gain @ (G @ mean[..., None] - b[..., None]))[..., 0]
    removed = (gain @ G) @ covariance if left_to_right else gain @ cross.mT
    return updated, (covariance - removed).diagonal(dim1=-2, dim2=-1)


def _dense_in_chunks(mean: Tensor, scale: Tensor, law: LinearConstraint, order: bool) -> tuple[Tensor, Tensor]:
    chunks = zip(mean.split(CHUNK), scale.split(CHUNK), law.b.split(CHUNK), strict=True)
    means, variances = zip(*(_dense(m, s, law.rows, b, order) for m, s, b in chunks), strict=True)
    return torch.cat(means), torch.cat([variance.clone() for variance in variances])


def _dense_looped(mean: Tensor, scale: Tensor, law: LinearConstraint, order: bool) -> None:
    for m, s, b in zip(mean, scale, law.b, strict=True):
        _dense(m, s, law.rows, b, order)


def _require_agreement(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    for first, second in zip(ours, theirs, strict=True):
        difference = float((first - second).abs().max())
        if difference > 1e-10:
            raise ExperimentError(
                f"The two forms of the update differ by {difference:.3g}, so their times do not count."
            )
