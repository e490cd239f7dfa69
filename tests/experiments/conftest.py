"""What several tests of experiments start from."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import registry
from tests.experiments.stub import Stub, forget


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The folder of an empty release."""
    root = tmp_path / "library"
    root.mkdir()
    (root / "manifest.json").write_text(json.dumps({"data_versions": {}, "weights": {}, "experiments": {}}))
    return root


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A registered experiment that takes milliseconds."""
    entry = Stub()
    registry.register(entry, "takes no time", {"smoke": "1 s", "laptop": "2 s", "paper": "3 s"})
    yield entry
    forget(entry.name)
