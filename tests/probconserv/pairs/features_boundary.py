"""Operators under boundary conditions, rollouts under a balance, emulators, and solvers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boon import (
    BOON,
    FNO,
    Elimination,
    FNOConfig,
    MixedTransform,
    Normalised,
    Prescription,
    SmoothExtension,
    boundary_error,
    load,
    relative_l2,
    save,
)
from probconserv import Emulator, Rollout
from probconserv.emulator import EmulatorConfig
from probconserv.rollout import FluxModel
from probconserv.training import TrainingConfig
from solvers import (
    CellGrid,
    Diffusion,
    Dirichlet,
    Neumann,
    NodeGrid,
    Outflow,
    Reflecting,
    Robin,
    ShallowWater,
    solve,
    solve_steady,
    solve_system,
)
from tests.probconserv.pairs.changes import Answer, Given, Quantity
from tests.probconserv.pairs.kinds import Feature

N, STEPS = 17, 4
NETWORK = FNOConfig(width=4, modes=(4,), depth=1)
SINGLE = 2e-4
CONDITIONS = {
    "values": lambda _: (Dirichlet(), Dirichlet()),
    "slopes": lambda _: (Neumann(), Neumann()),
    "Robin": lambda given: (Robin(1.0, given.scale(0, 1)), Robin(1.0, -given.scale(0, 1))),
}
CORRECTIONS = {
    "Prescription": Prescription(),
    "SmoothExtension": SmoothExtension(),
    "Elimination": Elimination(),
    "MixedTransform": MixedTransform(),
}


class Linear(nn.Module):
    """A smoothing that has no unit."""

    def forward(self, a: Tensor) -> Tensor:
        return 0.5 * (a + a.roll(1, -1))


def operator(kind: str, correction: Any) -> Any:
    def make(given: Given) -> BOON:
        torch.manual_seed(0)
        inner = (
            Linear() if isinstance(correction, Prescription | SmoothExtension) else FNO(NETWORK).to(given.change.dtype)
        )
        if isinstance(inner, FNO):  # an operator in units of the field
            one = torch.full((1,), given.scale()).to(given.change.dtype)
            zero = torch.zeros(1, N).to(given.change.dtype)
            inner = Normalised(inner, zero[:, 0], one, zero, one)
        return BOON(inner, [CONDITIONS[kind](given)], correction=correction, lengths=(given.scale(0, 1),))

    return make


def applied(kind: str) -> Any:
    def ask(made: BOON, given: Given) -> Answer:
        power = -1 if kind == "slopes" else 0
        a = given.normal("a", 1, N, says="input|field")
        left, right = (
            given.normal(name, 1, length=power, says="value|data|boundary|condition") for name in ("left", "right")
        )
        alone = a.ndim == 2
        if alone:
            a, left, right = a[None], left[None], right[None]
        u = made(a, [(left, right)])
        error = boundary_error(u, made.discretise(u, [(left, right)])).relative_maximum
        assert error < 1e-3 or u.isnan().any(), error
        return {"u": Quantity(u[0] if alone else u)}

    return ask


def normalised(given: Given) -> Normalised:
    inputs = given.normal("inputs", given.cases, 1, N, batch=False, says="inputs")
    outputs = given.normal("outputs", given.cases, 1, N, batch=False, says="outputs")
    return Normalised.fit(Linear(), inputs, outputs)


def of_normalised(made: Normalised, given: Given) -> Answer:
    return {"u": Quantity(made(given.normal("a", 1, 1, N, batch=False)), lead=None)}


def by_moments(given: Given) -> Answer:
    """Means and root mean squares over the samples."""
    inputs, outputs = (given.normal(name, given.cases, 1, N, batch=False) for name in ("inputs", "outputs"))
    a, centre = given.normal("a", 1, 1, N, batch=False), outputs.mean(dim=0)
    inner = Linear()((a - inputs.mean()) / inputs.std(correction=0))
    return {"u": Quantity(centre + inner * (outputs - centre).square().mean().sqrt(), lead=None)}


def operator_scores(_: Any, given: Given) -> Answer:
    u, truth = (given.normal(name, 4, 1, N, batch=False) for name in ("u", "truth"))
    return {"relative_l2": Quantity(relative_l2(u, truth), 0, lead=None)}


def stored_operator(given: Given) -> BOON:
    torch.manual_seed(0)
    config = FNOConfig(width=given.option("width", 4, 6), modes=(4,), depth=1)
    return BOON(FNO(config).to(given.change.dtype), [(Dirichlet(given.number("value", 1.0)), Neumann(0.0))])


# Rollouts and emulators


def smear(u: Tensor, *data: Tensor) -> Tensor:
    """A step that has no unit and conserves nothing."""
    return 0.97 * u + 0.02 * u.roll(1, dims=-1) + 0.0 * sum((part.mean() for part in data), torch.zeros(()))


def rolled(made: Rollout, given: Given) -> Answer:
    times = torch.tensor([0.0, 0.1, 0.3, 0.4, 0.6], dtype=torch.float64)
    start = given.uniform("start", 1, N, says="start|field")
    walls = [tuple(given.normal(name, STEPS, 1, length=1, says="wall|flux|side") for name in ("first", "last"))]
    result = made(start, times, fluxes=walls)
    return {"fields": Quantity(result.fields), "totals": Quantity(result.totals, 1, 1)}


def rollout(given: Given) -> Rollout:
    return Rollout(smear, NodeGrid(0.0, given.scale(0, 1), N))


def trajectories(given: Given) -> tuple[Tensor, Tensor]:
    """Closed solutions of u_t = .1 u_xx at times."""
    amplitude = given.normal("trajectories", given.cases, 1, 2, 1, batch=False, says="[Tt]rajectories")
    k, x = torch.arange(1.0, 3.0, dtype=torch.float64)[:, None], torch.linspace(0, 1, N, dtype=torch.float64)
    times = 0.02 * torch.arange(STEPS + 1, dtype=torch.float64)
    u = (amplitude * torch.exp(-0.1 * k.square() * times[:, None, None]) * torch.sin(k * x + 1)).sum(dim=2)
    return u[:, :, None], times


def walls_of(u: Tensor, given: Given) -> list[Any]:
    """Values at both ends, measured."""
    shape = given.cases, STEPS + 1, 1
    errors = [1e-3 * given.normal(name, *shape, batch=False, says="wall|side") for name in ("first", "last")]
    return [(u[..., 0] + errors[0], u[..., -1] + errors[1])]


def emulator(given: Given) -> Emulator:
    u, times = trajectories(given)
    config = EmulatorConfig(
        width=given.option("width", 4, 6),
        modes=3,
        depth=1,
        steps=given.option("steps", 4, 5),
        flux_steps=given.option("flux_steps", 4, 5),
        unrolled=2,
        batch=4,
        seed=given.option("seed", 0, 1),
    )
    grid = NodeGrid(0.0, given.scale(0, 1), N)
    media = given.uniform("media", given.cases, 1, N, batch=False, unit=0, says="media")
    return Emulator.fit(
        u,
        times,
        grid,
        [(Dirichlet(), Dirichlet())],
        values=walls_of(u, given),
        balance={} if given.option("law", True, False) else None,
        impose=True,
        media=media,
        validation=given.option("validation", 6, 5),
        level=given.option("level", 0.6, 0.5),
        config=config,
        folder=given.folder,
        progress=False,
    )


def emulated(made: Emulator, given: Given) -> Answer:
    usual = Given(replace(given.change, other="", hole=""))
    u, times = trajectories(usual)
    start = u[:1, 0] + 1e-3 * given.normal("start", 1, N, batch=False, says="start")
    media = usual.uniform("media", given.cases, 1, N, batch=False, unit=0)[:1]
    found = made.rollout(start, times, media, values=[(u[:1, :, :, 0], u[:1, :, :, -1])])
    assert found.lower is not None
    errors = torch.tensor(list(made.errors.values()))
    return {
        "fields": Quantity(found.fields, lead=None),
        "lower": Quantity(found.lower, lead=None),
        "errors of all bases": Quantity(errors, 0, lead=None),
    }


def load_emulator(path: Path, given: Given) -> Emulator:
    grid = NodeGrid(0.0, given.scale(0, 1) * given.option("grid", 1.0, 0.5), N)
    sides = given.option("conditions", (Dirichlet(), Dirichlet()), (Neumann(), Neumann()))
    law = {} if given.option("law", True, False) else None
    return Emulator.load(path, grid, [sides], balance=law)


def fluxes(given: Given) -> FluxModel:
    torch.manual_seed(0)
    grid = NodeGrid(0.0, given.scale(0, 1), N)
    fields = given.uniform("fields", given.cases, STEPS + 1, 1, N, batch=False, says="field")
    data = given.uniform("data", given.cases, STEPS + 1, 1, batch=False, says="wall|side|data|value")
    passed = given.uniform("flux", given.cases, STEPS, 1, batch=False, length=1, says="flux")
    made = FluxModel(grid, width=given.option("width", 8, 12), nodes=given.option("nodes", 5, 6))
    steps = TrainingConfig(
        steps=given.option("steps", 3, 4),
        peak_rate=given.option("peak_rate", 1e-2, 3e-2),
        seed=given.option("seed", 0, 1),
        precision="32-true",
        validate_every=1,
    )
    times = 0.1 * torch.arange(STEPS + 1, dtype=torch.float64) * given.option("times", 1.0, 0.5)
    training = fields, [(data, data)], [(passed, passed)]
    made.fit(training, times=times, config=steps, folder=given.folder, progress=False)
    return made


def passed(made: FluxModel, given: Given) -> Answer:
    field, before, after = (
        given.uniform("field", 1, N, group="function"),
        given.uniform("before", 1, group="function"),
        given.uniform("after", 1, group="function"),
    )
    found = made(field, before, after, 0, False)
    return {"flux": Quantity(found, 1, 1)}


# Solvers


def solved(_: Any, given: Given) -> Answer:
    """Heat in units of length² per time that follow the length."""
    grid, area = CellGrid(0.0, given.scale(0, 1), 12), given.scale(0, 2)
    initial = given.uniform("initial", 12, says="initial")
    left = given.uniform("value", says="value|Dirichlet|boundary")
    conductivity = given.uniform("conductivity", unit=0, low=0.1, high=0.2, says="conductivity|Diffusion") * area
    times = torch.tensor([0.0, 0.05, 0.1], dtype=torch.float64)
    found = solve(Diffusion(conductivity), grid, boundary=(Dirichlet(left), Neumann(0.0)), initial=initial, times=times)
    return {"values": Quantity(found.values), "flux": Quantity(found.boundary_flux, 1, 1)}


def solved_steady(_: Any, given: Given) -> Answer:
    grid = CellGrid(0.0, given.scale(0, 1), 12)
    k = given.uniform("conductivity", 12, unit=0, says="conductivity")
    source = given.normal("source", 12, length=-2, says="source")
    left = given.uniform("value", says="value|Dirichlet|boundary")
    found = solve_steady(k, grid, [(Dirichlet(left), Neumann(0.0))], source)
    return {"values": Quantity(found.values)}


def solved_water(_: Any, given: Given) -> Answer:
    """Depth in the unit of the field, whose gravity has length² per unit of the field and time."""
    grid = CellGrid(0.0, given.scale(0, 1), 12)
    depth = given.uniform("depth", 12, says="initial|depth")
    initial = torch.stack([depth, 0 * depth], dim=-2)
    times = torch.tensor([0.0, 0.02], dtype=torch.float64)
    found = solve_system(
        ShallowWater(9.81 * given.scale(-1, 2)), grid, initial=initial, times=times, boundary=(Reflecting(), Outflow())
    )
    return {"depth": Quantity(found.values[..., 0, :])}


FEATURES = {
    **{
        f"{name}, {kind}": Feature(make=operator(kind, correction), ask=applied(kind), single=2e-3)
        for name, correction in CORRECTIONS.items()
        for kind in CONDITIONS
    },
    "Normalised": Feature(make=normalised, ask=of_normalised, expected=by_moments),
    "relative_l2": Feature(ask=operator_scores),
    "stored operator": Feature(
        make=stored_operator,
        ask=lambda made, given: {"u": Quantity(made(given.normal("a", 1, 1, N, batch=False, unit=0)), 0, lead=None)},
        save=lambda made, path: save(made, path),
        load=lambda path, _: load(path),  # type: ignore[arg-type]
    ),
    "rollout": Feature(make=rollout, ask=rolled),
    "flux model": Feature(make=fluxes, ask=passed, rounding=SINGLE, unused=("times",)),  # checked by a rollout alone
    "emulator": Feature(
        make=emulator,
        ask=emulated,
        save=lambda made, path: made.save(path),
        load=load_emulator,
        rounding=SINGLE,
        long=True,
    ),
    "solve": Feature(ask=solved),
    "solve_steady": Feature(ask=solved_steady),
    "solve_system": Feature(ask=solved_water),
}
