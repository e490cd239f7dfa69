"""When boundary corrections pay: few samples, boundary values outside the training range, grids not trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experiments import figures
from experiments.errors import UnknownNameError
from experiments.experiment import Preset, Report, RunOptions
from experiments.operator_config import OperatorCase
from experiments.operator_data import load_fields
from experiments.operator_figures import Comparison, comparisons
from experiments.operator_methods import CHANNELS, DEFAULT_NAME, PAPER, PRESCRIBED, Method, methods
from experiments.operator_problems import boundary_cases
from experiments.operator_run import OperatorRunConfig, place_of, score_row, seeds, test_identity, training_identities
from experiments.operator_scores import score
from experiments.runs import Run
from experiments.stages import stage_progress, write_tables
from experiments.storage import Arrays, cached_arrays
from experiments.tables import Row
from experiments.train_operator import Place, slug, trained_operator
from solvers.problems.boundary_samples import Uniform

ROWS = ("FNO", CHANNELS, PRESCRIBED, PAPER, DEFAULT_NAME)
COUNTS: dict[Preset, tuple[int, ...]] = {"smoke": (20, 40), "laptop": (50, 100, 200, 500), "paper": (50, 100, 200, 500)}
REFINEMENTS = (2, 4)
HELD_OUT = 10  # one sample in ten
_AXES = {"samples": "training samples", "outside": "boundary values", "nodes": "nodes of test samples"}


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Boundary values that no training sample has.

    Args:
        label: Name in tables.
        distributions: What parameters are drawn from, by name.
    """

    label: str
    distributions: Mapping[str, Uniform]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A problem that is studied.

    Args:
        case: Name of the case.
        outside: Boundary values outside the training range.
    """

    case: str
    outside: tuple[Outside, ...]


STUDIES: dict[str, Study] = {
    "heat_independent": Study(
        case="single-values",
        outside=tuple(
            Outside(
                label=f"values in [{low}, {low + 1}]",
                distributions={name: Uniform(float(low), low + 1.0) for name in ("left", "right")},
            )
            for low in (1, 2)
        ),
    ),
    "burgers_dirichlet": Study(
        case="single-0.02",
        outside=(
            Outside(label="u_L in [1.5, 1.75]", distributions={"left": Uniform(1.5, 1.75)}),
            Outside(label="u_L in [1.75, 2]", distributions={"left": Uniform(1.75, 2.0)}),
        ),
    ),
}
"""The studied problems: boundary data that are independent of the initial field, and data that follow from it."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One line of a study: what is trained on, and what is tested on.

    Args:
        name: Name in files.
        label: Name in tables.
        trained: Case of the training.
        tested: Case of the test samples.
    """

    name: str
    label: str
    trained: OperatorCase
    tested: OperatorCase


def trials(case: OperatorCase, study: Study, counts: tuple[int, ...]) -> tuple[Trial, ...]:
    """The lines of a study.

    Args:
        case: The case, in the sizes of a preset.
        study: The study.
        counts: Numbers of training samples; one in ten is held out.
    """
    fewer = tuple(
        Trial(name=f"samples-{count}", label=f"{count} samples", trained=_with_samples(case, count), tested=case)
        for count in counts
    )
    outside = tuple(
        Trial(name=f"outside-{number}", label=place.label, trained=case, tested=_outside(case, place))
        for number, place in enumerate(study.outside)
    )
    finer = tuple(
        Trial(name=f"nodes-{nodes}", label=f"{nodes} nodes", trained=case, tested=_with_nodes(case, nodes))
        for nodes in (factor * case.sizes.nodes for factor in REFINEMENTS)
    )
    return (*fewer, *outside, *finer)


def run_study(name: str, options: RunOptions) -> Report:
    """Trains what is missing, scores every line, stores, tabulates and draws.

    Args:
        name: Name of the experiment.
        options: Preset, seed, device and folder.

    Returns:
        The report.

    Raises:
        UnknownNameError: If the problem is not studied.
        InvalidArgumentError: If cases are named.
    """
    return run_trials(name, lines_of(name, options), options)


def lines_of(name: str, options: RunOptions) -> tuple[Trial, ...]:
    """The lines of the study of an experiment in the sizes of a preset; errors as ``run_study``."""
    options.refuse("cases", where="study, which has its own case")
    if name not in STUDIES:
        raise UnknownNameError(f"There is no study of '{name}'. Known: {', '.join(STUDIES)}.")
    study = STUDIES[name]
    (case,) = boundary_cases(name, replace(options, cases=(study.case,)))
    return trials(case, study, COUNTS[options.preset])


def study_run(name: str, lines: tuple[Trial, ...], options: RunOptions) -> Run:
    """The stored run of ``run_trials`` with the same arguments, whether it was made or not."""
    return Run(f"{name}-study", _config(name, lines, options.seed), options.out)


def run_trials(name: str, lines: tuple[Trial, ...], options: RunOptions) -> Report:
    """``run_study`` for given lines."""
    place = place_of(name, options)
    run = study_run(name, lines, options)
    folder = run.open()
    rows = [row for line in lines for row in _rows(line, place, folder)]
    return finish_study(run, lines, rows)


def finish_study(run: Run, lines: tuple[Trial, ...], rows: list[Row]) -> Report:
    """Stores the scores of a study, and writes its tables and its figure.

    Args:
        run: The stored run, opened.
        lines: The lines of the study.
        rows: Scores of every method on every line.
    """
    run.finish({"experiment": run.name, "rows": [row.as_json() for row in rows]})
    name = run.name.removesuffix("-study").replace("_", " ").capitalize()
    title = f"{name}, {lines[0].trained.label}: samples, values out of range, finer grids"
    drawn = figures.save(comparisons(_panels(rows, lines), title), run.folder / "study")
    tables = write_tables(run.folder, title, rows)
    return Report(title=title, rows=rows, folder=run.folder, tables=tables, figures=drawn)


def _config(name: str, lines: tuple[Trial, ...], seed: int) -> OperatorRunConfig:
    jobs = (
        (line.name, line.trained, method, number)
        for line in lines
        for method in _methods(line.trained)
        for number in seeds(line.trained, seed)
    )
    return OperatorRunConfig(
        problem=name,
        seed=seed,
        operators=training_identities(jobs, seed),
        test={line.name: test_identity(line.tested, seed) for line in lines},
    )


def _rows(line: Trial, place: Place, folder: Path) -> list[Row]:
    numbers = seeds(line.trained, place.data_seed)
    files = {
        (method.name, seed): trained_operator(line.trained, method, place, seed)
        for method in _methods(line.trained)
        for seed in numbers
    }
    test = load_fields(line.tested, line.tested.test_data(place.data_seed), place.data)
    rows = []
    with stage_progress(len(files)) as begin:
        for method in _methods(line.trained):
            found: list[Arrays] = []
            for seed in numbers:
                begin(f"{place.experiment}, {line.label}: {method.name}")
                path = folder / f"scores-{line.name}-{slug(method.name)}-{seed}.h5"
                weights = files[method.name, seed]
                found.append(cached_arrays(path, lambda w=weights, m=method: score(w, m, line.tested, test)))
            rows.append(score_row(line.label, method, found))
    return rows


def _methods(case: OperatorCase) -> list[Method]:
    return [method for method in methods(case) if method.name in ROWS]


def _panels(rows: list[Row], lines: tuple[Trial, ...]) -> list[Comparison]:
    """One panel for each kind of line; those of other values and grids begin with what the training had."""
    groups: dict[str, list[Trial]] = {}
    for line in lines:
        groups.setdefault(line.name.split("-")[0], []).append(line)
    known = [line for line in groups["samples"] if line.trained == line.tested]
    shown = {kind: own if kind == "samples" else known + own for kind, own in groups.items()}
    return [_panel(rows, kind, own) for kind, own in shown.items()]


def _panel(rows: list[Row], kind: str, lines: list[Trial]) -> Comparison:
    found = {(row.parameter, row.method): row.scores["relative_l2"] for row in rows}
    names = [method.name for method in _methods(lines[0].trained)]
    scores = {name: np.array([found[line.label, name] for line in lines], dtype=float) for name in names}
    return Comparison(
        label=_AXES[kind],
        ticks=tuple(_tick(line, kind) for line in lines),
        errors={name: values[:, 0] for name, values in scores.items()},
        standard_errors={name: values[:, 1] for name, values in scores.items()},
    )


def _tick(line: Trial, kind: str) -> str:
    if kind == "samples":
        return str(line.trained.sizes.samples)
    if kind == "nodes":
        nodes = line.tested.sizes.nodes
        return f"{nodes}\n(trained on)" if nodes == line.trained.sizes.nodes else str(nodes)
    return "as trained" if line.trained == line.tested else line.label.replace(" in ", "\nin ")


def _with_samples(case: OperatorCase, count: int) -> OperatorCase:
    held_out = max(1, count // HELD_OUT)
    batch = min(case.sizes.batch, count - held_out)
    return replace(case, sizes=replace(case.sizes, samples=count, validation=held_out, batch=batch))


def _with_nodes(case: OperatorCase, nodes: int) -> OperatorCase:
    return replace(case, sizes=replace(case.sizes, nodes=nodes))


def _outside(case: OperatorCase, place: Outside) -> OperatorCase:
    problem = case.problem
    for name, distribution in place.distributions.items():
        problem = problem.with_distribution(name, distribution)
    return replace(case, problem=problem)
