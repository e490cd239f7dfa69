"""The README's example meets its law; the README is short, and its links resolve."""

import re
import tomllib
from pathlib import Path

import pytest
import torch

from probconserv import LinearConstraint
from probconserv.posterior import Posterior
from tests.documents import BOUNDARY_PAGE, README, ROOT, run_python


def test_the_example_meets_its_total() -> None:
    names = run_python(README)
    law, after = names["law"], names["after"]
    assert isinstance(law, LinearConstraint)
    assert isinstance(after, Posterior)
    # What is left of the total is the sum of rounding errors of its 201 terms.
    assert law.residual(after.mean).abs() <= 201 * torch.finfo(torch.float64).eps


def test_the_readme_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 120
    assert len(text.split()) <= 1000
    assert max(len(line) for line in lines if not line.startswith(("|", "!["))) <= 130
    assert len(text.split("```python")[0].split()) <= 60, "words before the first Python"


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = dict(re.findall(r"^([\w-]+): *(.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE))
    dated = r"^## (\S+) \(([\d-]+)\)$"  # the next release has no date yet
    newest = re.findall(dated, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert (citation["version"], citation["date-released"]) == newest
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


@pytest.mark.parametrize("page", [README, BOUNDARY_PAGE], ids=lambda page: page.name)
def test_every_link_to_a_file_resolves(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert links
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
