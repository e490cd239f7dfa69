"""The rows: a black box that predicts the field, and what is done to its draws.

bare         the draws as they are
hard         each shifted uniformly onto the law (HardC)
law          the prediction conditioned on the law (ProbConserv)
law, u ≥ 0   then each draw taken to the nearest field that is not negative and keeps the law, in the metric of the
             marginal variances

On the EmpiricalGP the bound is met in three other ways as well: nearest in the identity's metric, nearest in that of
the covariance, and by the Gaussian under the law, cut off where it is negative.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Generator, Tensor
from torch.distributions import Normal

from experiments import plots
from experiments.experiment import Style
from experiments.gpme.cases import Case, Observed
from experiments.gpme.networks import MEMBERS
from experiments.records.storage import checksum
from probconserv import (
    ANP,
    Context,
    EmpiricalGP,
    GPSurrogate,
    LinearConstraint,
    Mixture,
    NonNegative,
    condition,
    from_samples,
    scores,
    truncate,
)
from probconserv.prediction import Prediction
from probconserv.sampling import draw
from probconserv.surrogates.gp import GPConfig

WIDTHS = (0.02, 0.04, 0.07, 0.12, 0.2)
"""Deviations of a search's likelihood that are tried, in the units of the field."""
POINTS_TRIED = 128
"""About how many points of a field the settings of a search are chosen at."""
EFFECTIVE = (60, 200, 600)
LOCAL_BANDWIDTHS = (0.4, 0.6, 0.8, 1.0)
"""Settings of the local EmpiricalGP that are tried on validation functions."""
SPREAD = 1e-3
"""Least deviation of draws where a law or a bound moves them, since a search may find one function only."""
Predicted = Prediction | Tensor
"""A prediction ``(functions, n)``, or draws ``(s, functions, n)``."""


class Asked(NamedTuple):
    """Inputs of a model.

    Args:
        files: Weights of its networks.
        informed: Whether it is given the law, if it can use it itself.
    """

    case: Case
    seed: int
    files: Sequence[Path]
    observed: Observed
    informed: bool


@dataclass(frozen=True)
class BlackBox:
    """A model of the fields, or of draws of them.

    Args:
        networks: Names of the networks that it needs.
        redraws: Whether rounding decides what is drawn, see ``Table.redraws``.
    """

    key: str
    label: str
    colour: str
    predict: Callable[[Asked], Predicted]
    networks: tuple[str, ...] = ()
    redraws: bool = False


@dataclass(frozen=True)
class Method:
    """One row."""

    key: str
    label: str
    style: Style
    box: BlackBox
    treatment: str
    _: KW_ONLY
    information: str = ""


def search(asked: Asked) -> Tensor:
    """Training functions in proportion to the likelihood of the observations, and of the law where it is given.

    These are then moved onto the law by their variances: where two functions are left, their covariance knows one
    direction only, and along it the law may be far.
    """
    case, seed, _, observed, informed = asked
    functions, count = case.functions("training", seed), case.sizes.draws
    fields = functions[:, case.member.wanted].flatten(1)

    def draws(data: Observed, width: float, slack: float | None, stream: int, points: slice) -> Tensor:
        missed = functions_at(case, functions, data.context) - data.context.values  # (training, functions, M)
        likelihood = -0.5 * (missed / width).square().sum(dim=-1)
        if slack is not None:
            likelihood = likelihood - 0.5 * (data.law.residual(fields[:, None])[..., 0] / slack).square()
        chosen = torch.multinomial(likelihood.mT.softmax(dim=-1), count, True, generator=_generator(seed, stream))
        return fields[:, points][chosen].movedim(1, 0)

    validation, whole = case.observed("validation", seed), slice(None)
    some = slice(None, None, -(-fields.shape[1] // POINTS_TRIED))
    tried = [(width, slack) for width in WIDTHS for slack in ((0.003, 0.01, 0.03) if informed else (None,))]
    errors = [
        float(scores.crps_of_samples(validation.truth[:, some], draws(validation, *one, 1, some)).mean())
        for one in tried
    ]
    found = draws(observed, *tried[min(range(len(tried)), key=errors.__getitem__)], 2, whole)
    return condition(_independent(found), _of_functions(observed.law)).mean if informed else found


def smoother(asked: Asked) -> Tensor:
    """Ensemble smoother: training functions moved by the gain of all of them, with perturbed observations."""
    case, seed, _, observed, _ = asked
    functions, count = case.functions("training", seed), case.sizes.draws
    fields, context = functions[:, case.member.wanted].flatten(1), observed.context
    generator, drawn = _generator(seed, 3), []
    assert context.noise is not None
    for number in range(len(observed.truth)):
        one = Context(context.points[[number]], context.values[[number]])
        seen = functions_at(case, functions, one)[:, 0]
        apart, deviation = (part - part.mean(dim=0) for part in (seen, fields))
        noise = context.noise[number]
        covariance = apart.mT @ apart / (len(seen) - 1) + noise.diag()
        gain = torch.linalg.solve(covariance, apart.mT @ deviation / (len(seen) - 1))
        members = torch.randperm(len(seen), generator=generator)[:count]
        error = noise.sqrt() * torch.randn(len(members), len(noise), generator=generator, dtype=torch.float64)
        drawn.append(fields[members] + (one.values[0] + error - seen[members]) @ gain)
    return torch.stack(drawn, dim=1)


def matern(asked: Asked) -> Prediction:
    """A Matérn process in space–time, fitted to the observations of all functions."""
    with torch.no_grad():
        prediction = GPSurrogate(GPConfig(smoothness=1.5)).predict(asked.observed.context, asked.observed.query)
    return MultivariateNormal(prediction.mean.double(), prediction.lazy_covariance_matrix.double().detach())


def empirical(of: Callable[[Case, int], EmpiricalGP], asked: Asked) -> Prediction:
    """Prediction from the training functions: all alike, or those that are near to what is observed."""
    return of(asked.case, asked.seed).predict(asked.observed.context, asked.observed.query)


def training_gaussian(case: Case, seed: int) -> EmpiricalGP:
    """Mean and covariance of the training functions."""
    return EmpiricalGP(case.functions("training", seed), case.axes, bandwidth=1.0, mixture=False)


@lru_cache(maxsize=3)
def fitted_empirical(case: Case, seed: int) -> EmpiricalGP:
    """The same with the bandwidth that suits the validation functions."""
    validation = case.observed("validation", seed)
    given = (validation.context, validation.query, validation.truth)
    return training_gaussian(case, seed).fit(validation=given, effective=(None,))


@lru_cache(maxsize=3)
def local_empirical(case: Case, seed: int) -> EmpiricalGP:
    """The functions near to what is observed, with the number and the bandwidth that suit the validation functions."""
    validation = case.observed("validation", seed)
    given = (validation.context, validation.query, validation.truth)
    return training_gaussian(case, seed).fit(validation=given, bandwidths=LOCAL_BANDWIDTHS, effective=EFFECTIVE)


def neural(asked: Asked) -> Mixture:
    """The neural process, which learnt the noise."""
    seen = asked.observed.context
    return ANP.load(asked.files[0]).predict(Context(seen.points, seen.values), asked.observed.query)


def ensemble(asked: Asked) -> Mixture:
    """The Gaussian mixture of several small neural processes."""
    parts = [neural(asked._replace(files=(file,))) for file in asked.files]
    means, variances = (torch.stack([getattr(part, name) for part in parts]) for name in ("mean", "variance"))
    return Mixture(Normal(means, variances.sqrt()))


BOXES = (
    BlackBox("search", "search", plots.GREY, search, redraws=True),
    BlackBox("matern", "Matérn GP", plots.GAUSSIAN_PROCESS, matern),
    BlackBox("smoother", "smoother", plots.ORANGE, smoother),
    BlackBox("anp", "ANP", plots.BARE, neural, ("anp",)),
    BlackBox("ensemble", "ensemble", plots.YELLOW, ensemble, MEMBERS),
    BlackBox("gaussian", "Gaussian", plots.GREEN, partial(empirical, training_gaussian), redraws=True),
    BlackBox("empirical", "EmpiricalGP", plots.CONSERVED, partial(empirical, fitted_empirical), redraws=True),
    BlackBox("local", "EmpiricalGP, local", plots.PURPLE, partial(empirical, local_empirical), redraws=True),
)


def sampled(prediction: Predicted, case: Case, seed: int) -> Tensor:
    """Draws ``(s, functions, n)``."""
    if isinstance(prediction, Tensor):
        return prediction
    return draw(prediction, (case.sizes.draws,), _generator(seed, 4))  # type: ignore[arg-type]


def shifted(prediction: Predicted, law: LinearConstraint, case: Case, seed: int) -> Tensor:
    """Each draw shifted by a constant onto the law."""
    draws, weight = sampled(prediction, case, seed), law.rows.sum(dim=-1)
    return draws - law.residual(draws) / weight


def conditioned(prediction: Predicted, law: LinearConstraint, case: Case, seed: int) -> Tensor:
    """Draws under the law; those of a tensor are moved by the gain of their covariance, plus ``SPREAD``² everywhere."""
    if not isinstance(prediction, Tensor):
        return sampled(condition(prediction, law), case, seed)  # type: ignore[arg-type]
    moved, floor = [], torch.full((prediction.shape[-1],), SPREAD**2, dtype=prediction.dtype)
    for number in range(prediction.shape[1]):
        draws = prediction[:, number]
        covariance = from_samples(draws).lazy_covariance_matrix.add_diagonal(floor)
        one = LinearConstraint(law.rows, law.b[number])
        moved.append(condition(MultivariateNormal(draws, covariance.expand(len(draws), -1, -1)), one).mean)
    return torch.stack(moved, dim=1)


def bounded(prediction: Predicted, law: LinearConstraint, case: Case, seed: int, *, alike: bool = False) -> Tensor:
    """The nearest non-negative fields under the law, in the metric of the draws' variances or where all are alike."""
    draws = conditioned(prediction, law, case, seed)
    around = Normal(draws, torch.ones_like(draws)) if alike else _independent(draws)
    return condition(around, _of_functions(law) & NonNegative()).mode


def jointly_bounded(prediction: Predicted, law: LinearConstraint, case: Case, seed: int) -> Tensor:
    """The same in the metric of the prediction's covariance."""
    return sampled(condition(prediction, law & NonNegative()), case, seed)  # type: ignore[arg-type]


def cut_off(prediction: Predicted, law: LinearConstraint, case: Case, seed: int) -> Tensor:
    """Draws of the Gaussian under the law where it is not negative."""
    assert isinstance(prediction, MultivariateNormal)
    return sampled(truncate(prediction, law & NonNegative()), case, seed)  # type: ignore[arg-type]


class Treatment(NamedTuple):
    """Treatment of a prediction: the end of its label, its line, and how it makes draws ``(s, functions, n)``."""

    suffix: str
    dashes: str | tuple[int, tuple[int, ...]]
    draws: Callable[[Predicted, LinearConstraint, Case, int], Tensor]


TREATMENTS: dict[str, Treatment] = {
    "": Treatment("", "-", lambda prediction, _, case, seed: sampled(prediction, case, seed)),
    "hard": Treatment(", HardC", ":", shifted),
    "law": Treatment(" + law", "--", conditioned),
    "bounded": Treatment(" + law, u ≥ 0", "-.", bounded),
}
BOUNDS: dict[str, Treatment] = {
    "alike": Treatment(" + law, u ≥ 0 (identity)", (0, (1, 1)), partial(bounded, alike=True)),
    "jointly": Treatment(" + law, u ≥ 0 (covariance)", (0, (3, 1)), jointly_bounded),
    "truncated": Treatment(" + law, truncated", (0, (5, 1)), cut_off),
}
"""Further ways to meet the bound, on the EmpiricalGP."""
METHODS = tuple(
    Method(
        f"{name}-{box.key}".lstrip("-"),
        f"{box.label}{treatment.suffix}",
        Style(box.colour, treatment.dashes),
        box,
        name,
        information="the total" if name else "",
    )
    for box in BOXES
    for name, treatment in (TREATMENTS | (BOUNDS if box.key == "empirical" else {})).items()
)
"""The rows; all black boxes see the same observations."""


def drawn(case: Case, method: Method, seed: int, files: Sequence[Path]) -> tuple[Tensor, Observed, float]:
    """Draws ``(s, functions, n)`` of a row for the test functions, these, and the milliseconds that each draw took."""
    observed = case.observed("test", seed)
    weights = tuple((path, checksum(path)) for path in files)
    informed = method.treatment in ("law", "bounded") and method.box.key == "search"
    prediction = _predicted(method.box, case, seed, weights, informed)
    start = time.process_time()
    draws = (TREATMENTS | BOUNDS)[method.treatment].draws(prediction, observed.law, case, seed)
    return draws, observed, 1e3 * (time.process_time() - start) / draws[..., 0].numel()


@lru_cache(maxsize=3)  # as many as there are seeds, over which the driver goes method by method
def _predicted(
    box: BlackBox, case: Case, seed: int, weights: tuple[tuple[Path, str], ...], informed: bool
) -> Predicted:
    return box.predict(Asked(case, seed, [path for path, _ in weights], case.observed("test", seed), informed))


def _of_functions(law: LinearConstraint) -> LinearConstraint:
    """The law of the functions, the same for all draws of each ``(1, functions, 1)``."""
    return LinearConstraint(law.G, law.b[None], noise_variance=law.noise_variance, shape=law.shape)


def _independent(draws: Tensor) -> Normal:
    """Each draw with the variances of all, at least ``SPREAD``²."""
    return Normal(draws, (draws.std(dim=0) + SPREAD).expand_as(draws))


def functions_at(case: Case, functions: Tensor, context: Context) -> Tensor:
    """Functions at observed points, which are points of theirs: ``(training, functions, M)``."""
    index = torch.zeros(context.values.shape, dtype=torch.int64)
    for axis, coordinates in enumerate(case.axes):
        nearest = (context.points[..., axis, None] - coordinates).abs().argmin(dim=-1)
        index = index * len(coordinates) + nearest
    return functions.flatten(1)[:, index]


def _generator(seed: int, stream: int) -> Generator:
    return Generator().manual_seed(100 * seed + stream)
