"""A notebook of the site has the code, the output and the figures of its guide, and is valid."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from docs.notebooks import guides, notebook
from tests.documents import ROOT, shown_output

FENCED = re.compile(r"^```python\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", guides(), ids=lambda page: page.stem)
def test_cells_are_the_code_of_the_page(page: Path) -> None:
    made, text = notebook(page), page.read_text(encoding="utf-8")
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code] == [block.strip() for block in FENCED.findall(text)]
    outputs = ["".join(output.text for output in cell.outputs) for cell in code]
    assert outputs == shown_output(page)
    prose = [cell for cell in made.cells if cell.cell_type == "markdown"]
    words = "\n".join(cell.source for cell in prose)
    assert re.findall(r"^#+ .*", words, re.MULTILINE) == re.findall(r"^#+ .*", FENCED.sub("", text), re.MULTILINE)
    assert words.split()[-1] == re.sub(r"\[|\]\([^)]*\)", "", text).split()[-1]
    assert sum(len(cell.get("attachments", {})) for cell in prose) == len(re.findall(r"!\[", text))
    assert not any(re.search(r"\]\((?!http|attachment)", cell.source) for cell in prose)


@pytest.mark.parametrize("page", guides(), ids=lambda page: page.stem)
def test_a_notebook_says_first_what_it_needs_and_needs_no_more(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["experiments"]
    installed = {re.split(r"[^\w]", entry)[0] for entry in needed} | {"solvers", "probconserv", "boon", "experiments"}
    cells = notebook(page).cells
    assert "pip install -e '.[experiments]'" in cells[1].source
    statements = [node for cell in cells if cell.cell_type == "code" for node in ast.parse(cell.source).body]
    names = {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in statements if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= installed | sys.stdlib_module_names
