"""A boundary-condition experiment from options to report: train every row on every seed, score, store, tabulate, draw.

Trainings and stages write their files when they are done, so an interrupted run goes on where it stopped.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

import boon
import solvers
from experiments.boundary_data import describe_samples
from experiments.checks import chosen_names
from experiments.experiment import Durations, Experiment, Preset, Report, RunOptions
from experiments.operator_config import OperatorCase
from experiments.operator_data import load_fields
from experiments.operator_figures import draw_case
from experiments.operator_methods import Method, methods
from experiments.operator_scores import Stored, score, step_costs, truth
from experiments.operator_shipping import ShippedResults, read_results, weights_path
from experiments.runs import Run, digest, source_digest
from experiments.stages import stage_progress, write_tables
from experiments.storage import Arrays, cached_arrays, checksum, writable_folder
from experiments.tables import COLUMNS, Row, Score, boon_rows
from experiments.train_operator import Place, operator_training, slug, trained_operator
from probconserv.scores import mean_and_standard_error

Cases = Callable[[Preset], tuple[OperatorCase, ...]]
Files = dict[tuple[str, int], Path]
"""Weights by method's name and seed."""
_MODULES = ("boundary_data", "lifting", "operator_data", "operator_methods", "operator_scores", "train_operator")


def scoring_source() -> str:
    """Digest of the code that decides scores: operators, solvers, and the experiments' own evaluation."""
    return source_digest(boon, solvers, modules=_MODULES)


@dataclass(frozen=True, kw_only=True)
class OperatorRunConfig:
    """Everything that decides the result of a boundary-condition experiment.

    Args:
        problem: Name of the experiment.
        seed: Seed of the samples, and of the first training.
        operators: Identity of every operator by case, method and seed: of its training, or checksum of its weights.
        test: Identity of the test samples of every case.
        source: Digest of the code that scores are computed by; another version's scores are not read back.
    """

    problem: str
    seed: int
    operators: dict[str, str]
    test: dict[str, str]
    source: str = field(default_factory=scoring_source)


def operator_experiment(name: str, summary: str, durations: Durations, cases: Cases) -> Experiment:
    """The experiment of one problem.

    Args:
        name: Name on the command line.
        summary: One line for ``list``.
        durations: Time of every preset.
        cases: The versions of the problem in a preset.

    Returns:
        The experiment.
    """

    def run(options: RunOptions) -> Report:
        return run_operators(name, chosen_cases(cases(options.preset), options), options)

    def reproduce(options: RunOptions) -> Report:
        return reproduce_operators(name, chosen_cases(cases("laptop"), options), options)

    return Experiment(name=name, summary=summary, durations=durations, run=run, reproduce=reproduce)


def chosen_cases(cases: tuple[OperatorCase, ...], options: RunOptions) -> tuple[OperatorCase, ...]:
    """Those of the cases that the options name, or all.

    Raises:
        UnknownNameError: If a name is none of theirs.
    """
    names = chosen_names("case", options.cases, [case.name for case in cases])
    return tuple(case for case in cases if case.name in names)


def run_operators(name: str, cases: tuple[OperatorCase, ...], options: RunOptions) -> Report:
    """Trains, scores, stores, tabulates and draws, or reads what is stored.

    Args:
        name: Name of the experiment.
        cases: Its cases.
        options: Seed, device and folder.

    Returns:
        The report.

    Raises:
        InvalidArgumentError: If an option does not belong to these experiments.
        OutputFolderError: If the folder cannot be written.
        TrainingInterruptedError: If a training was stopped before its end.
        TrainingDivergedError: If a training diverged.
    """
    place = place_of(name, options)
    run = Run(name, run_config(name, cases, options.seed), options.out)
    folder = run.open()
    stored = {}
    for case in cases:
        jobs = [(method, seed) for method in methods(case) for seed in seeds(case, options.seed)]
        files = {(method.name, seed): trained_operator(case, method, place, seed) for method, seed in jobs}
        stored[case.name] = score_case(case, files, place, folder)
    rows = [row for case in cases for row in case_rows(case, stored[case.name])]
    return _finish(run, cases, stored, rows)


def reproduce_operators(name: str, cases: tuple[OperatorCase, ...], options: RunOptions) -> Report:
    """Scores the operators that ship, beside the stored rows of the run that they are from, and draws.

    Args:
        name: Name of the experiment.
        cases: The laptop's cases.
        options: Seed and folder.

    Returns:
        The report; a row says in ``source`` whether it was scored now.

    Raises:
        InvalidArgumentError: If an option does not belong to these experiments.
        NotShippedError: If results or weights do not ship.
        DataFileError: If a shipped file is damaged.
    """
    place = place_of(name, options)
    results = read_results(name)
    files = {case.name: _shipped_files(case, results) for case in cases}
    identities = {
        f"{case} | {method} | {seed}": checksum(path)
        for case, paths in files.items()
        for (method, seed), path in paths.items()
    }
    test = {case.name: test_identity(case, options.seed) for case in cases}
    run = Run(name, OperatorRunConfig(problem=name, seed=options.seed, operators=identities, test=test), options.out)
    folder = run.open()
    stored = {case.name: score_case(case, files[case.name], place, folder) for case in cases}
    rows = []
    for case in cases:
        scored = [replace(row, source="scored now") for row in case_rows(case, stored[case.name])]
        kept = [row for row in results.rows if row.parameter == case.label and row.method != "truth"]
        rows += [*scored, *(replace(row, source=f"stored run, {results.preset}") for row in kept)]
    return _finish(run, cases, stored, rows)


def place_of(name: str, options: RunOptions) -> Place:
    """Where the trainings that a user's options stand for live and run.

    Raises:
        InvalidArgumentError: If an option does not belong to these experiments.
        OutputFolderError: If the folder cannot be written.
    """
    options.refuse("data", "networks", where="boundary-condition experiments")
    out = writable_folder(options.out)
    return Place(experiment=name, out=out, device=options.device, data_seed=options.seed)


def run_config(name: str, cases: tuple[OperatorCase, ...], seed: int) -> OperatorRunConfig:
    """What decides the result of a run."""
    jobs = ((case.name, case, method, n) for case in cases for method in methods(case) for n in seeds(case, seed))
    test = {case.name: test_identity(case, seed) for case in cases}
    return OperatorRunConfig(problem=name, seed=seed, operators=training_identities(jobs, seed), test=test)


def training_identities(jobs: Iterable[tuple[str, OperatorCase, Method, int]], data_seed: int) -> dict[str, str]:
    """What trainings are known by, as a stored run notes them.

    Args:
        jobs: For every training what it is for (a case, or a line of a study), its case, method and seed.
        data_seed: Seed of the samples.

    Returns:
        Identity by "what it is for | method | seed".
    """
    return {
        f"{label} | {method.name} | {seed}": operator_training(case, method, data_seed, seed).identity
        for label, case, method, seed in jobs
    }


def test_identity(case: OperatorCase, seed: int) -> str:
    """What the test samples of a case are known by."""
    return digest(describe_samples(case.problem, case.test_data(seed)))


def seeds(case: OperatorCase, first: int) -> range:
    """Seeds of the trainings of a case."""
    return range(first, first + case.sizes.seeds)


def score_case(case: OperatorCase, files: Files, place: Place, folder: Path) -> Stored:
    """Scores the operators of a case.

    Args:
        case: The case.
        files: Weights of some or all of its methods, the plain FNO first.
        place: Where samples live.
        folder: Folder of the run; each finished stage is a file in it.
    """
    rows = tuple(method for method in methods(case) if any(method.name == name for name, _ in files))
    test = load_fields(case, case.test_data(place.data_seed), place.data)
    scores: dict[str, list[Arrays]] = {method.name: [] for method in rows}
    with stage_progress(len(files) + 2) as begin:
        begin(f"{place.experiment}, {case.label}: truth")
        true = cached_arrays(folder / f"truth-{case.name}.h5", lambda: truth(case, test))
        begin(f"{place.experiment}, {case.label}: cost of a step")
        seconds = cached_arrays(folder / f"cost-{case.name}.h5", lambda: step_costs(case, rows, test))
        for method in rows:
            for (name, seed), weights in files.items():
                if name == method.name:
                    begin(f"{place.experiment}, {case.label}: {name}")
                    path = folder / f"scores-{case.name}-{slug(name)}-{seed}.h5"
                    arrays = cached_arrays(path, lambda w=weights, m=method: score(w, m, case, test))
                    scores[name].append(arrays)
    return Stored(methods=rows, truth=true, scores=scores, seconds=seconds)


def case_rows(case: OperatorCase, stored: Stored) -> list[Row]:
    """The truth's own boundary error, and every method's mean and standard error over seeds."""
    errors: dict[str, Score] = {name: (float(stored.truth[name]), None) for name in COLUMNS if name in stored.truth}
    result = [Row(case.label, "truth", errors)]
    for method in stored.methods:
        ratio = float(stored.seconds[method.name] / stored.seconds[stored.methods[0].name])
        row = score_row(case.label, method, stored.scores[method.name])
        result.append(replace(row, scores=row.scores | {"step": (ratio, None)}))
    return result


def score_row(label: str, method: Method, found: list[Arrays]) -> Row:
    """Mean and standard error over seeds.

    Args:
        label: What the method was tested on.
        method: The method.
        found: Its scores, one entry per seed.
    """
    pairs = {
        name: over_seeds([float(np.mean(arrays[name])) for arrays in found]) for name in COLUMNS if name in found[0]
    }
    return Row(label, method.name, pairs, "", method.information)


def table_title(name: str, cases: tuple[OperatorCase, ...]) -> str:
    """Title of the table: the problem, its samples, and what of the set-up is reconstructed."""
    sizes = cases[0].sizes
    equations = ", ".join(dict.fromkeys(case.problem.equation for case in cases))
    parts = ", ".join(dict.fromkeys(case.problem.reconstructed for case in cases if case.problem.reconstructed))
    note = f"; set-up reconstructed: {parts}" if parts else ""
    return (
        f"{name.replace('_', ' ').capitalize()}: {equations}; {sizes.samples} training samples on {sizes.nodes} nodes "
        f"an axis, {sizes.seeds} {'seed' if sizes.seeds == 1 else 'seeds'}{note}"
    )


def _shipped_files(case: OperatorCase, results: ShippedResults) -> Files:
    found = [entry for entry in results.weights if entry.case == case.name]
    return {(entry.method, entry.seed): weights_path(entry) for entry in found}


def _finish(run: Run, cases: tuple[OperatorCase, ...], stored: dict[str, Stored], rows: list[Row]) -> Report:
    rows = rows + boon_rows(run.name)
    run.finish({"experiment": run.name, "rows": [row.as_json() for row in rows]})
    title = table_title(run.name, cases)
    drawn = [file for case in cases for file in draw_case(case, stored[case.name], run.folder)]
    tables = write_tables(run.folder, title, rows)
    return Report(title=title, rows=rows, folder=run.folder, tables=tables, figures=drawn)


def over_seeds(values: list[float]) -> Score:
    """Mean and standard error, None for one seed."""
    if len(values) == 1:
        return values[0], None
    return mean_and_standard_error(torch.tensor(values, dtype=torch.float64))
