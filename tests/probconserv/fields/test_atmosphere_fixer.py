"""Budgets of an atmosphere on tensors: the dense update, batches, precision, derivatives, messages."""

import pytest
import torch

from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fields import AtmosphereFixer, sphere_areas

double = torch.float64
LEVELS, ROWS, COLUMNS, SECONDS = 3, 4, 5, 3600.0
A = torch.tensor([2e4, 3e4, 4.9e4], dtype=double)
B = torch.tensor([0.0, 0.2, 0.6], dtype=double)
AREA = sphere_areas(torch.linspace(-90, 90, ROWS + 1), torch.linspace(0, 360, COLUMNS + 1))
AREA = AREA / AREA.sum()
STD = {"T": 0.5, "q": torch.tensor([1e-5, 3e-4, 1e-3]).reshape(3, 1, 1), "ps": 30.0, "E": 1e-6, "net": 1.0}
CENTRES = {"T": (260.0, 15.0), "q": (6e-3, 1e-3), "ps": (1e5, 500.0), "E": (3e-5, 1e-6), "net": (0.0, 10.0)}


def fixer(**changes):
    fluxes = {"moisture_fluxes": {"E": 1.0}, "energy_fluxes": {"net": 1.0}}
    return AtmosphereFixer(**{"a": A, "area": AREA, "seconds": SECONDS, **fluxes, **changes})


def state(seed, *batch, dtype=double):
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (LEVELS, ROWS, COLUMNS) if name in ("T", "q") else (ROWS, COLUMNS) for name in CENTRES}
    return {
        name: (centre + spread * torch.randn(*batch, *shapes[name], dtype=double, generator=generator)).to(dtype)
        for name, (centre, spread) in CENTRES.items()
    }


def relative(fixer, before, after):
    contents = fixer.contents(before)
    return max(float((part / contents[name]).abs().max()) for name, part in fixer.missed(before, after).items())


def test_on_levels_of_constant_pressure_it_is_the_update_with_dense_rows():
    before, after = state(0), state(1)
    names = ["T", "q", "ps", "E", "net"]
    mass = (A / 9.80665)[:, None, None] * AREA
    nothing = {name: torch.zeros_like(part) for name, part in after.items()}
    rows = [
        nothing | {"ps": AREA / 9.80665, "q": -mass},
        nothing | {"q": mass, "E": -SECONDS * AREA},
        nothing | {"T": 1004.7 * mass, "q": 2.501e6 * mass, "net": -SECONDS * AREA},
    ]
    G = torch.stack([torch.cat([row[name].flatten() for name in names]) for row in rows])
    start = torch.cat([(before | {"E": 0 * before["E"], "net": 0 * before["net"]})[name].flatten() for name in names])
    u = torch.cat([after[name].flatten() for name in names])
    variance = torch.cat([(STD[name] ** 2 / AREA).expand(after[name].shape).flatten() for name in names])
    S = (G * variance) @ G.T
    expected = u - variance * (G.T @ torch.linalg.solve(S, G @ (u - start)))
    found = fixer(non_negative=()).correct(before, after, STD)
    corrected = torch.cat([found[name].flatten() for name in names])
    assert torch.allclose(corrected, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("b", [0.0, B], ids=["pressure levels", "hybrid levels"])
def test_a_step_keeps_its_budgets_in_the_precision_of_the_fields(b):
    for dtype, tolerance in ((double, 1e-11), (torch.float32, 2e-7)):  # three units of float32
        before, after = state(0, dtype=dtype), state(1, dtype=dtype)
        found = fixer(b=b, a=A - 1e5 * torch.as_tensor(b)).correct(before, after, STD)
        assert relative(fixer(b=b, a=A - 1e5 * torch.as_tensor(b)), before, found) < tolerance
        assert all(found[name].dtype == dtype for name in found)
        assert bool((found["q"] >= 0).all())


@pytest.mark.parametrize("batch", [(LEVELS,), (2, LEVELS)], ids=str)
def test_a_batch_as_long_as_the_levels_is_corrected_one_by_one(batch):
    before, after = state(0, *batch), state(1, *batch)
    together = fixer(b=B, a=A - 1e5 * B).correct(before, after, STD)
    at = (-1,) * len(batch)
    parts = [{name: part[at] for name, part in each.items()} for each in (before, after)]
    alone = fixer(b=B, a=A - 1e5 * B).correct(*parts, STD)
    for name, part in alone.items():
        assert torch.allclose(together[name][at], part, rtol=1e-11, atol=1e-15)


def test_derivatives_pass_through_a_step():
    before, after = state(0), state(1)
    law = fixer(b=B, a=A - 1e5 * B, non_negative=())

    def heat(shift, humidity):
        moved = after | {"T": after["T"] + shift, "q": after["q"] + humidity}
        found = law.correct(before, moved, STD)
        return found["T"].square().mean(), found["ps"].square().mean() / 1e6

    shift, humidity = (torch.zeros(LEVELS, 1, 1, dtype=double, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(heat, (shift, humidity), eps=1e-4, rtol=1e-4)


def test_a_model_is_trained_through_three_corrected_steps():
    law, start = fixer(), state(0)
    gain = torch.zeros((), dtype=double, requires_grad=True)
    now = start
    for step in range(3):
        now = law.correct(now, state(step + 1) | {"T": now["T"] * (1 + gain), "q": now["q"]}, STD)
    now["T"].mean().backward()
    assert torch.isfinite(gain.grad)
    assert relative(law, start, start | {"E": 0 * start["E"], "net": 0 * start["net"]}) < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": A[:, None]}, r"needs a \(level,\).*got shapes \(3, 1\)"),
        ({"b": B[:2]}, r"\(2,\)"),
        ({"seconds": 0.0}, "length of a step, above 0, got 0.0"),
        ({"area": 2 * AREA}, "sum to 1, got 2"),
    ],
)
def test_budgets_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InvalidArgumentError, match=message):
        fixer(**change)


@pytest.mark.parametrize(
    ("change", "std", "kind", "message"),
    [
        (
            {"T": torch.ones(LEVELS, ROWS, COLUMNS + 1)},
            STD,
            IncompatibleQueryError,
            r"'T' must be \(\*batch, 3, 4, 5\)",
        ),
        ({"q": torch.ones(2, LEVELS, ROWS, COLUMNS)}, STD, IncompatibleQueryError, "same batch axes"),
        ({"q": torch.full((LEVELS, ROWS, COLUMNS), torch.nan)}, STD, InvalidArgumentError, "missing values"),
        ({}, {"T": 1.0}, InvalidArgumentError, r"must name each of .*but \['ps', 'q', 'E', 'net'\]"),
    ],
)
def test_states_that_do_not_fit_are_refused(change, std, kind, message):
    with pytest.raises(kind, match=message):
        fixer().correct(state(0), state(1) | change, std)


def test_a_state_without_a_variable_is_refused():
    before = state(0)
    del before["ps"]
    with pytest.raises(InvalidArgumentError, match=r"state lacks \['ps'\]"):
        fixer().contents(before)
