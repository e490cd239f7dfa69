"""The README's Python runs as written, block after block, and keeps what its comments promise."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    """Everything that the README's Python defines."""
    defined: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(README), "exec"), defined)
    return defined


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


def test_every_link_to_a_file_resolves() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    missing = [link for link in links if not (README.parent / link).exists()]
    assert not missing
