"""What ``python -m experiments`` and ``list`` print: commands, experiments with their times, benchmarks."""

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from experiments.catalogue import CHOICES, STUDIES, Listed

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
    out.print("Start here: python -m experiments reproduce stefan")


def print_list(families: Mapping[str, Sequence[Listed]], benchmarks: Mapping[str, str]) -> None:
    """Prints experiments with their times on one core, and the names of benchmarks."""
    out = _console()
    table = Table("run NAME", *TIMES, box=None, pad_edge=False)
    for family, entries in families.items():
        if family not in (STUDIES, CHOICES):
            table.add_row(Text(family, style="bold"))
            for entry in entries:
                times = (readable_duration(entry.durations.get(key, "")) for key in TIMES)
                table.add_row(f"  {entry.name}", *times)
    out.print(table)
    out.print("  Times are those of one core. 'all' instead of names does all of them, one on")
    out.print("  every core, and goes on where it was stopped.")
    out.print("bench NAME")
    out.print(Padding(", ".join(benchmarks), (0, 0, 0, 2)))
    out.print("What each shows, and the studies of some: python -m experiments list --all")


def print_all(families: Mapping[str, Sequence[Listed]], benchmarks: Mapping[str, str]) -> None:
    """Prints what everything shows, with studies and choices."""
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
