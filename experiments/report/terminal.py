"""What commands print: 80 columns, one screen, a sentence on what it means, one folder."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.driver import Report
from experiments.experiment import Experiment
from experiments.records.record import over_seeds
from experiments.records.scores import SCORES, Better
from experiments.records.table import Labels, format_number, format_score, labels_of, numbers, wide

WIDTH = 80
_SCREEN = 24  # rows of headline tables above which cases become rows


def console(file: TextIO | None = None) -> Console:
    """A console of 80 columns on standard output."""
    return Console(file=file or sys.stdout, width=WIDTH, highlight=False)


def print_report(report: Report, everything: bool = False) -> None:
    """Prints the few rows that answer the experiment's question, the verdict and the folder.

    Args:
        report: Where a run ended.
        everything: Whether to print the whole table, as wide as it is.
    """
    out, records = console(), over_seeds(report.records)
    labels = labels_of(report.experiment, report.cases)
    out.print(f"[bold]{report.title}[/]")
    if everything:
        sys.stdout.write(wide(records, labels).to_string(index=False) + "\n")
    else:
        _print_headlines(out, report, records, labels)
    if report.verdict:
        out.print(report.verdict)
    out.print(f"All rows, scores per function and figures: {report.folder}", soft_wrap=True)


def _print_headlines(out: Console, report: Report, records: pd.DataFrame, labels: Labels) -> None:
    chosen = {}
    for case in report.cases:
        part = records[records["case"] == case.key]
        methods, scores = report.experiment.headline(case, part)
        chosen[case.key] = ([method for method in methods if method in set(part["method"])], list(scores))
    if sum(len(methods) + 4 for methods, _ in chosen.values()) > _SCREEN + 6:
        out.print(_cases_as_rows(records, labels, chosen))
    else:
        for case, (methods, scores) in chosen.items():
            out.print(headline_table(records[records["case"] == case], labels, case, methods, scores))


def headline_table(
    records: pd.DataFrame, labels: Labels, case: str, methods: Sequence[str], scores: Sequence[str]
) -> Table:
    """One case: methods as rows, scores as columns with the paper's numbers beside, the best in bold."""
    frame = numbers(records, labels)
    table = Table(title=labels.cases[case], title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    present = [score for score in scores if score in frame]
    for score in present:
        table.add_column(SCORES[score].title, justify="right")
        if f"{score}_paper" in frame:
            table.add_column("paper", justify="right", style="dim")
    best = {score: _best(frame.loc[[(case, m) for m in methods], score], score) for score in present}
    for method in methods:
        row, cells = frame.loc[(case, method)], []
        for score in present:
            cells.append(Text(format_score(row[score]), style="bold" if row[score] == best[score] else ""))
            if f"{score}_paper" in frame:
                cells.append(Text(format_score(row[f"{score}_paper"])))
        table.add_row(labels.methods[method], *cells)
    return table


def _cases_as_rows(records: pd.DataFrame, labels: Labels, chosen: Mapping[str, tuple[list[str], list[str]]]) -> Table:
    """Many cases: one row each, methods as columns, the first score only."""
    frame, score = numbers(records, labels), next(iter(chosen.values()))[1][0]
    methods = list(dict.fromkeys(method for present, _ in chosen.values() for method in present))
    table = Table(title=SCORES[score].title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for method in methods:
        table.add_column(labels.methods[method], justify="right")
    for case, (present, _) in chosen.items():
        values = {method: frame.loc[(case, method), score] for method in present}
        best = _best(pd.Series(values), score)
        cells = [
            Text(format_number(values[method]), style="bold" if values[method] == best else "")
            if method in values
            else Text("—")
            for method in methods
        ]
        table.add_row(labels.cases[case], *cells)
    return table


def _best(values: pd.Series, score: str) -> float:
    if SCORES[score].better is Better.NEITHER:
        return float("nan")
    return float(values.max() if SCORES[score].better is Better.HIGHER else values.min())


def print_overview(groups: Mapping[str, Mapping[str, str]]) -> None:
    """Prints the commands, grouped, one line each."""
    out = console()
    out.print("Constrain your predictions, reproduce the papers' tables, measure costs.\n")
    for group, commands in groups.items():
        out.print(f"[bold]{group}[/]")
        for name, text in commands.items():
            out.print(f"  {name:<11}{text}")
    out.print("\nOptions of a command: python -m experiments COMMAND --help")
    out.print("Start here: python -m experiments reproduce stefan")


def print_list(families: Mapping[str, Mapping[str, Experiment]], benchmarks: Mapping[str, str]) -> None:
    """Prints experiments with their times on two cores, and benchmarks."""
    out, presets = console(), ("smoke", "laptop", "paper", "reproduce")
    table = Table("run NAME", *presets, box=None, pad_edge=False)
    for family, entries in families.items():
        table.add_row(Text(family, style="bold"))
        for entry in entries.values():
            times = (readable_duration(entry.durations.get(preset, "")) for preset in presets)
            table.add_row(f"  {entry.name}", *times)
    out.print(table)
    out.print("  'all' instead of a name does all of them. What each shows: list --all\n")
    benches = Table("bench NAME", "what it measures", box=None, pad_edge=False)
    for name, text in benchmarks.items():
        benches.add_row(f"  {name}", text)
    out.print(benches)


def readable_duration(duration: str) -> str:
    """A time with many minutes in hours or days."""
    number, _, unit = duration.partition(" ")
    if unit != "min" or int(number) < 300:
        return duration
    hours = int(number) / 60
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def print_benchmark(result: Mapping[str, Any]) -> None:
    """Prints the cases of a benchmark: times and their ratio as columns, all else below the name of the case."""
    out = console()
    out.print(f"benchmark: {result['benchmark']}\nmachine: {result['machine']}")
    cases = result["cases"]
    columns = {key: key.removesuffix("_seconds") for key in ("seconds", "baseline_seconds", "ratio") if key in cases[0]}
    table = Table("case", box=None, pad_edge=False)
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for case in cases:
        rest = {key: value for key, value in case.items() if key not in ("case", "series", "axis", "size", *columns)}
        below = [
            f"{'against' if key == 'baseline' else key} {_plain(value)}"
            for key, value in rest.items()
            if value is not None
        ]
        name = Text(case["case"]).append(f"\n  {'; '.join(below)}" if below else "", style="dim")
        table.add_row(name, *(_plain(case[key]) for key in columns))
    out.print(table)


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)
