"""Tables of scores: on the terminal, as Markdown, CSV and JSON; ours beside the papers'."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from experiments.errors import DataFileError

Score = tuple[float, float | None]


@dataclass(frozen=True)
class Column:
    """A score as a column of tables.

    Args:
        heading: What stands above it; an arrow says which way is better.
        meaning: What the legend says about it; empty where the heading says it all.
        over: What mean and standard error are taken over; empty for one number.
    """

    heading: str
    meaning: str = ""
    over: str = "test functions"


def _of_operators(heading: str, meaning: str) -> Column:
    return Column(heading, meaning, over="seeds")


COLUMNS: dict[str, Column] = {
    "CE": Column("CE", "CE: trapezoid total minus the law's total"),
    "LL": Column("LL ↑", "LL: log-likelihood per place"),
    "paper_LL": Column(
        "paper's LL",
        "paper's: the better of the numbers known for this method, published (Hansen et al. 2023) or recomputed from "
        "the authors' released weights with dropout on or off",
        over="",
    ),
    "MSE": Column("MSE ↓"),
    "paper_MSE": Column("paper's MSE", over=""),
    "CRPS": Column("CRPS ↓"),
    "coverage50": Column("cover 50 %", "cover 50 %, 90 %: share of the truth inside the central interval"),
    "coverage90": Column("cover 90 %"),
    "energy": Column("energy ↓", "energy: energy score"),
    "shock": Column(
        "shock error ↓", "shock error: mean absolute distance of sampled shock positions from the true one"
    ),
    "spread": Column("shock deviation", "shock deviation: their standard deviation"),
    "shockless": Column("no shock", "no shock: share of samples that never reach the level, left out of both"),
    "relative_l2": _of_operators("relative L2 ↓", "relative L2: ‖u − truth‖/‖truth‖, mean over test samples"),
    "validation": _of_operators(
        "validation L2 ↓", "validation L2: the same on training samples held out, by which choices are made"
    ),
    "boundary": _of_operators(
        "boundary error ↓", "boundary error: largest |B u − g|, B the value, the one-sided gradient or the mismatch"
    ),
    "boundary_relative": _of_operators(
        "boundary L2 ↓", "boundary L2, max: ‖B u − g‖ and largest |B u − g| relative to s = |g| + Σ|w u|, B u = Σ w u"
    ),
    "boundary_relative_max": _of_operators("boundary max ↓", ""),
    "conservation": _of_operators("largest CE ↓", "largest CE: largest |total − the law's total|"),
    "ratio": _of_operators(
        "CRPS ratio ↓", "CRPS ratio: CRPS over that of ProbConserv after training, of the same seed"
    ),
    "paper_ratio": Column(
        "paper's ratio", "paper's ratio: the same in Utkarsh et al. 2025, on their own set-up", over=""
    ),
    "step": Column("step / FNO's", "step: time of a training step relative to the plain FNO's", over=""),
}


@dataclass(frozen=True)
class Row:
    """Scores of one method at one parameter.

    Args:
        parameter: For instance ``u*=0.6``.
        method: For instance ``ProbConserv-GP``.
        scores: Mean and standard error (None if unknown) by the names of ``COLUMNS``; what was not computed is left
            out.
        source: Where the numbers come from; empty for ours.
        information: What the method is told, where methods differ in that.
        over: What mean and standard error are taken over, where it is not what ``COLUMNS`` say.
    """

    parameter: str
    method: str
    scores: dict[str, Score]
    source: str = ""
    information: str = ""
    over: str = ""

    def as_json(self) -> dict[str, Any]:
        """Flat dictionary: all texts, empty ones beyond the source left out, ``[mean, standard error]`` per score."""
        texts = {"parameter": self.parameter, "method": self.method, "source": self.source}
        texts |= {name: text for name in ("information", "over") if (text := getattr(self, name))}
        return texts | {name: list(score) for name, score in self.scores.items()}

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Row":
        """The inverse of ``as_json``.

        Raises:
            DataFileError: If it is no row.
        """
        try:
            texts = [content[name] for name in ("parameter", "method", "source")]
            texts += [content.get(name, "") for name in ("information", "over")]
            scores = {name: as_score(content[name]) for name in COLUMNS if name in content}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataFileError(f"{str(content)[:200]} is no row of a table ({error!r}); make it again.") from error
        if not all(isinstance(text, str) for text in texts):
            raise DataFileError(f"{str(content)[:200]} is no row of a table, its texts are none; make it again.")
        parameter, method, source, information, over = texts
        return Row(parameter, method, scores, source, information, over)


def as_score(content: Any) -> Score:
    """Mean and standard error (None if unknown) from JSON.

    Raises:
        TypeError: If it is no pair of numbers.
        ValueError: If it has another length.
    """
    mean, error = content
    if type(mean) not in (int, float) or type(error) not in (int, float, type(None)):
        raise TypeError(f"{content!r} is no mean with a standard error")
    return mean, error


def rows_from_json(content: Any, path: Path) -> list[Row]:
    """The rows of stored metrics.

    Args:
        content: What the file of metrics holds.
        path: The file, for the message.

    Raises:
        DataFileError: If it has no rows.
    """
    try:
        return [Row.from_json(row) for row in content["rows"]]
    except (KeyError, TypeError, DataFileError) as error:
        raise DataFileError(f"'{path}' holds no rows of a table ({error!r}); make it again.") from error


def published(paper: str) -> dict[str, Any]:
    """The numbers of a paper that ship: ``probconserv``, ``boon`` or ``probharde2e``."""
    text = resources.files("experiments").joinpath(f"reference/{paper}.json").read_text(encoding="utf-8")
    return json.loads(text)


def paper_rows(problem: str, parameter: str) -> list[Row]:
    """The ProbConserv paper's numbers for one problem and parameter, in its order of methods.

    Args:
        problem: ``diffusion``, ``porous_medium`` or ``stefan``; other problems have no published rows.
        parameter: As in the table, for instance ``u*=0.6``.

    Returns:
        Published rows, and rows recomputed from the authors' released weights.
    """
    reference = published("probconserv")
    key = {"porous_medium": "pme"}.get(problem, problem)
    sources = {
        "published": "Hansen et al. 2023",
        "recomputed_as_released": "Hansen et al., released weights",
        "recomputed_dropout_off": "the same, dropout off",
    }
    rows = []
    for group, source in sources.items():
        for method, scores in reference[group].get(key, {}).get(parameter, {}).items():
            pairs = {name: _score(value) for name, value in scores.items()}
            rows.append(Row(parameter, method, pairs, source))
    return rows


def beside_paper(rows: Sequence[Row]) -> list[Row]:
    """Our rows with the paper's numbers for the same method in columns of their own.

    Args:
        rows: Ours, and the paper's as ``paper_rows`` gives them.

    Returns:
        Our rows, then those of the paper that have no counterpart among ours.
    """
    ours = {(row.parameter, row.method) for row in rows if not row.source}
    merged = []
    for row in rows:
        key = (row.parameter, row.method)
        if row.source:
            merged += [] if key in ours else [row]
            continue
        known = [other.scores for other in rows if other.source and (other.parameter, other.method) == key]
        best = {}
        for name, better in (("LL", max), ("MSE", min)):
            found = [scores[name] for scores in known if name in scores]
            if found:
                best[f"paper_{name}"] = better(found, key=lambda score: score[0])
        merged.append(replace(row, scores=row.scores | best))
    return merged


def boon_rows(problem: str) -> list[Row]:
    """What is known of the BOON paper's numbers for a boundary-condition problem.

    Args:
        problem: Name of the experiment; some have no known numbers.
    """
    return [
        Row(entry["parameter"], "BOON", {"relative_l2": _score(entry["relative_l2"])}, entry["source"], "test target")
        for entry in published("boon").get(problem, [])
    ]


def print_table(title: str, rows: Sequence[Row], file: TextIO) -> None:
    """Prints the table with a rule between parameters, never cutting a cell: wider than the terminal if need be.

    Args:
        title: Title of the table.
        rows: Rows, those of one parameter together.
        file: Where to print.
    """
    columns = used_columns(rows)
    table = Table(title=title, caption=legend(rows), caption_justify="left", title_justify="left")
    texts = _text_columns(rows)
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in columns:
        table.add_column(COLUMNS[name].heading, justify="right", no_wrap=True)
    sources = _source_column(rows)
    for name in sources:
        table.add_column(name, no_wrap=True)
    for i, row in enumerate(rows):
        cells = [format_score(row.scores.get(name)) for name in columns]
        last_of_parameter = i + 1 < len(rows) and rows[i + 1].parameter != row.parameter
        table.add_row(*_texts(row, texts), *cells, *_source(row, sources), end_section=last_of_parameter)
    console = Console(file=file)
    widest = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.width = max(console.width, widest)
    console.print(table)


def as_markdown(title: str, rows: Sequence[Row]) -> str:
    """The table as GitHub-flavoured Markdown with a title and a legend."""
    columns, texts = used_columns(rows), _text_columns(rows)
    lines = [f"## {title}", ""]
    sources = _source_column(rows)
    lines.append("| " + " | ".join([*texts, *(COLUMNS[name].heading for name in columns), *sources]) + " |")
    lines.append("|---" * len(texts) + "|" + "---:|" * len(columns) + "---|" * len(sources))
    for row in rows:
        cells = [format_score(row.scores.get(name)) for name in columns]
        lines.append("| " + " | ".join([*_texts(row, texts), *cells, *_source(row, sources)]) + " |")
    return "\n".join([*lines, "", legend(rows), ""])


def side_by_side(rows: Sequence[Row], score: str) -> str:
    """One score of all methods, one line for each parameter, the smallest in bold, and how often each is smallest.

    Args:
        rows: The rows; those without the score are left out.
        score: Name of the score.
    """
    scored = [row for row in rows if score in row.scores]
    methods = list(dict.fromkeys(row.method for row in scored))
    lines = [f"| {COLUMNS[score].heading} | " + " | ".join(methods) + " |", "|---|" + "---:|" * len(methods)]
    smallest = dict.fromkeys(methods, 0)
    places = list(dict.fromkeys(row.parameter for row in scored))
    for place in places:
        own = {row.method: row.scores[score] for row in scored if row.parameter == place}
        best = min(own, key=lambda method: own[method][0])
        smallest[best] += 1
        cells = [format_score(own.get(method)) for method in methods]
        cells = [f"**{cell}**" if method == best else cell for method, cell in zip(methods, cells, strict=True)]
        lines.append(f"| {place} | " + " | ".join(cells) + " |")
    counts = ", ".join(f"{method} {count} ×" for method, count in smallest.items() if count)
    return "\n".join([*lines, "", f"Smallest of {len(places)}: {counts}."])


def as_csv(rows: Sequence[Row]) -> str:
    """The table as CSV: full precision, two columns (mean, standard error) per score."""
    columns, texts = used_columns(rows), _text_columns(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*texts, "source", *(f"{name}{end}" for name in columns for end in ("", "_se"))])
    for row in rows:
        cells = [cell for name in columns for cell in row.scores.get(name, (None, None))]
        writer.writerow([*_texts(row, texts), row.source or "ours", *cells])
    return text.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    """The table as a JSON list of ``Row.as_json``."""
    return json.dumps([row.as_json() for row in rows], ensure_ascii=False, indent=1) + "\n"


def legend(rows: Sequence[Row]) -> str:
    """What the columns of a table mean."""
    used = [COLUMNS[name] for name in used_columns(rows)]
    other = next((row.over for row in rows if row.over), "")  # the same for all rows of a table
    taken = {column.heading.rstrip(" ↑↓"): column.over and (other or column.over) for column in used}
    averages = [
        f"Mean (standard error) over {over}: {', '.join(name for name in taken if taken[name] == over)}."
        for over in dict.fromkeys(filter(None, taken.values()))
    ]
    return " ".join([*averages, meanings(rows)])


def meanings(rows: Sequence[Row]) -> str:
    """What the scores of a table are."""
    texts = "; ".join(text for name in used_columns(rows) if (text := COLUMNS[name].meaning))
    return f"{texts}. Dimensionless; arrows say which way is better."


def _text_columns(rows: Sequence[Row]) -> list[str]:
    return ["parameter", "method", *(["sees"] if any(row.information for row in rows) else [])]


def _source_column(rows: Sequence[Row]) -> list[str]:
    """Whose numbers a row holds is said where not all are ours."""
    return ["source"] if any(row.source for row in rows) else []


def _source(row: Row, column: Sequence[str]) -> list[str]:
    return [row.source or "ours"] if column else []


def _texts(row: Row, columns: Sequence[str]) -> list[str]:
    texts = {"parameter": row.parameter, "method": row.method, "sees": row.information}
    return [texts[name] for name in columns]


def _score(value: float | list[float]) -> Score:
    return (value[0], value[1]) if isinstance(value, list) else (value, None)


def used_columns(rows: Sequence[Row]) -> list[str]:
    """Names of the scores that some row has, in the order of tables."""
    return [name for name in COLUMNS if any(name in row.scores for row in rows)]


def format_score(score: Score | None) -> str:
    """Three significant digits, the standard error in brackets; a dash for what is not known."""
    if score is None:
        return "—"
    mean, error = score
    spread = "" if error is None else f" ({_number(error)})"
    return _number(mean) + spread


def _number(value: float) -> str:
    """Three significant digits; fixed point where that is readable."""
    if value == 0:
        return "0"
    return f"{value:.2e}" if abs(value) < 0.01 or abs(value) >= 1000 else f"{value:.3g}"
