"""The Python in the documents, run as it stands there.

``python -m tests.documents PAGE`` runs a page in the current folder, where its figures then are.
"""

import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BOUNDARY_PAGE = ROOT / "docs" / "boundary_conditions.md"
TUTORIALS = ROOT / "docs" / "tutorials"
OPTIONAL = ("neuralop",)
"""Packages that a page may show without every reader having them."""


def run_python(page: Path, left_out: Sequence[str] = ()) -> dict[str, object]:
    """Runs a document's blocks of Python one after the other; gives everything that they define.

    Args:
        page: The document.
        left_out: Packages; blocks that import one of them are not run.
    """
    defined: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        if not any(re.search(rf"^(from|import) {name}\b", block, flags=re.MULTILINE) for name in left_out):
            exec(compile(block, str(page), "exec"), defined)
    return defined


def missing_packages() -> list[str]:
    """The optional packages that are not installed."""
    return [name for name in OPTIONAL if find_spec(name) is None]


if __name__ == "__main__":
    run_python(Path(sys.argv[1]), missing_packages())
