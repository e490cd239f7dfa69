"""What several tests of experiments start from."""

from pathlib import Path

import pytest


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place to ship from."""
    root = tmp_path / "library"
    root.mkdir()
    monkeypatch.setattr("experiments.shipping.ROOT", root)
    return root
