"""Observations under laws that hold only roughly, as an experiment."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator

from experiments.experiment import RunContext, Table
from experiments.observations.energy import SurfaceEnergy
from experiments.observations.methods import METHODS, Method
from experiments.observations.parts import DRAWS, Observed, Problem, over_blocks
from experiments.observations.temperature import Temperatures
from experiments.observations.traffic import Traffic, TrafficAhead
from experiments.records.record import Arrays
from experiments.records.release import data_version
from probconserv import scores
from probconserv.sampling import draw

PROBLEMS: tuple[Problem, ...] = (
    Traffic(),
    TrafficAhead(),
    TrafficAhead("traffic-ahead-balanced", "two minutes ahead, balanced", balanced=True),
    SurfaceEnergy(),
    SurfaceEnergy("energy-informed", "energy from Rn − G, W/m²", informed=True),
    Temperatures(),
    Temperatures("temperature-e1", "temperature, K, scenario E1", scenario="E1"),
)

SHOWN = ("CRPS", "coverage90", "energy", "MSE", "CE")
"""Scores of tables."""


@dataclass(frozen=True, kw_only=True)
class ObservationsExperiment:
    """Laws that hold roughly, on observations: the update and what people do by hand.

    Args:
        problems: Sources of observations.
        rows: What is done with them.
    """

    name: str = "observations"
    problems: Sequence[Problem] = PROBLEMS
    rows: Sequence[Method] = METHODS

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=data_version("observations"),
            cases=lambda _: self.problems,
            methods=self.methods,
            score=self.score,
            headline=self.headline,
            shown=SHOWN,
            options=("files",),
        )

    def title(self, _cases: Sequence[Problem]) -> str:
        return "Observations: tests in later years or other places than what was learnt from, errors over stretches"

    def methods(self, case: Problem) -> list[Method]:
        rows = [row for row in self.rows if case.non_negative or not row.signed]
        return [row for row in rows if case.covariates or not row.explained]

    def headline(self, case: Problem, _records: object) -> tuple[Sequence[str], Sequence[str]]:
        """Without and with the law, the strongest rivals, and what validation makes of the law."""
        left_out = ("ratio", "diagonal", "covariance", "fitted", "truncated")
        return [row.key for row in self.methods(case) if row.key not in left_out], SHOWN

    def score(self, case: Problem, method: Method, seed: int, _weights: Sequence[Path], context: RunContext) -> Arrays:
        return score(case.observed(context.options.files), method, seed)


def score(observed: Observed, method: Method, seed: int) -> Arrays:
    """Scores per stretch of time, means over its cases."""
    part, start = observed.test, time.process_time()
    prediction = method.predict(observed)
    draws = draw(prediction, (DRAWS,), Generator().manual_seed(seed))
    seconds = time.process_time() - start
    mean, truth = prediction.mean.double(), part.truth
    if method.signed:  # no Gaussian
        lower, upper = scores.interval_of_samples(draws, 0.9)
        held = ((truth >= lower) & (truth <= upper)).double().mean(dim=-1)
        crps = scores.crps_of_samples(truth, draws)
    else:
        held = scores.coverage(truth, mean, prediction.variance, 0.9)
        crps = scores.crps(truth, mean, prediction.variance)
    by_case = {
        "CE": (mean @ observed.rows.mT - part.target).abs().amax(dim=-1),
        "MSE": scores.mse(truth, mean),
        "CRPS": crps,
        "energy": scores.energy_score(truth, draws),
        "coverage90": held,
    }
    arrays = {name: over_blocks(values, part.block).numpy() for name, values in by_case.items()}
    milliseconds = torch.tensor([1e3 * seconds / draws[..., 0].numel()])
    return {**arrays, "draw_milliseconds": milliseconds.numpy()}
