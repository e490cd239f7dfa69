"""The example of CONTRIBUTING: a problem and its methods, from nothing to their rows in the report."""

import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import registry
from experiments.cli import main
from experiments.options import CATALOGUE
from experiments.report import page
from tests.documents import ROOT

NAME = "cooling_rod"


@pytest.fixture
def example() -> Iterator[types.ModuleType]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Add a problem, add a method")[1].split("\n## ")[0]
    module = types.ModuleType(NAME)
    exec("\n".join(re.findall(r"```py\n(.*?)```", section, flags=re.DOTALL)), vars(module))
    yield module
    del registry._registered[NAME], CATALOGUE[NAME]


def test_a_problem_and_a_method_of_contributing_have_their_rows_in_the_report(
    example: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "released_names", list)  # a page of this run alone
    monkeypatch.setattr(page, "COMPARED", {})
    labels = [method.label for method in example.METHODS]
    assert labels == ["readings", "readings + heat", "readings, shifted"]
    assert main(["run", NAME, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(label in printed for label in labels)
    file = tmp_path / "report.html"
    assert main(["report", "--out", str(tmp_path), "--file", str(file)]) == 0
    html = file.read_text(encoding="utf-8")
    section = html.split(f'<section id="{NAME}-run"')[1].split("<section id=")[0]
    assert all(label in section for label in labels)
