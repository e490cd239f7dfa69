"""Config hashes: what decides them, and what does not."""

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest

from boon import MixedTransform
from experiments import registry
from experiments.experiment import RunContext, RunOptions, Training
from experiments.records import store
from experiments.records.record import Source
from tests.documents import ROOT


@dataclass(frozen=True)
class Config:
    """A config with a field that decides nothing."""

    steps: int = 3
    threads: int = field(default=1, compare=False)


@dataclass(frozen=True)
class Older:
    """A config with an option that came after its release."""

    steps: int = 3
    dropout: float = 0.0
    slopes: float = field(default=0.0, metadata={"later": True})


@dataclass(frozen=True)
class Newer:
    """The same without an option that left."""

    former: ClassVar = {"dropout": 0.0}
    steps: int = 3
    slopes: float = field(default=0.0, metadata={"later": True})


def test_only_what_decides_a_result_changes_its_hash() -> None:
    training = Training(key="anp", label="ANP", folder="nets", config=Config(), data_version=1)
    relabelled = replace(training, label="another", config=Config(threads=8), folder="elsewhere")
    assert relabelled.hash == training.hash
    assert replace(training, data_version=2).hash != training.hash
    assert replace(training, config=Config(steps=4)).hash != training.hash
    assert store.config_hash({"a": 1, "b": 2}) == store.config_hash({"b": 2, "a": 1})
    assert store.as_json({"source": Source.COMPUTED, 1: (Config(),)}) == {
        "source": "COMPUTED",
        "1": [{"type": "Config", "steps": 3}],
    }
    assert store.as_json(MixedTransform()) == {"type": "MixedTransform", "share": 0.5, "length": 0.01}
    assert store.as_json(MixedTransform(floor=1.0))["floor"] == 1.0


def test_options_that_came_or_left_change_no_hash_where_they_are_not_used() -> None:
    assert store.as_json(Newer()) == store.as_json(Older()) | {"type": "Newer"}
    assert store.as_json(Newer(slopes=1.0)) == store.as_json(Older(slopes=1.0)) | {"type": "Newer"}
    assert "dropout" not in store.as_json(replace(Config(), steps=4))


def all_hashes() -> dict[str, str]:
    """Hashes of all cases and trainings of all experiments."""
    hashes, context = {}, RunContext(options=RunOptions(preset="laptop"))
    for name in registry.CATALOGUE:
        entry = registry.table(name)
        for case in entry.cases(context):
            hashes[f"{name}, {case.key}"] = store.config_hash(store.as_json(case.config))
            for method in entry.methods(case):
                for training in entry.trainings(case, method, 0, context):
                    hashes[f"{name}, {case.key}, {method.key}, {training.key}"] = training.hash
    return hashes


@pytest.mark.slow
def test_comments_docstrings_and_format_of_the_sources_change_no_hash(tmp_path: Path) -> None:
    """All packages are parsed and printed again, which leaves out comments, and get other docstrings."""
    for package in ("experiments", "solvers", "probconserv", "boon"):
        leave_out = shutil.ignore_patterns("weights", "results", "__pycache__", "figures")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=leave_out)
    for file in tmp_path.rglob("*.py"):
        printed = ast.unparse(ast.parse(file.read_text()))
        file.write_text(printed.replace('"""', '"""Another word. ', 1) + "\n# A comment.\n")
    (tmp_path / "hashes.py").write_text(Path(__file__).read_text())
    script = (
        "import json, sys; sys.path[1:1] = sys.argv[1:]; from hashes import all_hashes; print(json.dumps(all_hashes()))"
    )
    command = [sys.executable, "-c", script, str(ROOT)]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == all_hashes()
