"""Cost of laws and bounds on many fields, against what one would write by hand, and SciPy."""

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize, nnls
from torch import Generator, Tensor
from torch.distributions import Normal
from torch.nn.functional import avg_pool2d, interpolate

from experiments.benchmarks import measure
from experiments.benchmarks.measure import best_of, compared, difference_within, report, take_turns
from probconserv import LinearConstraint, NonNegative, block_means, condition, from_samples

POINTS = 201
SIDE, FACTOR, BATCH = 128, 4, 16
MEMBERS, NOISE = 5, 0.05


def run() -> dict[str, Any]:
    """Times block means, bounds with a total, with block means and on an ensemble, and sparse rows that overlap."""
    return report("fields", [block_update(), *slice_mode(), block_mode(), ensemble_mode(), sparse_rows()])


def block_update() -> dict[str, Any]:
    """Mean and variance under 4 × 4 block means; the baseline is one pooling, one upsampling and two passes."""
    mean, scale, law = _blocks()
    image, coarse = mean.reshape(BATCH, 1, SIDE, SIDE), law.b.reshape(BATCH, 1, SIDE // FACTOR, SIDE // FACTOR)

    def by_hand() -> tuple[Tensor, ...]:
        pooled, upsampled = avg_pool2d(image, FACTOR), interpolate(coarse, scale_factor=FACTOR)
        return pooled, upsampled, mean.add(1.0), scale.add(1.0)

    seconds, baseline = take_turns([lambda: measure.updated(mean, scale, law), by_hand], rounds=50)
    name = f"{FACTOR} × {FACTOR} block means on {SIDE}², batch {BATCH}"
    return compared(name, seconds, "pooling, upsampling, two passes", baseline)


def slice_mode(slices: int = 2200) -> list[dict[str, Any]]:
    """The most probable non-negative fields with a total, in one call and one by one, against least squares."""
    mean, scale, law = measure.fields_with_totals(slices, POINTS)
    parts = [(m, s, LinearConstraint(law.G, b)) for m, s, b in zip(mean, scale, law.b, strict=True)]
    batched, ours = best_of(lambda: _mode(Normal(mean, scale), law & NonNegative()), repeats=5)
    looped, _ = best_of(lambda: [_mode(Normal(m, s), one & NonNegative()) for m, s, one in parts], repeats=1)
    baseline, theirs = best_of(lambda: _by_least_squares(mean, scale, law.rows[0], law.b[:, 0]), repeats=1)
    difference, name = difference_within(ours, theirs, 1e-5), f"{slices:,} non-negative slices of {POINTS} points"
    return [
        compared(f"{name} with a total, {way}", seconds, "scipy nnls, one by one", baseline, difference=difference)
        for way, seconds in (("batched", batched), ("looped", looped))
    ]


def block_mode() -> dict[str, Any]:
    """The most probable non-negative field with block means, against non-negative least squares block by block."""
    mean, scale, law = _blocks()
    law, row = LinearConstraint(law.G, law.b.abs()), torch.full((FACTOR**2,), FACTOR**-2, dtype=torch.float64)
    seconds, ours = best_of(lambda: _mode(Normal(mean, scale), law & NonNegative()))
    parts = _as_blocks(mean), _as_blocks(scale), row, law.b.reshape(-1)
    baseline, theirs = best_of(lambda: _by_least_squares(*parts), repeats=1)
    difference = difference_within(_as_blocks(ours), theirs, 1e-6)
    name = f"non-negative {FACTOR} × {FACTOR} block means on {SIDE}², batch {BATCH}"
    return compared(name, seconds, "scipy nnls, block by block", baseline, difference=difference)


def ensemble_mode(side: int = 64, batch: int = 32) -> dict[str, Any]:
    """The most probable non-negative field of an ensemble with added variance, against L-BFGS-B field by field."""
    members = _members(side, batch)
    seconds, ours = best_of(lambda: _mode(from_samples(members, NOISE), NonNegative()), repeats=2)
    memory = measure.in_new_process(measure_ensemble, side, batch)["memory"]
    baseline, theirs = best_of(lambda: _by_quasi_newton(members), repeats=1)
    difference = float((ours - theirs).abs().max())
    name = f"non-negative ensemble of {MEMBERS} with added variance on {side}², batch {batch}"
    return compared(name, seconds, "scipy L-BFGS-B", baseline, difference=difference, megabytes=memory / 1e6)


def measure_ensemble(side: int, batch: int) -> dict[str, float]:
    """Peak memory of the mode beyond that of the members, in bytes; to be called in a new process."""
    _mode(from_samples(_members(40, 1), NOISE), NonNegative())  # so that compiled code does not count
    members = _members(side, batch)
    before = measure.peak_memory()
    _mode(from_samples(members, NOISE), NonNegative())
    return {"memory": float(measure.peak_memory() - before)}


def sparse_rows(side: int = 1000, stride: int = 10, width: int = 12) -> dict[str, Any]:
    """Mean, one draw and the variance under overlapping windows, with peak memory over that of the input."""
    measured = measure.in_new_process(measure_sparse_rows, side, stride, width)
    name = f"{side * side:,} points × {(side // stride) ** 2:,} overlapping sparse rows, mean and one draw"
    baseline = measured.pop("copied")
    return compared(name, measured.pop("seconds"), "copying mean and variance", baseline, **measured)


def measure_sparse_rows(side: int, stride: int, width: int) -> dict[str, float]:
    """Seconds of mean and draw, of the variance, and memory over input; to be called in a new process."""
    _update_sparse(_windows(300, stride, width), 300**2)  # so that compiled code does not count
    before = measure.peak_memory()
    law, n = _windows(side, stride, width), side * side
    size = 2 * 8 * n + sum(part.nbytes for part in (law.G.row, law.G.column, law.G.entries, law.b))  # pyright: ignore
    seconds, variance, copied = _update_sparse(law, n)
    memory = (measure.peak_memory() - before) / size
    return {"seconds": seconds, "variance seconds": variance, "copied": copied, "memory over input": memory}


def _update_sparse(law: LinearConstraint, n: int) -> tuple[float, float, float]:
    mean, scale = torch.rand(n, dtype=torch.float64), torch.rand(n, dtype=torch.float64) + 0.1
    prior = Normal(mean, scale, validate_args=False)
    actions = (
        lambda: condition(prior, law).sample(),
        lambda: condition(prior, law).variance,
        lambda: (mean.clone(), scale.clone()),
    )
    first, variance, copied = (take_turns([action], rounds=1)[0] for action in actions)
    return first, variance, copied


def _windows(side: int, stride: int, width: int) -> LinearConstraint:
    """Totals over square windows of a grid that overlap their neighbours."""
    starts = torch.arange(0, side, stride).clamp(max=side - width)
    corners = (starts[:, None] * side + starts).flatten()
    inside = (torch.arange(width)[:, None] * side + torch.arange(width)).flatten()
    column = (corners[:, None] + inside).flatten()
    row = torch.arange(len(corners)).repeat_interleave(len(inside))
    generator = Generator().manual_seed(0)
    entries = torch.rand(len(column), dtype=torch.float64, generator=generator) + 0.5
    shape = (len(corners), side * side)
    G = torch.sparse_coo_tensor(torch.stack([row, column]), entries, shape, check_invariants=False)
    return LinearConstraint(G, torch.zeros(len(corners)))


def _mode(prior: Any, constraint: Any) -> Tensor:
    return condition(prior, constraint).mode


def _blocks() -> tuple[Tensor, Tensor, LinearConstraint]:
    mean, scale, generator = measure.random_fields(BATCH, SIDE**2)
    coarse = SIDE // FACTOR
    means = torch.randn(BATCH, coarse, coarse, dtype=torch.float64, generator=generator)
    return mean, scale, block_means(means, FACTOR)


def _members(side: int, batch: int) -> Tensor:
    generator = Generator().manual_seed(0)
    return torch.randn(MEMBERS, batch, side * side, dtype=torch.float64, generator=generator)


def _as_blocks(values: Tensor) -> Tensor:
    """Fields as blocks ``(blocks, points of a block)``."""
    coarse = SIDE // FACTOR
    blocks = values.reshape(-1, coarse, FACTOR, coarse, FACTOR).transpose(2, 3)
    return blocks.reshape(-1, FACTOR**2)


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


def _by_quasi_newton(members: Tensor) -> Tensor:
    """Minimises the distance from the mean in units of the standard deviations, by its gradient."""
    prior = from_samples(members, NOISE)
    fields = []
    for mean, variance in zip(prior.mean.numpy(), prior.variance.numpy(), strict=True):

        def objective(u: np.ndarray, mean: Any = mean, variance: Any = variance) -> Any:
            difference = u - mean
            gradient = difference / variance
            return 0.5 * difference @ gradient, gradient

        options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-9}
        start, bounds = np.maximum(mean, 0.0), [(0.0, None)] * len(mean)
        fields.append(minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x)
    return torch.as_tensor(np.stack(fields))
