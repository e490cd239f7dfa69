"""Commands for maintainers: ``python -m experiments.maintain release NAME``, ``documents`` or ``figures NAME``."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from experiments import registry
from experiments.cli import Options, Seeds, answered, parsed
from experiments.driver import Job, config_of, describe, plan, trained_files
from experiments.errors import DataFileError, InvalidArgumentError, NotReleasedError, unknown_name
from experiments.experiment import RunContext, RunOptions, Table
from experiments.options import CATALOGUE, seeds_of
from experiments.records.record import over_seeds, records_of
from experiments.records.release import ROOT, released_names, released_results, write_release
from experiments.records.run import Run, folder_of, is_finished, read_run
from experiments.records.weights import read_notes
from experiments.report import documents
from experiments.report.picture import keep_figure, redraw
from experiments.report.results import released

PROGRAM = "python -m experiments.maintain"
Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help="Experiments.")]


def release_command(names: Names, options: Options, seeds: Seeds = ("0",)) -> None:
    """Puts finished runs into the release.

    Results, weights, and numbers in documents. Experiments that share trainings are released together; with --cases
    what is released of other cases stays.
    """
    if not names:
        raise InvalidArgumentError("release needs the name of an experiment.")
    if options.seed:
        raise InvalidArgumentError(f"release takes --seeds, got --seed {options.seed}; write --seeds {options.seed}.")
    files = release([registry.table(name) for name in names], options, seeds_of(seeds))
    print("\n".join(f"File: {file}" for file in [*files, *documents.write_all(Path.cwd())]))


def documents_command() -> None:
    """Rewrites the generated blocks of README and docs."""
    root = Path.cwd()
    if not (root / "README.md").is_file() or not (root / "docs").is_dir():
        raise InvalidArgumentError(f"documents needs README.md and docs in '{root}'; start it in the root of a clone.")
    files = documents.write_all(root)
    print("\n".join(f"File: {file}" for file in files) or "All documents are current.")


def figures_command(names: Names = ()) -> None:
    """Draws overviews of released records anew; all without names."""
    for name in names or [each for each in released_names() if each in CATALOGUE]:
        results, entry = released(name), registry.table(name)
        assert results is not None
        cases = entry.cases(RunContext(options=RunOptions(preset=results.preset)))  # type: ignore[arg-type]
        own = entry.overview(cases, results.records)
        if own or entry.overview_leads:
            print(f"File: {redraw(results, *own.values())}")


COMMANDS = {"release": release_command, "documents": documents_command, "figures": figures_command}


def help_command() -> None:
    """Prints the commands, one line each."""
    for name, command in COMMANDS.items():
        print(f"{name:<11}{(command.__doc__ or '').splitlines()[0]}")
    print(f"Options of a command: {PROGRAM} COMMAND --help")


def main(words: Sequence[str]) -> int:
    """Does one of the commands; exit statuses are those of ``experiments.cli.main``."""

    def command() -> Callable[[], None]:
        name, *rest = words or ("--help",)
        if name in ("--help", "-h"):
            return help_command
        if name not in COMMANDS:
            raise unknown_name("command", name, COMMANDS)
        return parsed(COMMANDS[name], f"{PROGRAM} {name}", rest)

    return answered(command)


def release(tables: Sequence[Table], options: RunOptions, seeds: Sequence[int], root: Path = ROOT) -> list[Path]:
    """Puts finished runs into the release; weights are those of the first seed.

    Experiments that share trainings are given together; ``methods`` of the options restricts whose weights are
    released, ``cases`` what is released: rows, weights and the figure of other cases stay. Returns the files that were
    written.

    Raises:
        DataFileError: If a run is not finished, a file would replace one of another experiment, or other cases are of
            another data version; nothing is written.
    """
    finished = [_finished(table, options, seeds, root) for table in tables]
    files = write_release([(results, weights) for results, weights, _ in finished], root)
    for results, _, folder in finished if not options.cases else ():
        files += keep_figure(results.experiment, folder, root / "report" / "figures")
    return files


def _finished(table: Table, options: RunOptions, seeds: Sequence[int], root: Path) -> tuple[Run, dict[str, Path], Path]:
    """What is released of finished runs, the files of weights of the first one by their released names, its folder."""
    runs = [_finished_run(table, replace(options, seed=seed, methods=())) for seed in seeds]
    first, folder, jobs = runs[0]
    weights = {
        training.release: training.weights(options.out)
        for job in jobs
        if not options.methods or job.method.key in options.methods
        for training in job.trainings
        if training.release is not None
    }
    now = table.data_version
    trained_version = min((read_notes(file).get("data_version", now) for file in weights.values()), default=now)
    scores, trainings = [run.scores for run, *_ in runs], [first.trainings]
    files, environment = set(weights), first.environment
    before = _that_stay(table, jobs, options, root)
    if before is not None:
        scores.append(before.scores)
    if before is not None and options.cases:
        trainings.insert(0, before.trainings)
        environment = before.environment  # that of most rows; trainings have their own
        files |= {*before.weights}
        trained_version = min(trained_version, before.trained_version)
    every_score = pd.concat(scores, ignore_index=True)
    records = records_of(every_score, table.name, table.over)
    every = table.cases(RunContext(options=replace(options, seed=seeds[0]), training_seed=seeds[0]))
    cases = [case for case in every if (records["case"] == case.key).any()]
    released_now = replace(
        first,
        trained_version=trained_version,
        environment=environment,
        config={},
        figures=(),
        weights=sorted(files),
        description=describe(table, cases, over_seeds(records), None if before is None else before.description),
        trainings=pd.concat(trainings, ignore_index=True),
        scores=every_score,
    )
    return released_now, weights, folder


def _finished_run(table: Table, options: RunOptions) -> tuple[Run, Path, Sequence[Job]]:
    """A finished run with these options, its folder and its jobs; raises DataFileError if there is none."""
    context = RunContext(options=options, training_seed=options.seed)
    jobs = plan(table, context)
    config = config_of(table, context, jobs, trained_files(jobs, context))
    folder = folder_of(options.out, table.name, config)
    if not is_finished(folder):
        command = f"run {table.name} --preset {options.preset} --seed {options.seed} --out {options.out}"
        raise DataFileError(
            f"'{options.out}' holds no finished run of {table.name} by this code, preset {options.preset}; "
            f"python -m experiments {command} makes it or goes on with it."
        )
    return read_run(folder), folder, jobs


def _that_stay(table: Table, jobs: Sequence[Job], options: RunOptions, root: Path) -> Run | None:
    """Released results of methods that the experiment has no more, rivals still, if the data are the same.

    Also those of the other cases if the options choose some.
    """
    try:
        before = released_results(table.name, root)
    except NotReleasedError:
        return None
    if before.data_version != table.data_version:
        if options.cases:
            raise DataFileError(
                f"The other cases of {table.name} were scored on data version {before.data_version}, "
                f"{', '.join(options.cases)} on {table.data_version}; run and release all of them together."
            )
        return None
    released_now, methods = {job.case.key for job in jobs}, {job.method.key for job in jobs}

    def staying(frame: pd.DataFrame) -> pd.DataFrame:
        other = ~frame["case"].isin(released_now) & bool(options.cases)
        return frame[other | ~frame["method"].isin(methods)]

    frames = {name: staying(getattr(before, name)) for name in ("scores", "trainings")}
    return replace(before, **frames)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
