"""The tables of the results page: cells with what they are sorted by, and which of ours and the paper's is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from experiments.tables import COLUMNS, Row, Score, format_score

PAPER = "paper_"
CORE = {
    "law": ("CE", "LL", "paper_LL", "MSE", "paper_MSE"),
    "boundary": ("relative_l2", "boundary"),
    "both": ("CRPS", "coverage90", "boundary", "conservation", "ratio", "paper_ratio"),
}
"""The scores that a table shows at first, by what it is about; a box above it shows the others."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Args:
        text: What stands in it; empty for a dash.
        error: Standard error, in brackets behind it.
        key: What a score is sorted by; None for text.
        mark: "ours" where our score is better than the paper's in the same row, "paper" where the paper's is.
        note: Smaller text below.
        colour: Colour of the method in the figures.
        link: Id of the place in the page that the text leads to.
    """

    text: str = ""
    error: str = ""
    key: float | None = None
    mark: str = ""
    note: str = ""
    colour: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Heading:
    """Head of a column.

    Args:
        text: What stands above it.
        numeric: Whether it holds numbers.
        extra: Whether it is hidden at first.
    """

    text: str
    numeric: bool = True
    extra: bool = False

    @property
    def largest_first(self) -> bool:
        """Whether the first click sorts from large to small, so that the best comes first."""
        return "↑" in self.text


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """One table.

    Args:
        caption: Its caption.
        headings: Heads of the columns; the first column holds the heads of the rows.
        rows: Cells by row.
    """

    caption: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def compared(self) -> int:
        """Scores that stand beside the paper's and differ from it."""
        return sum(bool(cell.mark) for row in self.rows for cell in row)

    @property
    def better(self) -> int:
        """Those of them that are better than the paper's."""
        return sum(cell.mark == "ours" for row in self.rows for cell in row)

    @property
    def extra(self) -> bool:
        """Whether some columns are hidden at first."""
        return any(heading.extra for heading in self.headings)


def result_tables(
    title: str,
    rows: Sequence[Row],
    labels: Mapping[str, str],
    colours: Mapping[str, str],
    core: Sequence[str],
) -> list[PageTable]:
    """One table for each parameter, and one for the paper's numbers at parameters that are none of ours.

    Args:
        title: The problem, for captions.
        rows: As ``experiments.tables.beside_paper`` gives them.
        labels: What captions call a parameter, where it differs from the rows.
        colours: Colour by method.
        core: Scores that are shown at first.

    Returns:
        The tables, with the same columns.
    """
    used = [name for name in COLUMNS if any(name in row.scores for row in rows)]
    ours = list(dict.fromkeys(row.parameter for row in rows if not of_paper(row)))
    result = []
    for parameter in ours:
        own = [row for row in rows if row.parameter == parameter]
        cells = tuple((_method(row, colours), *_scores(row, used)) for row in own)
        caption = f"{title}, {labels.get(parameter, parameter)}"
        result.append(PageTable(caption=caption, headings=_headings("method", used, core), rows=cells))
    others = [row for row in rows if row.parameter not in ours]
    if others:
        cells = tuple(
            (Cell(text=row.parameter, note=f"{row.method}; {row.source}; sees: {row.information}"), *_scores(row, used))
            for row in others
        )
        caption = f"{title}: numbers of the paper, each for another set-up than ours"
        result.append(PageTable(caption=caption, headings=_headings("set-up", used, core), rows=cells))
    return result


def glance(
    caption: str,
    entries: Sequence[tuple[str, str, str, Sequence[Row]]],
    methods: tuple[str, str],
    scores: Sequence[str],
) -> PageTable:
    """What a constraint does: a black box and its constrained form side by side, one line for each parameter.

    Args:
        caption: Caption of the table.
        entries: Problem, what captions call the parameter, id of the section, and the rows of the parameter.
        methods: Names of the black box ("before") and of the constrained method ("after"); lines without both are left
            out.
        scores: Names of the scores.

    Returns:
        The table, without standard errors; beside the constrained method stand the paper's numbers where known.
    """
    headings = [Heading(text="problem", numeric=False)]
    for name in scores:
        short, arrow = (
            COLUMNS[name].heading.rstrip(" ↑↓"),
            "\N{NO-BREAK SPACE}↑" if "↑" in COLUMNS[name].heading else "",
        )
        headings += [Heading(text=f"{short} {when}{arrow}") for when in ("before", "after")]
        headings += [Heading(text=f"paper's {short} after{arrow}")] if PAPER + name in COLUMNS else []
    lines = []
    for title, label, section, rows in entries:
        found = {row.method: row for row in rows if not of_paper(row)}
        if set(methods) <= found.keys():
            plain, constrained = (dict(zip(COLUMNS, _scores(found[name], COLUMNS), strict=True)) for name in methods)
            line = [Cell(text=title, note=label, link=section)]
            for name in scores:
                line += [replace(plain[name], mark="", error=""), replace(constrained[name], error="")]
                line += [replace(constrained[PAPER + name], error="")] if PAPER + name in COLUMNS else []
            lines.append(tuple(line))
    return PageTable(
        caption=f"{caption} (before: {methods[0]}, after: {methods[1]})", headings=tuple(headings), rows=tuple(lines)
    )


def of_paper(row: Row) -> bool:
    """Whether this library did not compute the row: it is published, or scored from the authors' weights."""
    return bool(row.source) and not row.source.startswith(("scored now", "stored run"))


def _headings(first: str, used: Sequence[str], core: Sequence[str]) -> tuple[Heading, ...]:
    scores = (Heading(text=COLUMNS[name].heading, extra=name not in core) for name in used)
    return (Heading(text=first, numeric=False), *scores)


def _method(row: Row, colours: Mapping[str, str]) -> Cell:
    note = "; ".join(part for part in (row.source, f"sees: {row.information}" if row.information else "") if part)
    return Cell(text=row.method, note=note, colour=colours.get(row.method, ""))


def _scores(row: Row, names: Sequence[str] | Mapping[str, object]) -> list[Cell]:
    marks = _marks(row)
    return [_score(row.scores.get(name), marks.get(name, ""), signed=name == "CE") for name in names]


def _score(score: Score | None, mark: str, signed: bool) -> Cell:
    if score is None:
        return Cell()
    mean, error = score
    return Cell(
        text=format_score((mean, None)),
        error="" if error is None else format_score((error, None)),
        key=abs(mean) if signed else mean,
        mark=mark,
    )


def _marks(row: Row) -> dict[str, str]:
    """By score: which is better where ours and the paper's stand in the same row."""
    marks = {}
    for name, score in row.scores.items():
        if PAPER + name in row.scores:
            gain = score[0] - row.scores[PAPER + name][0]
            gain = gain if "↑" in COLUMNS[name].heading else -gain
            if gain:
                marks[name if gain > 0 else PAPER + name] = "ours" if gain > 0 else "paper"
    return marks
