"""Open systems: what passes the walls closes the balance, and rows are what they say."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator

from experiments.boundary.open_rollouts.experiment import SIZES, OpenRolloutExperiment, score
from experiments.boundary.open_rollouts.methods import Predicted
from experiments.boundary.open_rollouts.networks import data_of, with_data
from experiments.boundary.open_rollouts.systems import SYSTEMS, OpenSystem
from experiments.experiment import RunContext, RunOptions

SMALL = {1: 32, 2: 8}


def small(system: OpenSystem) -> OpenSystem:
    return replace(system, intervals=SMALL[system.dimension])


def drawn(system: OpenSystem, steps: int = 8):
    return system.draw(3, system.times(steps), Generator().manual_seed(0))


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_the_walls_close_the_balance(system: OpenSystem) -> None:
    system = small(system)
    trajectories = drawn(system)
    first = (system.conserved or (0,))[0]
    totals = (trajectories.fields[:, :, first] * system.grid.weights).flatten(2).sum(dim=-1)
    if system.source is not None:
        rates = (system.source(trajectories.fields[:, :, first], totals[..., None]) * system.grid.weights).sum(dim=-1)
        totals[:, 1:] -= torch.cumulative_trapezoid(rates, dx=system.interval, dim=1)
    area = 1 / system.intervals if system.dimension == 2 else 1.0
    gained = sum((a - b).flatten(2).sum(dim=-1) * area for a, b in trajectories.passed)
    assert gained.abs().mean() > 1e-4
    # up to the trapezoid rule of nodes and of the source in time, after the start's kinks at the walls are smooth
    torch.testing.assert_close(totals.diff(dim=1)[:, 2:], gained[:, 2:], atol=2e-4, rtol=0)


def test_operators_see_the_walls_of_a_step() -> None:
    """Data at both ends of a step, or the mean flux in it; constant along the axis."""
    heat, plate = (small(SYSTEMS[number]) for number in (0, 4))
    trajectories = drawn(heat)
    first, last = data_of(heat, trajectories.walls)
    given = trajectories.walls[0][1].float()
    torch.testing.assert_close(last, torch.cat([given[:, :-1], given[:, 1:]], dim=2))
    channels = with_data(heat, trajectories.fields[:, 2].float(), (first[:, 2], last[:, 2]))
    assert channels.shape == (3, 5, 33)
    assert bool((channels[:, 4] == given[:, 3]).all())
    trajectories = drawn(plate)
    bottom, top = data_of(plate, trajectories.walls)
    torch.testing.assert_close(bottom * plate.interval, trajectories.walls[1][0].float())
    channels = with_data(plate, trajectories.fields[:, 0].float(), (bottom[:, 0], top[:, 0]))
    assert channels.shape == (3, 3, 8, 8)
    assert bool((channels[:, 2] == top[:, 0].mT).all())


def test_scores_of_a_known_error() -> None:
    """A field that is off by a constant: error, drift and walls say so; slopes are right but for the stencil."""
    system = replace(small(SYSTEMS[0]), intervals=128)
    test = drawn(system)
    spread = float(test.fields[:, :, 0].std())
    exact, off = (score(Predicted(fields=test.fields + shift), test, system) for shift in (0.0, 0.1))
    assert float(exact["open_error"].max()) == 0
    for name in ("total_drift", "wall_error", "near_wall_error"):
        assert off[name] == pytest.approx(0.1 / spread)
    assert float(off["slope_error"].max()) < 0.05
    blown = score(Predicted(fields=torch.full_like(test.fields, torch.nan)), test, system)
    assert bool((blown["open_error"] == float("inf")).all())


@pytest.mark.long
def test_the_balance_keeps_the_total(tmp_path: Path) -> None:
    """Rows of the channel: under the balance the total is kept where the operator alone loses it."""
    sizes = replace(SIZES["smoke"], steps=16, trained_steps=16, optimiser_steps=2)
    experiment = OpenRolloutExperiment(systems=SYSTEMS[3:4], sizes={"smoke": sizes})
    context = RunContext(options=RunOptions(preset="smoke", out=tmp_path), progress=False)
    case = experiment.cases(context)[0]
    drift = {}
    for method in experiment.methods(case):
        if method.kind.key not in ("regression", "fno"):
            continue
        weights = []
        for training in experiment.trainings(case, method, 0, context):
            experiment.train(training, context)
            weights.append(training.weights(tmp_path))
        arrays = experiment.score(case, method, 0, weights, context)
        drift[method.key] = float(arrays["total_drift"].mean())
        assert ("band_wall" in arrays) == (method.treatment == "fitted")
    assert drift["fno-uniform"] < 1e-4 < drift["fno"]
    assert drift["regression-uniform"] < 1e-4
