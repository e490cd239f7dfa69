"""The commands of ``python -m experiments``; results on standard output, progress and errors on standard error.

Commands are parsed without the packages that do the work, so that help and lists come at once.
"""

import json as json_module
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial, wraps
from importlib import import_module
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from experiments import registry
from experiments.errors import InvalidArgumentError, LibraryError, TrainingInterruptedError, unknown_name, wrong_options
from experiments.options import CATALOGUE, ClusterOptions, DataOptions, Listed, RunOptions, seeds_of
from experiments.signals import terminated_as_interrupted

PROGRAM = "python -m experiments"
PROBLEMS = ("viscous_burgers", "reaction_diffusion", "darcy", "advection_diffusion", "basin")
"""Problems that ``data`` makes samples of."""
Names = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="NAME", help="Experiments; list shows them. all: all of them."),
]
Benchmark = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help="The benchmark; list shows them.")]
Json = Annotated[bool, tyro.conf.arg(help="Print one JSON object on standard output and nothing else there.")]
Everything = Annotated[bool, tyro.conf.arg(help="Print every row and score.")]
Seeds = Annotated[tuple[str, ...], tyro.conf.arg(help="Seeds, each a run, with tables over them: 0-7, or 0,2,5.")]
TrainOnly = Annotated[bool, tyro.conf.arg(help="Train what is missing and score nothing; for torchrun too.")]
Trainings = Annotated[tuple[str, ...], tyro.conf.arg(help="With --train-only: which, as anp; all by default.")]
Page = Annotated[Path | None, tyro.conf.arg(help="Document whose table is rewritten: docs/speed.md.")]
Folder = Annotated[Path, tyro.conf.arg(help="Folder of all stored runs.")]
File = Annotated[Path, tyro.conf.arg(help="The page.")]
Options = Annotated[RunOptions, tyro.conf.arg(name="")]
Cluster = Annotated[ClusterOptions, tyro.conf.arg(name="")]


def list_command(all: Annotated[bool, tyro.conf.arg(help="Say what each shows.")] = False, json: Json = False) -> None:
    """Lists experiments and benchmarks; how long each takes on one core."""
    if json:
        entries = CATALOGUE.values()
        experiments = [{"name": e.name, "summary": e.summary, "durations": e.durations} for e in entries]
        benchmarks = [{"name": name, "summary": summary} for name, summary in registry.BENCHMARKS.items()]
        print(json_module.dumps({"experiments": experiments, "benchmarks": benchmarks}, ensure_ascii=False))
        return
    (print_all if all else print_list)(registry.families(), registry.BENCHMARKS)


def run_command(
    names: Names,
    options: Options,
    cluster: Cluster,
    seeds: Seeds = (),
    train_only: TrainOnly = False,
    trainings: Trainings = (),
    all: Everything = False,
    json: Json = False,
) -> None:
    """Runs experiments: data, training, scores, tables and figures.

    Several names or seeds are runs of their own, at the same time on this machine or a cluster. Finished runs are read
    from their folders, so the same command goes on after an interrupt.
    """
    _require(names)
    if trainings and not train_only:
        raise InvalidArgumentError("--trainings says which networks --train-only trains; add --train-only.")
    from experiments import commands

    if train_only:
        commands.train(names, options, trainings, json)
    else:
        commands.run(names, options, cluster, seeds_of(seeds), all, json)


def reproduce_command(names: Names, options: Options, all: Everything = False, json: Json = False) -> None:
    """Scores the released networks and compares with the released numbers.

    Nothing is trained, and no network is needed; the preset is that of the release. The exit status is 0 also where
    scores differ: the verdict says so, in the text and in --json.
    """
    _require(names)
    from experiments import commands

    commands.reproduce(names, options, all, json)


def _require(names: Sequence[str]) -> None:
    """Refuses a run of nothing, and names of no experiment, before anything slow is imported."""
    if not names:
        raise InvalidArgumentError("Which experiment? python -m experiments list shows their names.")
    for name in names:
        if name != registry.ALL:
            registry.require_known(name)


def bench_command(name: Benchmark, page: Page = None, json: Json = False) -> None:
    """Runs a benchmark."""
    from experiments import commands

    commands.bench(name, page, json)


def report_command(out: Folder = Path("results"), file: File = Path("report.html"), json: Json = False) -> None:
    """Writes all released and stored results to one HTML page.

    The newest finished run or reproduction of an experiment has a section of its own, named with its preset.
    """
    from experiments import commands

    commands.report(out, file, json)


def data_command(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help=f"One of {', '.join(PROBLEMS)}.")],
    options: Annotated[DataOptions, tyro.conf.arg(name="")],
    json: Json = False,
) -> None:
    """Makes training data for operators: random problems, solved.

    Sample k depends on problem, seed, split and k alone, so 100 samples are the first 100 of 1000. After an interrupt
    the same command goes on.
    """
    from experiments.data_command import make_data

    make_data(name, options, json)


def demo_command(out: Annotated[Path, tyro.conf.arg(help="Folder of the picture.")] = Path("results")) -> None:
    """Shows one prediction without and with its conservation law; takes seconds."""
    from experiments.conservation.demo import show

    show(out)


HERE = "experiments.cli"
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Start here": {
        "demo": (HERE, "Shows one prediction without and with its law"),
    },
    "Look at results": {
        "list": (HERE, "Lists experiments and benchmarks"),
        "reproduce": (HERE, "Scores the released networks, compares with the release"),
        "report": (HERE, "Writes all released and stored results to one page"),
    },
    "Train and measure": {
        "run": (HERE, "Runs experiments: data, training, scores, figures"),
        "bench": (HERE, "Runs a benchmark"),
        "data": (HERE, "Makes training data for operators"),
    },
}
"""All commands: the module of each, and what it does."""
COMMANDS = {name: module for group in GROUPS.values() for name, (module, _) in group.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words after the program's name; those of the process by default.

    Returns:
        Exit status: 0, also if a reproduction finds other scores, 130 after Ctrl-C or SIGTERM, or 2 after an error; the
        text of both goes to standard error.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    return answered(lambda: _command_of(words))


def answered(parse: Callable[[], Callable[[], None]]) -> int:
    """Does what the command line asks for; the exit status of the process, see ``main``."""
    try:
        with terminated_as_interrupted():
            parse()()
    except TrainingInterruptedError as error:
        print(error, file=sys.stderr)
        return 130
    except LibraryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemError) as error:
        if isinstance(error, SystemError) and not isinstance(error.__cause__, KeyboardInterrupt):
            raise  # a compiled kernel that is interrupted raises it from the interrupt
        print("Interrupted. Start the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def _command_of(words: Sequence[str]) -> Callable[[], None]:
    """The command that the words stand for, with its options."""
    if not words or words[0] in ("--help", "-h"):
        texts = {group: {name: text for name, (_, text) in entries.items()} for group, entries in GROUPS.items()}
        return partial(print_overview, texts)
    name, *rest = words
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1" and "--train-only" not in rest:
        raise InvalidArgumentError("Only run --train-only works in several processes; start others without torchrun.")
    return parsed(getattr(import_module(COMMANDS[name]), f"{name}_command"), f"{PROGRAM} {name}", rest)


def parsed(command: Callable[..., None], program: str, words: Sequence[str]) -> Callable[[], None]:
    """A command with the options that the words give it; raises InvalidArgumentError if some are wrong."""

    @wraps(command)
    def later(*arguments: Any, **options: Any) -> Callable[[], None]:
        return partial(command, *arguments, **options)

    text, problem = StringIO(), StringIO()
    try:
        with redirect_stdout(text), redirect_stderr(problem):
            return tyro.cli(later, prog=program, args=words, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as ended:
        if not ended.code:
            printed = re.sub(r"\s*\(default:\s*(None)?\)", "", text.getvalue())  # where there is none
            for line in printed.splitlines():  # tyro wraps no prose where standard output is no terminal
                print(fill(line, WIDTH) if len(line) > WIDTH else line)
            raise
        raise InvalidArgumentError(f"{wrong_options(problem.getvalue())} Help: {program} --help") from ended


WIDTH = 80
TIMES = ("smoke", "laptop", "paper", "reproduce")


def print_overview(groups: Mapping[str, Mapping[str, str]]) -> None:
    """Prints the commands, grouped, one line each."""
    out = _console()
    out.print("Constrain your predictions, reproduce the papers' tables, measure costs.\n")
    for group, commands in groups.items():
        out.print(f"[bold]{group}[/]")
        for name, text in commands.items():
            out.print(f"  {name:<11}{text}")
    out.print("\nOptions of a command: python -m experiments COMMAND --help")
    out.print("Start here: python -m experiments reproduce stokes")


def print_list(families: Mapping[str, Sequence[Listed]], benchmarks: Mapping[str, str]) -> None:
    """Prints experiments with their times on one core, and the names of benchmarks."""
    out = _console()
    table = Table("run NAME", *TIMES, box=None, pad_edge=False)
    for family, entries in families.items():
        table.add_row(Text(family, style="bold"))
        for entry in entries:
            times = (readable_duration(entry.durations.get(key, "")) for key in TIMES)
            table.add_row(f"  {entry.name}", *times)
    out.print(table)
    out.print("  Times of one core. 'all' does all of them, and goes on where it was stopped.")
    out.print(f"bench NAME: {', '.join(benchmarks)}")
    out.print("What each shows: python -m experiments list --all")


def print_all(families: Mapping[str, Sequence[Listed]], benchmarks: Mapping[str, str]) -> None:
    """Prints what everything shows."""
    out = _console()
    everything = {family: {entry.name: entry.summary for entry in entries} for family, entries in families.items()}
    for family, entries in (everything | {"bench NAME": benchmarks}).items():
        out.print(Text(family, style="bold"))
        for name, summary in entries.items():
            out.print(f"  {name}")
            out.print(Padding(summary, (0, 0, 0, 4)))


def readable_duration(duration: str) -> str:
    """A time with many minutes in hours or days."""
    number, _, unit = duration.partition(" ")
    if unit != "min" or int(number) < 300:
        return duration
    hours = int(number) / 60
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


class _Console(Console):
    """A console that says so where the reader of its output has gone, as other programs do."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console() -> Console:
    return _Console(file=sys.stdout, width=WIDTH, highlight=False)
