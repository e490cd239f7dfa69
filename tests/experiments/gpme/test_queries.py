"""Laws drawn with the query: what they average, rows that keep them, scores against another package, a run."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import driver
from experiments.experiment import RunContext, RunOptions
from experiments.gpme.cases import Case, Sizes
from experiments.gpme.functions import MEMBERS, Member
from experiments.gpme.queries import methods, network
from experiments.gpme.queries.cases import QueryCase, rays, windows
from experiments.gpme.queries.experiment import QueryLawExperiment
from experiments.gpme.queries.methods import METHODS, drawn
from probconserv import scores
from solvers import CellGrid

TINY = Sizes(training=80, validation=4, test=3, draws=20)
LINE, SQUARE = replace(MEMBERS[0], cells=24), replace(MEMBERS[2], cells=12)
UNTRAINED = [method for method in METHODS if not method.networks and not method.missing]
TOLD = {"weighted", "search", "esmda"}
"""Bases that are told the laws, and meet them roughly."""


def query_case(folder: Path, member: Member = LINE, laws: int = 3, **more: object) -> QueryCase:
    base = Case(member=member, count=5, sizes=TINY, seed=0, folder=folder)
    kind = windows if member.grid.dimension == 1 else rays
    return QueryCase(base=base, rows=kind, laws=laws, **more)  # type: ignore[arg-type]


def test_windows_average_over_their_widths_and_rays_over_their_lengths() -> None:
    generator = torch.Generator().manual_seed(0)
    widths = windows(CellGrid(0.0, 1.0, 200), 50, generator).sum(dim=-1)
    assert 0.095 < float(widths.min()) < float(widths.max()) < 0.405  # half a cell more or less
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (64, 64))
    rows = rays(grid, 40, generator)
    assert torch.allclose(rows.sum(dim=-1), torch.ones(40).double())
    (x, y), plane = grid.axes, rows.reshape(40, 64, 64)
    touched = (plane[:, [0, -1]] > 0).any(dim=(1, 2)) | (plane[:, :, [0, -1]] > 0).any(dim=(1, 2))
    assert bool(touched.all()), "a ray goes from side to side"
    linear = torch.einsum("rxy,xy->r", plane, x[:, None] + 2 * y)
    middles = [(row > 0).nonzero().double().add(0.5).div(64) for row in plane]
    ends = torch.stack(
        [0.5 * (points.amin(0) + points.amax(0)) @ torch.tensor([1.0, 2.0]).double() for points in middles]
    )
    assert float((linear - ends).abs().max()) < 2 * 3 / 64, "the mean of a linear field is that of the middle"


@pytest.mark.parametrize("member", [LINE, SQUARE], ids=lambda member: member.name)
def test_laws_of_a_query_are_independent_and_true(member: Member, tmp_path: Path) -> None:
    for more in ({}, {"empty": True}, {"error": 0.1}):
        if more.get("empty") and member is SQUARE:
            continue
        observed = query_case(tmp_path, member, 4, **more).observed("test", 0)
        assert torch.linalg.matrix_rank(observed.law.rows).tolist() == [4] * TINY.test
        missed = observed.law.residual(observed.truth).abs().max()
        assert (float(missed) > 1e-3) == ("error" in more)
        if "empty" in more:
            least = observed.truth.unfold(-1, 2, 1).sum(dim=-1).amin(dim=-1) / 24
            assert torch.allclose(observed.law.b[:, 0], least, atol=1e-15)


@pytest.mark.parametrize("member", [LINE, SQUARE], ids=lambda member: member.name)
def test_rows_meet_their_laws_and_bounds(member: Member, tmp_path: Path) -> None:
    own = query_case(tmp_path, member)
    for method in UNTRAINED:
        draws, observed, _ = drawn(own, method, 0, [])
        residual = float(observed.law.residual(draws).abs().max())
        assert draws.shape[1:] == observed.truth.shape
        if method.constrained or method.key.startswith(("identity", "bounded")):
            assert residual < 1e-9, method.key
        if method.imposed is None:
            assert float(draws.min()) >= -1e-12, method.key
        if method.key == "hardc":
            assert float(observed.law.residual(draws.mean(dim=0)).abs().max()) < 0.1
            assert residual > 1e-3, "its mean alone meets the laws"


def test_the_update_of_a_mixture_has_its_mean(tmp_path: Path) -> None:
    """Draws by component and deviation against the moments of the conditioned prediction, within four errors."""
    own = query_case(tmp_path)
    own = replace(own, base=replace(own.base, sizes=replace(TINY, draws=4000)))
    method = next(method for method in METHODS if method.key == "law-weighted")
    draws, _, _ = drawn(own, method, 0, [])
    (asked, prediction), *_ = methods._predicted("weighted", own, 0, ())[0]
    exact = methods.condition(prediction, asked.observed.law)
    deviation = exact.variance.clamp_min(0).sqrt()
    assert bool(((draws.mean(dim=0) - exact.mean).abs() <= 4.5 * deviation / 4000**0.5 + 1e-9).all())
    assert torch.allclose(draws.std(dim=0), deviation, atol=0.01)


def naive_crps(truth: np.ndarray, draws: np.ndarray) -> np.ndarray:
    count, pairs = len(draws), np.abs(draws[:, None] - draws[None]).sum(axis=(0, 1))
    return np.abs(draws - truth).mean(axis=0) - pairs / (2 * count * (count - 1))


def naive_energy(truth: np.ndarray, draws: np.ndarray) -> float:
    count = len(draws)
    pairs = sum(float(np.linalg.norm(a - b)) for a in draws for b in draws)
    return float(np.linalg.norm(draws - truth, axis=-1).mean()) - pairs / (2 * count * (count - 1))


def test_scores_are_those_of_scoringrules() -> None:
    """Fair estimators; where the package is not installed, sums over all pairs."""
    generator = torch.Generator().manual_seed(0)
    truth, draws = torch.randn(7, generator=generator).double(), torch.randn(9, 7, generator=generator).double()
    u, x = truth.numpy(), draws.numpy()
    crps, energy = naive_crps(u, x).mean(), naive_energy(u, x)
    if importlib.util.find_spec("scoringrules"):
        import scoringrules

        assert np.mean(scoringrules.crps_ensemble(u, x, m_axis=0, estimator="fair")) == pytest.approx(crps, rel=1e-12)
        assert scoringrules.es_ensemble(u, x, m_axis=0, v_axis=-1, estimator="fair") == pytest.approx(energy, rel=1e-12)
    assert float(scores.crps_of_samples(truth, draws)) == pytest.approx(crps, rel=1e-12)
    assert float(scores.energy_score(truth, draws)) == pytest.approx(energy / 7**0.5, rel=1e-12)


def test_a_run_trains_the_network_scores_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(network.STEPS, "smoke", 4)  # type: ignore[arg-type]
    experiment = QueryLawExperiment(line=LINE, square=SQUARE, sizes={"smoke": TINY})
    rows = ("none", "identity", "law-weighted", "network", "law-network", "bounded-law-network")
    report = driver.run(experiment.table, RunOptions(out=tmp_path, cases=("windows-2", "windows-4"), methods=rows))
    residual = report.records[report.records["score"] == "law_residual"].set_index(["case", "method"])["mean"]
    assert (residual.drop(["none", "network"], level="method") < 1e-7).all(), "the network works in single precision"
    assert np.isfinite(report.records["mean"]).all()
    files = {file.name for file in report.files}
    assert {"over-laws.png", "validation-windows-2.png"} <= files


def test_the_smoother_is_left_out_without_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(methods.importlib.util, "find_spec", lambda _: None)
    jobs = driver.plan(QueryLawExperiment().table, RunContext(options=RunOptions(out=tmp_path)))
    assert not [job for job in jobs if "esmda" in job.method.key]
    assert "Methods that need the package iterative-ensemble-smoother are left out" in capsys.readouterr().err
