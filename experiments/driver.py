"""The only loop: cases × methods × seeds → train or load → score → records → tables and figures.

Trainings and scores write their files when they are done, so an interrupted run goes on where it stopped.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.errors import NotReleasedError, UnknownNameError
from experiments.experiment import RunContext, RunOptions, Table, Training, require_device
from experiments.options import CATALOGUE, Listed
from experiments.plots import save
from experiments.records.description import Description
from experiments.records.overview import draw_overview
from experiments.records.record import KEY, PAPER, Arrays, Over, Source, as_frame, over_seeds, records_of
from experiments.records.release import ROOT, released_results, released_weights
from experiments.records.run import Run, open_run
from experiments.records.scores import SCORES
from experiments.records.storage import cached_arrays, checksum, writable_folder, write_bytes
from experiments.records.store import as_json, scores_file, scores_frame
from experiments.records.table import format_score, write_tables
from experiments.records.verdict import compare
from experiments.records.weights import is_whole, training_entries
from experiments.stages import create_once, one_thread, stage_progress, unlocked_first
from probconserv.training.distributed import say_once

SCORING_VERSION = 1
"""Version of the code that scores: raised when a score changes its meaning, so that stored ones are made again."""
LEFT = "0.4"
"""The last release with the methods that have stored scores and no code."""


@dataclass(frozen=True)
class Job:
    """One method on one case with one seed."""

    case: Any
    method: Any
    seed: int
    trainings: tuple[Training, ...]

    @property
    def key(self) -> str:
        """Name in files."""
        return f"{self.case.key}-{self.method.key}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of a run.

    Args:
        description: What is shown of it besides its numbers.
        verdict: What ``reproduce`` found; empty after ``run``.
    """

    table: Table
    description: Description
    records: pd.DataFrame
    folder: Path
    files: list[Path] = field(default_factory=list)
    verdict: str = ""


def run(table: Table, options: RunOptions) -> Report:
    """Trains what is missing, scores, stores, tabulates and draws; reads what an earlier start finished.

    Raises:
        InvalidArgumentError: If an option does not belong to the experiment.
        OutputFolderError: If the folder cannot be written.
        TrainingInterruptedError: If a training was stopped before its end.
        TrainingDivergedError: If a training diverged.
    """
    context = RunContext(options=options, training_seed=options.seed)
    jobs = plan(table, context)
    train_all(table, [training for job in jobs for training in job.trainings], context)
    return _finish(table, context, jobs, trained_files(jobs, context), None)


def reproduce(table: Table, options: RunOptions, root: Path = ROOT) -> Report:
    """Scores the released weights and compares with the released results; other rows are copied from those.

    Where the test functions are not those of the release nothing is compared or copied. The preset is that of the
    release, whose folder is ``root``.

    Raises:
        NotReleasedError: If there are no released results, or nothing to show for the options.
        DataFileError: If a released file is damaged.
    """
    results = released_results(table.name, root)
    options = replace(options, preset=results.preset)  # type: ignore[arg-type]
    context = RunContext(options=options, released=True, training_seed=results.seed, release=root)
    jobs, weights = plan(table, context), dict[str, tuple[Path, ...]]()
    for job in jobs:
        with suppress(NotReleasedError):
            weights[job.key] = tuple(released_weights(training.release or "", root) for training in job.trainings)
    return _finish(table, context, jobs, weights, results)


def plan(table: Table, context: RunContext) -> list[Job]:
    """All jobs of a run, case by case and method by method; names packages that some need and that are missing."""
    table.refuse_idle(context.options)
    require_device(context.options.device)
    writable_folder(context.options.out)
    cases = chosen("case", table.cases(context), context.options.cases)
    every = {method.key: method for case in cases for method in table.methods(case)}
    methods = {method.key for method in chosen("method", list(every.values()), context.options.methods)}
    jobs, lacking = [], set[str]()
    for case in cases:
        for method in table.methods(case):
            for seed in table.seeds(case, context) if method.key in methods else ():
                trainings = tuple(table.trainings(case, method, seed, context))
                missing = {training.missing for training in trainings if training.missing}
                if missing:
                    lacking |= missing
                    break
                jobs.append(Job(case, method, seed, trainings))
                if not trainings and not table.seeded:  # and so the same for every seed
                    break
    for package in sorted(lacking):
        say_once(f"Methods that need the package {package} are left out: it is not installed.")
    return jobs


def chosen(kind: str, entries: Sequence[Any], keys: Iterable[str]) -> list[Any]:
    """The entries with these keys in their order, all without keys."""
    keys, available = tuple(keys), list(dict.fromkeys(entry.key for entry in entries))
    for key in keys:
        if key not in available:
            raise UnknownNameError(f"There is no {kind} '{key}' here. Available: {', '.join(available)}.")
    return [entry for entry in entries if not keys or entry.key in keys]


def train_all(table: Table, trainings: Iterable[Training], context: RunContext) -> list[Path]:
    """Trains what is missing or damaged, each once, with other runs of the same folder; returns all weights' files."""
    unique = {training.weights(context.options.out): training for training in trainings}
    missing = [path for path in unique if not is_whole(path)]
    for number, path in enumerate(unlocked_first(missing), start=1):
        if path.exists() and not is_whole(path):
            say_once(f"'{path}' is damaged; it is made again.")
        say_once(f"Training {number} of {len(missing)}: {unique[path].label}")
        create_once(path, partial(_train, table, unique[path], context), partial(is_whole, path))
    return list(unique)


def _train(table: Table, training: Training, context: RunContext) -> None:
    assert table.train is not None, f"{table.name} declares trainings and no train"
    table.train(training, context)


def trained_files(jobs: Iterable[Job], context: RunContext) -> dict[str, tuple[Path, ...]]:
    """Files of weights by the key of the job, in the folder of the run."""
    return {job.key: tuple(training.weights(context.options.out) for training in job.trainings) for job in jobs}


def _finish(
    table: Table,
    context: RunContext,
    jobs: Sequence[Job],
    weights: dict[str, tuple[Path, ...]],
    results: Run | None,
) -> Report:
    """Scores all jobs that have weights, stores the scores, writes tables and figures."""
    cases = list({job.case.key: job.case for job in jobs}.values())
    jobs = [job for job in jobs if job.key in weights]
    config = config_of(table, context, jobs, weights)
    folder, made = open_run(context.options.out, table.name, config)
    arrays = _score_all(table, context, jobs, weights, folder)
    scores = table.compared(_scores(jobs, arrays))
    computed = records_of(scores, table.name, table.over)
    verdict = "" if results is None else _other_functions(table, context.options, results)
    records = _beside(table, cases, computed, results, verdict)
    cases = [case for case in cases if (records["case"] == case.key).any()]
    redrawn = {job.method.key for job in jobs if table.redraws(job.method)}
    if results is not None and not verdict:
        verdict = _verdict(records, scores, redrawn, results, folder) + _note(records, results, context.options)
    means = over_seeds(records)
    description = describe(table, cases, means, None if results is None else results.description)
    files = write_tables(folder, means, description)
    drawn = _draw(table, context, jobs, arrays, folder)
    own, general = table.overview(cases, means), draw_overview(description, means, scores)
    figures = own or ({} if general is None else {"overview": general})
    overview = [file for name, figure in figures.items() for file in save(figure, folder / name)]
    drawn = [*overview, *drawn] if own or table.overview_leads else [*drawn, *overview]
    trainings = training_entries(
        ({"case": job.case.key, "method": job.method.key, "seed": job.seed, "training": training.key}, path)
        for job in jobs
        for training, path in zip(job.trainings, weights[job.key], strict=True)
    )
    finished = Run(
        experiment=table.name,
        preset=context.options.preset,
        seed=context.options.seed,
        data_version=table.data_version,
        trained_version=table.data_version if results is None else results.trained_version,
        environment=made,
        config=config,
        verdict=verdict,
        figures=[file.name for file in drawn if file.suffix == ".png"],
        description=description,
        trainings=pd.DataFrame(trainings),
        scores=scores,
    )
    finished.write(folder)
    return Report(
        table=table,
        description=description,
        records=records,
        folder=folder,
        files=files + drawn,
        verdict=verdict,
    )


def config_of(
    table: Table, context: RunContext, jobs: Sequence[Job], weights: dict[str, tuple[Path, ...]]
) -> dict[str, Any]:
    """Everything that decides the result of a run."""
    decisive = {
        job.key: [checksum(path) for path in weights[job.key]]
        if context.released
        else [training.hash for training in job.trainings]
        for job in jobs
    }
    return {
        "experiment": table.name,
        "preset": context.options.preset,
        "seed": context.options.seed,
        "data_version": table.data_version,
        "scoring_version": SCORING_VERSION,
        "cases": {job.case.key: as_json(job.case.config) for job in jobs},
        "weights": decisive,
    }


def _score_all(
    table: Table, context: RunContext, jobs: Sequence[Job], weights: dict[str, tuple[Path, ...]], folder: Path
) -> dict[str, Arrays]:
    """Scores every job, or reads what an earlier start stored; says the main score of every case that is done."""
    arrays: dict[str, Arrays] = {}
    with stage_progress(len(jobs)) as stages, one_thread():
        for _, group in groupby(jobs, key=lambda job: job.case.key):
            of_case = list(group)
            for job in of_case:
                stages.begin(f"{table.name}, {job.case.label}: {job.method.label}")

                def score(job: Job = job) -> Arrays:
                    return table.score(job.case, job.method, job.seed, weights[job.key], context)

                arrays[job.key] = cached_arrays(scores_file(folder, job.case.key, job.method.key, job.seed), score)
            stages.say(_case_done(table, of_case[0].case, of_case, arrays))
    return arrays


def _scores(jobs: Iterable[Job], arrays: dict[str, Arrays]) -> pd.DataFrame:
    """Scores per function of jobs."""
    return scores_frame((job.case.key, job.method.key, job.seed, arrays[job.key]) for job in jobs)


def _case_done(table: Table, case: Any, jobs: Sequence[Job], arrays: dict[str, Arrays]) -> str:
    """One line: the main score of the methods that matter."""
    means = over_seeds(records_of(_scores(jobs, arrays), table.name, table.over))
    methods, scores = table.headline_of(case, means)
    labels = {job.method.key: job.method.label for job in jobs}
    values = means[means["score"].isin(scores[:1])].set_index("method")["mean"]
    parts = [f"{labels[key]} {format_score(values[key])}" for key in methods if key in values and key in labels]
    return f"{case.label} done. {SCORES[scores[0]].title}: {', '.join(parts)}" if parts else f"{case.label} done."


def _other_functions(table: Table, options: RunOptions, results: Run) -> str:
    """Note of the verdict where the test functions are not those of the release; empty where they are."""
    if options.seed != results.seed or options.data is not None:
        given = f"--seed {results.seed}" + (" without --data" if options.data is not None else "")
        reason = f"its test functions are those of {given}."
    elif table.data_version != results.data_version:
        reason = (
            f"it was scored on data version {results.data_version}, this library makes version "
            f"{table.data_version}; python -m experiments run {table.name} trains on it."
        )
    else:
        return ""
    return f"Not compared with the release, and none of its rows copied: {reason}"


def _verdict(records: pd.DataFrame, scores: pd.DataFrame, redrawn: Collection[str], results: Run, folder: Path) -> str:
    """Whether the released scores came out again; differences go to a file."""
    computed = records[records["source"] == Source.COMPUTED]
    verdict = compare(computed, results.records, results.scores, redrawn, scores)
    if len(verdict.different):
        write_bytes(folder / "verdict.csv", verdict.different.to_csv(index=False).encode())
    older = f", trained on version {results.trained_version}" if results.trained_version != results.data_version else ""
    return f"{verdict} Data version {results.data_version}{older}."


def _note(records: pd.DataFrame, results: Run, options: RunOptions) -> str:
    """Which rows could not be scored."""
    computed, copied = (records[records["source"] == source] for source in (Source.COMPUTED, Source.RELEASED))
    scored = pd.MultiIndex.from_frame(computed[["case", "method"]])
    rest = copied[["case", "method"]].drop_duplicates()
    rest = rest[~pd.MultiIndex.from_frame(rest).isin(scored)]
    count = "1 row is" if len(rest) == 1 else f"{len(rest)} rows are"
    command = f"python -m experiments run {results.experiment} --preset {results.preset}"
    note = f" {count} copied from the records: their weights are not here; {command} makes them."
    return note if len(rest) and not options.methods else ""


def _beside(
    table: Table, cases: Sequence[Any], computed: pd.DataFrame, results: Run | None, other: str
) -> pd.DataFrame:
    """Records of the table: what was computed, released rows that were not, and the papers' of cases with such rows.

    ``other`` says why no released rows are copied; empty if they are.
    """
    ours = computed
    if results is not None and not other:
        copied = results.records[results.records["case"].isin([case.key for case in cases])]
        if table.over is Over.FUNCTIONS:  # other seeds have tables of their own
            copied = copied[copied["seed"].isna() | (copied["seed"] == results.seed)]
        rows = pd.MultiIndex.from_frame(computed[KEY])
        copied = copied[~pd.MultiIndex.from_frame(copied[KEY]).isin(rows)]
        ours = _joined(computed, copied.assign(source=np.full(len(copied), Source.RELEASED)))
    if ours.empty:
        command = f"python -m experiments run {table.name} --preset laptop"
        text = (
            f"There is nothing to show of {table.name}: the weights of these methods are not released, or not in "
            f"this installation; {command} trains them. {other}"
        )
        raise NotReleasedError(text.rstrip())
    shown = [case for case in cases if (ours["case"] == case.key).any()]
    return _joined(ours, as_frame(record for case in shown for record in table.published(case)))


def describe(
    table: Table,
    cases: Sequence[Any],
    records: pd.DataFrame,
    released: Description | None = None,
) -> Description:
    """The description of an experiment, from the means over seeds of those cases that have records.

    Methods that the experiment has no more come last, as they were ``released``.
    """
    before = Description(experiment=table.name) if released is None else released
    listed = CATALOGUE.get(table.name, Listed(family="", name=table.name, durations={}))
    methods = {method.key: method for case in cases for method in table.methods(case)}
    ours = records.loc[~records["source"].isin(PAPER), "method"]
    left = [key for key in dict.fromkeys(ours) if key not in methods]
    headlines = {case.key: table.headline_of(case, records[records["case"] == case.key]) for case in cases}
    return Description(
        experiment=table.name,
        title=table.title(cases),
        summary=listed.summary,
        family=listed.family,
        over=table.over,
        durations={str(preset): text for preset, text in listed.durations.items()},
        cases={case.key: case.label for case in cases},
        methods={key: method.label for key, method in methods.items()}
        | {key: _of_before(before.methods.get(key, key)) for key in left},
        information={key: method.information for key, method in methods.items() if method.information}
        | {key: before.information[key] for key in left if key in before.information},
        headline={case: list(methods) for case, (methods, _) in headlines.items()},
        scores=list(dict.fromkeys(score for _, scores in headlines.values() for score in scores)),
        references={case.key: table.reference_of(case) for case in cases},
        papers=[record for case in cases for record in table.published(case)],
    )


def _of_before(label: str) -> str:
    """The label of a method that left the library, with the last release that had it, once."""
    return label if re.search(r"\(\d+\.\d+\)$", label) else f"{label} ({LEFT})"


def _joined(*parts: pd.DataFrame) -> pd.DataFrame:
    """Records one below the other; empty tables, whose columns have no types, are left out."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def _draw(
    table: Table, context: RunContext, jobs: Sequence[Job], arrays: dict[str, Arrays], folder: Path
) -> list[Path]:
    """Draws all figures into the folder of the run."""
    files = []
    for case in {job.case.key: job.case for job in jobs}.values():
        stored = {(job.method.key, job.seed): arrays[job.key] for job in jobs if job.case.key == case.key}
        with one_thread():
            for name, figure in table.figures(case, stored, context).items():
                files += save(figure, folder / f"{name}-{case.key}")
    return files
