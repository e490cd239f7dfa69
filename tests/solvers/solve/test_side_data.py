"""Boundary data on rows: values at any times, and the scan that limits steps and checks what they saw."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import CellGrid, Dirichlet, Neumann, Outflow, Periodic, Robin
from solvers.errors import BoundarySamplingError, InvalidArgumentError
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, OUTFLOW, PERIODIC, STATE, SideData, batch_shapes

GRID = CellGrid(0.0, 1.0, 10)
PLANE = CellGrid((0.0, 0.0), (1.0, 2.0), (3, 4))
SIMPSON = (1 / 6, 2 / 3, 1 / 6)


def build(first, last=None, *, grid=GRID, batch=(), span=(0.0, 1.0), breakpoints=()):
    conditions = [(first, Neumann(flux=0.0) if last is None else last)]
    conditions += [(Periodic(), Periodic())] * (grid.dimension - 1)
    return SideData.build(conditions, grid, batch, *span, breakpoints)


def walk(sides, limit=math.inf, weights=SIMPSON):
    """Takes the largest steps to the end: time integrals of the data by a rule at start, middle and end, and steps."""
    time, sampled, steps = np.full(len(sides.rows), sides.start), np.zeros_like(sides.fixed), 0
    rows = np.arange(len(sides.rows))
    while (left := sides.end - time > 1e-12).any():
        length = np.where(left, np.minimum(sides.largest_step(time), limit), 0.0)
        after, before = sides.limits.at(time, rows)[1], sides.limits.at(time + length, rows)[1]
        data = sides.values(np.stack((time + after, time + 0.5 * length, time + length - before)), rows)
        sampled += length[:, None] * np.einsum("k,krs->rs", weights, data)
        time, steps = time + length, steps + 1
        assert steps < 5000
    return sampled, steps


def test_modes_offsets_and_data_of_all_sides():
    sides = SideData.build(
        [(Dirichlet(2.0), Neumann(gradient=3.0)), (Outflow(), Neumann(flux=np.arange(3.0)))], PLANE, (2,), 0.0, 1.0
    )
    assert sides.modes.tolist() == [STATE, STATE, OUTFLOW, GIVEN_FLUX]
    assert sides.offsets.tolist() == [0, 4, 8, 11, 14]
    assert sides.constant
    data = sides.at(np.zeros((3, 2)))
    assert data.shape == (1, 2, 14)
    gradient = 3.0 * (1 / 3) / 2  # u_side = u_edge + g h/2
    assert data[0, 1].tolist() == pytest.approx([2.0] * 4 + [gradient] * 4 + [0.0] * 3 + [0.0, 1.0, 2.0])
    assert sides.pull.tolist() == [[0.0, 1.0, 1.0, 0.0]] * 2
    assert build(Periodic(), Periodic()).modes.tolist() == [PERIODIC, PERIODIC]


@settings(deadline=None, max_examples=40)
@given(st.booleans(), st.integers(0, 2**32 - 1), st.integers(3, 50), st.floats(-2, 2))
def test_side_state_meets_the_robin_condition_of_every_sample(last, seed, n, edge):
    """a·u + b·c₀(u − u_edge) = g with coefficients and values per sample."""
    a, b, g = np.random.default_rng(seed).uniform(0.2, 2.0, (3, 2, 3))
    b = b if last else -b  # so that a + b c₀ is not zero
    condition = Robin(torch.from_numpy(a), b, lambda time: (1.0 + time) * g)
    pair = (Outflow(), condition) if last else (condition, Outflow())
    sides = build(*pair, grid=CellGrid(0.0, 1.0, n), batch=(2, 3))
    state = sides.at(np.full((1, 6), 0.5))[0, :, int(last)] + sides.pull[:, int(last)] * edge
    weight = 2.0 * n if last else -2.0 * n
    residual = a.ravel() * state + b.ravel() * weight * (state - edge) - 1.5 * g.ravel()
    assert np.abs(residual).max() < 1e-12 * n


RATES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
PROFILE = np.linspace(1.0, 2.0, 4)
FUNCTIONS = {
    "arithmetic": lambda t: 1.0 + t * t,
    "numpy": lambda t: np.sin(3.0 * t),
    "tensor": lambda t: torch.exp(-RATES[..., None] * t),
    "math": lambda t: math.sin(3.0 * t),
    "branch": lambda t: 1.0 if t < 0.4 else RATES[..., None],
    "along the side": lambda t: PROFILE * t,
    "all axes": lambda t: RATES[..., None] * torch.as_tensor(PROFILE * t),
    "mean of its argument": lambda t: np.mean(t) * 1.0,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_at_many_times_are_those_of_single_calls(name):
    """Every row has its time; the oracle calls the function once per time and row."""
    function = FUNCTIONS[name]
    sides = build(Dirichlet(function), grid=PLANE, batch=(2, 3))
    times = np.random.default_rng(0).uniform(0.0, 1.0, (3, 6))
    data = sides.at(times)
    rows = np.array([4, 1])
    assert np.array_equal(sides.take(rows).at(times[:, rows]), data[:, rows])
    for k, row in np.ndindex(3, 6):
        value = np.broadcast_to(np.asarray(function(float(times[k, row]))), (2, 3, 4)).reshape(6, 4)[row]
        assert np.abs(data[k, row, :4] - value).max() <= 1e-14


def test_a_function_that_changes_its_argument():
    def doubled(time):
        time *= 2
        return time

    times = np.array([[0.1], [0.2]])
    assert build(Dirichlet(doubled)).at(times)[:, 0, 0].tolist() == [0.2, 0.4]
    assert times.tolist() == [[0.1], [0.2]]


def layer(time):
    return 1000 * np.exp(-time / 1e-4) + np.sin(20 * time)


def square_wave(time):
    return float(math.sin(200.0 * time) > 0.0)


EVENTS = {
    "pulse": (lambda t: np.exp(-(((t - 0.5) / 0.05) ** 2)) / (0.05 * math.sqrt(math.pi)), 1.0, 2e-4),
    "box": (lambda t: 1.0 if 0.05 <= t < 0.45 else 0.0, 0.4, 1e-9),
    "dyadic jump": (lambda t: 0.0 if t <= 0.5 else 1.0, 0.5, 1e-9),
    "layer and wave": (layer, 0.1 + (1 - math.cos(20)) / 20, 5e-4),
    "sin²": (lambda t: np.sin(np.pi * t) ** 2, 0.5, 1e-4),
    "infinite slope": (lambda t: (6 * t) ** (1 / 6), 6 ** (1 / 6) * 6 / 7, 1e-4),
    "many waves": (lambda t: np.sin(1000 * t), (1 - math.cos(1000)) / 1000, 1e-4),
    "square wave": (square_wave, 32 * math.pi / 200, 1e-8),
    "switched on": (lambda t: 1.0 if t > 0.0 else 0.0, 1.0, 1e-12),
    "kink": (lambda t: abs(t - 0.3137), 0.5 * (0.3137**2 + 0.6863**2), 1e-4),
}  # fmt: skip


@pytest.mark.parametrize("name", EVENTS)
def test_largest_steps_see_every_event(name):
    """Integral of the scan and of the largest steps against the exact one, in few steps."""
    function, exact, tolerance = EVENTS[name]
    sides = build(Neumann(flux=function))
    assert sides.integral(0.0, 1.0)[0, 0] == pytest.approx(exact, abs=tolerance)
    sampled, steps = walk(sides)
    assert sampled[0, 0] == pytest.approx(exact, abs=tolerance)
    assert steps < 600
    sides.check(sampled, 0.0, 1.0)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.0, 0.98), st.sampled_from(["box", "gauss"]), st.floats(-3, 3))
def test_short_pulses_are_found_wherever_they_are(centre, kind, base):
    """Pulses of a hundredth of the span."""
    start, width = centre + 0.01, 0.01

    def pulse(time):
        if kind == "gauss":
            return base + np.exp(-(((time - start) / (0.5 * width)) ** 2))
        return base + (1.0 if abs(time - start) < 0.5 * width else 0.0)

    area = 0.25 * width * math.sqrt(math.pi) * (
        math.erf((1 - start) / (0.5 * width)) + math.erf(start / (0.5 * width))
    ) if kind == "gauss" else width  # fmt: skip
    sides = build(Dirichlet(pulse))
    sampled, _ = walk(sides)
    assert sides.integral(0.0, 1.0)[0, 0] - base == pytest.approx(area, rel=1e-3)
    assert sampled[0, 0] - base == pytest.approx(area, rel=1e-2)


@pytest.mark.parametrize("name", ["pulse", "layer and wave", "infinite slope", "kink"])
def test_continuous_data_have_no_break_points(name):
    sides = build(Neumann(flux=EVENTS[name][0]))
    assert sides.scan is not None
    assert not sides.scan.panels.has_breaks


def test_a_step_is_no_longer_than_the_panels_it_touches():
    """Towards the layer at the end, panels get shorter; a step may end with its panel."""
    sides = build(Dirichlet(lambda t: np.exp((t - 1.0) / 1e-3)))
    assert sides.scan is not None
    panels = sides.scan.panels
    assert (panels.high - panels.low).min() < 0.1 * (panels.high - panels.low).max()
    for time in np.random.default_rng(0).uniform(0.8, 1.0, 300):
        end = time + sides.largest_step(np.array([time]))[0]
        touched = (panels.low < end - 1e-12) & (panels.high > time + 1e-9)
        within = touched.sum() == 1
        assert within or end - time <= (panels.high - panels.low)[touched].min() + 1e-9


def test_infinite_slopes_of_a_batch():
    m = torch.arange(1.0, 7.0, dtype=torch.float64)
    sides = build(Dirichlet(lambda t: (m * t) ** (1 / m)), batch=(6,))
    exact = m ** (1 / m) / (1 + 1 / m)
    assert np.abs(sides.integral(0.0, 1.0)[:, 0] - exact.numpy()).max() < 1e-5
    sampled, steps = walk(sides)
    sides.check(sampled, 0.0, 1.0)
    assert steps < 50


def test_integrals_of_parts_of_the_span_add_up():
    sides = build(Dirichlet(lambda t: np.exp(3.0 * t)), Robin(1.0, 0.5, lambda t: t), span=(1.0, 2.0))
    parts = [sides.integral(a, b) for a, b in ((1.0, 1.013), (1.013, 1.7), (1.7, 2.0))]
    assert parts[0][0, 0] == pytest.approx((math.exp(3.039) - math.exp(3.0)) / 3, rel=1e-12)
    assert np.allclose(sum(parts), sides.integral(1.0, 2.0), rtol=1e-13)
    assert parts[1][0, 1] == pytest.approx(0.5 * (1.7**2 - 1.013**2) / (1.0 + 0.5 * 20.0), rel=1e-12)


def test_steps_end_at_break_points_and_see_both_sides_of_a_jump():
    sides = build(Dirichlet(lambda t: 5.0 if t >= 0.3 else 1.0), breakpoints=(0.3, 7.0))
    start = np.array([0.29])
    assert start + sides.largest_step(start) == pytest.approx(0.3, abs=1e-15)
    end, row = np.array([0.3]), np.array([0])
    margin = sides.limits.at(end, row)[1]
    assert sides.values(end[None] - margin, row)[0, 0, 0] == 1.0
    assert sides.values(end[None] + margin, row)[0, 0, 0] == sides.at(end[None])[0, 0, 0] == 5.0
    assert sides.largest_step(end) > 0.01
    constant = build(Dirichlet(1.0), breakpoints=(0.3,))
    assert constant.constant
    assert start + constant.largest_step(start) == pytest.approx(0.3, abs=1e-15)
    assert build(Dirichlet(1.0)).largest_step(start) == pytest.approx(0.71)


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (0.5, 0.0, 0.5), SIMPSON])
@pytest.mark.parametrize("name", EVENTS)
def test_honest_steps_pass_the_check(name, weights):
    """Euler's, the trapezoid and Simpson's rule, on the largest steps and on shorter ones."""
    sides = build(Neumann(flux=EVENTS[name][0]))
    for limit in (math.inf, 0.004):
        sides.check(walk(sides, limit, weights)[0], 0.0, 1.0)


@pytest.mark.parametrize("name", ["pulse", "box", "sin²", "many waves"])
def test_missed_events_fail_the_check(name):
    sides = build(Neumann(flux=EVENTS[name][0]), Dirichlet(EVENTS[name][0]))
    sampled = walk(sides)[0]
    for side in range(2):
        missed = sampled.copy()
        missed[:, side] = 0.2 * (name == "many waves")
        with pytest.raises(BoundarySamplingError, match=f"axis 0, {('first', 'last')[side]} side"):
            sides.check(missed, 0.0, 1.0)


def test_message_of_the_check():
    sides = build(Dirichlet(lambda t: RATES * t), batch=(2, 3))
    sampled = sides.integral(0.0, 0.5)
    sides.check(sampled, 0.0, 0.5)
    sampled[4, 0] = 7.0
    text = r"entry \(1, 1\): from time 0 to 0.5 the steps saw .* of 7, but it is 0.625; .* as breakpoints="
    with pytest.raises(BoundarySamplingError, match=text):
        sides.check(sampled, 0.0, np.full(6, 0.5))


def test_an_event_that_the_scan_missed_but_a_step_saw():
    sides = build(Dirichlet(lambda t: 1.0 if abs(t - 0.5001234) < 1e-5 else 0.0))
    with pytest.raises(BoundarySamplingError, match="breakpoints="):
        sides.check(np.array([[0.01, 0.0]]), 0.0, 1.0)


def test_values_with_more_entries_later_on():
    sides = build(Dirichlet(lambda t: 0.0 if t < 0.9 else RATES), batch=(2, 3))
    assert np.abs(sides.integral(0.0, 1.0)[:, 0] - 0.1 * RATES.numpy().ravel()).max() < 1e-9


def test_a_span_without_length():
    sides = build(Dirichlet(lambda t: 2.0 + t), span=(1.0, 1.0), breakpoints=(1.0,))
    assert sides.at(np.ones((1, 1)))[0, 0, 0] == 3.0
    assert sides.largest_step(np.ones(1)) == 0.0
    assert sides.integral(1.0, 1.0).tolist() == [[0.0, 0.0]]
    sides.check(np.zeros((1, 2)), 1.0, 1.0)


def test_batch_shapes_of_values_and_coefficients():
    conditions = [(Dirichlet(np.ones((5, 1))), Robin(torch.ones(2, 5), 1.0, lambda t: t)), (Periodic(), Periodic())]
    assert np.broadcast_shapes(*batch_shapes(conditions, 0.0)) == (2, 5)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (Dirichlet(), "boundary of axis 0, first side is missing"),
        (Neumann(), "is missing"),
        (Robin(1.0, 1.0), "is missing"),
        (Dirichlet(float("nan")), "first side is not finite at time 0"),
        (Dirichlet(lambda t: 1.0 if t < 0.77 else math.inf), r"first side is not finite at time 0\.[78]"),
        (Dirichlet(np.zeros(2)), r"shape \(2,\) does not broadcast to \(\*batch, \*face\) = \(3,\)"),
        (Dirichlet(lambda _: np.zeros((3, 2))), r"shape \(3, 2\) does not broadcast"),
        (Dirichlet("warm"), "must be a number, an array or a tensor, got 'warm'"),
        (Dirichlet(torch.ones(3, requires_grad=True)), r"requires a gradient.*detach\(\)"),
        (Dirichlet(lambda t: t * torch.ones(3, requires_grad=True)), "requires a gradient"),
        (Robin(np.ones(2), 1.0, 0.0), r"Robin coefficient: a value of shape \(2,\) does not broadcast"),
        (Robin(np.array([1.0, 20.0, 1.0]), 1.0, 0.0), r"Robin\(a=20, b=1\) does not determine the value on the side"),
    ],
)
def test_invalid_arguments_raise_with_reason(condition, text):
    with pytest.raises(InvalidArgumentError, match=text):
        build(condition, batch=(3,))


def test_messages_of_break_points():
    for wrong in ([math.nan], "soon", [[0.1], [0.2, 0.3]]):
        with pytest.raises(InvalidArgumentError, match="breakpoints must be finite times"):
            build(Dirichlet(0.0), breakpoints=wrong)
