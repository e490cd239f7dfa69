"""The README's Python runs as written and keeps what its comments promise; the README is short."""

import re
import tomllib
from pathlib import Path

import pytest
import torch

from tests.documents import BOUNDARY_PAGE, README, ROOT, run_python


def test_the_example_keeps_total_and_sign() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = run_python(README)
    fields, start = names["fields"], names["start"]
    assert fields.shape == (8, 101, 1, 64, 64)
    assert fields.min() >= 0
    lost = (fields[:, -1] - start).double().mean((1, 2, 3))
    assert lost.abs().max() < 2 * torch.finfo(torch.float32).eps
    # Without the balance the operator loses mass at the sides.
    assert (names["step"](start) - start).mean().abs() > 1e-3


def test_the_readme_is_short() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(len(line) for line in lines if not line.startswith(("|", "!["))) <= 130
    assert sum(len(line.split()) for line in lines if not line.startswith("|")) <= 900, "tables apart"


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
