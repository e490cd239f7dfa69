"""When boundary corrections pay (few samples, values out of range, finer grids), and which shall be the default."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure

from experiments.boundary.cases import BoundaryCase
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.figures import names_of
from experiments.boundary.methods import CHANNELS, DEFAULT, FNO, PAPER, PRESCRIPTION, Method, candidates, methods
from experiments.boundary.versions import VERSIONS
from experiments.experiment import Preset
from experiments.report.plots import legend_below, panels
from solvers.problems.boundary_samples import BoundaryProblem, Uniform

METHODS = (FNO, CHANNELS, PRESCRIPTION, PAPER, DEFAULT)
COUNTS: dict[Preset, tuple[int, ...]] = {"smoke": (20, 40), "laptop": (50, 100, 200, 500), "paper": (50, 100, 200, 500)}
REFINEMENTS = (2, 4)
VALIDATION = 10  # one sample in ten


@dataclass(frozen=True, kw_only=True)
class BoundaryStudy:
    """A case that is studied: a problem's operators on fewer samples, outside the training range, on finer grids.

    Args:
        problem: Name of the problem.
        case: Key of the case.
        parameters: Names of the random parameters that decide its boundary values.
        symbol: What tables call these values.
        outside: Intervals from which they are drawn that no training sample comes from.
    """

    problem: str
    case: str
    parameters: tuple[str, ...]
    symbol: str
    outside: tuple[tuple[float, float], ...]

    @property
    def experiment(self) -> BoundaryExperiment:
        """The study as an experiment, ``<problem>-study``."""
        return BoundaryExperiment(
            name=f"{self.problem}-study",
            problem=self.problem,
            summary=f"{self.problem}: few samples, boundary values out of range, finer grids",
            durations={"smoke": "30 s", "laptop": "75 min", "paper": "9000 min", "reproduce": "5 s"},
            versions=self.versions,
            methods_of=study_methods,
            subject="few samples, boundary values out of range, finer grids",
            overview_of=self.draw,
        )

    def versions(self, preset: Preset) -> tuple[BoundaryCase, ...]:
        """The cases of the study in the sizes of a preset."""
        (base,) = (case for case in VERSIONS[self.problem](preset) if case.key == self.case)
        return self.cases_of(base, COUNTS[preset])

    def cases_of(self, base: BoundaryCase, counts: Sequence[int]) -> tuple[BoundaryCase, ...]:
        """The cases of the study.

        Args:
            base: The case that is trained on.
            counts: Numbers of training samples, those of the validation set included.
        """
        fewer = (
            replace(base, key=f"samples-{count}", label=f"{count} samples", trained_on=_with_samples(base, count))
            for count in counts
        )
        outside = (
            replace(
                base,
                key=f"outside-{number}",
                label=f"{self.symbol} in [{low:g}, {high:g}]",
                trained_on=base,
                problem=_drawn_from(base.problem, self.parameters, Uniform(low, high)),
            )
            for number, (low, high) in enumerate(self.outside)
        )
        finer = (
            replace(
                base,
                key=f"nodes-{nodes}",
                label=f"{nodes} nodes",
                trained_on=base,
                sizes=replace(base.sizes, nodes=nodes),
            )
            for nodes in (factor * base.sizes.nodes for factor in REFINEMENTS)
        )
        return (*fewer, *outside, *finer)

    def draw(self, cases: Sequence[BoundaryCase], records: pd.DataFrame) -> Mapping[str, Figure]:
        """Relative L2 of every method, see ``comparisons``."""
        return {"study": comparisons(cases, records, f"{names_of(self.problem).title}: when corrections pay")}


def study_methods(case: BoundaryCase) -> tuple[Method, ...]:
    """The methods of a case that are studied."""
    return tuple(method for method in methods(case) if method.key in METHODS)


def _with_samples(base: BoundaryCase, count: int) -> BoundaryCase:
    validation = max(1, count // VALIDATION)
    batch = min(base.sizes.batch, count - validation)
    return replace(base, sizes=replace(base.sizes, samples=count, validation=validation, batch=batch))


def _drawn_from(problem: BoundaryProblem, parameters: Sequence[str], distribution: Uniform) -> BoundaryProblem:
    for name in parameters:
        problem = problem.with_distribution(name, distribution)
    return problem


def comparisons(cases: Sequence[BoundaryCase], records: pd.DataFrame, title: str) -> Figure:
    """Relative L2 of every method, logarithmic: over samples, boundary values and nodes.

    Args:
        cases: The cases of a study; panels of other values and grids begin with what was trained on.
        records: Means and standard errors.
        title: Title of the figure.
    """
    groups = {axis: [case for case in cases if _axis(case) == axis] for axis in _TICKS}
    usual = [case for case in cases if case.sizes == case.training_case.sizes and _axis(case) == "training samples"]
    errors = records[records["score"] == "relative_l2"].set_index(["method", "case"])
    figure, axes = panels(len(groups), title, width=0.75)
    for panel, (axis, group) in zip(axes, groups.items(), strict=True):
        shown = group if axis == "training samples" else [*usual, *group]
        for method in study_methods(cases[0]):
            keys = [(method.key, case.key) for case in shown]
            values = errors.reindex(keys)
            line = {"color": method.style.colour, "ls": method.style.dashes, "label": method.label}
            panel.errorbar(
                range(len(keys)), values["mean"], values["standard_error"], lw=1.5, marker="o", ms=4, capsize=2, **line
            )
        panel.set(xlabel=axis, yscale="log")
        panel.set_xticks(range(len(shown)), [_TICKS[axis](case) for case in shown], fontsize=8)
        panel.margins(x=0.15)
    axes[0].set_ylabel("relative L2")
    legend_below(figure, axes[0])
    return figure


def _axis(case: BoundaryCase) -> str:
    """What a case is compared in: where it differs from what was trained on."""
    trained = case.training_case
    if case.problem.parameters != trained.problem.parameters:
        return "boundary values"
    return "nodes of test samples" if case.sizes.nodes != trained.sizes.nodes else "training samples"


def _values(case: BoundaryCase) -> str:
    usual = case.training_case.problem.parameters
    drawn_from = [entry.distribution for entry in case.problem.parameters if entry not in usual]
    intervals = (f"[{entry.low:g}, {entry.high:g}]" for entry in drawn_from if isinstance(entry, Uniform))
    return next(intervals, "as trained")


_TICKS: dict[str, Callable[[BoundaryCase], str]] = {
    "training samples": lambda case: str(case.training_case.sizes.samples),
    "boundary values": _values,
    "nodes of test samples": lambda case: str(case.sizes.nodes),
}
STUDIES: dict[str, BoundaryExperiment] = {
    study.problem: study.experiment
    for study in (
        BoundaryStudy(
            problem="heat_independent",
            case="single-values",
            parameters=("left", "right"),
            symbol="values",
            outside=((1.0, 2.0), (2.0, 3.0)),
        ),
        BoundaryStudy(
            problem="burgers_dirichlet",
            case="single-0.02",
            parameters=("left",),
            symbol="u_L",
            outside=((1.5, 1.75), (1.75, 2.0)),
        ),
    )
}
"""By problem: one with boundary data that are independent of the initial field, one with data that follow from it."""
CHOICES: dict[str, BoundaryExperiment] = {
    name: BoundaryExperiment(
        name=f"{name}-choice",
        problem=name,
        summary=f"{name}: candidates for the default correction, ranked on the validation set",
        durations={"smoke": "30 s", "laptop": "60 min", "paper": "9000 min", "reproduce": "1 s"},
        versions=versions,
        methods_of=candidates,
        subject="candidates for the default correction, ranked on the validation set",
        by_validation=True,
        repetitions=1,
    )
    for name, versions in VERSIONS.items()
}
"""Choices of the default correction by problem: candidates of one family, trained alike."""
