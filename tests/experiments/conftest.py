"""What several tests of experiments start from."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from experiments import registry
from experiments.cli import main
from tests.experiments.stub import Stub, forget


class Ended(NamedTuple):
    """A command that has ended: its exit status and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Types a command: a text whose words it splits, and further words that it does not."""

    def typed(text: str, *words: Any) -> Ended:
        status = main([*text.split(), *map(str, words)])
        return Ended(status, *capsys.readouterr())

    return typed


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The folder of an empty release."""
    root = tmp_path / "library"
    root.mkdir()
    (root / "manifest.json").write_text(json.dumps({"data_versions": {}, "weights": {}}))
    return root


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A registered experiment that takes milliseconds."""
    entry = Stub()
    registry.register(entry.table, "takes no time", {"smoke": "1 s", "laptop": "2 s", "paper": "3 s"})
    yield entry
    forget(entry.name)
