"""Cost of the ProbConserv update: against the dense n × n form, and for a long field against copying its arrays."""

from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import Tensor
from torch.distributions import Normal

from experiments.benchmarks.measure import (
    best_of,
    compared,
    difference_within,
    in_new_process,
    peak_memory,
    report,
)
from probconserv import LinearConstraint, condition, integral
from solvers import NodeGrid

SLICES = 2200
POINTS = 201
CHUNK = 100  # slices that the dense form holds at once
LONG = 10**7


def run() -> dict[str, Any]:
    """Times the update with one constraint and a diagonal covariance, mean and variance materialised.

    Returns:
        Cases whose ``ratio`` is baseline over ours, see ``short_fields``. For the long field also ``times copying``,
        ours over making copies of mean and variance; ``times copying in place``, the same with the memory of the copies
        already there; and ``memory over input``, the peak of the process, inputs included, over the size of mean and
        variance.
    """
    return report("update", [*short_fields(SLICES), long_field(LONG)])


def short_fields(slices: int) -> list[dict[str, Any]]:
    """Many fields in a batch and one by one, against the dense form.

    That makes Σ, the gain K = Σ Gᵀ S⁻¹ and Σ′ = Σ − K G Σ as n × n matrices, with the product taken from left to right
    as the formula is written, or from right to left, which saves the n³ product.

    Args:
        slices: Number of fields.
    """
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(slices, POINTS, dtype=torch.float64, generator=generator)
    scale = torch.rand(slices, POINTS, dtype=torch.float64, generator=generator) + 0.1
    law = integral(NodeGrid(0.0, 1.0, POINTS), torch.rand(slices, dtype=torch.float64, generator=generator))
    laws = [LinearConstraint(law.G, b) for b in law.b]
    batched, ours = best_of(lambda: _update(mean, scale, law), repeats=5)
    looped, _ = best_of(lambda: [_update(*parts) for parts in zip(mean, scale, laws, strict=True)])
    cases = []
    for name, left_to_right in (("left to right", True), ("right to left", False)):
        dense, theirs = best_of(lambda order=left_to_right: _dense_in_chunks(mean, scale, law, order), repeats=2)
        dense_looped, _ = best_of(lambda order=left_to_right: _dense_looped(mean, scale, law, order), repeats=1)
        for first, second in zip(ours, theirs, strict=True):
            difference_within(first, second, 1e-10)
        baseline, fields = f"dense, {name}", f"{slices:,} slices of {POINTS} points"
        cases += [
            compared(f"{fields}, batched", batched, f"{baseline}, batched", dense),
            compared(f"{fields}, batched", batched, f"{baseline}, looped", dense_looped),
            compared(f"{fields}, looped", looped, f"{baseline}, looped", dense_looped),
        ]
    return cases


def measure_long_field(length: int) -> dict[str, float]:
    """Seconds and peak memory of one update of a long field, to be called in a new process.

    A short update comes first, so that the memory counted is that of fields and not of compiled code.
    """
    short = torch.rand(40_000, dtype=torch.float64)
    _update(short, 1.0 + short, integral(NodeGrid(0.0, 1.0, len(short)), torch.tensor(0.5)))
    before = peak_memory()
    row = torch.full((1, length), 1.0 / length, dtype=torch.float64)
    law = LinearConstraint(row, torch.tensor([0.3], dtype=torch.float64))
    mean = torch.rand(length, dtype=torch.float64)
    variance = torch.rand(length, dtype=torch.float64)
    prior = MultivariateNormal(mean, DiagLinearOperator(variance))

    def update() -> None:
        posterior = condition(prior, law)
        _ = posterior.mean, posterior.variance

    seconds, _ = best_of(update, repeats=5)
    memory = peak_memory() - before
    cloned, copies = best_of(lambda: (mean.clone(), variance.clone()), repeats=5)
    copied, _ = best_of(lambda: (copies[0].copy_(mean), copies[1].copy_(variance)), repeats=5)
    return {"seconds": seconds, "cloned": cloned, "copied": copied, "memory": memory / (2 * 8 * length)}


def long_field(length: int) -> dict[str, Any]:
    """One field, against copying its arrays.

    Args:
        length: Number of points.
    """
    measured = in_new_process(__name__, f"measure_long_field({length})")
    return compared(
        f"one field of {length:,} points",
        measured["seconds"],
        "copying mean and variance",
        measured["cloned"],
        **{
            "times copying": measured["seconds"] / measured["cloned"],
            "times copying in place": measured["seconds"] / measured["copied"],
            "memory over input": measured["memory"],
        },
    )


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
