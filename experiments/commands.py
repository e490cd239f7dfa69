"""The commands of ``python -m experiments``; results on standard output, progress and errors on standard error."""

import json as json_module
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from boon import BoonError
from experiments.benchmarks import scaling_page
from experiments.cluster import ClusterOptions, require_all
from experiments.errors import ExperimentError, InvalidArgumentError
from experiments.everything import ALL, DURATIONS, Action, do_all
from experiments.experiment import Data, Preset, Report, RunOptions
from experiments.field_experiments import STUDIES
from experiments.field_trainings import train_fields
from experiments.networks import trained_network
from experiments.operator_choice import choose, wins
from experiments.operator_problems import CASES, boundary_cases
from experiments.operator_run import place_of
from experiments.operator_studies import run_study
from experiments.operator_trainings import train_operators
from experiments.predict import predict_command
from probconserv.training import launched
from experiments.registry import BENCHMARKS, EXPERIMENTS, benchmark, experiment
from experiments.report import write_report
from experiments.sweep import SweepOptions, sweep
from experiments.tables import beside_paper, print_table
from probconserv.errors import ProbConservError
from probconserv.surrogates.weights import read_weights
from solvers.errors import SolverError

Name = Annotated[str, tyro.conf.Positional]
Options = Annotated[RunOptions, tyro.conf.arg(name="")]
Sweep = Annotated[SweepOptions, tyro.conf.arg(name="")]
Cluster = Annotated[ClusterOptions, tyro.conf.arg(name="")]


def list_command(json: bool = False) -> None:
    """Lists the experiments and benchmarks, and how long each preset takes on two cores.

    Args:
        json: Print one JSON object on standard output and nothing else there.
    """
    durations = {entry.name: dict[str, str](entry.durations.items()) for entry in EXPERIMENTS.values()}
    together = dict[str, str](DURATIONS.items())
    if json:
        experiments = [
            {"name": entry.name, "summary": entry.summary, "durations": durations[entry.name]}
            for entry in EXPERIMENTS.values()
        ]
        benchmarks = [{"name": name, "summary": summary} for name, summary in BENCHMARKS.items()]
        _print_json({"experiments": experiments, "all": together, "benchmarks": benchmarks})
        return
    timed = list(dict.fromkeys(key for times in durations.values() for key in times))
    table = _named_table("run NAME", "what it does", *timed)
    for entry in EXPERIMENTS.values():
        table.add_row(entry.name, entry.summary, *(entry.readable_durations.get(key, "") for key in timed))
    table.add_row(ALL, "all of them", *(together.get(key, "") for key in timed))
    benches = _named_table("bench NAME", "what it measures")
    for name, summary in BENCHMARKS.items():
        benches.add_row(name, summary)
    console = Console()
    console.print(table)
    console.print(benches)


def run_command(name: Name, options: Options, json: bool = False) -> None:
    """Runs an experiment: data, fit, scores, table and figures.

    Args:
        name: The experiment; ``list`` shows them. All of them, as many at a time as there are threads: ``all``.
        options: Preset, data, seed, device and output folder.
        json: Print one JSON object on standard output and nothing else there.
    """
    if name == ALL:
        _do_all("run", options, json)
        return
    chosen = experiment(name)
    _finish(name, options.preset, chosen.run(options), json)


def reproduce_command(
    name: Name,
    data: Data | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: Path = Path("results"),
    json: bool = False,
) -> None:
    """Scores the trained models that ship with the library: table and figures in minutes, without network.

    Args:
        name: The experiment; ``list`` shows them. All of them, as many at a time as there are threads: ``all``.
        data: Where context points come from, as for ``run``.
        seed: Seed of the test functions.
        device: Torch device of the surrogates.
        out: Folder of all stored runs.
        json: Print one JSON object on standard output and nothing else there.
    """
    options = RunOptions(preset="laptop", data=data, seed=seed, device=device, out=out)
    if name == ALL:
        _do_all("reproduce", options, json)
        return
    _finish(name, "laptop", experiment(name).reproduce(options), json)


def sweep_command(
    names: Annotated[tuple[str, ...], tyro.conf.Positional],
    options: Sweep,
    cluster: Cluster,
    json: bool = False,
) -> None:
    """Runs experiments on several seeds and presets, as jobs of this machine or of SLURM: tables over seeds.

    Runs are those of ``run``; finished ones are read from their folders.

    Args:
        names: The experiments; ``list`` shows them.
        options: Seeds, presets, data, device and output folder.
        cluster: Where the jobs run, how many at a time, and what each may take.
        json: Print one JSON object on standard output and nothing else there.

    Raises:
        JobsFailedError: If a job failed; the others are finished and in the tables.
    """
    result = sweep(names, options, cluster)
    if json:
        _print_json(result.as_json())
    else:
        for table in result.tables:
            print(table.as_markdown())
        for file in result.files:
            print(f"Table: {file}")
    require_all(result.failures)


def train_command(name: Name, options: Options, role: str | None = None, json: bool = False) -> None:
    """Trains one neural process of a conservation problem, or the operators of another experiment.

    ``run`` trains all that it needs by itself. Processes that torchrun starts share every batch; one of them prints.

    Args:
        name: The problem.
        options: Preset, data, cases, seed, device and output folder.
        role: Which network: anp (the default), softc, member-0 to member-3, anp-exact (closed-form data) or edge (part
            of the range); which operators, for instance boon-default or end-to-end, all by default.
        json: Print one JSON object on standard output and nothing else there.
    """
    if name in CASES or name in STUDIES:
        files = train_operators(name, options, role) if name in CASES else train_fields(name, options, role)
        _print_trained(name, {"weights": [str(file) for file in files]}, json)
        return
    options.refuse("cases", "networks", where="trainings of one network, which --role names")
    weights = trained_network(name, role or "anp", options)
    last = read_weights(weights, kind="ANP").notes["last"]
    _print_trained(name, {"network": role or "anp", "weights": str(weights), **last}, json)


def choose_command(
    name: Name,
    options: Options,
    seeds: int = 1,
    only: tuple[str, ...] = (),
    json: bool = False,
) -> None:
    """Ranks boundary corrections by validation: trains every candidate for the default on a problem.

    Args:
        name: The boundary-condition experiment.
        options: Preset, seed, device and output folder.
        seeds: Trainings of every candidate.
        only: Names of candidates; all by default.
        json: Print one JSON object on standard output and nothing else there.
    """
    cases = boundary_cases(name, options)
    choices = choose(cases, place_of(name, options), seeds, only)
    if json:
        content = [choice.as_json() for choice in choices]
        _print_json({"experiment": name, "preset": options.preset, "cases": content, "wins": wins(choices)})
        return
    console = Console()
    for choice in choices:
        table = Table("candidate", "validation L2 ↓, every seed", title=f"{name}, {choice.case}", title_justify="left")
        for candidate in choice.ranking:
            scores = choice.scores[candidate]
            table.add_row(candidate, ", ".join("failed" if math.isinf(score) else _cell(score) for score in scores))
        console.print(table)
    print("Comes first: " + ", ".join(f"{candidate} {count} ×" for candidate, count in wins(choices).items()))


def study_command(name: Name, options: Options, json: bool = False) -> None:
    """Studies boundary corrections: few samples, boundary values out of range, grids not trained on.

    Args:
        name: The boundary-condition experiment.
        options: Preset, seed, device and output folder.
        json: Print one JSON object on standard output and nothing else there.
    """
    _finish(name, options.preset, run_study(name, options), json)


def bench_command(name: Name, page: Path | None = None, json: bool = False) -> None:
    """Runs a benchmark.

    Args:
        name: The benchmark; ``list`` shows them.
        page: Document whose table and figures of the benchmark scaling are written anew: ``docs/scaling.md``.
        json: Print one JSON object on standard output and nothing else there.
    """
    run = benchmark(name)
    if page is not None and (name != "scaling" or not page.is_file()):
        raise InvalidArgumentError(f"--page needs the benchmark scaling and a file, got {name} and '{page}'.")
    result = run()
    if page is not None:
        scaling_page.write(result, page)
    if json:
        _print_json(result)
        return
    console = Console()
    console.print(f"benchmark: {result['benchmark']}\nmachine: {result['machine']}")
    columns = list(dict.fromkeys(key for case in result["cases"] for key in case))
    table = Table(*columns)
    for case in result["cases"]:
        table.add_row(*(_cell(case.get(column)) for column in columns))
    console.print(table)


def report_command(out: Path = Path("results"), file: Path = Path("report.html"), json: bool = False) -> None:
    """Writes all results to one HTML file: tables beside the papers', figures, costs, how to make each.

    Args:
        out: Folder of all stored runs, whose figures the page shows.
        file: The page.
        json: Print one JSON object on standard output and nothing else there.
    """
    sections = write_report(out, file)
    if json:
        content = [
            {"name": section.name, "tables": len(section.tables), "figures": len(section.figures)}
            for section in sections
        ]
        _print_json({"file": str(file), "bytes": file.stat().st_size, "experiments": content})
        return
    without = [section.name for section in sections if not section.figures]
    if without:
        print(f"No stored run in {out} has figures of {', '.join(without)}; the page says how to make them.")
    print(f"Page: {file}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words after the program's name; those of the process by default.

    Returns:
        Exit status: 0, or 2 after an error, whose text goes to standard error.
    """
    commands = {
        "list": list_command,
        "run": run_command,
        "reproduce": reproduce_command,
        "sweep": sweep_command,
        "train": train_command,
        "choose": choose_command,
        "study": study_command,
        "bench": bench_command,
        "report": report_command,
        "predict": predict_command,
    }
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if launched().world_size > 1 and words[:1] != ["train"]:
            raise InvalidArgumentError("Of the commands, train alone shares its work; start others without torchrun.")
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="python -m experiments",
            description="Reproduce the papers' tables and figures, measure costs, constrain your own predictions.",
            args=words,
        )
    except (ExperimentError, BoonError, ProbConservError, SolverError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. An interrupted run goes on where it stopped when started again.", file=sys.stderr)
        return 130
    return 0


def _named_table(name: str, text: str, *others: str) -> Table:
    """A table whose second column alone wraps, so that names can be copied."""
    table = Table()
    table.add_column(name, no_wrap=True)
    table.add_column(text)
    for heading in others:
        table.add_column(heading, no_wrap=True)
    return table


def _print_json(content: dict[str, Any]) -> None:
    print(json_module.dumps(content, ensure_ascii=False))


def _finish(name: str, preset: Preset, report: Report, json: bool) -> None:
    if json:
        rows = [row.as_json() for row in report.rows]
        _print_json({"experiment": name, "preset": preset, "folder": str(report.folder), "rows": rows})
    else:
        _print_report(report)


def _do_all(action: Action, options: RunOptions, json: bool) -> None:
    """All experiments: their tables in the order of ``list``, then what failed."""
    result = do_all(action, options)
    if json:
        _print_json({"preset": options.preset, **result.as_json()})
    else:
        for report in filter(None, result.reports.values()):
            _print_report(report)
        print(f"Time: {result.seconds / 60:.1f} min")
    require_all(result.failures)


def _print_trained(name: str, content: dict[str, Any], json: bool) -> None:
    """What was trained, said by the first process."""
    if not launched().first:
        return
    if json:
        _print_json({"problem": name, **content})
        return
    for key, value in content.items():
        print(f"{key}: {', '.join(value) if isinstance(value, list) else _cell(value)}")


def _print_report(report: Report) -> None:
    print_table(report.title, beside_paper(report.rows), sys.stdout)
    for kind, files in (("Table", report.tables), ("Figure", report.figures)):
        for file in files:
            print(f"{kind}: {file}")
    print(f"Run: {report.folder}")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
