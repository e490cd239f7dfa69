"""The Python in the documents: runs it as it stands there, and keeps what it prints below it.

``python -m tests.documents`` runs every page that shows output, writes below each block what it prints, and puts the
figures into ``docs/figures``; ``python -m tests.documents PAGE ...`` does so for some pages.
"""

import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stdout
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

import torch

from docs.blocks import BLOCK, OUTPUT

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
BOUNDARY_PAGE = DOCS / "guides" / "boundary_conditions.md"
GUIDES = DOCS / "guides"
OPTIONAL = ("neuralop", "xarray", "skfem", "huggingface_hub")
"""Packages that a page may show without every reader having them."""

_TOLERANCE, _ROUND_OFF = 0.05, 1e-6
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?%?")


def pages_with_output() -> list[Path]:
    """The pages that show what their blocks print."""
    single = [DOCS / f"{name}.md" for name in ("concepts", "which", "baselines", "from_0_4_to_0_5")]
    return [README, *single, *sorted(GUIDES.glob("*.md")), *sorted((DOCS / "reference").rglob("*.md"))]


def run_python(page: Path, left_out: Sequence[str] = ()) -> dict[str, object]:
    """Runs the blocks of a document one after the other; returns everything that they define.

    Args:
        page: The document.
        left_out: Packages; blocks that import one of them are not run.
    """
    defined: dict[str, object] = {}
    for _ in run_blocks(page, defined, left_out):
        pass
    return defined


def run_blocks(page: Path, defined: dict[str, object], left_out: Sequence[str] = ()) -> Iterator[str | None]:
    """Runs the blocks of a document one after the other; yields what each prints, None for one that is not run.

    Args:
        page: The document.
        defined: Takes the names that the blocks define.
        left_out: See ``run_python``.
    """
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if any(re.search(rf"^(from|import) {name}\b", block["code"], flags=re.MULTILINE) for name in left_out):
            yield None
            continue
        with redirect_stdout(io.StringIO()) as printed:
            lines_before = "\n" * text.count("\n", 0, block.start("code"))  # tracebacks then name the page's line
            exec(compile(lines_before + block["code"], str(page), "exec"), defined)
        yield printed.getvalue()


def shown_code(page: Path) -> list[str]:
    """The code of each block of a document."""
    return [block["code"] for block in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def shown_output(page: Path) -> list[str]:
    """The output that a document shows below each of its blocks, empty where it shows none."""
    return [block["output"] or "" for block in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def with_output(text: str, printed: Sequence[str | None]) -> str:
    """A document with new output below each block.

    Args:
        text: The document.
        printed: What each block printed; None leaves the output as it is.
    """
    outputs = iter(printed)

    def renew(block: re.Match[str]) -> str:
        output = next(outputs)
        if output is None:
            return block[0]
        return f"```python\n{block['code']}```\n" + (f"\n{OUTPUT}{output}```\n" if output else "")

    return BLOCK.sub(renew, text)


def reads_records(code: str) -> bool:
    """Whether a block prints released results, which are the same on every machine."""
    return re.search(r"^(from|import) experiments\.records\b", code, flags=re.MULTILINE) is not None


def agree(shown: str, printed: str, exactly: bool = False) -> bool:
    """Whether two outputs are the same up to what differs between processors.

    Words and whole numbers must be equal. Other numbers may differ by 5 %, and numbers below 1e-6 count as round-off. A
    number that differs by more from one processor to another says nothing to a reader: the page prints a statement that
    holds on all of them instead.

    Args:
        shown: Output in the document.
        printed: Output of a run.
        exactly: Whether they must be equal, as those of blocks that read records.
    """
    if exactly:
        return shown == printed
    if [part.split() for part in _NUMBER.split(shown)] != [part.split() for part in _NUMBER.split(printed)]:
        return False
    pairs = zip_longest(_NUMBER.findall(shown), _NUMBER.findall(printed))
    return all(first == second or _close(first, second) for first, second in pairs)


def missing_packages() -> list[str]:
    """The optional packages that are not installed."""
    return [name for name in OPTIONAL if find_spec(name) is None]


def _close(first: str, second: str) -> bool:
    if re.fullmatch(r"[-+]?\d+", first) or re.fullmatch(r"[-+]?\d+", second):
        return False
    if first.endswith("%") != second.endswith("%"):
        return False
    a, b = (float(number.rstrip("%")) for number in (first, second))
    return max(abs(a), abs(b)) < _ROUND_OFF or abs(a - b) <= _TOLERANCE * max(abs(a), abs(b))


def _renew(page: Path) -> None:
    """Writes output and figures of a page anew."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        printed = list(run_blocks(page, {}, missing_packages()))
        for figure in Path(folder).glob("*.png"):
            shutil.copy(figure, DOCS / "figures" / figure.name)
    page.write_text(with_output(page.read_text(encoding="utf-8"), printed), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or pages_with_output():
        _renew(Path(name).resolve())
