"""Rollouts: basins, the stepper, the fixers and the scores, against naive restatements; the experiment."""

from dataclasses import replace
from math import pi
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments import driver
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunOptions
from experiments.fields import fixers, rollout
from experiments.fields.basins import Basins, Pairs, coarse_step, fit_stepper, monomials, pairs_of
from experiments.fields.fixers import RANK, mean_depth
from experiments.fields.rollout_experiment import METHODS
from experiments.records.store import read_records
from tests.experiments.fields.tiny import SHORT, tiny_rollout
from tests.strategies import normal

BASINS = Basins(count=2, stream=0, seed=0, cells=8, steps=4)
PREPARED = {method.key: method.prepare for method in METHODS if method.prepare}


def water(count: int = 2, n: int = 6) -> Tensor:
    """States with depths around 1."""
    state = 0.1 * normal(count, 3, n, n)
    state[:, 0] += 1.0
    return state


def test_basins_keep_their_mass_and_are_drawn_by_seed_and_stream(tmp_path: Path) -> None:
    states = BASINS.states(tmp_path)
    assert tuple(states.shape) == (2, 5, 3, 8, 8)
    assert states.dtype == torch.float64
    assert (mean_depth(states) / mean_depth(states[:, :1]) - 1).abs().max() < 1e-14
    assert states[:, 0, 1:].abs().max() == 0
    assert states[:, 1, 1:].abs().max() > 1e-3
    assert torch.equal(replace(BASINS, count=1).states(tmp_path)[0], states[0])
    for other in (replace(BASINS, seed=1), replace(BASINS, stream=1)):
        assert (other.states(tmp_path)[:, 0, 0] - states[:, 0, 0]).abs().amax(dim=(1, 2)).min() > 1e-3
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_monomials_are_those_of_the_state_and_its_mirror_images() -> None:
    state = water(1)
    features = monomials(state)[0]
    n, found = 6, {}
    level = state[0] - torch.tensor([1.0, 0.0, 0.0])[:, None, None]

    def at(channel: int, i: int, j: int) -> float:
        sign = 1.0
        if not 0 <= i < n:
            i, sign = -1 - i if i < 0 else 2 * n - 1 - i, sign * (-1.0 if channel == 1 else 1.0)
        if not 0 <= j < n:
            j, sign = -1 - j if j < 0 else 2 * n - 1 - j, sign * (-1.0 if channel == 2 else 1.0)
        return sign * float(level[channel, i, j])

    for i, j in ((0, 0), (3, 2), (5, 4)):
        linear = [at(c, i + a, j + b) for c in range(3) for a in range(-2, 3) for b in range(-2, 3)]
        near = [at(c, i + a, j + b) for c in range(3) for a, b in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))]
        products = [near[p] * near[q] for p in range(len(near)) for q in range(p, len(near))]
        found[i, j] = [1.0, *linear, *products]
        assert features[i, j].tolist() == pytest.approx(found[i, j], abs=1e-15)


def test_the_fit_finds_a_correction_that_is_one() -> None:
    coarse = torch.cat([water(30, 8), 1.0 + 0.2 * normal(1, 3, 8, 8, seed=9)])
    weights = normal(monomials(coarse).shape[-1], 3, seed=1)
    missed = (monomials(coarse) @ weights).movedim(-1, 1)
    fitted = fit_stepper(BASINS, Pairs(coarse, coarse, coarse + missed), 1e-14)
    assert (fitted.weights - weights).abs().max() < 1e-5
    assert fit_stepper(BASINS, Pairs(coarse, coarse, coarse + missed), 1.0).weights.norm() < 0.9 * weights.norm()


def test_the_coarse_solver_keeps_mass_and_the_correction_does_not(tmp_path: Path) -> None:
    pairs = pairs_of(BASINS, BASINS.states(tmp_path), every=2)
    assert tuple(pairs.state.shape) == (4, 3, 8, 8)
    states = BASINS.states(tmp_path)
    assert torch.equal(pairs.truth[1], states[0, 3])
    kept = mean_depth(coarse_step(BASINS, pairs.state)) - mean_depth(pairs.state)
    assert kept.abs().max() < 1e-14
    stepper = fit_stepper(BASINS, pairs, 1e-6)
    state, correction = stepper(states[:, 0])
    assert torch.allclose(state - correction, coarse_step(BASINS, states[:, 0]), rtol=0, atol=1e-15)
    assert (mean_depth(state) - mean_depth(states[:, 0])).abs().min() > 1e-9


@pytest.mark.parametrize("key", PREPARED)
@pytest.mark.parametrize(("dtype", "eps"), [(torch.float64, 2.2e-16), (torch.float32, 1.2e-7)])
def test_fixers_put_the_mass_right(key: str, dtype: torch.dtype, eps: float) -> None:
    error, correction = (0.1 * normal(30, 3, 6, 6, seed=seed).to(dtype) for seed in (1, 2))
    fixer = PREPARED[key](error, correction)  # type: ignore[misc]
    state, depth = water().to(dtype), torch.tensor([0.9, 1.2], dtype=dtype)
    before = state.clone()
    fixed = fixer(state, correction[:2], depth)
    assert fixed.dtype == dtype
    assert torch.equal(state, before), "a fixer leaves its input alone"
    assert ((mean_depth(fixed) - depth).abs().max() < 10 * eps) == (key != "nothing")


def test_fixers_change_what_they_say() -> None:
    error, correction = 0.1 * normal(30, 3, 6, 6, seed=1), 0.1 * normal(30, 3, 6, 6, seed=2)
    state, depth = water(), torch.tensor([0.9, 1.2], dtype=torch.float64)
    lacking = depth - mean_depth(state)
    change = {
        key: prepare(error, correction)(state, correction[:2], depth) - state
        for key, prepare in PREPARED.items()
        if prepare
    }
    flat = error.flatten(1)
    _, s, V = torch.linalg.svd(flat / 30**0.5, full_matrices=False)
    root = V[:RANK].mT * s[:RANK]
    sigma = root @ root.mT
    sigma = sigma + torch.diag(flat.square().mean(dim=0) - sigma.diagonal())
    G = torch.zeros(108, dtype=torch.float64)
    G[:36] = 1 / 36
    expected = {
        "shift": lacking[:, None, None] * torch.ones(6, 6),
        "scale": state[:, 0] * (depth / mean_depth(state) - 1)[:, None, None],
        "update-diagonal": lacking[:, None, None] * _share(error[:, 0].square().mean(dim=0)),
        "update-low-rank": lacking[:, None, None] * (sigma @ G / (G @ sigma @ G))[:36].reshape(6, 6),
    }
    for key, values in expected.items():
        assert torch.allclose(change[key][:, 0], values, rtol=0, atol=1e-13), key
    moved = {key for key, each in change.items() if each[:, 1:].abs().max() > 1e-12}
    assert moved == {"update-low-rank"}, "only correlated errors move the momenta"


def _share(variance: Tensor) -> Tensor:
    return variance / variance.mean(dim=(-2, -1), keepdim=True)


def test_the_variance_by_correction_is_found_and_used() -> None:
    correction = normal(400, 3, 6, 6, seed=3)
    error = (0.5 + 2.0 * correction.square()).sqrt() * normal(400, 3, 6, 6, seed=4)
    state, depth = water(), torch.tensor([0.9, 1.2], dtype=torch.float64)
    change = fixers.by_correction(error, correction)(state, correction[:2], depth)[:, 0] - state[:, 0]
    expected = (depth - mean_depth(state))[:, None, None] * _share(0.5 + 2.0 * correction[:2, 0].square())
    assert (change - expected).norm() < 0.1 * expected.norm()
    never = fixers.by_correction(0.0 * correction + 1.0, correction)(state, correction[:2], depth)[:, 0] - state[:, 0]
    assert torch.allclose(never, (depth - mean_depth(state))[:, None, None].expand(never.shape), atol=1e-12)


def test_a_rollout_steps_fixes_and_counts_what_was_changed() -> None:
    def stepper(state: Tensor) -> tuple[Tensor, Tensor]:
        return state + 0.25, torch.zeros_like(state)

    start = water()
    states, changed = rollout.roll_out(stepper, fixers.nothing(start, start), start, 3)  # type: ignore[arg-type]
    assert torch.allclose(states[:, 3], start + 0.75)
    assert changed.abs().max() == 0
    states, changed = rollout.roll_out(stepper, fixers.shift(start, start), start, 3)  # type: ignore[arg-type]
    assert torch.allclose(states[:, 3, 0], start[:, 0])
    assert torch.allclose(states[:, 3, 1:], start[:, 1:] + 0.75)
    assert torch.allclose(changed[:, 0], torch.full_like(start[:, 0], 0.75))
    assert changed[:, 1:].abs().max() == 0


def test_scores_of_a_rollout_that_is_off_by_what_is_said() -> None:
    truth = torch.stack([water(2, 10), water(2, 10) * torch.tensor([1.0, 0.5, 0.5])[:, None, None]], dim=1)
    exact = rollout.score_rollout(truth, torch.zeros(2, 3, 10, 10).double(), truth)
    for name in ("rollout_error", "final_error", "energy_error", "spectrum_error", "changed", "changed_momentum"):
        assert exact[name] == pytest.approx([0.0, 0.0], abs=1e-13), name
    assert np.isnan(exact["changed_share"]).all()
    waves = rollout.waves_of(truth)
    height, rms = waves[:, 1].square().mean(dim=(1, 2)).sqrt(), waves.square().mean(dim=(1, 2, 3)).sqrt()
    off, changed = truth.clone(), torch.zeros(2, 3, 10, 10, dtype=torch.float64)
    off[:, 1, 0] += 0.01
    changed[:, 0, 0], changed[:, 0, 1], changed[:, 1] = 0.3, 0.1, 0.2
    scores = rollout.score_rollout(off, changed, truth)
    assert scores["final_error"] == pytest.approx((0.01 / height).tolist())
    assert scores["rollout_error"] == pytest.approx((0.01 / height).tolist())
    assert scores["mass_drift"] == pytest.approx((mean_depth(off)[:, 1] / mean_depth(off)[:, 0] - 1).abs().tolist())
    assert scores["changed"] == pytest.approx((0.04 / rms).tolist())
    assert scores["changed_momentum"] == pytest.approx((0.1 / rms).tolist())
    assert scores["changed_share"] == pytest.approx([0.75, 0.75])
    assert rollout.score_truth(off)["mass_drift"] == pytest.approx(scores["mass_drift"].tolist())


def test_energy_and_spectrum_of_a_standing_wave() -> None:
    n, k = 16, (3, 4)
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    wave = torch.cos(k[0] * pi * x)[:, None] * torch.cos(k[1] * pi * x)
    state = torch.stack([2.0 + 0.1 * wave, torch.zeros(n, n), torch.zeros(n, n)])[None].double()
    assert float(rollout.wave_energy(state)) == pytest.approx(0.5 * 0.01 / 4, rel=1e-12)
    still = torch.stack([torch.full((n, n), 2.0), torch.full((n, n), 0.2), torch.zeros(n, n)])[None].double()
    assert float(rollout.wave_energy(still)) == pytest.approx(0.5 * 0.04 / 2, rel=1e-6)
    power = rollout.spectrum(state)[0]
    assert len(power) == n - 1
    assert int(power.argmax()) + 1 == 5
    assert power.sum() - power.max() < 1e-25


def test_a_run_keeps_mass_and_has_figures(tmp_path: Path) -> None:
    folder = driver.run(tiny_rollout(), RunOptions(out=tmp_path, cases=("penalised",))).folder
    records = read_records(folder / "records.csv").set_index(["method", "score"])["mean"]
    assert all(records[key, "mass_drift"] < 1e-12 for key in PREPARED if key != "nothing")
    assert records["nothing", "mass_drift"] > 1e-9
    assert all((folder / f"{name}-penalised.png").is_file() for name in ("curves", "changes"))


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="steps must be at least 2, got 1"):
        replace(SHORT, steps=1)
    with pytest.raises(InvalidArgumentError, match="cells must be at least 4, got 3"):
        replace(BASINS, cells=3)
