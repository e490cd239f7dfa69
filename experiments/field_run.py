"""An experiment on operators under both constraints, from options to report: train, score, store, tabulate, draw.

Trainings and scores write their files when they are done, so an interrupted run goes on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import boon
import probconserv
import solvers
from experiments.experiment import Durations, Experiment, Report, RunOptions
from experiments.field_cases import FieldCase, Range
from experiments.field_config import SIZES, FieldSizes
from experiments.field_figures import draw_study
from experiments.field_models import bounded, inputs, surrogate
from experiments.field_scores import score, shown, summarised
from experiments.field_shipping import read_field_results, shipped_file, training_times
from experiments.field_study import FieldStudy, Found, Group, groups
from experiments.operator_run import over_seeds
from experiments.runs import Run, as_json, source_digest
from experiments.stages import one_thread, stage_progress, write_tables
from experiments.storage import Arrays, cached_arrays, checksum, writable_folder
from experiments.tables import Row
from experiments.train_field import trained_field
from probconserv import ProbConserv

OVER = "independent groups of trainings"
"""What the tables' means and standard errors are taken over."""
_MODULES = ("field_cases", "field_models", "field_scores", "field_run")

Files = dict[str, tuple[Path, ...]]
"""Weights by the key of their group."""
Stored = dict[str, list[Arrays]]
"""By the key of the group one entry per interval: what ``score`` and ``shown`` give."""


def scoring_source() -> str:
    """Digest of the code that decides scores."""
    return source_digest(probconserv, boon, solvers, modules=_MODULES)


@dataclass(frozen=True, kw_only=True)
class FieldRunConfig:
    """Everything that decides the result of a run.

    Args:
        study: Name of the experiment.
        seed: Seed of the test parameters, and of the first training.
        test: Test parameters of every interval.
        passes: Passes of an operator under dropout that are joined.
        methods: How the predictions of every row are made.
        operators: Identity of every operator by group and number: of its training, or the checksum of its weights.
        intervals: All tested intervals by name, by case.
        source: Digest of the code that scores are computed by.
    """

    study: str
    seed: int
    test: int
    passes: int
    methods: dict[str, dict[str, Any]]
    operators: dict[str, str]
    intervals: dict[str, dict[str, Range]]
    source: str = field(default_factory=scoring_source)


def field_experiment(study: FieldStudy, summary: str, durations: Durations) -> Experiment:
    """The experiment of a study.

    Args:
        study: The study.
        summary: One line for ``list``.
        durations: Time of every preset.
    """

    def run(options: RunOptions) -> Report:
        return run_study(study, SIZES[options.preset], options)

    def reproduce(options: RunOptions) -> Report:
        return reproduce_study(study, SIZES["laptop"], options)

    return Experiment(name=study.name, summary=summary, durations=durations, run=run, reproduce=reproduce)


def run_study(study: FieldStudy, sizes: FieldSizes, options: RunOptions) -> Report:
    """Trains what is missing, scores, stores, tabulates and draws, or reads what is stored.

    Args:
        study: The study.
        sizes: Its sizes.
        options: Seed, device and folder.

    Returns:
        The report.

    Raises:
        InvalidArgumentError: If an option does not belong to these experiments.
        OutputFolderError: If the folder cannot be written.
        TrainingInterruptedError: If a training was stopped before its end.
        TrainingDivergedError: If a training diverged.
    """
    out = checked_folder(options)
    own = groups(study, sizes, options.seed)
    run = Run(study.name, run_config(study, sizes, options.seed, own), out)
    run.open()
    files = {
        group.key: tuple(trained_field(group.case, training, out, options.device) for training in group.trainings)
        for group in own
    }
    stored = score_groups(own, files, run)
    return finish(study, run, own, study_rows(study, run.config, own, stored), (stored, files))


def reproduce_study(study: FieldStudy, sizes: FieldSizes, options: RunOptions) -> Report:
    """Scores the operators that ship, those of the first group, beside the stored rows of the run they are from.

    Args:
        study: The study.
        sizes: The sizes of the run that ships.
        options: Seed of the test parameters, and folder.

    Returns:
        The report; a row says in ``source`` whether it was scored now.

    Raises:
        InvalidArgumentError: If an option does not belong to these experiments.
        NotShippedError: If results or weights do not ship.
        DataFileError: If a shipped file is damaged.
    """
    out = checked_folder(options)
    results = read_field_results(study.name)
    own = [group for group in groups(study, sizes, results.seed) if group.number == 0]
    files = {group.key: tuple(shipped_file(results, one) for one in group.trainings) for group in own}
    config = run_config(study, sizes, options.seed, own)
    sums = {f"{key} | {number}": checksum(path) for key, paths in files.items() for number, path in enumerate(paths)}
    run = Run(study.name, replace(config, operators=sums), out)
    run.open()
    stored = score_groups(own, files, run)
    rows = [replace(row, source="scored now") for row in study_rows(study, run.config, own, stored)]
    rows += [replace(row, source=f"stored run, {results.preset}") for row in results.rows if row.method != "truth"]
    places = list(dict.fromkeys(row.parameter for row in rows))
    rows.sort(key=lambda row: places.index(row.parameter))
    return finish(study, run, own, rows, (stored, files))


def checked_folder(options: RunOptions) -> Path:
    """The output folder that a user's options name.

    Raises:
        InvalidArgumentError: If an option does not belong to these experiments.
        OutputFolderError: If the folder cannot be written.
    """
    options.refuse("data", "cases", "networks", where="this experiment")
    return writable_folder(options.out)


def run_config(study: FieldStudy, sizes: FieldSizes, seed: int, own: Sequence[Group]) -> FieldRunConfig:
    """What decides the result of a run that trains the operators of its groups."""
    operators = {
        f"{group.key} | {number}": training.identity for group in own for number, training in enumerate(group.trainings)
    }
    intervals = {case.name: case.ranges for case in study.cases}
    return FieldRunConfig(
        study=study.name,
        seed=seed,
        test=sizes.test,
        passes=sizes.passes,
        methods={group.method.name: as_json(group.method) for group in own},
        operators=operators,
        intervals=intervals,
    )


def score_groups(own: Sequence[Group], files: Files, run: Run) -> Stored:
    """Scores every group on every interval of its case, or reads what is stored in the folder of the run."""
    found: Stored = {}
    with stage_progress(len(own)) as begin, one_thread():
        for group in own:
            begin(f"{run.name}, {group.case.name}: {group.method.name}")
            path = run.folder / f"scores-{group.key}.h5"
            arrays = cached_arrays(path, lambda group=group: score_group(group, files[group.key], run.config))
            found[group.key] = [
                {name.partition("|")[2]: values for name, values in arrays.items() if name.startswith(f"{number}|")}
                for number in range(len(group.case.ranges))
            ]
    return found


def score_group(group: Group, files: Sequence[Path], config: FieldRunConfig) -> Arrays:
    """Scores of one group, ``<number of the interval>|<score>``, in double precision.

    Args:
        group: The group.
        files: Weights of its trainings.
        config: Test parameters and passes.
    """
    case, network, correction = group.case, group.method.network, group.method.bounded
    operators = [boon.load(path).eval() for path in files]
    if correction is not None:
        network = replace(network, correction=correction)
        operators = [bounded(operator, correction) for operator in operators if isinstance(operator, boon.FNO)]
    model = surrogate(operators, network, case, config.passes, group.method.correlated).double()
    arrays: Arrays = {}
    for number in range(len(case.ranges)):
        parameter = test_parameters(case, number, config)
        predict = ProbConserv(model, case.law(parameter)) if group.method.conserved else model
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(config.seed + group.number)
            prediction = predict(*inputs(case, network, parameter))
            found = score(prediction, case, parameter) | shown(prediction)
        arrays |= {f"{number}|{name}": values for name, values in found.items()}
    return arrays


def test_parameters(case: FieldCase, number: int, config: FieldRunConfig) -> torch.Tensor:
    """Random parameters of an interval, the same for all methods and groups."""
    return case.parameters(list(case.ranges.values())[number], config.test, seed=1000 * config.seed + number)


def study_rows(study: FieldStudy, config: FieldRunConfig, own: Sequence[Group], stored: Stored) -> list[Row]:
    """The table: for every case and interval the truth's own error and all methods, mean and error over groups."""
    rows = []
    for case in dict.fromkeys(group.case for group in own):
        for number, label in enumerate(case.ranges):
            found: Found = {}
            for group in own:
                if group.case == case:
                    found.setdefault(group.method.name, []).append(summarised(stored[group.key][number]))
            place = f"{case.name.replace('_', ' ')}, {label}"
            parameter = test_parameters(case, number, config)
            missed = case.law(parameter).residual(case.truth(parameter)).abs().max()
            lines = [
                Row(place, name, {key: over_seeds([one[key] for one in each]) for key in each[0]}, over=OVER)
                for name, each in found.items()
            ]
            truth = Row(place, "truth", {"conservation": (float(missed), None)}, over=OVER)
            rows += [truth, *study.compare(case, label, lines, found)]
    return rows


def finish(study: FieldStudy, run: Run, own: Sequence[Group], rows: list[Row], made: tuple[Stored, Files]) -> Report:
    """Stores the metrics, writes the tables and draws."""
    stored, files = made
    content = {
        "experiment": run.name,
        "seed": run.config.seed,
        "rows": [row.as_json() for row in rows],
        "trainings": training_times(own, files),
    }
    run.finish(content)
    count = len({group.number for group in own})
    members = max(len(group.trainings) for group in own)
    repeated = f"{count} independent groups" if count > 1 else "one group"
    title = f"{study.title}; {repeated}, ensembles of {members}" if members > 1 else f"{study.title}; {repeated}"
    parameters = {
        case: [test_parameters(case, number, run.config) for number in range(len(case.ranges))]
        for case in dict.fromkeys(group.case for group in own)
    }
    drawn = draw_study(study, own, stored, parameters, run.folder)
    return Report(
        title=title, rows=rows, folder=run.folder, tables=write_tables(run.folder, title, rows), figures=drawn
    )
