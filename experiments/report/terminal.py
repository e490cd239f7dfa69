"""Output of commands: 80 columns, one screen, a sentence on what it means, one folder."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any, TextIO

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.driver import Report
from experiments.records.description import Description
from experiments.records.record import over_seeds
from experiments.records.scores import SCORES
from experiments.records.table import wide
from experiments.report.results import Row, headline

WIDTH = 80
MANY_ROWS = 12
"""Rows of a headline from which each case is one row, so that it fits a screen."""
SCREEN = 24
"""Methods of all cases from which only the best are shown."""
_LABEL, _GAP = 20, 2  # characters that the name of a row has at least, and those between columns


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
    """A table for each case: methods as rows, scores as columns, the papers' numbers beside ours, the best in bold.

    Many rows become one for each case: one score of all methods or, if these are too many, of the best one.
    """
    rows = headline(described, records, MANY_ROWS)
    if _LABEL + sum(_widths(rows)) > WIDTH:
        rows = headline(described, records, sys.maxsize)  # methods as rows
        if len(rows) > SCREEN:
            yield _of_the_best(described, rows)
            return
    for group, members in groupby(rows, key=lambda row: row.group):
        whole = list(members)
        widths = _widths(whole)
        count = max(1, sum(_LABEL + total <= WIDTH for total in accumulate(widths)))
        table = Table(title=group, title_justify="left", title_style="", box=None, pad_edge=False)
        table.add_column("", max_width=WIDTH - sum(widths[:count]))
        for first, width in zip(whole[0].cells[:count], widths, strict=False):
            style = "dim" if first.mark == "paper" else ""
            table.add_column(first.heading, justify="right", style=style, width=width - _GAP)
        for row in whole:
            cells = (Text(cell.text, style="bold" if cell.best else "") for cell in row.cells[:count])
            table.add_row(row.name, *cells)
        yield table


def _widths(rows: Sequence[Row]) -> list[int]:
    """Characters that the columns take: numbers and the words of headings are whole."""
    columns = zip(*(row.cells for row in rows), strict=True)
    texts = ([text for cell in column for text in (cell.text, *cell.heading.split())] for column in columns)
    return [_GAP + max(map(len, each)) for each in texts]


def _of_the_best(described: Description, rows: Sequence[Row]) -> Table:
    """One score of the reference and of the best method of each case: CRPS where there is one."""
    headings = [cell.heading for cell in rows[0].cells]
    place = headings.index(SCORES["CRPS"].title) if SCORES["CRPS"].title in headings else 0
    references = {described.cases[case]: described.methods[key] for case, key in described.references.items()}
    title = f"{headings[place]}, of the reference and of the best method"
    table = Table("", "reference", "best", "method", title=title, title_justify="left", title_style="", box=None)
    table.pad_edge = False
    for group, members in groupby(rows, key=lambda row: row.group):
        cells = {row.name: row.cells[place] for row in members}
        best = next((name for name, cell in cells.items() if cell.best), "")
        numbers = (cells[name].text if name in cells else "—" for name in (references.get(group, ""), best))
        table.add_row(group, *numbers, best)
    return table


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
