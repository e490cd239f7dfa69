"""Costs on the results page: those measured in ``docs/benchmarks.md``, and the times of trainings that were stored."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from experiments.report_tables import Cell, Heading, PageTable

BENCHMARKS_PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
"""Part of a checkout and of the source distribution, not of an installed package."""


def measured_costs(page: Path) -> str:
    """The page of measured costs as HTML, its headings one level lower and without its title; empty if it is not there.

    Args:
        page: Markdown with tables.
    """
    if not page.is_file():
        return ""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens, heading = [], ""
    for token in markdown.parse(page.read_text(encoding="utf-8")):
        if token.type == "inline":
            heading = token.content.replace("`", "") if tokens[-1].type == "heading_open" else heading
            token.children = _without_relative_links(token.children or [])
        tokens.append(_adapted(token, heading))
    titled = next((i for i, token in enumerate(tokens) if token.tag == "h2" and token.nesting == -1), -1)
    return markdown.renderer.render(tokens[titled + 1 :], markdown.options, {})


def training_times(contents: Iterable[tuple[str, dict[str, Any]]]) -> list[PageTable]:
    """Time of every training whose results are in the page: of neural processes, and of operators.

    Args:
        contents: Title of the problem and its stored results.
    """
    processes, operators = [], []
    for title, content in contents:
        for role, note in content.get("networks", {}).items():
            steps = Cell(text=f"{note['steps']:,}", key=note["steps"])
            processes.append((Cell(text=title, note=role), steps, _time(note["seconds"])))
        for entry in content.get("trainings", []):
            steps = Cell(text=f"{entry['sizes']['steps']:,}", key=entry["sizes"]["steps"])
            name = Cell(text=title, note=f"{entry['parameter']}; {entry['method']}")
            operators.append((name, steps, _time(entry["seconds"][0])))
    headings = (Heading(text="network", numeric=False), Heading(text="steps"), Heading(text="time"))
    captions = {"Training of the neural processes": processes, "Training of the operators, one thread each": operators}
    return [
        PageTable(caption=caption, headings=headings, rows=tuple(rows)) for caption, rows in captions.items() if rows
    ]


def _time(seconds: float) -> Cell:
    text = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return Cell(text=text, key=seconds)


def _adapted(token: Token, heading: str) -> Token:
    """A token of the page one heading level lower, tables scrolling and named by the heading above them."""
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{int(token.tag[1]) + 1}"
    elif token.type == "table_open":
        region = f'<div class="scroll" role="group" aria-label="Table: {escape(heading)}">'
        return Token("html_block", "", 0, content=f'{region}<table><caption class="sr">{escape(heading)}</caption>')
    elif token.type == "table_close":
        return Token("html_block", "", 0, content="</table></div>")
    elif token.type in ("th_open", "td_open"):
        right = "right" in str(token.attrs.pop("style", ""))
        token.attrs |= {"scope": "col"} if token.type == "th_open" else {}
        token.attrs |= {"class": "number"} if right else {}
    return token


def _without_relative_links(tokens: list[Token]) -> list[Token]:
    """Inline tokens whose links lead out of the project's folder; other links become plain text."""
    kept, dropped = [], False
    for token in tokens:
        if token.type == "link_open":
            dropped = not str(token.attrs["href"]).startswith(("http://", "https://"))
        if not (token.type in ("link_open", "link_close") and dropped):
            kept.append(token)
    return kept
