"""What commands print: 80 columns, one screen, a sentence on what it means, one folder."""

import sys
from collections.abc import Iterator, Mapping
from itertools import accumulate, groupby
from typing import Any, TextIO

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.driver import Report
from experiments.records.description import Description
from experiments.records.record import over_seeds
from experiments.records.table import wide
from experiments.report.results import Row, headline

WIDTH = 80
MANY_ROWS = 12
"""Rows of a headline from which each case is one row, so that it fits a screen."""
_LABEL = 10  # characters that the name of a row has at least


def console(file: TextIO | None = None) -> Console:
    """A console of 80 columns on standard output."""
    return Console(file=file or sys.stdout, width=WIDTH, highlight=False)


def print_report(report: Report, everything: bool = False) -> None:
    """Prints the few rows that answer the experiment's question, or everything; the verdict and the folder."""
    out, records, described = console(), over_seeds(report.records), report.description
    out.print(f"[bold]{described.title}[/]")
    if everything:
        sys.stdout.write(wide(records, described).to_string(index=False) + "\n")
    else:
        out.print(*headline_tables(described, records), sep="\n")
    if report.verdict:
        out.print(report.verdict)
    out.print(f"All rows, scores per function and figures: {report.folder}", soft_wrap=True)


def headline_tables(described: Description, records: pd.DataFrame) -> Iterator[Table]:
    """A table for each case: methods as rows, scores as columns, the papers' numbers beside ours, the best in bold."""
    rows = headline(described, records, MANY_ROWS)
    if any(_LABEL + sum(len(cell.text) + 2 for cell in row.cells) > WIDTH for row in rows):
        rows = headline(described, records, sys.maxsize)  # methods as rows
    for group, members in groupby(rows, key=lambda row: row.group):
        whole = list(members)
        fitting = min(map(_fitting, whole))
        shown = [row._replace(cells=row.cells[:fitting]) for row in whole]
        table = Table(title=group, title_justify="left", title_style="", box=None, pad_edge=False)
        table.add_column("")
        for column in zip(*(row.cells for row in shown), strict=True):
            style, width = "dim" if column[0].mark == "paper" else "", max(len(cell.text) for cell in column)
            table.add_column(column[0].heading, justify="right", style=style, min_width=width)
        for row in shown:
            table.add_row(row.name, *(Text(cell.text, style="bold" if cell.best else "") for cell in row.cells))
        yield table


def _fitting(row: Row) -> int:
    """How many cells fit beside a label, from the first one on."""
    widths = accumulate(len(cell.text) + 2 for cell in row.cells)
    return max(1, sum(_LABEL + width <= WIDTH for width in widths))


def print_benchmark(result: Mapping[str, Any]) -> None:
    """Prints the times of a benchmark and of its baselines, two lines a case."""
    out = console()
    out.print(f"[bold]benchmark: {result['benchmark']}[/]")
    keys = ("seconds", "baseline_seconds", "ratio")
    table = Table("case", *(key.removesuffix("_seconds") for key in keys), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for case in result["cases"]:
        name = Text(case["case"]).append(f"\n  against {case['baseline']}", style="dim")
        table.add_row(name, *(f"{case[key]:.3g}" for key in keys))
    out.print(table)
    out.print("Seconds; the ratio is the baseline's over ours. Errors and memory, where measured: --json")
    out.print(f"Machine: {result['machine']}")
