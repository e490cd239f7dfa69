"""Emulators: what they are made of, choose and keep."""

import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from boon import BOON, Prescription, boundary_error
from probconserv import Bounded, Emulator, NonNegative
from probconserv import emulator as emulator_module
from probconserv.emulator import EmulatorConfig, fit_flux, step_network
from probconserv.errors import DataFileError, InvalidArgumentError, TrainingInterruptedError
from probconserv.rollout.regression import ComponentRegression
from probconserv.rollout.step_network import StepNetwork
from probconserv.rollout.trajectories import Functions, Setting
from solvers import CellGrid, Dirichlet, Neumann, NodeGrid, Periodic
from tests.probconserv.heat_emulators import (
    CONDITIONS,
    FUNCTIONS,
    GRID,
    STEP,
    STEPS,
    TIMES,
    TINY,
    conduction,
    fitted,
    heat,
    walls_of,
)


def test_conditions_hold_at_the_faces_of_cells() -> None:
    """Half a cell beside the first and last value."""
    u, slope, _ = heat()
    cells, averages = CellGrid(0.0, 1.0, 32), (u[..., 1:] + u[..., :-1]) / 2
    for kind in ("values", "mixed"):
        walls = walls_of(kind, u, slope)
        options = {"balance": {}, "config": TINY, "validation": 6, "level": 0.6, "progress": False}
        emulator = Emulator.fit(averages, TIMES, cells, [CONDITIONS[kind]], values=walls, **options)
        made = emulator.rollout(averages[:, 0].double(), TIMES, values=walls).fields[:, -1]
        operator = BOON(nn.Identity(), [CONDITIONS[kind]], correction=Prescription(), grid=cells)
        data = operator.discretise(made, [tuple(side[:, -1].double() for side in walls[0])])
        assert boundary_error(made, data).relative_maximum < 1e-12


@pytest.mark.parametrize("kind", CONDITIONS)
def test_walls_and_balance_hold_in_every_step(kind: str) -> None:
    """Values to 1e-6 of the field, slopes and Robin conditions to 4 ε |u|/h; under a law whose fluxes are modelled."""
    emulator, u, walls = fitted(kind)
    assert emulator.flux is not None
    operator = BOON(nn.Identity(), [CONDITIONS[kind]], correction=Prescription())
    for dtype, most in ((torch.float32, 4 * torch.finfo(torch.float32).eps * 32), (torch.float64, 1e-12)):
        made = emulator.rollout(u[:, 0].to(dtype), TIMES, values=walls)
        assert made.fields.dtype == dtype
        for step in range(1, STEPS + 1):
            after = made.fields[:, step]
            data = operator.discretise(after, [tuple(side[:, step].to(dtype) for side in walls[0])])
            assert boundary_error(after, data).maximum <= most * float(after.abs().max())
            if isinstance(CONDITIONS[kind][0], Dirichlet):
                assert torch.equal(after[..., 0], walls[0][0][:, step].to(dtype))
        totals = made.fields.double()[:, :, 0] @ GRID.weights
        torch.testing.assert_close(totals, made.totals[..., 0], rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_the_report_says_what_has_the_least_error_on_the_validation() -> None:
    emulator, u, walls = fitted(balance={"flux": conduction})
    best = min(emulator.errors, key=emulator.errors.get)
    base, law = best.split("/")
    assert base in emulator.report
    assert (emulator.under_law is None) == (law == "alone")
    assert len(emulator.errors) == 9
    assert f"{emulator.errors[best]:.2g}" in emulator.report
    made = emulator.rollout(u[6:, 0], TIMES, values=[tuple(side[6:] for side in walls[0])])
    error = (made.fields - u[6:]).square().mean(dim=(2, 3)).sqrt()[:, 1:].mean(dim=1)
    error = error / u[6:].square().mean(dim=(1, 2, 3)).sqrt()
    assert float(error[::2].mean()) == pytest.approx(emulator.errors[best], abs=1e-6)  # rounding of float32


def test_a_law_that_is_imposed_holds_whatever_the_validation_says() -> None:
    for impose in (False, True):
        emulator, *_ = fitted(balance={"flux": leak}, impose=impose)
        assert (emulator.under_law is not None) == impose
        assert not impose or "is imposed and has the error" in emulator.report
        assert not impose or "without the law it has" in emulator.report


def leak(u: Tensor, gradient: Tensor) -> Tensor:
    """A wrong flux, which differs between the walls."""
    return 5.0 * u + 0 * gradient


def test_bands_hold_and_draws_meet_the_law() -> None:
    emulator, u, walls = fitted()
    made = emulator.rollout(u[:, 0], TIMES, values=walls)
    assert bool((made.lower[:, 0] == made.upper[:, 0]).all())
    inside = (u >= made.lower) & (u <= made.upper)
    assert float(inside[7::2].double().mean()) >= 0.6  # those that the band is of
    few = [tuple(side[:2] for side in walls[0])]
    drawn = emulator.draw(u[:2, 0], TIMES, 5, values=few, generator=Generator().manual_seed(0))
    assert drawn.shape == (5, 2, STEPS + 1, 1, 33)
    assert float(drawn[:, :, -1].std(dim=0).mean()) > 0
    if emulator.under_law is not None:
        totals = drawn.double()[:, :, :, 0] @ GRID.weights
        assert float(totals.std(dim=0).max()) < 1e-6


def waves(grid: NodeGrid | CellGrid) -> tuple[Tensor, Tensor]:
    """A wave that travels around a circle, its start drawn: trajectories and times."""
    phase, t = torch.rand(12, 1, 1, 1, generator=Generator().manual_seed(0)), 0.1 * torch.arange(5)
    return torch.sin(2 * torch.pi * (grid.points.float() - t[:, None, None] - phase)) + 3.0, t


@pytest.mark.parametrize("law", [None, {}])
@pytest.mark.parametrize("grid", [NodeGrid(0.0, 1.0, 17), CellGrid(0.0, 1.0, 16)], ids=["nodes", "cells"])
def test_an_axis_without_walls_is_periodic(
    grid: NodeGrid | CellGrid, law: dict | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same emulator, bit for bit, as with ``Periodic()``, and from its file with either; numbers are copies."""
    u, t = waves(grid)
    options = {"balance": law, "config": TINY, "validation": 6, "level": 0.6, "progress": False}
    one_base(monkeypatch, "increments")
    circle, stated = (
        Emulator.fit(u, t, grid, conditions, fluxes=fluxes, **options)
        for conditions, fluxes in ((None, [Periodic()]), ([Periodic()], None))
    )
    monkeypatch.undo()
    assert circle.errors == stated.errors
    assert circle.report.split("functions, ")[1].startswith("increments")
    expected = circle.rollout(u[:, 0], t).fields
    assert torch.equal(stated.rollout(u[:, 0], t).fields, expected)
    circle.save(tmp_path / "e.safetensors")
    for conditions in (None, [None], [Periodic()], [(Periodic(), Periodic())]):
        again = Emulator.load(tmp_path / "e.safetensors", grid, conditions, balance=law)
        assert torch.equal(again.rollout(u[:, 0], t).fields, expected)
    with pytest.raises(DataFileError, match="the conditions Periodic and Periodic, not Neumann and Neumann"):
        Emulator.load(tmp_path / "e.safetensors", grid, [(Neumann(0.0), Neumann(0.0))])


def test_a_file_whose_network_is_not_periodic_loads_as_it_was_saved(tmp_path: Path) -> None:
    """Files of 0.4 have such networks on axes without walls, and say that there are no conditions."""
    grid = CellGrid(0.0, 1.0, 16)
    u, t = waves(grid)
    former = Setting.of(grid, None, None, 0.1)
    network = step_network(Functions(fields=u, walls=[None], media=None, setting=former), TINY)
    operator = emulator_module.met(network.requires_grad_(False).eval(), former, [None])
    options = {"config": TINY, "validation": 6, "level": None, "progress": False}
    emulator = Emulator.fit(u, t, grid, [Periodic()], base=network, **options)
    described = emulator.described | {"conditions": "None", "kernel": None, "layout": network.layout}
    del described["stated"]
    before = replace(emulator, setting=former, operator=operator, described=described)
    before.save(tmp_path / "e.safetensors")
    with pytest.warns(UserWarning, match="does not hold the values of its conditions and its balance") as found:
        again = Emulator.load(tmp_path / "e.safetensors", grid)
    assert [each.filename for each in found] == [__file__]
    assert again.setting.periodic == (False,)
    assert torch.equal(again.rollout(u[:, 0], t).fields, before.rollout(u[:, 0], t).fields)


def test_walls_that_differ_on_one_periodic_axis_warn() -> None:
    grid = NodeGrid(0.0, 1.0, 17)
    u, t = waves(grid)
    u[..., -1] += 1.0
    options = {"config": TINY, "validation": 6, "level": 0.6, "progress": False}
    with pytest.warns(UserWarning, match="Axis 0 is periodic, but its last node differs from its first") as found:
        Emulator.fit(u, t, grid, [Periodic()], **options)
    assert [each.filename for each in found] == [__file__]


@pytest.mark.parametrize("base", ["regression", "increments", "single step"])
def test_a_saved_emulator_is_the_same(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one_base(monkeypatch, base)
    emulator, u, walls = fitted("values", level=0.6 if base == "regression" else None)
    monkeypatch.undo()
    assert emulator.report.split("functions, ")[1].startswith(base)
    emulator.save(tmp_path / "e.safetensors")
    again = Emulator.load(tmp_path / "e.safetensors", GRID, [CONDITIONS["values"]], balance={})
    forecasts = (each.rollout(u[:, 0], TIMES, values=walls) for each in (emulator, again))
    for one, two in zip(*forecasts, strict=True):
        assert (one is None and two is None) or torch.equal(one, two)
    assert again.report == emulator.report
    with pytest.raises(DataFileError, match="load it on its grid"):
        Emulator.load(tmp_path / "e.safetensors", NodeGrid(0.0, 1.0, 17), [CONDITIONS["values"]])
    with pytest.raises(DataFileError, match=r"Dirichlet and Dirichlet, not Dirichlet and Robin\(1, 0\.2\)"):
        Emulator.load(tmp_path / "e.safetensors", GRID, [CONDITIONS["mixed"]])


def test_a_side_of_one_number_is_one_for_all_channels_under_a_law() -> None:
    """The model of fluxes takes as many values there as on the other side."""
    u, _, _ = heat()
    both = torch.cat([u, u.square()], dim=2)
    options = {"balance": {"conserved": (0,)}, "impose": True, "config": TINY, "validation": 6, "level": None}
    walls = [(both[..., 0], None)]
    emulator = Emulator.fit(both, TIMES, GRID, [(Dirichlet(), Neumann(0.0))], progress=False, values=walls, **options)
    made = emulator.rollout(both[:, 0].double(), TIMES, values=walls)
    held = made.fields[:, :, 0].double() @ GRID.weights
    torch.testing.assert_close(held, made.totals[..., 0], rtol=0, atol=1e-12)


def test_a_file_is_loaded_with_the_conditions_and_the_law_of_its_fit(tmp_path: Path) -> None:
    """Values of conditions and bounds, too: with others the fields are those of nobody."""
    u, slope, _ = heat()
    walls = [(walls_of("slopes", u, slope)[0][0], None)]
    conditions, law, path = [(Neumann(), Neumann(0.0))], {"bounds": NonNegative()}, tmp_path / "e.safetensors"
    options = {"balance": law, "config": TINY, "validation": 6, "level": None, "progress": False}
    emulator = Emulator.fit(u + 5, TIMES, GRID, conditions, values=walls, **options)
    emulator.save(path)
    Emulator.load(path, GRID, conditions, balance=law)
    for other in (None, {}, {"bounds": Bounded(lower=-1.0)}):
        with pytest.raises(DataFileError, match=r"another law \(law"):
            Emulator.load(path, GRID, conditions, balance=other)
    with pytest.raises(DataFileError, match=r"gradient': 0.0.*gradient': 5.0"):
        Emulator.load(path, GRID, [(Neumann(), Neumann(5.0))], balance=law)
    former = {name: part for name, part in emulator.described.items() if name != "stated"}
    replace(emulator, described=former).save(path)
    with pytest.raises(DataFileError, match="model of fluxes, fitted under a law"):
        Emulator.load(path, GRID, conditions)


def one_base(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    """The choice is among rollouts of one base, and no network is trained."""
    real = emulator_module.best_of

    def best_of(errors: dict[tuple[str, str], Tensor], *rest: object) -> tuple[str, str]:
        return real({name: error for name, error in errors.items() if name[0] == base}, *rest)

    monkeypatch.setattr(emulator_module, "best_of", best_of)
    monkeypatch.setattr(emulator_module, "train_steps", lambda *_: None)


class Far(nn.Module):
    """A base that is far from the field."""

    def forward(self, field: Tensor, *_: Tensor) -> Tensor:
        return 1e3 + 0 * field


def test_networks_of_the_user_are_trained_as_bases() -> None:
    made: list[tuple[int, int]] = []

    def network(channels: int, out: int) -> nn.Module:
        made.append((channels, out))
        return nn.Conv1d(channels, out, 3, padding=1)

    fitted(base=network)
    assert made == [(5, 1)] * 2  # the field, and gradients at both walls at both ends of the step
    own = nn.Conv1d(5, 1, 1)
    before = own.weight.clone()
    emulator, *_ = fitted(base=own)
    assert torch.equal(own.weight, before)  # both networks are copies
    assert emulator.errors["increments/alone"] > 0
    assert emulator.errors["single step/alone"] > 0


def test_networks_that_are_trained_are_taken_as_they_are() -> None:
    """A field that is halved in every step: an exact network of single steps wins, in both units."""
    u = torch.randn(12, 1, 1, 33) * 0.5 ** torch.arange(5.0)[:, None, None]
    u[..., -1] = u[..., 0]
    times, layout = 0.1 * torch.arange(5), {"shape": (33,), "axes": (), "periodic": (), "counts": (1, 1)}
    halving, keeping = StepNetwork(Half(), **layout, changes=False), StepNetwork(Far(), **layout)
    for network in (halving, keeping):
        network.mean.zero_()
    options = {"config": TINY, "validation": 6, "level": None, "progress": False}
    emulator = Emulator.fit(u, times, GRID, [Periodic()], base=[keeping, halving], **options)
    assert emulator.errors["single step/alone"] < 1e-6
    assert emulator.errors["increments/alone"] > 1
    assert isinstance(emulator.operator.base, StepNetwork | ComponentRegression)
    alone = Emulator.fit(u, times, GRID, [Periodic()], base=halving, **options)
    assert set(alone.errors) == {"regression/alone", "single step/alone"}
    with pytest.raises(InvalidArgumentError, match="one trained network of each kind, got increments, increments"):
        Emulator.fit(u, times, GRID, [Periodic()], base=[keeping, keeping], **options)


class Half(nn.Module):
    def forward(self, channels: Tensor) -> Tensor:
        return 0.5 * channels[:, :1]


def test_a_network_of_single_steps_is_scaled_by_true_fields() -> None:
    """It predicts fields in units of their deviations about their mean."""
    u, slope, _ = heat()
    setting = Setting.of(GRID, [CONDITIONS["values"]], None, STEP)
    known = Functions(fields=5 + 3 * u, walls=walls_of("values", u, slope), media=None, setting=setting)

    def identity(channels: int, _: int) -> nn.Module:
        network = nn.Conv1d(channels, 1, 1, bias=False)
        network.weight.data = torch.eye(channels)[:1, :, None]
        return network

    network, steps = step_network(known, TINY, identity, changes=False), known.single
    torch.testing.assert_close(network(steps.before, *steps.data), steps.before, rtol=0, atol=8e-6)  # 4 ε of 14


def test_periodic_fields_in_two_axes_keep_their_total() -> None:
    torch.manual_seed(0)
    for grid, conditions in (
        (CellGrid((0.0, 0.0), (1.0, 1.0), (8, 8)), [Periodic()] * 2),
        (NodeGrid((0.0, 0.0), (1.0, 1.0), (9, 9)), [(Periodic(), Periodic())] * 2),
    ):
        phase = torch.rand(12, 1, 1, 1, 1)
        x, y = grid.points.float().unbind(dim=-1)
        t = torch.arange(5)[:, None, None, None] * 0.1
        u = torch.sin(2 * torch.pi * (x + phase - t)) + torch.cos(2 * torch.pi * (y - phase)) + 3.0
        options = {"config": TINY, "validation": 6, "level": 0.6, "progress": False}
        balance = {"bounds": NonNegative()}
        emulator = Emulator.fit(u, 0.1 * torch.arange(5), grid, conditions, balance=balance, **options)
        made = emulator.rollout(u[:, 0], 0.1 * torch.arange(5))
        assert made.fields.shape == u.shape
        assert emulator.under_law is not None  # a law with bounds is imposed
        assert float(made.fields.min()) >= 0
        totals = (made.fields.double() * grid.weights).sum(dim=(2, 3, 4))
        torch.testing.assert_close(totals, totals[:, :1].expand_as(totals), rtol=0, atol=1e-5)


def test_media_and_faces_are_channels() -> None:
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (6, 5))
    u, media = torch.randn(12, 5, 1, 6, 5), torch.randn(12, 2, 6, 5)
    closed = torch.zeros(12, 4, 1, 5)
    heated = 0.1 * torch.randn(12, 4, 1, 6)
    fluxes = [(closed, 0.0), (heated, heated)]
    channels: list[int] = []

    def network(count: int, out: int) -> nn.Module:
        channels.append(count)
        return nn.Conv2d(count, out, 1)

    times = 0.1 * torch.arange(5)
    emulator = Emulator.fit(
        u,
        times,
        grid,
        fluxes=fluxes,
        balance={},
        media=media,
        base=network,
        config=TINY,
        validation=6,
        level=0.6,
        progress=False,
    )
    assert channels == [1 + 3 + 2] * 2
    assert emulator.rollout(u[:, 0], times, media, fluxes=fluxes).fields.shape == u.shape


def test_fluxes_are_learnt_from_what_they_gave_to_totals() -> None:
    """Of both walls together, better than no fluxes; no flux was measured."""
    u, slope, gained = heat(40)
    setting = Setting.of(GRID, [CONDITIONS["values"]], {}, STEP)
    known = Functions(fields=u, walls=walls_of("values", u, slope), media=None, setting=setting)
    torch.testing.assert_close(known.gained((True,))[..., 0], gained, rtol=0, atol=1e-6)
    model = fit_flux(known, EmulatorConfig(flux_steps=400))
    first, last = (
        model(u[:, 0], side[:, 0], side[:, 1], 0, at) for side, at in zip(known.walls[0], (False, True), strict=True)
    )
    missed = (first - last)[:, 0].double() - gained[:, 0]
    assert float(missed.square().mean()) < 0.1 * float(gained[:, 0].square().mean())


def test_an_interrupted_fit_goes_on(tmp_path: Path) -> None:
    class Interrupting(nn.Conv1d):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Interrupting.calls += 1
            if Interrupting.calls == 3:
                signal.raise_signal(signal.SIGINT)
            return super().forward(x)

    def network(channels: int, out: int) -> nn.Module:
        return Interrupting(channels, out, 1)

    with pytest.raises(TrainingInterruptedError, match="holds its checkpoint"):
        fitted(base=network, folder=tmp_path)
    Interrupting.calls = 10
    resumed, *_ = fitted(base=network, folder=tmp_path)
    whole, *_ = fitted(base=network)
    assert resumed.errors == whole.errors


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    u, slope, _ = heat()
    walls, media = walls_of("values", u, slope), torch.ones(12, 1, 33)
    passed = STEP * slope[:, 1:, :, -1]
    given = {"fields": u, "sides": (walls[0][0], passed), "media": media, "value": 0.0, "times": TIMES}

    def fit(**changed: Any) -> Emulator:
        now = given | changed
        conditions = [(Dirichlet(), Neumann(now["value"]))]
        options = {"config": TINY, "validation": 6, "level": None, "progress": False, "folder": tmp_path}
        sides = {"values": [(now["sides"][0], None)], "fluxes": [(None, now["sides"][1])]}
        return Emulator.fit(now["fields"], now["times"], GRID, conditions, media=now["media"], **sides, **options)

    others = {
        "fields": u.flip(-1),
        "sides": (walls[0][0] + 1, passed),
        "media": media + 1,
        "value": 1.0,
        "times": 2 * TIMES,  # half the mean flux
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # values that the trajectories miss
        first = fit()
        assert fit().errors == first.errors
        for name, other in others.items():
            with pytest.raises(DataFileError, match="checkpoint"):
                fit(**{name: other})


def test_a_saved_emulator_knows_the_ranges_of_its_training(tmp_path: Path) -> None:
    """Media, too; files of before have none, and say nothing."""
    u, slope, _ = heat()
    walls, media = walls_of("slopes", u, slope), 1 + torch.rand(FUNCTIONS, 1, 33)
    options = {"config": TINY, "validation": 6, "level": 0.6, "progress": False, "media": media}
    emulator = Emulator.fit(u, TIMES, GRID, [CONDITIONS["slopes"]], values=walls, **options)
    emulator.save(tmp_path / "e.safetensors")
    again = Emulator.load(tmp_path / "e.safetensors", GRID, [CONDITIONS["slopes"]])
    with pytest.warns(UserWarning, match="media, channel 0 is in"):
        again.rollout(u[:, 0], TIMES, 3 * media, values=walls)
    older = replace(again, described={name: part for name, part in again.described.items() if name != "ranges"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        older.rollout(u[:, 0], TIMES, 3 * media, values=walls)
