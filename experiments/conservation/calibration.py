"""How sure predictions may be, in the training range and on both sides of it: the study of calibration.

Both networks are the released ones, where there are: the one of the tables, and a small one that lacks a third of the
range, from which tempering and displacement are learnt. Context is from closed forms.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from experiments import plots
from experiments.conservation.cases import Case, Laws, Target, laws_of
from experiments.conservation.data import validation_functions
from experiments.conservation.displacement import displaced_by_law
from experiments.conservation.experiment import EXPERIMENTS, ConservationExperiment
from experiments.conservation.methods import (
    EMPIRICAL,
    INVERTED,
    NETWORK,
    SEARCH,
    SMALL_EXTRAPOLATION,
    BlackBox,
    Distribution,
    Method,
    conserved,
    network,
)
from experiments.conservation.scoring import Weights, learn_extrapolation, predict, predicted
from experiments.experiment import Data, Preset, RunContext, Style, Table, Training
from experiments.records.record import Arrays
from experiments.records.scores import VARIANCE_FLOOR
from experiments.records.storage import checksum
from experiments.stages import take_released
from probconserv import Mixture, fit_band, scores
from probconserv.calibration import displaced, scaled
from probconserv.calibration.conformal import ConformalBand
from probconserv.calibration.marginals import (
    calibration_error,
    cumulative_probability,
    marginal_crps,
    marginal_log_likelihood,
)
from probconserv.law_evidence import evidence
from probconserv.surrogates.surrogate import Context
from solvers.problems import sampling

NEAR = 0.02
"""Distance from the front within which scores near it are taken, in the units of the domain."""
VALIDATION: Mapping[Preset, int] = {"smoke": 20, "laptop": 100, "paper": 100}
"""Functions of the training range that bands are fitted on."""
NINETY = 1.6448536269514722
"""Standard deviations from the mean to the ends of a central 90 % interval."""


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """Calibration of a problem's methods by functions inside the training range.

    Standard deviation of the displacement; variance factor of tempering; bands that hold whole functions, without and
    with the law; and the band with the law that holds nine tenths of the points.
    """

    displacement: float
    factor: float
    bare_band: ConformalBand
    band: ConformalBand
    most: ConformalBand


Treatment = Callable[[Any, Laws, Any], Distribution]
"""(prediction, laws, what the network's functions teach or None for a rival without a network) → prediction."""


def _conformal(prior: Mixture, laws: Laws, learnt: Learnt) -> Distribution:
    """Conditioned, then scaled about its mean so that the conformal band would be its Gaussian 90 % interval."""
    return scaled(conserved(prior, laws), (learnt.most.factor / NINETY) ** 2)


def _displaced(prior: Mixture, laws: Laws, learnt: Learnt) -> Distribution:
    return conserved(displaced(prior, laws.points, learnt.displacement), laws)


def _alone(prior: Distribution, laws: Laws, learnt: Learnt | None) -> Distribution:  # noqa: ARG001 - one signature
    return prior


def _under_law(prior: Distribution, laws: Laws, learnt: Learnt | None) -> Distribution:  # noqa: ARG001 - as above
    return conserved(prior, laws)


def _tempered(prior: Mixture, laws: Laws, learnt: Learnt) -> Distribution:
    return conserved(scaled(prior, learnt.factor), laws)


def _by_law(prior: Mixture, laws: Laws, learnt: Learnt) -> Distribution:  # noqa: ARG001 - as above
    return displaced_by_law(prior, laws.loose, laws.points)


_FLOOR = 1e-3  # of deviations; fields are of size one
_ROWS: Sequence[tuple[str, str, BlackBox, str, str, Treatment]] = (
    ("anp", "ANP", NETWORK, plots.BARE, "-", _alone),
    ("probconserv", "ProbConserv", NETWORK, plots.CONSERVED, "-", _under_law),
    ("tempered", "tempered", NETWORK, plots.CONSERVED, "--", _tempered),
    ("displaced", "displaced", NETWORK, plots.CONSERVED, ":", _displaced),
    ("by-law", "averaged by evidence", NETWORK, plots.ENSEMBLE, "-", _by_law),
    ("conformal", "conformal", NETWORK, plots.GAUSSIAN_PROCESS, "-", _conformal),
    ("probconserv-search", "ProbConserv-search", SEARCH, plots.GREY, "--", _under_law),
    ("probconserv-empirical", "ProbConserv-EmpiricalGP", EMPIRICAL, plots.YELLOW, "--", _under_law),
    ("total-inverted", "total inverted", INVERTED, plots.BLACK, ":", _alone),
)
TREATMENTS: Mapping[str, tuple[Method, Treatment]] = {
    key: (Method(key, label, Style(colour, dashes), box), treat) for key, label, box, colour, dashes, treat in _ROWS
}
"""The rows by their keys: what is done to the network's predictions, and rivals that need no network."""


@dataclass(frozen=True, kw_only=True)
class CalibrationStudy:
    """Six treatments of a network's predictions and three rivals, at parameters in its range, below it and above it."""

    name: str
    base: ConservationExperiment

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=self.base.data_version,
            cases=self.cases,
            methods=lambda _: [method for method, _ in TREATMENTS.values()],
            score=self.score,
            trainings=self.trainings,
            train=self.train,
            shown=("MSE", "CRPS", "coverage90", "front_coverage90"),
        )

    def title(self, cases: Sequence[Case]) -> str:
        problem, (low, high) = cases[0].problem, cases[0].problem.training_range
        text = f"{problem.name.replace('_', ' ').capitalize()}, t = {problem.test_time:g}, trained on {problem.symbol}"
        return f"{text} in [{low:g}, {high:g}], {cases[0].sizes.functions} functions, scores of mixtures"

    def cases(self, context: RunContext) -> list[Case]:
        return [replace(case, data="exact") for case in self.base.cases(context)]

    def trainings(self, _case: Case, method: Method, seed: int, context: RunContext) -> list[Training]:
        if method.black_box is not NETWORK:
            return []
        data: dict[str, Data] = {"anp": self.base.data, SMALL_EXTRAPOLATION: "exact"}
        return [self.base.training(name, seed, each, context) for name, each in data.items()]

    def train(self, training: Training, context: RunContext) -> None:
        """Takes the released weights of the laptop's network, or trains one."""
        if not take_released(training, context):
            self.base.train(training, context)

    def score(self, case: Case, method: Method, _seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
        files = tuple((path, checksum(path)) for path in weights)
        first = replace(case, parameter=case.problem.test_parameters[0])  # the same for all cases
        learnt = _learnt(first, VALIDATION[context.options.preset], files) if files else None
        return score_calibration(case, method.key, learnt, files[:1])


def score_calibration(case: Case, key: str, learnt: Learnt | None, files: tuple[Weights, ...]) -> Arrays:
    """Scores per function of one row by its own distributions, overall and near the front."""
    target, (method, treat) = Target(case), TREATMENTS[key]
    assert method.black_box is not None
    prior, laws = predicted(method.black_box, files, target), laws_of(target)
    prediction, truth = treat(prior, laws, learnt), target.truth()
    assert case.problem.front is not None
    near = (laws.points - float(case.problem.front(case.problem.test_time, case.parameter))).abs() <= NEAR + 1e-9
    part, probability = _at(prediction, near), cumulative_probability(truth, prediction)[0]
    arrays = {
        "CE": scores.conservation_error(prediction.mean, laws.exact)[0].abs(),
        "LL": marginal_log_likelihood(truth, prediction, VARIANCE_FLOOR)[0],
        "MSE": scores.mse(truth, prediction.mean)[0],
        "CRPS": marginal_crps(truth, prediction)[0],
        **_coverages(probability, ""),
        "squared_residual": evidence(prior, laws.loose).standardised_residual.square()[0, :, 0],
        "front_LL": marginal_log_likelihood(truth[..., near], part, VARIANCE_FLOOR)[0],
        "front_MSE": scores.mse(truth[..., near], part.mean)[0],
        "front_CRPS": marginal_crps(truth[..., near], part)[0],
        **_coverages(probability[:, near], "front_"),
    }
    if key == "by-law":
        assert isinstance(prior, Mixture)
        assert isinstance(prediction, Mixture)
        arrays["moved"] = prediction.weights[len(prior.weights) :].sum(dim=0)[0]
    if learnt and (band := {"anp": learnt.bare_band, "conformal": learnt.band}.get(key)):
        lower, upper = band.ends(prior if key == "anp" else conserved(prior, laws))
        arrays["band_coverage"] = ((truth >= lower) & (truth <= upper)).all(dim=-1).double()[0]
        arrays["band_width"] = (upper - lower).mean(dim=-1)[0]
    figures = {"mean": prediction.mean[0], "standard_deviation": prediction.variance[0].sqrt()}
    return {name: torch.as_tensor(values).numpy() for name, values in (arrays | figures).items()}


def _coverages(probability: Tensor, prefix: str) -> dict[str, Tensor]:
    """Coverage of central intervals per function, and the calibration error of all functions ``(1,)``."""
    distance = (2 * probability - 1).abs()
    covered = {f"{prefix}coverage{level}": (distance <= level / 100).double().mean(dim=-1) for level in (50, 90)}
    error = torch.tensor([calibration_error(probability)], dtype=torch.float64)
    return {**covered, f"{prefix}calibration_error": error}


def _at(prediction: Distribution, chosen: Tensor) -> Mixture | Normal:
    """The marginal distributions at some points."""
    parts = prediction.components if isinstance(prediction, Mixture) else prediction
    marginals = Normal(parts.mean[..., chosen], parts.variance[..., chosen].clamp_min(1e-16).sqrt())
    return Mixture(marginals, prediction.weights) if isinstance(prediction, Mixture) else marginals


@lru_cache(maxsize=2)
def _learnt(case: Case, count: int, files: tuple[Weights, ...]) -> Learnt:
    """Everything that treatments learn, from a network's functions at random parameters of the training range."""
    target = Target(case)
    context, parameter = validation_functions(case)
    part = predict(network(SMALL_EXTRAPOLATION).build(case, [files[1][0]]), target, context)
    displacement, factor = learn_extrapolation(target, part, parameter)
    generator = Generator().manual_seed(case.seed + 1)
    parameter = sampling.random_parameters(case.problem, count, generator)
    batch = sampling.sample_exact(case.problem, parameter, sampling.Protocol(), generator)
    seen = Context(batch.context_points, batch.context_values, case.problem.name)
    prior = predict(NETWORK.build(case, [files[0][0]]), target, seen)
    laws, truth = laws_of(target), target.field(parameter[:, None, None])[:, 0, 0][None]
    exact = _with_totals(laws, case, parameter)
    conditioned = conserved(prior, exact)
    return Learnt(
        displacement=displacement,
        factor=factor,
        bare_band=fit_band(prior, truth, level=0.9, floor=_FLOOR),
        band=fit_band(conditioned, truth, level=0.9, floor=_FLOOR),
        most=fit_band(conditioned, truth, level=0.9, inside=0.9, floor=_FLOOR),
    )


def _with_totals(laws: Laws, case: Case, parameter: Tensor) -> Laws:
    """The laws of functions with different parameters ``(functions,)``."""
    total = case.problem.total(case.problem.test_time, parameter)[None, :, None]
    return replace(laws, exact=replace(laws.exact, b=total), loose=replace(laws.loose, b=total))


ADVECTION = EXPERIMENTS["advection"]
PARAMETERS = (1.0, 3.0, 0.9, 0.7, 0.5, 5.5, 6.0, 7.0)
"""Two in the training range [1, 5], three below it and three above it."""
EARLIER = 0.05
"""The time at which all their fronts lie inside the domain."""
STUDIES: Mapping[str, CalibrationStudy] = {
    "advection": CalibrationStudy(
        name="advection-calibration",
        base=replace(ADVECTION, problem=replace(ADVECTION.problem, test_parameters=PARAMETERS, test_time=EARLIER)),
    )
}
"""By problem."""
