"""The study of sampling steps: errors of all samplers of one flow, released or trained, over their evaluations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import plots
from experiments.experiment import Preset, RunContext, Table, Training
from experiments.generation.cases import Case, Condition
from experiments.generation.experiment import GenerationExperiment, draws_of
from experiments.generation.methods import METHODS, TWISTED, Method, methods_of
from experiments.generation.scoring import errors_of, sampled, scores_of
from experiments.generation.training import train_flow
from experiments.records.record import Arrays, Over
from experiments.stages import take_released

DRAWS: Mapping[Preset, int] = {"smoke": 64, "laptop": 1024, "paper": 4096}
"""Draws at most."""
EVALUATIONS = (12, 25, 50, 100)
"""Evaluations of the velocity for one draw, up to ``MOST`` times as many as the experiment takes."""
MOST = 4
SETS = 20
"""Sets of true draws, over which the sampling floor varies."""
SHOWN = {"mean_error": "error of mean", "deviation_error": "error of std"}
"""Scores that the figure shows."""


@dataclass(frozen=True, kw_only=True)
class StepsStudy:
    """All samplers with few to many evaluations of one flow, by steps of second order where a sampler has them.

    Args:
        flows: The experiment whose first flow and whose laws are taken.
        more: Further conditions, of the study alone.
    """

    name: str
    flows: GenerationExperiment
    more: tuple[Condition, ...] = ()

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=self.flows.data_version,
            cases=self.cases,
            methods=self.methods,
            score=self.score,
            seeds=self.seeds,
            trainings=self.flows.trainings,
            train=self.train,
            overview=self.overview,
            headline=self.headline,
            reference=self.reference,
            redraws=lambda method: method.redraws,
            over=Over.GROUPS,
        )

    def title(self, cases: Sequence[Case]) -> str:
        drawn = f"{draws_of(cases)} draws of one flow on {cases[0].sizes.nodes}²"
        return f"{self.flows.problem.label}: {drawn}; behind samplers, evaluations a draw"

    def cases(self, context: RunContext) -> list[Case]:
        """The laws of the experiment, with fewer draws, and the further conditions."""
        most = DRAWS[context.options.preset]
        cases = self.flows.cases(context)
        cases = [replace(case, sizes=replace(case.sizes, draws=min(most, case.sizes.draws))) for case in cases]
        return [*cases, *(replace(cases[0], condition=condition) for condition in self.more)]

    def seeds(self, _case: Case, _context: RunContext) -> range:
        return range(1)

    def train(self, training: Training, context: RunContext) -> None:
        """Takes the released weights of the laptop's flow, or trains one."""
        if not take_released(training, context):
            train_flow(training, context)

    def methods(self, case: Case) -> list[Method]:
        """True draws, then every sampler of the case with every number of evaluations."""
        truth, *others = methods_of(case, (*METHODS, TWISTED))
        return [truth, *(each.with_evaluations(n) for each in others if each.sampler for n in self._numbers(case))]

    def _numbers(self, case: Case) -> list[int]:
        return [number for number in EVALUATIONS if number <= MOST * case.sizes.steps]

    def reference(self, case: Case) -> str:
        """The flow alone, with about as many evaluations as the experiment takes."""
        return f"unconstrained-{min(self._numbers(case), key=lambda number: abs(number - case.sizes.steps))}"

    def score(self, case: Case, method: Method, seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
        if method.evaluations is None:
            return floor_of(case, context.options.seed)
        steps = replace(case, sizes=replace(case.sizes, steps=method.evaluations))
        options, seed = replace(method.options(steps), order=2), 1000 * context.options.seed
        draws, seconds = sampled(case, method, options, weights[0], seed)
        return scores_of(draws, case, seed) | {"draw_milliseconds": np.array(1000 * seconds / len(draws))}

    def headline(self, case: Case, _records: pd.DataFrame) -> tuple[list[str], list[str]]:
        """The rows with as many evaluations as the experiment takes, true draws last."""
        truth, *samplers = self.methods(case)
        shown = [row.key for row in samplers if row.evaluations == case.sizes.steps]
        return [*shown, truth.key], [*SHOWN, "draw_milliseconds"]

    def overview(self, cases: Sequence[Case], records: pd.DataFrame) -> dict[str, Figure]:
        """Both errors of all samplers over the number of evaluations, above the sampling floor."""
        return {"study": draw_study(cases, records, self.methods)}


@lru_cache(maxsize=8)
def floor_of(case: Case, seed: int) -> Arrays:
    """Errors of sets of as many true draws: medians, and the 10 % and 90 % quantiles."""
    errors = [errors_of(case.truths(case.draws, 1000 * seed + number), case) for number in range(1, SETS + 1)]
    arrays = {name: np.concatenate([np.atleast_1d(each[name]) for each in errors]) for name in errors[0]}
    for name in SHOWN:
        low, arrays[name], high = np.quantile(arrays[name], (0.1, 0.5, 0.9))
        arrays |= {f"{name}_10": low, f"{name}_90": high}
    return arrays


def draw_study(cases: Sequence[Case], records: pd.DataFrame, rows_of: Callable[[Case], Sequence[Method]]) -> Figure:
    """A logarithmic panel per score and law: a line per sampler, and true draws as a band from 10 % to 90 %.

    Of many laws the error of the mean alone is drawn.
    """
    title = f"{cases[0].problem.label}: errors over the number of evaluations"
    places = [(score, case) for score in list(SHOWN)[: 2 if len(cases) <= 3 else 1] for case in cases]
    figure, axes = plots.panels(len(places), title, share_y=False, columns=min(len(cases), 3))
    means = records.set_index(["score", "case", "method"])["mean"]
    for panel, (score, case) in zip(axes, places, strict=True):
        truth, *rows = rows_of(case)
        low, high = (means.get((f"{score}_{end}", case.key, truth.key), np.nan) for end in (10, 90))
        panel.axhspan(low, high, color="0.85", zorder=0, label=f"{truth.label}, 10 % to 90 %")
        numbers = sorted({row.evaluations for row in rows if row.evaluations is not None})
        for label, line in _lines(rows).items():
            values = means.reindex([(score, case.key, row.key) for row in line])
            style = {"color": line[0].style.colour, "ls": line[0].style.dashes, "marker": "o", "ms": 3, "lw": 1.5}
            panel.plot(numbers, values, label=label, **style)
        panel.set(xscale="log", yscale="log", title=case.label, xlabel="evaluations", ylabel=SHOWN[score])
        panel.set_xticks(numbers, [str(number) for number in numbers])
        panel.minorticks_off()
    plots.legend_below(figure, *axes)
    return figure


def _lines(rows: Sequence[Method]) -> dict[str, list[Method]]:
    """The rows of every sampler by its label."""
    lines: dict[str, list[Method]] = {}
    for row in rows:
        lines.setdefault(row.label.rpartition(", ")[0], []).append(row)
    return lines
