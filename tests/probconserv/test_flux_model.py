"""Models of fluxes: what passes the walls of a rollout, learnt from fields and data."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from probconserv import Rollout
from probconserv.errors import DataFileError, InvalidArgumentError
from probconserv.rollout import FluxModel
from probconserv.training import TrainingConfig
from solvers import NodeGrid, Periodic
from tests.strategies import normal

GRID, STEPS, FIELD = NodeGrid(0.0, 2.0, 17), 4, normal(3, 1, 17)
EQUAL = 0.1 * torch.arange(STEPS + 1, dtype=torch.float64)
TIMES = torch.tensor([0.0, 0.1, 0.3, 0.4, 0.6], dtype=torch.float64)


def smear(u: Tensor) -> Tensor:
    """An operator that keeps no total."""
    return 0.97 * u + 0.02 * u.roll(1, dims=-1)


def test_a_flux_model_learns_what_passes_a_wall_from_the_field_before():
    grid = NodeGrid((0.0, 0.0), (1.0, 1.0), (6, 5))
    fields = normal(40, STEPS + 1, 1, 6, 5)
    fields[..., -1] = fields[..., 0]
    walls = [tuple(normal(40, STEPS + 1, 1, 5, seed=side) for side in (1, 2)), None]
    exact = lambda u, after, side: 0.2 * u[..., side, :] - 0.1 * u[..., 1 - 3 * side, :] + 0.3 * after  # noqa: E731
    passed = [tuple(exact(fields[:, :-1], walls[0][-side][:, 1:], -side) for side in (0, 1)), None]
    torch.manual_seed(0)
    model = FluxModel(grid, nodes=3, width=32)
    config = TrainingConfig(steps=300, peak_rate=3e-3, weight_decay=1e-4, precision="32-true", validate_every=15)
    state = model.fit((fields, walls, passed), (fields, walls, passed), times=EQUAL, config=config, progress=False)
    assert state.history[-1]["loss"] < 0.2
    assert state.history[-1]["validation"] < 0.2
    result = Rollout(smear, grid, flux=[(model, model), None])(fields[:, 0], EQUAL, values=[walls[0], Periodic()])
    first, last = (model(fields[:, 0], walls[0][i][:, 0], walls[0][i][:, 1], 0, i == 1) for i in (0, 1))
    gained = ((first.double() - last.double()) * grid.axis_weights[1]).sum(dim=-1)
    torch.testing.assert_close(result.totals[:, 1] - result.totals[:, 0], gained, rtol=0, atol=1e-12)
    assert Rollout(smear, grid, flux=model).flux is model  # a part of the module
    with pytest.raises(InvalidArgumentError, match="flux of every side and step"):
        model.fit((fields, walls, [(passed[0][0][:, 1:], passed[0][1]), None]), times=EQUAL)


def trained_flux(**changed) -> FluxModel:
    """A flux model of equal steps, fields and data between −1 and 1."""
    fields, data = normal(20, STEPS + 1, 1, 17).clamp(-1, 1), normal(20, STEPS + 1, 1).clamp(-1, 1)
    model = FluxModel(GRID, width=8)
    trajectories = fields, [(data, data)], [(data[:, 1:], data[:, 1:])]
    given = {"training": trajectories, "times": EQUAL, "config": TrainingConfig(steps=2, precision="32-true")}
    model.fit(**(given | changed), progress=False)
    return model


def test_a_resumed_training_fits_the_same_flux_model(tmp_path: Path):
    fields, data = normal(20, STEPS + 1, 1, 17), normal(20, STEPS + 1, 1)
    trajectories = fields, [(data, data)], [(data[:, 1:], data[:, 1:])]
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(FluxModel(GRID, width=8))
    config = TrainingConfig(steps=6, peak_rate=3e-3, weight_decay=1e-4, precision="32-true", seed=3, validate_every=1)
    models[0].fit(trajectories, times=EQUAL, config=config, progress=False)

    def stop(step: int, *_: float) -> None:
        if step == 4:
            raise RuntimeError

    resumed = replace(config, checkpoint_every=3)
    with pytest.raises(RuntimeError):
        models[1].fit(trajectories, times=EQUAL, config=resumed, folder=tmp_path, progress=stop)
    models[1].fit(trajectories, times=EQUAL, config=resumed, folder=tmp_path, progress=False)
    for name, value in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], value)
    with pytest.raises(DataFileError, match="belongs to another training"):
        models[1].fit((fields + 1, *trajectories[1:]), times=EQUAL, config=resumed, folder=tmp_path, progress=False)
    with pytest.raises(DataFileError, match=r"data\.times is "):
        models[1].fit(trajectories, times=2 * EQUAL, config=resumed, folder=tmp_path, progress=False)
    with pytest.raises(DataFileError, match=r"data\.validation is None there"):
        models[1].fit(trajectories, trajectories, times=EQUAL, config=resumed, folder=tmp_path, progress=False)
    other = FluxModel(NodeGrid(0.0, 3.0, 17), width=8)
    with pytest.raises(DataFileError, match=r"network\.model\.grid\.high is "):
        other.fit(trajectories, times=EQUAL, config=resumed, folder=tmp_path, progress=False)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("missing", [torch.nan, torch.inf])
def test_missing_numbers_are_refused_before_the_model_changes(part: int, missing: float):
    fields, data, flux = normal(20, STEPS + 1, 1, 17), normal(20, STEPS + 1, 1), normal(20, STEPS, 1)
    good = fields, [(data, data)], [(flux, flux)]
    broken = [fields.clone(), data.clone(), flux.clone()]
    broken[part].view(-1)[7] = missing
    bad = broken[0], [(data, broken[1])], [(flux, broken[2])]
    config, model = TrainingConfig(steps=1, precision="32-true"), FluxModel(GRID, width=8)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    name = ("fields", "given values of the sides", "fluxes")[part]
    for given, of in (((bad,), "training"), ((good, bad), "validation")):
        with pytest.raises(InvalidArgumentError, match=f"The {name} of {of} hold 1 NaN or infinite entries"):
            model.fit(*given, times=EQUAL, config=config, progress=False)
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0, equal_nan=True)


def test_a_flux_model_belongs_to_its_step_and_range():
    model, start, data = trained_flux(), FIELD.clamp(-1, 1), torch.linspace(-1.5, 1.5, STEPS + 1)[:, None]
    rollout = Rollout(smear, GRID, flux=model)
    states = list(rollout.iterate(start, EQUAL, values=[(data, 0.0)]))
    rollout(start, EQUAL.float(), values=[(data.float(), 0.0)])
    for times in (EQUAL / 2, TIMES):
        with pytest.raises(InvalidArgumentError, match=r"trained on steps of 0\.1, got steps from 0\."):
            rollout(start, times, values=[(data, 0.0)])
    with pytest.raises(InvalidArgumentError, match=r"value 0 given at the last side of axis 0 .*-1 and 1, got -4"):
        rollout(start, EQUAL, values=[(0.0, 3 * data)])
    with pytest.raises(InvalidArgumentError, match="channel 0 of the field between -1 and 1"):
        rollout(4 * start, EQUAL, values=[(data, 0.0)])
    drifted = states[1]._replace(field=4 * start)  # of a run that began within the range
    assert len(list(rollout.iterate(drifted, EQUAL, values=[(data, 0.0)]))) == STEPS - 2
    copied = FluxModel(GRID, width=8)
    copied.load_state_dict(model.state_dict())
    again = Rollout(smear, GRID, flux=pickle.loads(pickle.dumps(copied)))
    assert torch.equal(again(start, EQUAL, values=[(data, 0.0)]).totals[:, -1], states[-1].total)


def test_flux_models_without_a_step_are_refused():
    model = FluxModel(GRID)
    with pytest.raises(InvalidArgumentError, match=r"not been trained; call fit"):
        Rollout(smear, GRID, flux=model)(FIELD, TIMES, values=[(0.0, 0.0)])
    for times in (TIMES, EQUAL[1:], -EQUAL):
        with pytest.raises(InvalidArgumentError, match="must be those of the fields, 5, and increase in equal steps"):
            trained_flux(times=times)
    old = {name: value for name, value in model.state_dict().items() if name not in ("step", "ranges")}
    with pytest.raises(DataFileError, match=r"release 0\.3 does not say which steps.* train it again"):
        model.load_state_dict(old)
    with pytest.raises(DataFileError, match=r"release 0\.3"):
        Rollout(smear, GRID, flux=FluxModel(GRID)).load_state_dict({f"flux.{name}": old[name] for name in old})
    state = model.__dict__ | {"_buffers": {"scales": model.scales}}
    with pytest.raises(DataFileError, match=r"release 0\.3"):
        model.__setstate__(state)
