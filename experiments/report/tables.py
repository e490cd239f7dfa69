"""Tables of documents from released results, as Markdown."""

import re
from collections.abc import Iterable
from functools import cache

import numpy as np
import pandas as pd

from experiments.errors import DataFileError
from experiments.records.description import read_description
from experiments.records.record import as_frame
from experiments.records.release import ROOT, manifest
from experiments.records.scores import Better
from experiments.records.store import read_records
from experiments.records.table import format_score
from experiments.report.results import Results, released

Entry = tuple[str, str, float, float | None]
"""Heading of the row and of the column, mean and standard error."""


def table(
    entries: Iterable[Entry],
    corner: str,
    better: Better,
    texts: dict[str, list[str]] | None = None,
    transposed: bool = False,
    truth: str = "",
) -> str:
    """A table of scores, the best of a row but ``truth`` in bold (of a column if transposed), and further texts."""
    rows: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        rows.setdefault(entry[0], {})[entry[1]] = entry
    choose = {Better.LOWER: min, Better.HIGHER: max, Better.NEITHER: lambda _: None}[better]
    cells = {}
    for name, row in rows.items():
        best = choose(entry[2] for column, entry in row.items() if column != truth) if len(row) > 1 else None
        shown = {column: format_score(*entry[2:]) for column, entry in row.items()}
        cells[name] = {
            column: f"**{text}**" if column != truth and row[column][2] == best else text
            for column, text in shown.items()
        }
    frame = pd.DataFrame(cells) if transposed else pd.DataFrame(cells).T
    frame = frame.assign(**(texts or {})).fillna("—").rename_axis(corner).reset_index()
    return markdown(frame)


def entries_of(results: Results, score: str) -> list[Entry]:
    """One score of all cases and methods."""
    frame, described = results.numbers, results.description
    errors = frame.get(f"{score}_se", pd.Series(index=frame.index, dtype=float))
    return [
        (described.cases[case], described.methods[method], value, errors[case, method])
        for (case, method), value in frame[score].dropna().items()  # type: ignore[misc]
    ]


@cache
def results_of(name: str) -> Results:
    """The released results that a document shows, read once; ``results_of.cache_clear()`` forgets them."""
    results = released(name)
    if results is None:
        raise DataFileError(f"A document shows results of '{name}', which are not released; drop its block.")
    return results


@cache
def over_seeds_of(name: str) -> pd.DataFrame:
    """Means over seeds of released results, read once; without rows where none are stored."""
    file = ROOT / "results" / name / "over_seeds.csv"
    return read_records(file) if file.is_file() else as_frame(())


def family_of(name: str) -> list[Results]:
    """The released results of a family, in the order of the manifest."""
    every = manifest()["experiments"]
    return [results_of(each) for each in every if read_description(ROOT / "results" / each).family == name]


def shown_cases(results: Results) -> dict[str, str]:
    """Cases of operators that documents show, those of one time where there are any; t ≤ 2 stands for many up to 2."""
    cases = results.description.cases
    single = {case: label for case, label in cases.items() if case.startswith("single")} or cases
    return {case: re.sub(r"\d+ times, ", "", label) for case, label in single.items()}


def markdown(frame: pd.DataFrame) -> str:
    """A table without spaces that line up its columns, so that a new number changes one line; numbers to the right."""
    numeric = [all(text.strip("*")[:1] in "0123456789-—" for text in column) for column in frame.to_numpy().T]
    frame = frame.set_axis([str(column).replace("|", "\\|") for column in frame], axis=1)
    text = frame.to_markdown(index=False, disable_numparse=True, colalign=["right" if n else "left" for n in numeric])
    return re.sub(" {2,}", " ", re.sub("-{4,}", "---", text))


def paired_ratio(both: np.ndarray) -> str:
    """The mean of the first column over that of the second, and their mean difference in paired standard errors."""
    apart = both[:, 0] - both[:, 1]
    errors = apart.mean() / (apart.std(ddof=1) / len(apart) ** 0.5)
    return f"{both[:, 0].mean() / both[:, 1].mean():.2f} ({errors:+.1f})"
