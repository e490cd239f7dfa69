"""The README's Python runs as written, block after block, and keeps what its comments promise."""

import re
import tomllib
from pathlib import Path

import pytest
import torch

from solvers.problems import PROBLEMS
from tests.documents import BOUNDARY_PAGE, README, ROOT, run_python


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    """Everything that the README's Python defines."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return run_python(README)


def test_the_constrained_prediction_meets_its_law_and_moves_where_it_is_unsure(names: dict) -> None:
    law, posterior, variance = names["law"], names["posterior"], names["standard_deviation"] ** 2
    assert law.residual(names["mean"]).abs().min() > 0.01
    for field in (posterior.mean, posterior.rsample(torch.Size([5]))):
        assert law.residual(field).abs().max() < 1e-12
    assert (posterior.variance < variance).all()
    # Inner nodes have equal weights, so the field moves in proportion to the variance.
    moved = ((posterior.mean - names["mean"]) / variance)[1:-1]
    assert torch.allclose(moved, moved.mean(), rtol=1e-9)
    assert moved.mean() > 0


def test_the_trained_network_meets_law_sign_and_order_near_the_truth(names: dict) -> None:
    front = names["front"]
    for field in (front.mean, front.rsample(torch.Size([4]))):
        assert names["total"].residual(field).abs().max() < 1e-6  # the network predicts in float32
        assert field.min() >= 0
        assert field.diff().max() <= 0
    truth = names["STEFAN"].solution(0.05, names["grid"].points, 0.6)
    assert (front.mean - truth).square().mean() < 1.9e-3  # the mean over 50 functions that Hansen et al. have


def test_the_reference_solution_conserves_and_is_accurate(names: dict) -> None:
    result, exponent = names["result"], names["exponent"]
    assert result.values.shape == (100, 1, 200)
    assert result.imbalance.abs().max() < 1e-12
    assert (result.total > 0).all()  # inflow only
    times = torch.tensor([0.5], dtype=torch.float64)
    truth = PROBLEMS["porous_medium"].averages(times, names["CellGrid"](0.0, 1.0, 200), exponent[:, None])
    # A fifth of a cell: fronts are smeared over a few cells by a scheme of first order.
    assert (result.values - truth).abs().mean(dim=-1).max() < 1e-3


def test_the_operator_meets_its_boundary_conditions(names: dict) -> None:
    u, operator = names["u"], names["operator"]
    assert u.shape == (8, 1, 129)
    assert torch.equal(u[..., 0], torch.zeros_like(u[..., 0]))
    h, size = 1 / 128, u.abs().max()
    gradient = (3 * u[..., -1] - 4 * u[..., -2] + u[..., -3]) / (2 * h)
    # Eight roundings of the field in float32 over the spacing.
    assert gradient.abs().max() < 8 * torch.finfo(torch.float32).eps * size / h
    assert u[..., 1:].std() > 1e-3
    assert (operator.operator(torch.randn(8, 1, 129))[..., 0] != 0).all()


def test_the_readme_is_short() -> None:
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if not line.startswith(("|", "!["))]
    assert len(lines) <= 160, "tables apart"
    assert max(map(len, lines)) <= 120


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
