"""The commands of ``python -m experiments``; results on standard output, progress and errors on standard error."""

import json as json_module
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from functools import partial, wraps
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import tyro

from experiments import driver, registry
from experiments.benchmarks.documents import WRITERS, require_document
from experiments.catalogue import CATALOGUE
from experiments.checks import unknown_name, wrong_options
from experiments.data_command import data_command
from experiments.demo import demo_command
from experiments.driver import Report
from experiments.errors import (
    InvalidArgumentError,
    LibraryError,
    MissingFilesError,
    MissingPackageError,
    NotReleasedError,
    TrainingInterruptedError,
)
from experiments.experiment import Experiment, Preset, RunContext, RunOptions
from experiments.generation.command import constrain_command
from experiments.jobs import JobOptions, require_all, run_jobs
from experiments.predict import predict_command
from experiments.records.record import Over, over_seeds
from experiments.records.table import json_rows, write_tables
from experiments.releasing import release
from experiments.report import documents, page, terminal
from experiments.signals import terminated_as_interrupted
from experiments.storage import writable_folder
from probconserv.training import launched, say_once

ALL = "all"
_PROGRAM = "python -m experiments"
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help="The experiment; list shows them.")]
Names = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help="Experiments; list shows them.")
]
Json = Annotated[bool, tyro.conf.arg(help="Print one JSON object on standard output and nothing else there.")]
Everything = Annotated[bool, tyro.conf.arg(help="Print every row and score.")]
Seeds = Annotated[tuple[int, ...], tyro.conf.arg(help="Seeds, each a run.")]
Role = Annotated[str | None, tyro.conf.arg(help="Which training, for instance anp or member-0; all by default.")]
Page = Annotated[
    Path | None,
    tyro.conf.arg(help="Document whose table is rewritten: docs/benchmarks.md, scaling.md, solver_orders.md."),
]
Folder = Annotated[Path, tyro.conf.arg(help="Folder of all stored runs.")]
File = Annotated[Path, tyro.conf.arg(help="The page.")]
Options = Annotated[RunOptions, tyro.conf.arg(name="")]
Jobs = Annotated[JobOptions, tyro.conf.arg(name="")]
Action = Literal["run", "reproduce"]


def list_command(all: Everything = False, json: Json = False) -> None:
    """Lists experiments and benchmarks; how long each takes on one core."""
    entries = [CATALOGUE[name] for name in registry.names()]
    if json:
        experiments = [{"name": e.name, "summary": e.summary, "durations": e.durations} for e in entries]
        benchmarks = [{"name": name, "summary": summary} for name, summary in registry.BENCHMARKS.items()]
        _print_json({"experiments": experiments, "benchmarks": benchmarks})
        return
    if all:
        for entry in entries:
            print(f"{entry.name}\n    {entry.summary}")
        return
    terminal.print_list(registry.families(), registry.BENCHMARKS)


def run_command(name: Name, options: Options, all: Everything = False, json: Json = False) -> None:
    """Runs an experiment: data, training, scores, tables and figures."""
    if name == ALL:
        _do_all("run", options, json)
        return
    _finish(driver.run(registry.experiment(name), options), options.preset, all, json)


def reproduce_command(name: Name, options: Options, all: Everything = False, json: Json = False) -> None:
    """Scores the released networks and compares with the released numbers.

    Nothing is trained, and no network is needed; the preset is that of the release. The exit status is 0 also where
    scores differ: the verdict says so, in the text and in --json.
    """
    if name == ALL:
        _do_all("reproduce", options, json)
        return
    _finish(driver.reproduce(registry.experiment(name), options), "laptop", all, json)


def sweep_command(
    names: Names,
    options: Options,
    jobs: Jobs,
    seeds: Seeds = (0, 1, 2),
    json: Json = False,
) -> None:
    """Runs experiments with several seeds, here or on a SLURM cluster.

    Ends with tables over seeds. Each run is that of ``run --seed``; finished ones are read from their folders.
    """
    entries = _several("sweep", names, seeds, options)
    works: dict[str, Callable[[], Report]] = {
        f"{entry.name}, seed {seed}": partial(driver.run, entry, replace(options, seed=seed))
        for entry in entries
        for seed in dict.fromkeys(seeds)
    }
    results, failures = run_jobs(works, jobs.on(options.device), options.out / "sweeps" / "logs")
    content = []
    for entry in entries:
        reports = [report for label, report in results.items() if report.experiment.name == entry.name]
        if reports:
            content.append(_sweep_table(entry, reports, writable_folder(options.out / "sweeps" / entry.name), json))
    if json:
        _print_json({"experiments": content, "failed": [str(failure) for failure in failures]})
    require_all(failures)


def _several(command: str, names: Sequence[str], seeds: Sequence[int], options: RunOptions) -> list[Experiment]:
    """The experiments of a command that takes several, each once."""
    if not names or not seeds:
        raise InvalidArgumentError(f"{command} needs an experiment (list shows them) and at least one of --seeds.")
    if options.seed:
        raise InvalidArgumentError(f"{command} takes --seeds, got --seed {options.seed}; write --seeds {options.seed}.")
    entries = [registry.experiment(name) for name in dict.fromkeys(names)]
    for entry in entries:
        entry.refuse_idle(options)
    return entries


def _sweep_table(entry: Experiment, reports: Sequence[Report], folder: Path, json: bool) -> dict[str, Any]:
    """Writes, and prints, the means over the seeds of several runs."""
    frame = pd.concat([_own_means(report) for report in reports], ignore_index=True)
    records = over_seeds(frame)
    title = f"{entry.name}, seeds {', '.join(str(seed) for seed in sorted(set(frame['seed'])))}"
    described = replace(reports[0].description, title=title, over=Over.SEEDS)
    write_tables(folder, records, described)
    if not json:
        out = terminal.console()
        out.print(f"{title}: means over seeds", *terminal.headline_tables(described, records), sep="\n")
        out.print(f"All rows with standard errors: {folder}", soft_wrap=True)
    return {"experiment": entry.name, "folder": str(folder), "rows": json_rows(records, described)}


def _own_means(report: Report) -> pd.DataFrame:
    """Means of one run, all with the seed of the run."""
    computed = report.records[report.records["seed"].notna()]
    first = int(computed["seed"].min())
    return over_seeds(computed).assign(seed=first).astype({"seed": "Int64"})


def train_command(name: Name, options: Options, role: Role = None, json: Json = False) -> None:
    """Trains what an experiment needs, without scoring it.

    Processes that torchrun starts share every batch.
    """
    experiment = registry.experiment(name)
    context = RunContext(options=options, training_seed=options.seed)
    trainings = [training for job in driver.plan(experiment, context) for training in job.trainings]
    picked = driver.chosen("training", trainings, [role] if role else [])
    files = [str(path) for path in driver.train_all(experiment, picked, context)]
    if not launched().first:
        return
    if json:
        _print_json({"experiment": name, "weights": files})
    else:
        print("\n".join(f"Weights: {file}" for file in files))


def bench_command(name: Name, page: Page = None, json: Json = False) -> None:
    """Runs a benchmark."""
    benchmark = registry.benchmark(name)
    if page is not None:
        require_document(name, page)
    result = benchmark()
    if json:
        _print_json(result)
    else:
        terminal.print_benchmark(result)
    if page is not None:
        WRITERS[name](result, page)


def report_command(out: Folder = Path("results"), file: File = Path("report.html"), json: Json = False) -> None:
    """Writes all released and stored results to one HTML page.

    The newest finished run of an experiment has a section of its own, named with its preset; reproductions have none.
    """
    shown, left_out = page.write_report(out, file)
    names = list(dict.fromkeys(results.name for results in shown))
    runs = [str(results.run) for results in shown if results.run]
    if not runs:
        empty = "holds no finished run of its own" if out.is_dir() else "does not exist"
        say_once(f"The folder '{out}' {empty}: the page shows released results alone.")
    if left_out:
        texts = ", ".join(map(str, left_out))
        say_once(f"Left out, since the version that made them stored no description: {texts}. Run them again.")
    if json:
        _print_json({"file": str(file), "bytes": file.stat().st_size, "experiments": names, "runs": runs})
    else:
        print(f"Page with {len(names)} experiments, {len(runs)} of them with a stored run: {file}")


def release_command(names: Names, options: Options, seeds: Seeds = (0,), json: Json = False) -> None:
    """Puts finished runs into the release: results, weights, numbers in documents.

    Experiments that share trainings are released together.
    """
    files = release(_several("release", names, seeds, options), options, seeds)
    files += documents.write_all(Path.cwd())
    if json:
        _print_json({"experiments": names, "files": [str(file) for file in files]})
    else:
        print("\n".join(f"File: {file}" for file in files))


def documents_command() -> None:
    """Rewrites the generated blocks of README and docs: numbers of the release."""
    root = Path.cwd()
    if not (root / "README.md").is_file() or not (root / "docs").is_dir():
        raise InvalidArgumentError(f"documents needs README.md and docs in '{root}'; start it in the root of a clone.")
    files = documents.write_all(root)
    print("\n".join(f"File: {file}" for file in files) or "All documents are current.")


GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Start here": {"demo": demo_command, "predict": predict_command, "constrain": constrain_command},
    "Look at results": {"list": list_command, "reproduce": reproduce_command, "report": report_command},
    "Train and score": {
        "run": run_command,
        "sweep": sweep_command,
        "train": train_command,
        "bench": bench_command,
    },
    "Make data and releases": {"data": data_command, "release": release_command, "documents": documents_command},
}
"""All commands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words after the program's name; those of the process by default.

    Returns:
        Exit status: 0, also if a reproduction finds other scores, 130 after Ctrl-C or SIGTERM, or 2 after an error; the
        text of both goes to standard error.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if not words:
            texts = {group: {name: _summary(c) for name, c in entries.items()} for group, entries in GROUPS.items()}
            terminal.print_overview(texts)
            return 0
        if launched().world_size > 1 and words[0] != "train":
            raise InvalidArgumentError("Only train runs in several processes; start other commands without torchrun.")
        with terminated_as_interrupted():
            _parse(words)()
    except TrainingInterruptedError as error:
        print(error, file=sys.stderr)
        return 130
    except LibraryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Start the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def _parse(words: Sequence[str]) -> Callable[[], None]:
    """The command that the words stand for, with its options.

    Raises:
        UnknownNameError: If there is no such command.
        InvalidArgumentError: If an option is unknown, or a value has the wrong type.
    """
    commands = {name: _later(command) for group in GROUPS.values() for name, command in group.items()}
    if words[0] not in commands and not words[0].startswith("-"):
        raise unknown_name("command", words[0], commands)
    printed = StringIO()
    try:
        with redirect_stderr(printed):
            return tyro.extras.subcommand_cli_from_dict(
                commands,
                prog=_PROGRAM,
                description="Constrain your predictions, reproduce the papers' tables, measure costs.",
                args=words,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as ended:
        if not ended.code:
            raise
        problem = wrong_options(printed.getvalue())
        raise InvalidArgumentError(f"{problem} Help: {_PROGRAM} {words[0]} --help") from ended


def _later(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """The same command, for parsing: called with its options it returns what does the work."""

    @wraps(command)
    def parsed(*arguments: Any, **options: Any) -> Callable[[], None]:
        return partial(command, *arguments, **options)

    return parsed


def _summary(command: Callable[..., None]) -> str:
    """First line of a command's docstring, up to its first colon or semicolon."""
    first = (command.__doc__ or "").splitlines()[0].rstrip(".")
    return first.split(";")[0].split(":")[0]


class _Work:
    """``run`` or ``reproduce`` of one experiment, to be sent to another process."""

    def __init__(self, action: Action, experiment: Experiment, options: RunOptions) -> None:
        self.action, self.experiment, self.options = action, experiment, options

    def __call__(self) -> Report | None:
        """The report; None if nothing is released, or a package or files are missing, which is said."""
        try:
            return getattr(driver, self.action)(self.experiment, self.options)
        except NotReleasedError:
            return None
        except (MissingFilesError, MissingPackageError) as error:
            print(f"{self.experiment.name} is left out: {error}", file=sys.stderr)
            return None


def _do_all(action: Action, options: RunOptions, json: bool) -> None:
    """All experiments, then what failed."""
    if options.cases or options.methods or options.data:
        raise InvalidArgumentError("--cases, --methods and --data belong to single experiments; drop them with 'all'.")
    works = {entry.name: _Work(action, entry, options) for entry in map(registry.experiment, registry.names())}
    results, failures = run_jobs(works, JobOptions().on(options.device), options.out / ALL / "logs")
    reports = [report for report in results.values() if report]
    if json:
        _print_json({"experiments": [_as_json(report, options.preset) for report in reports]})
    else:
        for report in reports:
            print(f"{report.experiment.name}: {report.verdict or 'done'} {report.folder}")
    require_all(failures)


def _finish(report: Report, preset: Preset, all: bool, json: bool) -> None:
    if json:
        _print_json(_as_json(report, preset))
    else:
        terminal.print_report(report, all)


def _as_json(report: Report, preset: Preset) -> dict[str, Any]:
    content = {"experiment": report.experiment.name, "preset": preset, "folder": str(report.folder)}
    rows = json_rows(report.records, report.description)
    return {**content, "verdict": report.verdict, "rows": rows}


def _print_json(content: dict[str, Any]) -> None:
    print(json_module.dumps(content, ensure_ascii=False))
