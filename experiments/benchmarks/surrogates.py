"""Cost of predicting fields from few observations, against a search among the functions by their likelihood."""

from typing import Any

import torch
from torch import Generator, Tensor

from experiments.benchmarks.measure import best_of, compared, report
from experiments.gpme.cases import observe
from probconserv import ANP, Context, EmpiricalGP, GPSurrogate, Query
from probconserv.surrogates.anp import ANPConfig
from probconserv.surrogates.gp import GPConfig
from probconserv.surrogates.surrogate import Surrogate

TIMES, OBSERVATIONS, FIELDS, NOISE = 20, 20, 20, 0.02
SIZES = ((1_000, 100), (4_000, 100), (10_000, 100), (4_000, 500))
"""Functions, and points of each at one time."""
RANK, EVERYWHERE = 100, 500
"""Leading components of the covariance, and points at one time, where the field at all times is wanted."""


def run() -> dict[str, Any]:
    """Times predictions of mean and variance at one time, and in the last case at all 10,000 points of space–time."""
    cases = [case for count, points in SIZES for case in _empirical(count, points)]
    functions, axes = _functions(*SIZES[1])
    others = {
        "Matérn GP, fitted to each": GPSurrogate(GPConfig(smoothness=1.5)),
        "ANP, 300,000 weights": _network(),
    }
    for label, surrogate in others.items():
        cases.append(_against_search(label, surrogate, functions, axes))
    return report("surrogates", [*cases, _everywhere()])


def _network() -> ANP:
    """A network of random weights, which takes as long as a trained one."""
    network = ANP(ANPConfig(low=(0.0, 0.0), high=(1.0, 1.0), width=64, latent_width=32))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def _empirical(count: int, points: int) -> list[dict[str, Any]]:
    """The mixture, and the Gaussian with its moments."""
    functions, axes = _functions(count, points)
    label = f"{count:,} functions of {TIMES * points:,} points"
    kinds = {"mixture": EmpiricalGP(functions, axes), "Gaussian": EmpiricalGP(functions, axes, mixture=False)}
    return [_against_search(f"EmpiricalGP, {kind}, {label}", each, functions, axes) for kind, each in kinds.items()]


def _everywhere() -> dict[str, Any]:
    """Leading components only, made in a first pass that is timed with the prediction."""
    functions, axes = _functions(SIZES[1][0], EVERYWHERE)
    context, _ = _asked(functions, axes)
    query = Query(torch.cartesian_prod(*axes).expand(FIELDS, -1, -1))
    label = f"EmpiricalGP, {RANK} components made anew, all {TIMES * EVERYWHERE:,} points"

    def ours() -> Tensor:
        return EmpiricalGP(functions, axes, rank=RANK, mixture=False).predict(context, query).variance

    seconds, _ = best_of(ours, repeats=1)
    baseline, _ = best_of(lambda: _search(functions, axes, context, slice(None)))
    return compared(label, seconds, "search", baseline)


def _against_search(label: str, surrogate: Surrogate, functions: Tensor, axes: tuple[Tensor, Tensor]) -> dict[str, Any]:
    context, query = _asked(functions, axes)
    seen = Context(context.points, context.values) if isinstance(surrogate, ANP) else context  # it learns the noise

    def ours() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            prediction = surrogate.predict(seen, query)
            return prediction.mean, prediction.variance

    seconds, _ = best_of(ours)
    baseline, _ = best_of(lambda: _search(functions, axes, context, slice(TIMES // 2, TIMES // 2 + 1)))
    return compared(f"{label}: {FIELDS} fields, {OBSERVATIONS} observations each", seconds, "search", baseline)


def _functions(count: int, points: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Sums of five bumps that move and widen ``(count, TIMES, points)``, and their axes."""
    generator = Generator().manual_seed(0)
    place, speed, width, height = torch.rand(4, 5, count, 1, 1, generator=generator, dtype=torch.float64)
    t, x = (torch.linspace(0.0, 1.0, size, dtype=torch.float64) for size in (TIMES, points))
    parts = zip(place, speed, width, height, strict=True)
    values = sum(a * torch.exp(-(((x - c - 0.2 * s * t[:, None]) / (0.05 + 0.1 * w)) ** 2)) for c, s, w, a in parts)
    return torch.as_tensor(values), (t, x)


def _asked(functions: Tensor, axes: tuple[Tensor, Tensor]) -> tuple[Context, Query]:
    """Noisy values of the first functions at random points, and all points at the time in the middle."""
    context = observe(functions[:FIELDS], axes, OBSERVATIONS, NOISE, Generator().manual_seed(1))
    points = torch.cartesian_prod(axes[0][[TIMES // 2]], axes[1]).expand(FIELDS, -1, -1)
    return context, Query(points)


def _search(functions: Tensor, axes: tuple[Tensor, Tensor], context: Context, wanted: slice) -> tuple[Tensor, Tensor]:
    """Mean and variance over functions that are known at the observed points, weighed by the likelihood."""
    place = [(context.points[..., axis, None] - x).abs().argmin(dim=-1) for axis, x in enumerate(axes)]
    missed = functions[:, place[0], place[1]] - context.values
    weights = (-0.5 * (missed / NOISE).square().sum(dim=-1)).softmax(dim=0)
    fields = functions[:, wanted].flatten(1)
    mean = weights.mT @ fields
    return mean, weights.mT @ fields.square() - mean.square()
