"""Data of emulators: what is wrong with them is named, and what is unusual is said."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from boon import FNO, FNOConfig
from probconserv import Emulator
from probconserv.emulator import step_network
from probconserv.errors import InvalidArgumentError
from probconserv.rollout.trajectories import Functions, Setting
from solvers import Dirichlet, Neumann, Periodic, Robin
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
        return Emulator.fit(fields, times, GRID, more.pop("conditions", conditions), values=sides, **options)

    with pytest.raises(InvalidArgumentError, match="Trajectories must be"):
        fit(u[:, :, 0])
    with pytest.raises(InvalidArgumentError, match="in equal steps"):
        fit(times=TIMES.square())
    with pytest.raises(InvalidArgumentError, match=r"values needs one pair \(first, last\) for each of the 1 axes"):
        fit(sides=[*walls, None])
    with pytest.raises(InvalidArgumentError, match=r"A side of axis 0 must be a tensor \(12, 11 or 10, channels"):
        fit(sides=[(walls[0][0][:, :5], walls[0][1])])
    with pytest.raises(InvalidArgumentError, match="balance takes flux"):
        fit(balance={"fluxes": None})
    with pytest.raises(InvalidArgumentError, match="level=None for no band"):
        fit(level=0.9)
    with pytest.raises(InvalidArgumentError, match="must leave functions to train on"):
        fit(validation=12)
    with pytest.raises(InvalidArgumentError, match="media must be"):
        fit(media=torch.zeros(12, 33))
    emulator = fit(balance={"flux": conduction})
    longer = [tuple(torch.cat([side, side[:, :1]], dim=1) for side in walls[0])]
    with pytest.raises(InvalidArgumentError, match="The band holds for 10 steps"):
        emulator.rollout(u[:, 0], STEP * torch.arange(12), values=longer)
    with pytest.raises(InvalidArgumentError, match=r"in equal steps of 0\.02"):
        emulator.rollout(u[:, 0], 2 * TIMES, values=walls)
    with pytest.raises(InvalidArgumentError, match=r"values needs one pair \(first, last\) for each of the 1 axes"):
        emulator.rollout(u[:, 0], TIMES, values=list(walls[0]))
    for other in ([(0.0, walls[0][1])], [(walls[0][0], None)], [None]):
        with pytest.raises(
            InvalidArgumentError, match=r"tensors where fit had them, \['the first side|is one number, 0.0"
        ):
            emulator.rollout(u[:, 0], TIMES, values=other)


def test_data_that_cannot_be_learnt_from_are_named() -> None:
    u, slope, _ = heat()
    walls, media = walls_of("slopes", u, slope), torch.ones(12, 2, 33)
    options = {"config": TINY, "validation": 6, "level": None, "progress": False}
    spoilt = media.clone()
    spoilt[3, 1, 5] = torch.nan
    for law in ({}, {"flux": conduction}):
        with pytest.raises(InvalidArgumentError, match=r"the last side of axis 0, where nothing is given.*Neumann"):
            Emulator.fit(u, TIMES, GRID, [(Neumann(), None)], values=[(walls[0][0], None)], balance=law, **options)
    with pytest.raises(InvalidArgumentError, match="media must be finite, got 1 values"):
        Emulator.fit(u, TIMES, GRID, [CONDITIONS["slopes"]], media=spoilt, values=walls, **options)
    doubled, fluxes = torch.cat([u, u], dim=2), [tuple(side[:, 1:] for side in walls[0])]
    for given, message in (
        (
            {"trajectories": doubled, "values": walls, "media": media},
            "must have the channels.*fields 1 channels, got 2",
        ),
        ({"trajectories": u, "values": walls}, "must have the channels.*media 2 channels, got none"),
        ({"trajectories": u, "values": fluxes, "media": media}, r"values\[0\]\[0\] must be values at all 11 times"),
        ({"trajectories": u, "fluxes": fluxes, "media": media}, r"fluxes\[0\]\[0\] holds fluxes, but conditions"),
        ({"fields": u, "values": walls}, "a dictionary with trajectories, values.*got fields, values"),
    ):
        changed = options | {"validation": given}
        with pytest.raises(InvalidArgumentError, match=message):
            Emulator.fit(u, TIMES, GRID, [CONDITIONS["slopes"]], values=walls, media=media, **changed)
    emulator = Emulator.fit(u, TIMES, GRID, [CONDITIONS["slopes"]], media=media, values=walls, **options)
    for start, sides, coefficients, name in (
        (u[:, 0] / 0, walls, media, r"start must be finite.*got \(12, 1, 33\)"),
        (u, walls, media, r"start must be finite.*got \(12, 11, 1, 33\)"),
        (u[:, 0].repeat(1, 2, 1), walls, media, "fields 1 channels, got 2"),
        (u[:, 0], walls, media[:, :1], "media 2 channels, got 1"),
        (u[:, 0], walls, None, "media 2 channels, got none"),
        (u[:, 0], walls, spoilt, "media must be finite"),
        (u[:, 0], fluxes, media, r"values\[0\]\[0\] must be values at all 11 times, got 10"),
    ):
        with pytest.raises(InvalidArgumentError, match=name):
            emulator.rollout(start, TIMES, coefficients, values=sides)


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
        fitted("values", base=base, balance=None)


def test_a_trained_network_of_other_channels_is_refused() -> None:
    u, slope, _ = heat()
    setting = Setting.of(GRID, [CONDITIONS["values"]], None, STEP)
    known = Functions(fields=u, walls=walls_of("values", u, slope), media=torch.ones(12, 1, 33), setting=setting)
    with pytest.raises(InvalidArgumentError, match=r"base was trained from 6 channels to 1.*have 5 and the field 1"):
        fitted("values", base=step_network(known, TINY), balance=None)


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
        unseen = [tuple(side[6:] for side in sides[0])]
        validation = {"trajectories": fields[6:], "values": unseen, "media": coefficients[6:]}
        options = {"config": TINY, "validation": validation, "level": 0.6, "progress": False, "media": coefficients}
        options |= {"balance": {}, "impose": True, "values": sides}
        emulator = Emulator.fit(fields, times, GRID, [CONDITIONS["mixed"]], **options)
        forecast = emulator.rollout(fields[:, 0], times, coefficients, values=sides)
        draws = emulator.draw(fields[:, 0], times, 2, coefficients, Generator().manual_seed(0), values=sides)
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
        Emulator.fit(u, TIMES, GRID, [(Robin(1.0, 0.2), Robin(1.0, -0.2))], values=walls, **options)
    offset = torch.arange(float(FUNCTIONS))[:, None, None, None]
    (gentle,) = walls_of("slopes", u, 0.02 * slope)
    turned = [tuple(-side for side in gentle)]
    with pytest.warns(UserWarning, match="miss their condition on the .* Check the signs"):
        Emulator.fit(offset + 0.02 * u, TIMES, GRID, [CONDITIONS["slopes"]], balance=None, values=turned, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Emulator.fit(offset + 0.02 * u, TIMES, GRID, [CONDITIONS["slopes"]], balance=None, values=[gentle], **options)
    first, last = walls_of("values", u, slope)[0]
    with pytest.warns(UserWarning, match="the order of the walls"):
        Emulator.fit(u, TIMES, GRID, [CONDITIONS["values"]], values=[(last, first)], **options)


def test_data_beyond_the_training_warn_by_name() -> None:
    """Starts, walls and media, each with both ranges, once for a rollout; data like those of the training do not."""
    emulator, u, walls = fitted(balance=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = emulator.rollout(u[:, 0], TIMES, values=walls).fields
    assert torch.equal(emulator.rollout(u[:, 0].numpy(), TIMES.numpy(), values=walls).fields, expected)
    larger = [(walls[0][0], 4 * walls[0][1])]
    with pytest.warns(UserWarning, match=r"last side of axis 0, channel 0 is in \[.*those functions in") as found:
        emulator.rollout(4 * u[:, 0], TIMES, values=larger)
    assert len(found) == 1
    assert found[0].filename == __file__
    message = str(found[0].message)
    assert "start, channel 0 is in" in message
    assert "first side" not in message
    with pytest.warns(UserWarning, match="lie beyond those of fit"):
        emulator.draw(u[:, 0], TIMES, draws=2, values=larger)


def former(call: Callable[[], Any], *words: str) -> Any:
    """The result of a call of release 0.4, which warns where it is written."""
    with pytest.warns(DeprecationWarning, match=r"release 0\.5") as found:
        result = call()
    assert [each.filename for each in found] == [__file__] * len(words)
    assert all(any(word in str(each.message) for each in found) for word in words)
    return result


def test_calls_of_0_4_have_the_same_emulator_with_warnings() -> None:
    """Walls before the times, law, the validation in a tuple, members, and None for a periodic axis."""
    u, slope, _ = heat()
    walls, conditions = walls_of("slopes", u, slope), [CONDITIONS["slopes"]]
    unseen = [tuple(side[6:] for side in walls[0])]
    options = {"config": TINY, "level": None, "progress": False}
    words = ("values=[(first, last)]", "law of Emulator.fit is balance", "validation takes further trajectories")
    old = former(
        lambda: Emulator.fit(u, walls, TIMES, GRID, conditions, law={}, validation=(u[6:], unseen), **options), *words
    )
    validation = {"trajectories": u[6:], "values": unseen}
    new = Emulator.fit(u, TIMES, GRID, conditions, values=walls, balance={}, validation=validation, **options)
    assert old.errors == new.errors
    expected = new.rollout(u[:, 0], TIMES, values=walls).fields
    assert torch.equal(former(lambda: old.rollout(u[:, 0], walls, TIMES), words[0]).fields, expected)
    assert torch.equal(former(lambda: new.rollout(u[:, 0], times=TIMES, walls=walls), words[0]).fields, expected)
    drawn = new.draw(u[:, 0], TIMES, 2, values=walls, generator=Generator().manual_seed(0))
    seeded = Generator().manual_seed(0)
    calls = lambda: new.draw(u[:, 0], walls, TIMES, members=2, generator=seeded)  # noqa: E731
    assert torch.equal(former(calls, words[0], "members of Emulator.draw is draws"), drawn)


def fit_sides(conditions: Any = None, **given: Any) -> Emulator:
    u, *_ = heat()
    options = {"config": TINY, "validation": 6, "level": None, "progress": False}
    return Emulator.fit(u, TIMES, GRID, conditions, **given, **options)


VALUES = heat()[0][..., 0]
NO_FIT = [
    ({"values": [(VALUES, VALUES)], "balance": {}}, r"values\[0\]\[0\] says nothing of what passes the first side"),
    ({"values": [(VALUES, None)], "fluxes": [(0.0, None)]}, "The first side of axis 0 has values and fluxes"),
    ({"values": [(5.0, None)]}, r"is one number, 5.0; state it in conditions\[0\], such as Dirichlet\(5.0\)"),
    ({"fluxes": [(99.0, None)]}, r"fluxes\[0\]\[0\] is a constant flux, 99.0, which has no effect without a balance"),
    ({"fluxes": [Periodic()], "conditions": [CONDITIONS["values"]]}, "periodic in the data of its sides and has cond"),
    ({"values": [(VALUES, None)], "conditions": [Periodic()]}, "periodic in conditions and has data of its sides"),
    ({"values": [Periodic()], "fluxes": [(0.0, 0.0)]}, "Axis 0 is periodic, but has data of sides"),
    (
        {"fluxes": [(VALUES, None)], "conditions": [CONDITIONS["values"]]},
        r"holds fluxes, but .* takes a value at every",
    ),
    ({"values": [(VALUES, None)], "conditions": [(Neumann(0.0), None)]}, "which has its value; leave out one"),
    (
        {"fluxes": [(None, 0.0)], "conditions": [(Dirichlet(1.0), Neumann(0.0))], "balance": {}},
        "the flux through the last side of axis 0 is computed, .* give fluxes on both sides",
    ),
    ({"walls": [(99.0, None)]}, r"walls\[0\]\[0\] is a constant flux, 99.0, which has no effect"),
    ({"walls": [None], "conditions": [CONDITIONS["values"]]}, "periodic in the data of its sides and has conditions"),
    ({"walls": [(VALUES[:, 1:], None)], "conditions": [CONDITIONS["values"]]}, "holds fluxes, but .* takes a value"),
]


@pytest.mark.filterwarnings("ignore:Emulator.fit takes what is given:DeprecationWarning")
@pytest.mark.parametrize(("given", "message"), NO_FIT)
def test_values_and_fluxes_that_conditions_or_balance_cannot_take_are_refused(given: dict, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        fit_sides(**given)


def test_sides_that_were_values_in_fit_are_no_fluxes_afterwards() -> None:
    emulator = fit_sides(values=[(VALUES, None)])
    with pytest.raises(InvalidArgumentError, match="The first side of axis 0 had values in fit, got fluxes"):
        emulator.rollout(heat()[0][:, 0], TIMES, fluxes=[(VALUES, None)])


def test_walls_that_are_known_to_be_closed_have_no_learnt_flux(tmp_path: Path) -> None:
    """Where fluxes are given on both sides of an axis with conditions, the balance is exact; in its file, too."""
    options = {"fluxes": [(0.0, 0.0)], "balance": {}, "impose": True}
    u, conditions = heat()[0], [(Neumann(0.0), Neumann(0.0))]
    emulator = fit_sides(conditions, **options)
    assert emulator.flux is None
    emulator.save(tmp_path / "e.safetensors")
    again = Emulator.load(tmp_path / "e.safetensors", GRID, conditions, balance={})
    for each in (emulator, again):
        totals = each.rollout(u[:, 0].double(), TIMES, fluxes=[(0.0, 0.0)]).totals
        torch.testing.assert_close(totals, totals[:, :1].expand_as(totals), rtol=0, atol=1e-12)


def test_an_emulator_and_its_forecasts_print_one_line() -> None:
    emulator, u, walls = fitted("values", level=None)
    assert repr(emulator) == f"Emulator({GRID}: {emulator.report})"
    assert repr(emulator.rollout(u[:, 0], TIMES, values=walls)) == (
        "Forecast(fields (12, 11, 1, 33), totals (12, 11, 1), no band)"
    )
