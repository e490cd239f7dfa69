"""Cost of the ProbConserv update: against the dense n × n form, code by hand and SciPy, and against copying arrays."""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from scipy.optimize import brentq, nnls
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import avg_pool2d, interpolate

from experiments.benchmarks import measure
from experiments.benchmarks.measure import best_of, compared, updated
from probconserv import LinearConstraint, NonlinearLaw, NonNegative, condition, integral
from probconserv.fields import block_means
from solvers import NodeGrid

POINTS = 201
CHUNK = 100  # slices that the dense form holds at once
SIDE, FACTOR, BATCH = 128, 4, 16


def run() -> dict[str, Any]:
    """Times the update with a diagonal covariance, mean and variance materialised, and modes under u ≥ 0."""
    cases = [*short_fields(2200), *one_field(), long_field(10**7), block_fields(), *non_negative_fields(2200)]
    return measure.report("update", cases)


def short_fields(slices: int) -> list[dict[str, Any]]:
    """Many fields in a batch and one by one, against the dense form.

    That makes Σ, the gain K = Σ Gᵀ S⁻¹ and Σ′ = Σ − K (G Σ) as n × n matrices.
    """
    mean, scale, law = measure.fields_with_totals(slices, POINTS)
    batched, ours = best_of(lambda: updated(mean, scale, law), repeats=5)
    laws = [LinearConstraint(law.G, b) for b in law.b]
    looped, _ = best_of(lambda: [updated(*parts) for parts in zip(mean, scale, laws, strict=True)])
    dense, theirs = best_of(lambda: _dense_in_chunks(mean, scale, law), repeats=2)
    dense_looped, _ = best_of(lambda: [_dense(m, s, law.rows, b) for m, s, b in zip(mean, scale, law.b, strict=True)])
    measure.difference_within(torch.stack(ours), torch.stack(theirs), 1e-10)
    fields = f"{slices:,} slices of {POINTS} points"
    return [
        compared(f"{fields}, batched", batched, "dense, batched", dense),
        compared(f"{fields}, looped", looped, "dense, looped", dense_looped),
    ]


def one_field() -> list[dict[str, Any]]:
    """The mean of one field, prior and law built before, and a law of squares, each against code without checks."""
    mean, scale, law = measure.fields_with_totals(1, POINTS)
    mean, scale, row, b = mean[0], scale[0], law.rows.reshape(-1), law.b[0]
    prior, law = Normal(mean, scale), LinearConstraint(law.rows.reshape(1, -1), b)

    def bare() -> Tensor:
        cross = scale.square() * row
        return mean - cross * ((row @ mean - b) / (row @ cross))

    seconds, theirs = measure.take_turns([lambda: condition(prior, law).mean, bare], rounds=200)
    energy, variance = 1.2 * float(mean.square().sum()), scale.square()

    def missed(multiplier: float) -> float:
        return float((mean / (1 + multiplier * variance)).square().sum()) - energy

    def by_root() -> Tensor:
        return mean / (1 + cast(float, brentq(missed, -0.99 / float(variance.max()), 0.0)) * variance)

    def quadratic(u: Tensor) -> Tensor:
        return u.square().sum(dim=-1, keepdim=True) - energy

    same_energy = NonlinearLaw(residual_function=quadratic, points=POINTS)
    ours, search = best_of(lambda: condition(prior, same_energy).mean, repeats=5)
    rooted, root = best_of(by_root, repeats=5)
    measure.difference_within(search, root, 1e-8)
    return [
        compared(f"one field of {POINTS} points, the mean", seconds, "four lines without checks", theirs),
        compared(f"one quadratic row over {POINTS} points", ours, "root of its multiplier", rooted),
    ]


def block_fields() -> dict[str, Any]:
    """Mean and variance under 4 × 4 block means; the baseline is one pooling, one upsampling and two passes."""
    mean, scale, generator = measure.random_fields(BATCH, SIDE**2)
    coarse = torch.randn(BATCH, SIDE // FACTOR, SIDE // FACTOR, dtype=torch.float64, generator=generator)
    law, image = block_means(coarse, FACTOR), mean.reshape(BATCH, 1, SIDE, SIDE)

    def by_hand() -> tuple[Tensor, ...]:
        pooled, upsampled = avg_pool2d(image, FACTOR), interpolate(coarse[:, None], scale_factor=FACTOR)
        return pooled, upsampled, mean.add(1.0), scale.add(1.0)

    seconds, baseline = measure.take_turns([lambda: updated(mean, scale, law), by_hand], rounds=50)
    name = f"{FACTOR} × {FACTOR} block means on {SIDE}², batch {BATCH}"
    return compared(name, seconds, "pooling, upsampling, two passes", baseline)


def non_negative_fields(slices: int) -> list[dict[str, Any]]:
    """The most probable non-negative fields with a total, in one call and one by one, against least squares."""
    mean, scale, law = measure.fields_with_totals(slices, POINTS)
    parts = [(m, s, LinearConstraint(law.G, b)) for m, s, b in zip(mean, scale, law.b, strict=True)]

    def mode(mean: Tensor, scale: Tensor, law: LinearConstraint) -> Tensor:
        return condition(Normal(mean, scale), law & NonNegative()).mode

    batched, ours = best_of(lambda: mode(mean, scale, law), repeats=5)
    looped, _ = best_of(lambda: [mode(*part) for part in parts], repeats=1)
    baseline, theirs = best_of(lambda: _by_least_squares(mean, scale, law.rows[0], law.b[:, 0]), repeats=1)
    difference = measure.difference_within(ours, theirs, 1e-5)
    name = f"{slices:,} non-negative slices of {POINTS} points with a total"
    return [
        compared(f"{name}, {way}", seconds, "scipy nnls, one by one", baseline, difference=difference)
        for way, seconds in (("batched", batched), ("looped", looped))
    ]


def _by_least_squares(mean: Tensor, scale: Tensor, row: Tensor, totals: Tensor) -> Tensor:
    """Minimises ‖(u − μ)/s‖² + ω² (w·u − b)² over u ≥ 0, field by field, ω = 1e5 over the deviation of w·u.

    The error falls with the square of ω, to about 1e-6 here, while rounding grows with it.
    """
    fields = []
    for m, s, b in zip(mean.numpy(), scale.numpy(), totals.numpy(), strict=True):
        weight = 1e5 / np.linalg.norm(row.numpy() * s)
        matrix = np.vstack([np.diag(1 / s), weight * row.numpy()])
        fields.append(nnls(matrix, np.append(m / s, weight * b))[0])
    return torch.as_tensor(np.stack(fields))


def long_field(length: int) -> dict[str, Any]:
    """One field, against a bare loop of two passes, and against copies of its mean and variance, also into memory."""
    measured = measure.in_new_process(measure_long_field, length)
    seconds, name = measured["seconds"], f"one field of {length:,} points"
    copying = {"times copying": seconds / measured["cloned"], "times copying in place": seconds / measured["copied"]}
    more = {**copying, "memory over input": measured["memory"]}
    return compared(name, seconds, "bare loop of two passes", measured["looped"], **more)


def measure_long_field(length: int) -> dict[str, float]:
    """Seconds, and peak memory with inputs over that of mean and variance; to be called in a new process.

    A short update comes first, so that the memory counted is that of fields and not of compiled code.
    """
    short = torch.rand(40_000, dtype=torch.float64)
    updated(short, 1.0 + short, integral(NodeGrid(0.0, 1.0, len(short)), torch.tensor(0.5)))
    before = measure.peak_memory()
    row = torch.full((1, length), 1.0 / length, dtype=torch.float64)
    law = LinearConstraint(row, torch.tensor([0.3], dtype=torch.float64))
    mean, variance = torch.rand(length, dtype=torch.float64), torch.rand(length, dtype=torch.float64)
    prior = MultivariateNormal(mean, DiagLinearOperator(variance))

    def update() -> None:
        posterior = condition(prior, law)
        _ = posterior.mean, posterior.variance

    seconds, _ = best_of(update, repeats=5)
    memory = measure.peak_memory() - before
    cloned, copies = best_of(lambda: (mean.clone(), variance.clone()), repeats=5)
    arrays = row[0].numpy(), variance.numpy(), mean.numpy()
    looped, _ = best_of(lambda: _bare_loop()(*arrays, 0.3, np.empty(length), np.empty(length)), repeats=5)
    copied, _ = best_of(lambda: (copies[0].copy_(mean), copies[1].copy_(variance)), repeats=5)
    return {
        "seconds": seconds,
        "cloned": cloned,
        "copied": copied,
        "looped": looped,
        "memory": memory / (2 * 8 * length),
    }


@cache
def _bare_loop() -> Callable[..., None]:
    """Two passes over row, variance and mean that write mean and variance, without any check."""
    from solvers._compiled import compiled

    @compiled(fastmath=True)
    def loop(w: Any, v: Any, u: Any, b: float, mean: Any, variance: Any) -> None:
        total, functional = 0.0, 0.0
        for i in range(w.shape[0]):
            total += w[i] * w[i] * v[i]
            functional += w[i] * u[i]
        multiplier = (functional - b) / total
        for i in range(w.shape[0]):
            cross = w[i] * v[i]
            mean[i] = u[i] - multiplier * cross
            variance[i] = v[i] - cross * cross / total

    return loop


def _dense(mean: Tensor, scale: Tensor, G: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The update with every matrix formed, for one slice or a batch of them."""
    covariance = torch.diag_embed(scale.square())
    cross = covariance @ G.mT
    gain = torch.linalg.solve(G @ cross, cross.mT).mT
    updated = mean - (gain @ (G @ mean[..., None] - b[..., None]))[..., 0]
    return updated, (covariance - gain @ cross.mT).diagonal(dim1=-2, dim2=-1)


def _dense_in_chunks(mean: Tensor, scale: Tensor, law: LinearConstraint) -> tuple[Tensor, Tensor]:
    chunks = zip(mean.split(CHUNK), scale.split(CHUNK), law.b.split(CHUNK), strict=True)
    means, variances = zip(*(_dense(m, s, law.rows, b) for m, s, b in chunks), strict=True)
    return torch.cat(means), torch.cat([variance.clone() for variance in variances])
