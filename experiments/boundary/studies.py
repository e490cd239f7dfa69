"""When boundary corrections pay (few samples, values out of range, finer grids), and which shall be the default."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from experiments.boundary.cases import BoundaryCase
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.figures import names_of
from experiments.boundary.methods import CHANNELS, DEFAULT, FNO, PAPER, PRESCRIPTION, Method, candidates, methods
from experiments.boundary.versions import VERSIONS
from experiments.experiment import Preset
from experiments.report.plots import legend_below, panels
from solvers.problems.boundary_samples import Uniform

Intervals = Sequence[tuple[float, float]]
METHODS = (FNO, CHANNELS, PRESCRIPTION, PAPER, DEFAULT)
COUNTS: dict[Preset, tuple[int, ...]] = {"smoke": (20, 40), "laptop": (50, 100, 200, 500), "paper": (50, 100, 200, 500)}
REFINEMENTS = (2, 4)
VALIDATION = 10  # one sample in ten


def study_cases(
    base: BoundaryCase, counts: Sequence[int], parameters: Sequence[str], symbol: str, outside: Intervals
) -> tuple[BoundaryCase, ...]:
    """Operators of a case on fewer samples, outside the training range, on finer grids.

    Counts include the validation set; ``parameters`` decide boundary values, which tables call ``symbol``, and which
    are drawn ``outside`` from intervals that no training sample comes from.
    """
    cases, other = [], replace(base, trained_on=base)
    for count in counts:
        validation = max(1, count // VALIDATION)
        batch = min(base.sizes.batch, count - validation)
        fewer = replace(base, sizes=replace(base.sizes, samples=count, validation=validation, batch=batch))
        cases.append(replace(base, key=f"samples-{count}", label=f"{count} samples", trained_on=fewer))
    for number, (low, high) in enumerate(outside):
        problem, label = base.problem, f"{symbol} in [{low:g}, {high:g}]"
        for name in parameters:
            problem = problem.with_distribution(name, Uniform(low, high))
        cases.append(replace(other, key=f"outside-{number}", label=label, problem=problem))
    for nodes in (factor * base.sizes.nodes for factor in REFINEMENTS):
        sizes = replace(base.sizes, nodes=nodes)
        cases.append(replace(other, key=f"nodes-{nodes}", label=f"{nodes} nodes", sizes=sizes))
    return tuple(cases)


def study_methods(case: BoundaryCase) -> tuple[Method, ...]:
    """The methods of a case that are studied."""
    return tuple(method for method in methods(case) if method.key in METHODS)


def _ticks(case: BoundaryCase) -> dict[str, str]:
    """By everything that cases are compared in, what a case has."""
    usual = case.training_case.problem.parameters
    drawn_from = [entry.distribution for entry in case.problem.parameters if entry not in usual]
    intervals = [f"[{entry.low:g}, {entry.high:g}]" for entry in drawn_from if isinstance(entry, Uniform)]
    return {
        "training samples": str(case.training_case.sizes.samples),
        "boundary values": intervals[0] if intervals else "as trained",
        "nodes of test samples": str(case.sizes.nodes),
    }


def _axis(case: BoundaryCase) -> str:
    """What a case is compared in: where it differs from what was trained on."""
    usual = _ticks(case.training_case)
    return next((axis for axis, tick in _ticks(case).items() if tick != usual[axis]), "training samples")


def _draw(cases: Sequence[BoundaryCase], records: pd.DataFrame) -> Mapping[str, Figure]:
    """Relative L2 of every method, logarithmic: over samples, boundary values and nodes.

    Panels of other values and grids begin with what was trained on.
    """
    groups = {axis: [case for case in cases if _axis(case) == axis] for axis in _ticks(cases[0])}
    samples = groups["training samples"]
    usual = [case for case in samples if case.sizes == case.training_case.sizes]
    errors = records[records["score"] == "relative_l2"].set_index(["method", "case"])
    figure, axes = panels(len(groups), f"{names_of(cases[0].problem.name).title}: when corrections pay", width=0.75)
    for panel, (axis, group) in zip(axes, groups.items(), strict=True):
        shown = group if group is samples else [*usual, *group]
        for method in study_methods(cases[0]):
            values = errors.reindex([(method.key, case.key) for case in shown])
            line = {"color": method.style.colour, "ls": method.style.dashes, "label": method.label}
            line |= {"lw": 1.5, "marker": "o", "ms": 4, "capsize": 2}
            panel.errorbar(range(len(shown)), values["mean"], values["standard_error"], **line)
        panel.set(xlabel=axis, yscale="log")
        panel.set_xticks(range(len(shown)), [_ticks(case)[axis] for case in shown], fontsize=8)
        panel.margins(x=0.15)
    axes[0].set_ylabel("relative L2")
    legend_below(figure, axes[0])
    return {"study": figure}


def _study(problem: str, key: str, parameters: Sequence[str], symbol: str, outside: Intervals) -> BoundaryExperiment:
    """The study of the case of this key, see ``study_cases``."""

    def versions(preset: Preset) -> tuple[BoundaryCase, ...]:
        (base,) = (case for case in VERSIONS[problem](preset) if case.key == key)
        return study_cases(base, COUNTS[preset], parameters, symbol, outside)

    subject = "few samples, boundary values out of range, finer grids"
    return BoundaryExperiment(
        name=f"{problem}-study",
        problem=problem,
        summary=f"{problem}: {subject}",
        durations={"smoke": "30 s", "laptop": "75 min", "paper": "9000 min", "reproduce": "5 s"},
        versions=versions,
        methods_of=study_methods,
        subject=subject,
        overview_of=_draw,
    )


STUDIES: dict[str, BoundaryExperiment] = {
    "heat_independent": _study(
        "heat_independent", "single-values", ("left", "right"), "values", ((1.0, 2.0), (2.0, 3.0))
    ),
    "burgers_dirichlet": _study("burgers_dirichlet", "single-0.02", ("left",), "u_L", ((1.5, 1.75), (1.75, 2.0))),
}
"""By problem: one with boundary data that are independent of the initial field, one with data that follow from it."""
_SUBJECT = "candidates for the default correction, ranked on the validation set"
CHOICES: dict[str, BoundaryExperiment] = {
    name: BoundaryExperiment(
        name=f"{name}-choice",
        problem=name,
        summary=f"{name}: {_SUBJECT}",
        durations={"smoke": "30 s", "laptop": "60 min", "paper": "9000 min", "reproduce": "1 s"},
        versions=versions,
        methods_of=candidates,
        subject=_SUBJECT,
        by_validation=True,
        repetitions=1,
    )
    for name, versions in VERSIONS.items()
}
"""Choices of the default correction by problem: candidates of one family, trained alike."""
