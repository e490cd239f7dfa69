"""Documents whose tables a program writes, between two marks that readers of the rendered page do not see."""

from collections.abc import Callable
from pathlib import Path

from experiments.errors import DataFileError
from experiments.storage import write_bytes


def marks(name: str) -> tuple[str, str]:
    """The two marks that ``python -m experiments.summary`` writes a part between."""
    return f"<!-- {name}: written by python -m experiments.summary -->", f"<!-- end of {name} -->"


def rewrite(page: Path, change: Callable[[str], str]) -> None:
    """Puts in the place of a document what is made of it, atomically."""
    write_bytes(page, change(page.read_text(encoding="utf-8")).encode())


def fill(text: str, begin: str, end: str, content: str) -> str:
    """A document with the content between its marks, in the place of what stood there.

    Args:
        text: The document.
        begin: The mark before the content, a line of its own.
        end: The mark after it.
        content: What to put there; empty for nothing.

    Raises:
        DataFileError: If a mark is missing, stands there twice, or the marks are in the wrong order.
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise DataFileError(
            f"The document needs the marks '{begin}' and '{end}' once each, in this order; put them on two lines where "
            "the table belongs."
        )
    before, rest = text.split(begin)
    _, after = rest.split(end)
    inner = f"\n\n{content}\n\n" if content else "\n"
    return f"{before}{begin}{inner}{end}{after}"
