"""The experiments on operators under both constraints.

combined     boundary conditions and the law on one ensemble, beside each alone and neither
end_to_end   training through the update, against the update after training (Utkarsh et al. 2025)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from experiments.combined.fields import FieldProblem
from experiments.combined.problems import (
    ADVECTION_FIELDS,
    AFTER,
    CONSTRAINTS,
    DIFFUSION_FIELDS,
    IN_TRAINING,
    POROUS_FIELDS,
    SIZES,
    STEFAN_FIELDS,
    TRAININGS,
    Case,
    Method,
    Sizes,
    cases_of,
)
from experiments.combined.scoring import score_method, score_truth
from experiments.combined.training import FieldTraining, train_operator
from experiments.experiment import Preset, RunContext, Stored, Table, Training
from experiments.plots import BAND, TRUTH, legend_below, panels
from experiments.records.record import Arrays, Over, Record, Source, published
from experiments.records.release import data_version


@dataclass(frozen=True, kw_only=True)
class CombinedExperiment:
    """Operators from a parameter to a field with a standard deviation, under boundary conditions, the law, or both.

    Args:
        heading: What its tables show.
        rows: The methods of every case.
        main: Keys of the methods that the terminal shows and of which profiles are drawn.
    """

    name: str
    heading: str
    problems: tuple[FieldProblem, ...]
    rows: tuple[Method, ...]
    main: tuple[str, ...]
    over: Over = Over.GROUPS
    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=self.data_version,
            cases=self.cases,
            methods=lambda _: self.rows,
            score=self.score,
            seeds=self.seeds,
            trainings=self.trainings,
            train=train_operator,
            figures=self.figures,
            headline=lambda *_: (self.main, ("CRPS", "MSE", "coverage90")),
            published=self.published,
            reference=lambda _: self.main[0],
            compared=compared,
            over=self.over,
        )

    @property
    def data_version(self) -> int:
        """The newest version among the problems'; a case's config has that of its problem."""
        return max(data_version(problem.name) for problem in self.problems)

    def title(self, cases: Sequence[Case]) -> str:
        sizes = cases[0].sizes
        groups = "one group" if sizes.groups == 1 else f"{sizes.groups} independent groups"
        joined = any(method.joined for method in self.rows)
        return f"{self.heading}; {groups}" + (f", ensembles of {sizes.members}" if joined else "")

    def cases(self, context: RunContext) -> list[Case]:
        """Every problem on every interval of its parameter."""
        sizes = self.sizes[context.options.preset]
        return [case for problem in self.problems for case in cases_of(problem, sizes)]

    def seeds(self, case: Case, _context: RunContext) -> range:
        return range(case.sizes.groups)

    def trainings(self, case: Case, method: Method, seed: int, context: RunContext) -> list[Training]:
        """The trainings of a group; they take consecutive seeds, those of other runs and groups none of them."""
        if method.network is None:
            return []
        sizes, problem, name = case.sizes, case.problem, method.network.name
        first = (context.training_seed * sizes.groups + seed) * sizes.members
        config = FieldTraining(
            data=problem.description,
            samples=sizes.samples,
            validation=sizes.validation,
            network=replace(method.network, width=sizes.width, modes=sizes.modes, depth=sizes.depth),
            training=sizes.training,
            batch=sizes.batch,
            problem=problem,
        )
        return [
            Training(
                key=f"{name}-{number}",
                label=f"{name}-{number}, {problem.label}",
                folder=f"fields/{problem.name}",
                config=replace(config, training=replace(sizes.training, seed=number)),
                data_version=data_version(problem.name),
                release=None if seed else f"fields/{problem.name}-{name}-{number}.safetensors",
            )
            for number in range(first, first + (sizes.members if method.joined else 1))
        ]

    def score(self, case: Case, method: Method, _seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
        if method.network is None:
            return score_truth(case, context.options.seed)
        return score_method(case, method, weights, context.options.seed)

    def published(self, case: Case) -> list[Record]:
        """The ratio of Utkarsh et al., on the training range of their problems."""
        paper = published("probharde2e").get(case.problem.name)
        if not paper or case.number or IN_TRAINING not in [method.key for method in self.rows]:
            return []
        record = Record(
            experiment=self.name,
            case=case.key,
            method=IN_TRAINING,
            seed=None,
            score="ratio",
            mean=paper["in_training"] / paper["after"],
            standard_error=None,
            source=Source.PUBLISHED,
            note="Utkarsh et al. 2025, on their set-up",
        )
        return [record]

    def figures(self, case: Case, stored: Stored, context: RunContext) -> dict[str, Figure]:
        """Profiles in range and at the nearest shift."""
        main = [method for method in self.rows if method.key in self.main and (method.key, 0) in stored]
        if case.number > 1 or not main:
            return {}
        return {"profile": profiles(case, main, stored, case.parameters(context.options.seed)[:1])}


def compared(scores: pd.DataFrame) -> pd.DataFrame:
    """Adds the CRPS of training through the update over that of the update after training, of equal seeds."""
    if not {AFTER, IN_TRAINING} <= set(scores["method"]):
        return scores
    crps = scores.pivot_table(index=["case", "seed"], columns="method", values="CRPS")
    ratios = (crps[IN_TRAINING] / crps[AFTER]).rename("ratio")
    first = (scores["method"] == IN_TRAINING) & (scores["function"] == 0)
    return scores.join(ratios, on=["case", "seed"]).assign(ratio=lambda frame: frame["ratio"].where(first))


def profiles(case: Case, methods: Sequence[Method], stored: Stored, parameter: Tensor) -> Figure:
    """Error of the mean over x and the 95 % band around it, at the middle time, a panel per method.

    ``parameter`` ``(1,)`` is the first test parameter; the truth is the line at 0.
    """
    problem = case.problem
    middle, (low, high) = problem.times // 2, problem.training_range
    trained = f"{problem.problem.symbol} = {float(parameter):.3g} (trained on {low:g} to {high:g})"
    title = f"{problem.label}, {trained}, t = {float(problem.output_times[middle]):g}"
    figure, axes = panels(len(methods), title, columns=2)
    x, truth = problem.grid.points.numpy(), problem.truth(parameter)[0, middle].numpy()
    for panel, method in zip(axes, methods, strict=True):
        arrays, colour = stored[method.key, 0], method.style.colour
        error, band = arrays["mean"] - truth, BAND * arrays["standard_deviation"]
        panel.fill_between(x, error - band, error + band, color=colour, alpha=0.3, lw=0, label="95 % band")
        panel.plot(x, error, color=colour, lw=1.4, label="mean − truth")
        panel.axhline(0.0, color=TRUTH, lw=0.9, ls="--", label="truth")
        panel.set_title(method.label, fontsize=10)
    for panel in axes[-2:]:
        panel.set_xlabel("x")
    for panel in axes[::2]:
        panel.set_ylabel("error of u")
    legend_below(figure, axes[0], grey=("95 % band", "mean − truth"))
    return figure


EXPERIMENTS: dict[str, CombinedExperiment] = {
    entry.name: entry
    for entry in (
        CombinedExperiment(
            name="combined",
            heading="Boundary conditions and conservation on one prediction",
            problems=(POROUS_FIELDS, STEFAN_FIELDS),
            rows=CONSTRAINTS,
            main=("fno", "boon", "probconserv-fno", "probconserv-boon"),
        ),
        CombinedExperiment(
            name="end_to_end",
            heading="Training through the update against the update after training",
            problems=(DIFFUSION_FIELDS, POROUS_FIELDS, STEFAN_FIELDS, ADVECTION_FIELDS),
            rows=TRAININGS,
            main=("fno", AFTER, IN_TRAINING),
        ),
    )
}
