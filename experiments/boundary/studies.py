"""When boundary corrections pay: few samples, boundary values outside the training range, grids not trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure

from experiments.boundary.cases import BoundaryCase
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.figures import names_of
from experiments.boundary.methods import CHANNELS, DEFAULT, FNO, PAPER, PRESCRIPTION, Method, methods
from experiments.boundary.versions import VERSIONS
from experiments.experiment import Durations, Preset
from experiments.report.plots import legend_below, panels
from solvers.problems.boundary_samples import BoundaryProblem, Uniform

METHODS = (FNO, CHANNELS, PRESCRIPTION, PAPER, DEFAULT)
COUNTS: dict[Preset, tuple[int, ...]] = {"smoke": (20, 40), "laptop": (50, 100, 200, 500), "paper": (50, 100, 200, 500)}
REFINEMENTS = (2, 4)
VALIDATION = 10  # one sample in ten
_DURATIONS: Durations = {"smoke": "30 s", "laptop": "90 min", "paper": "9000 min", "reproduce": "5 s"}


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Boundary values that no training sample has.

    Args:
        parameters: Names of the random parameters that are drawn uniformly from [low, high].
        symbol: What they are called in tables.
        low: Lower end.
        high: Upper end.
    """

    parameters: tuple[str, ...]
    symbol: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class BoundaryStudy:
    """A case that is studied.

    Args:
        problem: Name of the problem.
        case: Key of the case.
        outside: Boundary values outside the training range.
    """

    problem: str
    case: str
    outside: tuple[Outside, ...]

    @property
    def experiment(self) -> BoundaryExperiment:
        """The study as an experiment, ``<problem>-study``."""
        return BoundaryExperiment(
            name=f"{self.problem}-study",
            problem=self.problem,
            summary=f"{self.problem}: few samples, boundary values out of range, finer grids",
            durations=_DURATIONS,
            versions=self.versions,
            methods_of=study_methods,
            subject="samples, boundary values out of range, finer grids",
            overview_of=self.draw,
        )

    def versions(self, preset: Preset) -> tuple[BoundaryCase, ...]:
        """The cases of the study in the sizes of a preset."""
        (base,) = (case for case in VERSIONS[self.problem](preset) if case.key == self.case)
        return study_cases(base, COUNTS[preset], self.outside)

    def draw(self, cases: Sequence[BoundaryCase], records: pd.DataFrame) -> Mapping[str, Figure]:
        """Relative L2 of every method, see ``comparisons``."""
        return {"study": comparisons(cases, records, f"{names_of(self.problem).title}: when corrections pay")}


def study_methods(case: BoundaryCase) -> tuple[Method, ...]:
    """The methods of a case that are studied."""
    return tuple(method for method in methods(case) if method.key in METHODS)


def study_cases(base: BoundaryCase, counts: Sequence[int], outside: Sequence[Outside]) -> tuple[BoundaryCase, ...]:
    """The cases of a study.

    Args:
        base: The case that is trained on.
        counts: Numbers of training samples, those of the validation set included.
        outside: Boundary values outside the training range.
    """
    fewer = (
        replace(base, key=f"samples-{count}", label=f"{count} samples", trained_on=_with_samples(base, count))
        for count in counts
    )
    elsewhere = (
        replace(
            base,
            key=f"outside-{number}",
            label=f"{values.symbol} in [{values.low:g}, {values.high:g}]",
            trained_on=base,
            problem=_drawn_from(base, values),
        )
        for number, values in enumerate(outside)
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
    return (*fewer, *elsewhere, *finer)


def _with_samples(base: BoundaryCase, count: int) -> BoundaryCase:
    validation = max(1, count // VALIDATION)
    batch = min(base.sizes.batch, count - validation)
    return replace(base, sizes=replace(base.sizes, samples=count, validation=validation, batch=batch))


def _drawn_from(base: BoundaryCase, values: Outside) -> BoundaryProblem:
    problem = base.problem
    for name in values.parameters:
        problem = problem.with_distribution(name, Uniform(values.low, values.high))
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
            outside=tuple(
                Outside(parameters=("left", "right"), symbol="values", low=low, high=low + 1.0) for low in (1.0, 2.0)
            ),
        ),
        BoundaryStudy(
            problem="burgers_dirichlet",
            case="single-0.02",
            outside=tuple(Outside(parameters=("left",), symbol="u_L", low=low, high=low + 0.25) for low in (1.5, 1.75)),
        ),
    )
}
"""By problem: one with boundary data that are independent of the initial field, one with data that follow from it."""
