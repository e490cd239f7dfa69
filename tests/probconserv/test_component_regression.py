"""The regression of an emulator: its rollouts on a linear problem, and the choice of its ridge."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from probconserv import Emulator
from probconserv import emulator as emulator_module
from probconserv.emulator import EmulatorConfig, met
from probconserv.rollout.candidates import fit_regressions
from probconserv.rollout.trajectories import Functions, Setting, errors_of, given_sides, parts_of
from solvers import Dirichlet, Neumann, NodeGrid

NODES, FINE, STEPS, SUBSTEPS, STEP, VISCOSITY = 65, 4, 50, 4, 0.02, 0.01
FREQUENCIES = np.arange(1, 6)[:, None]
TIMES = STEP * torch.arange(STEPS + 1, dtype=torch.float64)
CONDITIONS = [(Dirichlet(), Neumann(0.0))]


def transport(functions: int, seed: int) -> tuple[Tensor, Tensor]:
    """u_t + u_x = .01 u_xx with an inflow g(t) and no slope at the outflow ``(functions, t, 1, 65)``, and g.

    Central differences on a finer grid, exact in time for an inflow that is linear in every quarter of a step.
    """
    generator, n = np.random.default_rng(seed), (NODES - 1) * FINE + 1
    x = np.linspace(0.0, 1.0, n)
    one, h, dt = np.eye(n), x[1], STEP / SUBSTEPS
    rates = VISCOSITY / h**2 * (np.roll(one, -1, 0) + np.roll(one, 1, 0) - 2 * one)
    rates -= (np.roll(one, -1, 0) - np.roll(one, 1, 0)) / (2 * h)
    rates[0], rates[-1, [0, -2]] = 0.0, (0.0, 2 * VISCOSITY / h**2)
    rates = np.pad(rates, (0, 1))
    rates[0, -1] = 1 / dt
    step = expm(dt * rates)[:n]
    angle, time = 2 * np.pi * FREQUENCIES * x, 2 * np.pi * FREQUENCIES * dt * np.arange(STEPS * SUBSTEPS + 1)
    a, b, c, d = generator.normal(size=(4, functions, len(FREQUENCIES), 1)) / FREQUENCIES
    inflow, u = (a * np.sin(time) + b * np.cos(time)).sum(1), (c * np.sin(angle) + d * np.cos(angle)).sum(1)
    u += (inflow[:, :1] - u[:, :1]) * np.exp(-x / 0.1)
    flat = 0.5 * (1 - np.cos(np.pi * np.clip((1 - x) / 0.2, 0.0, 1.0)))  # no slope at the outflow
    fields = [u[:, -1:] * (1 - flat) + u * flat]
    for change in np.diff(inflow).T[:, :, None]:
        fields.append(np.concatenate([fields[-1], change], axis=1) @ step.T)
    result = torch.tensor(np.stack(fields[::SUBSTEPS], axis=1)[:, :, None, ::FINE]).float()
    return result, result[..., 0].clone()


def unresolved() -> float:
    """What an inflow that is known at the ends of steps may do between them, (ωΔt)²/8 of its modes, in units of g."""
    missed = (2 * np.pi * FREQUENCIES * STEP) ** 2 / 8
    return float(np.linalg.norm(missed / FREQUENCIES) / np.linalg.norm(1 / FREQUENCIES))


def test_rollouts_of_a_linear_problem_do_not_diverge(monkeypatch: pytest.MonkeyPatch) -> None:
    u, inflow = transport(40, seed=0)
    monkeypatch.setattr(emulator_module, "train_steps", lambda *_: None)
    options = {"config": EmulatorConfig(width=4, modes=4, depth=1), "level": None, "progress": False}
    emulator = Emulator.fit(
        u, TIMES, NodeGrid(0.0, 1.0, NODES), CONDITIONS, values=[(inflow, None)], validation=10, **options
    )
    assert emulator.errors["regression/alone"] < unresolved()
    new, given = transport(10, seed=1)
    error = (emulator.rollout(new[:, 0], TIMES, values=[(given, None)]).fields - new).square().mean().sqrt()
    assert emulator.report.split("functions, ")[1].startswith("regression")
    assert error < unresolved() * new.square().mean().sqrt()


@pytest.mark.parametrize("impose", [False, True])
def test_the_ridge_is_the_best_of_all_under_the_law(impose: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    u, inflow = transport(16, seed=2)
    walls, grid = [(inflow, None)], NodeGrid(0.0, 1.0, NODES)
    law = {"flux": lambda value, _: value}
    setting = Setting.of(grid, CONDITIONS, law, STEP, walls)
    training, choice, _ = parts_of(Functions(fields=u, walls=walls, media=None, setting=setting), 6, None)
    regressions = fit_regressions(training, choice)
    monkeypatch.setattr(emulator_module, "fit_regressions", lambda *_: regressions)
    monkeypatch.setattr(emulator_module, "train_steps", lambda *_: None)
    options = {"config": EmulatorConfig(width=4, modes=4, depth=1), "level": None, "progress": False}
    emulator = Emulator.fit(
        u, TIMES, grid, CONDITIONS, values=walls, balance=law, impose=impose, validation=6, **options
    )
    errors = {name: value for name, value in emulator.errors.items() if name.startswith("regression")}
    others = []
    for regression in regressions:
        operator = met(regression, setting, given_sides(walls))
        response = setting.rollout(operator, None).fit_response(choice.fields, *choice.inputs)
        rollouts = [setting.rollout(operator, None), setting.rollout(operator, None, response)]
        others += [errors_of((operator, each), choice).mean() for each in rollouts + [None] * (not impose)]
    best = min(value for name, value in errors.items() if not (impose and "alone" in name))
    # fields are float32: 6e-8 in each of 50 steps, of errors above 1e-3
    assert best == pytest.approx(float(min(others)), rel=1e-2)
