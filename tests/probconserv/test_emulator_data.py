"""Data of emulators: what is wrong with them is named, and what is unusual is said."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from boon import FNO, FNOConfig
from probconserv import Emulator
from probconserv.emulator import step_network
from probconserv.errors import InvalidArgumentError
from probconserv.rollout.trajectories import Functions, Setting
from solvers import Neumann, Robin
from tests.probconserv.heat_emulators import (
    CONDITIONS,
    FUNCTIONS,
    GRID,
    STEP,
    TIMES,
    TINY,
    conduction,
    fitted,
    heat,
    walls_of,
)


def test_invalid_arguments_raise_with_reason() -> None:
    u, slope, _ = heat()
    walls = walls_of("slopes", u, slope)
    conditions = [CONDITIONS["slopes"]]

    def fit(fields: Tensor = u, sides: object = walls, times: Tensor = TIMES, **more: object) -> Emulator:
        options = {"config": TINY, "validation": 6, "level": 0.6, "progress": False} | more
        return Emulator.fit(fields, sides, times, GRID, more.pop("conditions", conditions), **options)

    with pytest.raises(InvalidArgumentError, match="Trajectories must be"):
        fit(u[:, :, 0])
    with pytest.raises(InvalidArgumentError, match="in equal steps"):
        fit(times=TIMES.square())
    with pytest.raises(InvalidArgumentError, match=r"one pair \(first, last\) per axis"):
        fit(sides=[*walls, None])
    with pytest.raises(InvalidArgumentError, match=r"A side of walls\[0\] must be a tensor \(12, 11 or 10, channels"):
        fit(sides=[(walls[0][0][:, :5], walls[0][1])])
    with pytest.raises(InvalidArgumentError, match="law takes flux"):
        fit(law={"fluxes": None})
    with pytest.raises(InvalidArgumentError, match="level=None for no band"):
        fit(level=0.9)
    with pytest.raises(InvalidArgumentError, match="must leave functions to train on"):
        fit(validation=12)
    with pytest.raises(InvalidArgumentError, match="media must be"):
        fit(media=torch.zeros(12, 33))
    emulator = fit(law={"flux": conduction})
    longer = [tuple(torch.cat([side, side[:, :1]], dim=1) for side in walls[0])]
    with pytest.raises(InvalidArgumentError, match="The band holds for 10 steps"):
        emulator.rollout(u[:, 0], longer, STEP * torch.arange(12))
    with pytest.raises(InvalidArgumentError, match=r"in equal steps of 0\.02"):
        emulator.rollout(u[:, 0], walls, 2 * TIMES)
    with pytest.raises(InvalidArgumentError, match=r"one pair \(first, last\) per axis"):
        emulator.rollout(u[:, 0], list(walls[0]), TIMES)
    for other in ([(0.0, walls[0][1])], [(walls[0][0], None)], [None]):
        with pytest.raises(InvalidArgumentError, match=r"tensors on the sides where fit had them, \['walls\[0\]\[0\]"):
            emulator.rollout(u[:, 0], other, TIMES)


def test_data_that_cannot_be_learnt_from_are_named() -> None:
    u, slope, _ = heat()
    walls, media = walls_of("slopes", u, slope), torch.ones(12, 2, 33)
    options = {"config": TINY, "validation": 6, "level": None, "progress": False}
    spoilt = media.clone()
    spoilt[3, 1, 5] = torch.nan
    for law in ({}, {"flux": conduction}):
        with pytest.raises(InvalidArgumentError, match=r"the last side of axis 0, where walls\[0\] has None.*Neumann"):
            Emulator.fit(u, [(walls[0][0], None)], TIMES, GRID, [(Neumann(), None)], law=law, **options)
    with pytest.raises(InvalidArgumentError, match="media must be finite, got 1 values"):
        Emulator.fit(u, walls, TIMES, GRID, [CONDITIONS["slopes"]], media=spoilt, **options)
    doubled, fluxes = torch.cat([u, u], dim=2), [tuple(side[:, 1:] for side in walls[0])]
    for given, name in (
        ((doubled, walls, media), "fields 1 channels, got 2"),
        ((u, walls), "media 2 channels, got none"),
        ((u, fluxes, media), r"walls\[0\]\[0\] 1 channels of values at the times, got 1 channels of fluxes"),
    ):
        with pytest.raises(InvalidArgumentError, match=f"validation must have the channels.*{name}"):
            Emulator.fit(
                u, walls, TIMES, GRID, [CONDITIONS["slopes"]], media=media, **(options | {"validation": given})
            )
    with pytest.raises(InvalidArgumentError, match=r"validation must be a number of functions.*got 1 parts"):
        Emulator.fit(u, walls, TIMES, GRID, [CONDITIONS["slopes"]], **(options | {"validation": (u,)}))
    emulator = Emulator.fit(u, walls, TIMES, GRID, [CONDITIONS["slopes"]], media=media, **options)
    for start, sides, coefficients, name in (
        (u[:, 0] / 0, walls, media, r"start must be finite.*got \(12, 1, 33\)"),
        (u, walls, media, r"start must be finite.*got \(12, 11, 1, 33\)"),
        (u[:, 0].repeat(1, 2, 1), walls, media, "fields 1 channels, got 2"),
        (u[:, 0], walls, media[:, :1], "media 2 channels, got 1"),
        (u[:, 0], walls, None, "media 2 channels, got none"),
        (u[:, 0], walls, spoilt, "media must be finite"),
        (u[:, 0], fluxes, media, r"walls\[0\]\[0\] 1 channels of values at the times, got 1 channels of fluxes"),
    ):
        with pytest.raises(InvalidArgumentError, match=name):
            emulator.rollout(start, sides, TIMES, coefficients)


@pytest.mark.parametrize(
    ("base", "got"),
    [
        (nn.Conv1d(1, 1, 3, padding=1), "RuntimeError: .*to have 1 channels, but got 5"),
        (FNO(FNOConfig(in_channels=1, out_channels=1, width=4, modes=(4,), depth=1)), "got InvalidArgumentError"),
        (nn.Conv1d(5, 2, 3, padding=1), r"got \(2, 2, 33\)"),
        (nn.Conv1d(5, 1, 3), r"got \(2, 1, 31\)"),
    ],
)
def test_a_base_of_other_channels_is_refused_by_name(base: nn.Module, got: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"base must map \(batch, 5, 33\).*to \(batch, 1, 33\).*{got}"):
        fitted("values", base=base, law=None)


def test_a_trained_network_of_other_channels_is_refused() -> None:
    u, slope, _ = heat()
    setting = Setting.of(GRID, [CONDITIONS["values"]], None, STEP)
    known = Functions(fields=u, walls=walls_of("values", u, slope), media=torch.ones(12, 1, 33), setting=setting)
    with pytest.raises(InvalidArgumentError, match=r"base was trained from 6 channels to 1.*have 5 and the field 1"):
        fitted("values", base=step_network(known, TINY), law=None)


def test_the_check_of_a_base_leaves_it_as_it_was() -> None:
    u, slope, _ = heat()
    setting = Setting.of(GRID, [CONDITIONS["values"]], None, STEP)
    known = Functions(fields=u, walls=walls_of("values", u, slope), media=None, setting=setting)
    frozen = nn.BatchNorm1d(4).eval()
    base = nn.Sequential(nn.Conv1d(5, 4, 1), frozen, nn.BatchNorm1d(4), nn.Dropout(), nn.Conv1d(4, 1, 1))
    before, state = {name: each.clone() for name, each in base.state_dict().items()}, torch.get_rng_state()
    network = step_network(known, TINY, base).network
    assert torch.equal(torch.get_rng_state(), state)  # of the generator, as it was
    assert [each.training for each in network] == [each.training for each in base]
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())  # copies


@pytest.mark.parametrize("change", [Tensor.numpy, lambda part: part.clone().requires_grad_()], ids=["NumPy", "graph"])
def test_arrays_and_tensors_with_derivatives_are_data(change: Callable[[Tensor], Any]) -> None:
    u, slope, _ = heat()
    walls, media = walls_of("mixed", u, slope), torch.linspace(0.0, 1.0, 12)[:, None, None].expand(12, 1, 33)

    def run(change: Callable[[Tensor], Any]) -> list[Tensor]:
        fields, coefficients, times = change(u), change(media), TIMES
        sides = [tuple(change(side) for side in walls[0])]
        validation = fields[6:], [tuple(side[6:] for side in sides[0])], coefficients[6:]
        options = {"config": TINY, "validation": validation, "level": 0.6, "progress": False, "media": coefficients}
        emulator = Emulator.fit(fields, sides, times, GRID, [CONDITIONS["mixed"]], law={}, impose=True, **options)
        forecast = emulator.rollout(fields[:, 0], sides, times, coefficients)
        draws = emulator.draw(fields[:, 0], sides, times, 2, coefficients, Generator().manual_seed(0))
        return [*forecast, draws]

    for got, wanted in zip(run(change), run(Tensor.clone), strict=True):
        assert not got.requires_grad
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)  # float32 of order 1, trained for 8 steps


def test_trajectories_that_miss_their_conditions_warn() -> None:
    """Signs of ∂/∂x that point outwards; data of the other side."""
    u, slope, _ = heat()
    options = {"config": TINY, "validation": 6, "level": 0.6, "progress": False}
    walls = walls_of("Robin", u, slope)
    with pytest.warns(UserWarning, match="miss their condition on the (first|last) side of axis 0"):
        Emulator.fit(u, walls, TIMES, GRID, [(Robin(1.0, 0.2), Robin(1.0, -0.2))], **options)
    offset = torch.arange(float(FUNCTIONS))[:, None, None, None]
    (gentle,) = walls_of("slopes", u, 0.02 * slope)
    turned = [tuple(-side for side in gentle)]
    with pytest.warns(UserWarning, match="miss their condition on the .* Check the signs"):
        Emulator.fit(offset + 0.02 * u, turned, TIMES, GRID, [CONDITIONS["slopes"]], law=None, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Emulator.fit(offset + 0.02 * u, [gentle], TIMES, GRID, [CONDITIONS["slopes"]], law=None, **options)
    first, last = walls_of("values", u, slope)[0]
    with pytest.warns(UserWarning, match="the order of the walls"):
        Emulator.fit(u, [(last, first)], TIMES, GRID, [CONDITIONS["values"]], **options)


def test_data_beyond_the_training_warn_by_name() -> None:
    """Starts, walls and media, each with both ranges, once for a rollout; data like those of the training do not."""
    emulator, u, walls = fitted(law=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = emulator.rollout(u[:, 0], walls, TIMES).fields
    assert torch.equal(emulator.rollout(u[:, 0].numpy(), walls, TIMES.numpy()).fields, expected)
    larger = [(walls[0][0], 4 * walls[0][1])]
    with pytest.warns(UserWarning, match=r"walls\[0\]\[1\], channel 0 is in \[.*in those functions in \[") as found:
        emulator.rollout(4 * u[:, 0], larger, TIMES)
    assert len(found) == 1
    assert found[0].filename == __file__
    message = str(found[0].message)
    assert "start, channel 0 is in" in message
    assert "walls[0][0]" not in message
    with pytest.warns(UserWarning, match="lie beyond those of fit"):
        emulator.draw(u[:, 0], larger, TIMES, members=2)
