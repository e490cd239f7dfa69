"""Every guide as a notebook, made from its page.

A block of Python becomes a cell with the output that the page shows below it.
Figures travel inside the notebook; links to other pages become their text,
since a notebook is read away from the site.
"""

import re
from base64 import b64encode
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4

from docs.blocks import BLOCK

GUIDES = Path(__file__).parent / "guides"
INSTALL = """*To run this notebook: `pip install -e '.[experiments]'` in a
clone of probconserv-boon, and `pip install jupyterlab` in the same environment.
The cells run in order, without a network.*"""
"""The cell after the first."""
OTHER_PACKAGES = ("boundary_conditions", "fields", "other_tools")
"""Guides to other packages; not everybody has these."""

_IMAGE = re.compile(r"!\[([^\]]*)\]\((?!http)([^)]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!http)[^)]+\)")


def guides() -> list[Path]:
    """The pages that become notebooks."""
    pages = sorted(GUIDES.glob("*.md"))
    return [page for page in pages if page.stem not in OTHER_PACKAGES]


def notebook(page: Path) -> NotebookNode:
    """A page as a notebook.

    Args:
        page: A page whose blocks of Python run in order.

    Returns:
        The notebook, valid in the format of Jupyter.
    """
    text, cells, end = page.read_text(encoding="utf-8"), [], 0
    for block in BLOCK.finditer(text):
        cells += _prose(text[end : block.start()], page)
        printed = block["output"]
        outputs = [v4.new_output("stream", text=printed)] if printed else []
        cells.append(v4.new_code_cell(block["code"].strip(), outputs=outputs))
        end = block.end()
    cells += _prose(text[end:], page)
    cells.insert(1, v4.new_markdown_cell(INSTALL))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # else random, and every build another file
    kernel = {"name": "python3", "display_name": "Python 3"}
    made = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.validate(made)
    return made


def _prose(text: str, page: Path) -> list[NotebookNode]:
    """The cell of the text between two blocks; none if there is no text."""
    if not text.strip():
        return []
    figures: dict[str, dict[str, str]] = {}

    def attach(image: re.Match[str]) -> str:
        file = page.parent / image[2]
        content = b64encode(file.read_bytes()).decode("ascii")
        figures[file.name] = {"image/png": content}
        return f"![{image[1]}](attachment:{file.name})"

    shown = _LINK.sub(r"\1", _IMAGE.sub(attach, text.strip()))
    more = {"attachments": figures} if figures else {}
    return [v4.new_markdown_cell(shown, **more)]
