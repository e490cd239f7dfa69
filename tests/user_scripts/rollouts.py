"""Trajectories in arrays, an emulator of them, and a balance around an operator."""

from typing import assert_type

import numpy as np
import torch
from torch import Tensor

from probconserv import Emulator, Rollout
from probconserv.emulator import EmulatorConfig, Forecast
from probconserv.rollout.diagnosis import Diagnosis, RolloutBand
from probconserv.rollout.run import RolloutState, Trajectory
from solvers import Dirichlet, NodeGrid, Periodic

grid = NodeGrid(0.0, 1.0, 17)
times = 0.1 * np.arange(21)
phase = np.random.default_rng(0).random((12, 1, 1, 1))
fields = np.sin(3 * grid.points.numpy() + times[:, None, None] + phase)
ends = [(fields[..., 0], fields[..., -1])]

emulator = Emulator.fit(
    fields,
    times,
    grid,
    [(Dirichlet(), Dirichlet())],
    values=ends,
    balance={},
    media=np.ones((12, 1, 17)),
    validation={"trajectories": fields[6:], "values": [(ends[0][0][6:], ends[0][1][6:])], "media": np.ones((6, 1, 17))},
    config=EmulatorConfig(width=4, modes=4, depth=1, steps=2, flux_steps=2),
    level=0.6,
    progress=False,
)
assert_type(emulator, Emulator)
forecast = emulator.rollout(fields[:, 0], times, np.ones((12, 1, 17)), values=ends)
assert_type(forecast, Forecast)
assert_type(forecast.fields, Tensor)
drawn = emulator.draw(fields[:, 0], times, 2, np.ones((12, 1, 17)), values=ends)
assert_type(drawn, Tensor)


def step(u: Tensor) -> Tensor:
    return 0.9 * u + 0.1 * u.roll(1, -1)


rollout = Rollout(step, grid)
result = rollout(fields[:, 0], times, fluxes=[(0.1, np.zeros((12, 21, 1)))])
assert_type(result, Trajectory)
assert_type(result.totals, Tensor)
assert_type(rollout.diagnose(torch.from_numpy(fields), times, fluxes=[(0.0, 0.0)]), Diagnosis)
assert_type(rollout.fit_band(torch.from_numpy(fields), times, fluxes=[(0.0, 0.0)], level=0.5), RolloutBand)
for state in rollout.iterate(fields[:, 0], times, fluxes=[(lambda t: 0.1 * t[:, None], 0.0)]):
    assert_type(state, RolloutState)
around = Rollout(step, NodeGrid(0.0, 1.0, 17))(np.zeros((2, 1, 17)), times, fluxes=[Periodic()])
assert_type(around.fields, Tensor)
