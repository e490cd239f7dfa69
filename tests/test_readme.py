"""The README's Python runs as written, block after block, and keeps what its comments promise."""

import re
from pathlib import Path

import pytest
import torch

from tests.documents import BOUNDARY_PAGE, README, run_python


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    """Everything that the README's Python defines."""
    return run_python(README)


def test_the_constrained_prediction_meets_its_law(names: dict) -> None:
    assert names["law"].residual(names["posterior"].mean).abs().max() < 1e-12
    assert (names["posterior"].variance <= names["deviation"] ** 2).all()


def test_the_wrapped_surrogate_meets_its_law(names: dict) -> None:
    assert names["model"].constraint.residual(names["prediction"].mean).abs().max() < 1e-12


def test_the_trained_network_meets_law_sign_and_order(names: dict) -> None:
    mean = names["front"].mean
    assert names["stefan"].residual(mean).abs().max() < 1e-6  # the network predicts in float32
    assert mean.min() >= 0
    assert mean.diff().max() <= 0


def test_the_reference_solution_conserves(names: dict) -> None:
    result = names["result"]
    assert result.values.shape == (100, 2, 200)
    assert result.imbalance.abs().max() < 1e-12


def test_the_operator_meets_its_boundary_conditions(names: dict) -> None:
    u = names["u"]
    assert torch.equal(u[..., 0], torch.zeros_like(u[..., 0]))


@pytest.mark.parametrize("page", [README, BOUNDARY_PAGE], ids=lambda page: page.name)
def test_every_link_to_a_file_resolves(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert links
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
