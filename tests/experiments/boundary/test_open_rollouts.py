"""Open systems: what passes the walls closes the balance, and rows are what they say."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Generator

from experiments.boundary.open_rollouts.experiment import SIZES, OpenRolloutExperiment, score
from experiments.boundary.open_rollouts.figures import draw_dumbbells
from experiments.boundary.open_rollouts.methods import Method, Predicted, methods_of
from experiments.boundary.open_rollouts.systems import SYSTEMS, OpenSystem
from experiments.experiment import RunContext, RunOptions
from probconserv.rollout.trajectories import Functions

SMALL = {1: 32, 2: 8}


def small(system: OpenSystem) -> OpenSystem:
    return replace(system, intervals=SMALL[system.dimension])


def drawn(system: OpenSystem, steps: int = 8) -> Functions:
    made = system.draw(3, system.times(steps), Generator().manual_seed(0))
    return Functions(fields=made.fields, walls=made.walls, media=made.media, setting=system.setting)


@pytest.mark.parametrize("system", [each for each in SYSTEMS if each.name != "burgers"], ids=lambda each: each.name)
def test_the_walls_close_the_balance(system: OpenSystem) -> None:
    """A rollout of the true fields is moved by the trapezoid rule of nodes, sources and fluxes alone."""
    functions = drawn(small(system))
    step = iter(range(1, functions.steps + 1))
    rollout = functions.setting.rollout(lambda *_: functions.fields[:, next(step)], None)
    made = rollout.between(functions.fields[:, 0], functions.times, functions.of_law(), ())
    first = (system.conserved or (0,))[0]
    totals = (functions.fields[:, :, first] * functions.setting.grid.weights).flatten(2).sum(dim=-1)
    gained = made.totals[:, :, 0].diff(dim=1)
    assert gained.abs().mean() > 1e-4
    # after the start's kinks at the walls are smooth
    torch.testing.assert_close(totals.diff(dim=1)[:, 2:], gained[:, 2:], atol=2e-4, rtol=0)


def test_rows_are_bases_walls_and_laws() -> None:
    heat, burgers, channel = (SYSTEMS[number] for number in (0, 2, 3))
    keys = {system.name: [method.key for method in methods_of(system)] for system in (heat, burgers, channel)}
    assert len(keys["heat"]) == 15
    assert len(keys["burgers"]) == 19
    assert keys["channel"] == [
        *("regression", "regression-uniform", "fno", "fno-uniform", "increments", "increments-uniform", "emulator")
    ]
    assert set(keys["burgers"]) - set(keys["heat"]) == {
        f"{base}-uniform" for base in ("regression-walls", "fno-walls", "fno-default", "increments-walls")
    }


def test_scores_of_a_known_error() -> None:
    """A field that is off by a constant: error, drift and walls say so; slopes are right but for the stencil."""
    system = replace(small(SYSTEMS[0]), intervals=128)
    test = drawn(system)
    spread = float(test.fields[:, :, 0].std())
    budget = float((test.fields[:, :, 0].double() @ system.grid.weights).max()) + 0.01
    exact, off, far = (score(Predicted(fields=test.fields + shift), test, system, budget) for shift in (0, 0.1, 3))
    assert float(exact["open_error"].max()) == 0
    for name in ("total_drift", "wall_error", "near_wall_error"):
        assert off[name] == pytest.approx(0.1 / spread)
    assert float(off["slope_error"].max()) < 0.05
    assert exact["budget_error"].tolist() == [0.0] * 3
    assert far["budget_error"].tolist() == [1.0] * 3  # all totals pass it
    blown = score(Predicted(fields=torch.full_like(test.fields, torch.nan)), test, system, budget)
    assert bool((blown["open_error"] == float("inf")).all())


@pytest.mark.parametrize("number", [0, 5])
def test_the_heat_flux_at_walls_is_that_of_slope_and_value(number: int) -> None:
    """Right for the truth but for the stencil; without the slope the flux is missed by all of it."""
    system = replace(small(SYSTEMS[number]), intervals=128)
    test = drawn(system)
    right, flat = test.fields.clone(), test.fields.clone()
    flat[..., :4], flat[..., -4:] = flat[..., :1], flat[..., -1:]
    errors = [score(Predicted(fields=each), test, system, 0.0)["wall_flux_error"] for each in (right, flat)]
    assert float(errors[0].max()) < 0.05
    assert errors[1] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("number", [3, 5])
def test_the_balance_keeps_the_total_and_prescribed_walls_hold(tmp_path: Path, number: int) -> None:
    """Rows of the channel and of the Robin rod: under the balance the total is kept where operators alone lose it."""
    sizes = replace(SIZES["smoke"], steps=16, trained_steps=16, optimiser_steps=2)
    experiment = OpenRolloutExperiment(systems=SYSTEMS[number : number + 1], sizes={"smoke": sizes})
    context = RunContext(options=RunOptions(preset="smoke", out=tmp_path), progress=False)
    case, walls = experiment.cases(context)[0], "" if number == 3 else "walls"
    law = "response" if walls else "uniform"
    chosen = [Method(base=base, walls=walls, law=each) for base in ("regression", "fno") for each in ("", law)]
    found = {}
    for method in (*chosen, Method(base="emulator")):
        weights = []
        for training in experiment.trainings(case, method, 0, context):
            experiment.train(training, context)
            weights.append(training.weights(tmp_path))
        found[method] = experiment.score(case, method, 0, weights, context)
        assert ("band_wall" in found[method]) == (method.base == "emulator")
        if walls:
            assert float(found[method]["boundary"].max()) < 4 * torch.finfo(torch.float32).eps * case.system.intervals
    drift = {method: float(arrays["total_drift"].mean()) for method, arrays in found.items()}
    bare, under_law = (drift[Method(base="fno", walls=walls, law=each)] for each in ("", law))
    assert under_law < 0.1 * bare


def test_the_figure_joins_each_base_alone_with_the_same_under_its_constraint() -> None:
    errors = {"fno": 0.2, "fno-walls-response": 0.1, "fno-uniform": 0.05, "regression": 0.1, "regression-uniform": 3.0}
    records = pd.DataFrame(
        [{"case": "rod", "method": key, "score": "open_error", "mean": error} for key, error in errors.items()]
    )
    figure = draw_dumbbells(records, {"rod": "a rod", "plate": "not scored"})["overview"]
    assert figure.get_suptitle() == "Walls and balance lower the error in 1 of 2 rollouts"
    (panel,) = figure.axes
    joined = [list(line.get_xdata()) for line in panel.lines if line.get_marker() == "None"]
    assert joined[:2] == [[0.2, 0.1], [0.1, 1.0]], "walls and balance come before the uniform balance; 3 is at the edge"
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a rod"]
    assert draw_dumbbells(records.head(1), {"rod": "a rod"}) == {}
