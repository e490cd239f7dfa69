"""The Python in the documents, run as it stands there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BOUNDARY_PAGE = ROOT / "docs" / "boundary_conditions.md"


def run_python(page: Path) -> dict[str, object]:
    """Runs a document's blocks of Python one after the other; gives everything that they define."""
    defined: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), defined)
    return defined
