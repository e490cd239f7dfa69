"""The commands ``run``, ``reproduce``, ``bench`` and ``report``, with their options read."""

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import driver, registry
from experiments.benchmarks import documents
from experiments.driver import Report
from experiments.errors import InvalidArgumentError, MissingFilesError, MissingPackageError, NotReleasedError
from experiments.experiment import RunContext, RunOptions, Table, require_device
from experiments.jobs import Failure, minutes, require_all, run_jobs
from experiments.options import CATALOGUE, ClusterOptions, Preset
from experiments.records.record import Over, over_seeds
from experiments.records.storage import writable_folder
from experiments.records.table import json_rows, write_tables
from experiments.report import page, terminal
from probconserv.training.distributed import launched, say_once


def run(
    names: Sequence[str], options: RunOptions, cluster: ClusterOptions, seeds: Sequence[int], all: bool, json: bool
) -> None:
    """Runs experiments with one or several seeds; several runs end with tables over the seeds of each."""
    entries = _entries(names, options, several=bool(seeds) or cluster.cluster is not None or cluster.dry_run)
    if seeds and options.seed:
        raise InvalidArgumentError(f"run takes --seed or --seeds, got both; write --seeds {options.seed}.")
    if len(entries) == 1 and not seeds and cluster == ClusterOptions():
        _print(driver.run(entries[0], options), options.preset, all, json)
        return
    alone, each = replace(options, workers=None), seeds or (options.seed,)
    works = {
        f"{entry.name}, seed {seed}": _Work("run", entry, replace(alone, seed=seed))
        for entry in entries
        for seed in each
    }
    if cluster.dry_run:
        print("\n".join(_planned(list(works), options, cluster)))
        return
    _finish(entries, *_done(works, options, cluster, options.out / "logs"), options, json)


def reproduce(names: Sequence[str], options: RunOptions, all: bool, json: bool) -> None:
    """Scores the released weights of experiments."""
    entries = _entries(names, options)
    if len(entries) == 1:
        _print(driver.reproduce(entries[0], options), "laptop", all, json)
        return
    works = {entry.name: _Work("reproduce", entry, replace(options, workers=None)) for entry in entries}
    _finish(entries, *_done(works, options, ClusterOptions(), options.out / "logs"), options, json)


def train(names: Sequence[str], options: RunOptions, trainings: Sequence[str], json: bool) -> None:
    """Trains what experiments need, without scoring it; processes that torchrun starts share every batch."""
    files: list[str] = []
    for entry in _entries(names, options):
        context = RunContext(options=options, training_seed=options.seed)
        planned = [training for job in driver.plan(entry, context) for training in job.trainings]
        picked = driver.chosen("training", planned, trainings)
        files += [str(path) for path in driver.train_all(entry, picked, context)]
    if not launched().first:
        return
    if json:
        _print_json({"experiments": list(names), "weights": files})
    else:
        print("\n".join(f"Weights: {file}" for file in files))


def bench(name: str, document: Path | None, json: bool) -> None:
    """Runs a benchmark, and rewrites the table of a document if one is given."""
    benchmark = registry.benchmark(name)
    if document is not None:
        documents.require_document(name, document)
    result = benchmark()
    if json:
        _print_json(result)
    else:
        terminal.print_benchmark(result)
    if document is not None:
        documents.write(result, document)


def report(out: Path, file: Path, json: bool) -> None:
    """Writes the page of all results, and says what it shows."""
    shown, left_out = page.write_report(out, file)
    names = list(dict.fromkeys(results.name for results in shown))
    runs = [str(results.run) for results in shown if results.run]
    if not runs:
        empty = "holds no finished run" if out.is_dir() else "does not exist"
        say_once(f"The folder '{out}' {empty}: the page shows released results alone.")
    if left_out:
        texts = ", ".join(map(str, left_out))
        say_once(f"Left out, since a release before 0.5 made them: {texts}. Run them again.")
    if json:
        _print_json({"file": str(file), "bytes": file.stat().st_size, "experiments": names, "runs": runs})
    else:
        print(f"Page with {len(names)} experiments, {len(runs)} of them with a stored run: {file}")
        print("Words that you type on it pick problems, methods and scores.")


class _Work:
    """``run`` or ``reproduce`` of one experiment, to be sent to another process."""

    def __init__(self, action: str, table: Table, options: RunOptions) -> None:
        self.action, self.table, self.options = action, table, options

    def __call__(self) -> Report | None:
        """The report; None if nothing is released, or a package or files are missing, which is said."""
        try:
            return getattr(driver, self.action)(self.table, self.options)
        except NotReleasedError:
            return None
        except (MissingFilesError, MissingPackageError) as error:
            print(f"{self.table.name} is left out: {error}", file=sys.stderr)
            return None


def _entries(names: Sequence[str], options: RunOptions, several: bool = False) -> list[Table]:
    """The experiments of these names, each once; refuses options without effect on one of them."""
    every = registry.ALL in names
    if every and (options.cases or options.methods or options.data):
        raise InvalidArgumentError("--cases, --methods and --data belong to single experiments; drop them with 'all'.")
    entries = [registry.table(name) for name in (CATALOGUE if every else dict.fromkeys(names))]
    for entry in () if every else entries:
        entry.refuse_idle(replace(options, workers=None) if several or len(entries) > 1 else options)
    require_device(options.device)
    return entries


def _planned(runs: Sequence[str], options: RunOptions, cluster: ClusterOptions) -> list[str]:
    """The runs, and what is asked for."""
    most = "" if options.workers is None else f", {options.workers} at a time"
    if cluster.cluster is None:
        return [*runs, f"{len(runs)} runs on this machine{most}"]
    asked = {"time": f"{minutes(cluster)} minutes", **cluster.sbatch}
    text = ", ".join(f"{name} {value}" for name, value in asked.items())
    return [*runs, f"{len(runs)} jobs of {cluster.cluster}{most}; each asks for {text}"]


def _done(
    works: dict[str, _Work], options: RunOptions, cluster: ClusterOptions, logs: Path
) -> tuple[dict[str, Report], list[Failure]]:
    """The reports of all works that have one, and the failures."""
    shared_gpu = cluster.cluster is None and options.device.startswith("cuda")
    workers = options.workers or (1 if shared_gpu else None)
    results, failures = run_jobs(works, workers, cluster, logs)
    return {label: report for label, report in results.items() if report}, failures


def _finish(
    entries: Sequence[Table],
    reports: dict[str, Report],
    failures: Sequence[Failure],
    options: RunOptions,
    json: bool,
) -> None:
    """Tables over seeds of experiments with several runs, a line for each of the others, then what failed."""
    content = []
    for entry in entries:
        own = [report for report in reports.values() if report.table.name == entry.name]
        if len(own) > 1:
            content.append(_over_seeds(entry, own, writable_folder(options.out / "over_seeds" / entry.name), json))
        elif own:
            content.append(_as_json(own[0], options.preset))
            if not json:
                print(f"{entry.name}: {own[0].verdict or 'done'} {own[0].folder}")
    if json:
        _print_json({"experiments": content, "failed": [str(failure) for failure in failures]})
    require_all(failures)


def _over_seeds(entry: Table, reports: Sequence[Report], folder: Path, json: bool) -> dict[str, Any]:
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


def _print(report: Report, preset: Preset, all: bool, json: bool) -> None:
    if json:
        _print_json(_as_json(report, preset))
    else:
        terminal.print_report(report, all)


def _as_json(report: Report, preset: Preset) -> dict[str, Any]:
    content = {"experiment": report.table.name, "preset": preset, "folder": str(report.folder)}
    rows = json_rows(report.records, report.description)
    return {**content, "verdict": report.verdict, "rows": rows}


def _print_json(content: dict[str, Any]) -> None:
    print(json_module.dumps(content, ensure_ascii=False))
