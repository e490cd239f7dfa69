"""The smooth extension of boundary residuals: its columns, its lengths, and the update that it equals."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DenseLinearOperator

from boon import BOON, FNO, ChannelBOON, FNOConfig, Normalised, Part, boundary_error
from boon.conditions.functionals import functional
from boon.conditions.sides import check_conditions
from boon.corrections.extension import (
    ExtensionStep,
    SmoothExtension,
    derivative_weights,
    extension_columns,
    functional_row,
    read_smoothly,
)
from boon.errors import InvalidArgumentError, SingularKernelError
from probconserv import LinearConstraint, condition
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.boon.cases import discretise, nodes_on
from tests.strategies import seeds

PAIRS = [
    (Dirichlet(1.0), Dirichlet(-2.0)),
    (Dirichlet(1.0), Neumann(0.5)),
    (Neumann(0.3), Neumann(-0.4)),
    (Robin(1.0, -0.2, 0.7), Neumann(0.1)),
]


def rows_of(boundary, axis, count):
    return torch.stack([functional_row(side, count) for side in boundary.functionals if side.axis == axis])


@pytest.mark.parametrize("pair", PAIRS)
def test_columns_reproduce_the_functionals_for_any_lengths(pair):
    u = torch.zeros(1, 3, 40, dtype=torch.float64)
    rows = rows_of(discretise([pair], nodes_on(2.0), None, u, 3), 0, 40)
    lengths = torch.tensor([[0.02, 0.1, 0.5], [0.05, 0.01, 0.3]], dtype=torch.float64)
    columns = extension_columns(rows, lengths)
    # B E is a sum of at most 4 products of entries as large as |w| ~ 1/h = 40.
    assert torch.allclose(rows @ columns, torch.eye(2, dtype=torch.float64).expand(3, 2, 2), atol=1e-11)


@pytest.mark.parametrize("pair", PAIRS)
def test_equal_lengths_give_the_probconserv_update_with_boundary_functionals(pair):
    n, length = 25, 0.15
    torch.manual_seed(0)
    u = torch.randn(1, 1, n, dtype=torch.float64)
    boundary = discretise([pair], nodes_on(1.0), None, u, 2)
    rows = rows_of(boundary, 0, n)
    positions = torch.linspace(0, 1, n, dtype=torch.float64)
    covariance = torch.exp(-0.5 * ((positions[:, None] - positions) / length).square())
    data = torch.cat([part.flatten() for part in boundary.data])
    prior = MultivariateNormal(u[0, 0], DenseLinearOperator(covariance))
    expected = condition(prior, LinearConstraint(rows, data)).mean
    step = ExtensionStep(SmoothExtension(length=length, reach=0.0), 2, 1).double()
    with torch.no_grad():
        step.log_length.fill_(math.log(length))  # it was made in float32
    assert torch.allclose(step(u, boundary)[0, 0], expected, rtol=0, atol=1e-9)


def test_residual_spreads_evenly_at_periodic_ends():
    u = torch.zeros(1, 1, 21, dtype=torch.float64)
    u[..., 0] = 1.0
    boundary = discretise([(Periodic(), Periodic())], nodes_on(1.0), None, u, 1)
    result = ExtensionStep(SmoothExtension(length=0.1, reach=0.0), 1, 1).double()(u, boundary)
    change = (result - u)[0, 0]
    assert result[0, 0, 0].item() == pytest.approx(result[0, 0, -1].item(), abs=1e-14)
    assert torch.allclose(change, -change.flip(0), atol=1e-14)


@settings(deadline=None, max_examples=20)
@given(first=st.sampled_from(PAIRS), second=st.sampled_from(PAIRS), seed=seeds)
def test_a_later_axis_does_not_break_an_earlier_one(first, second, seed):
    generator = torch.Generator().manual_seed(seed)
    source, u = torch.randn(2, 2, 1, 9, 11, dtype=torch.float64, generator=generator)
    bare = [tuple(_without_value(side) for side in pair) for pair in (first, second)]
    sides = discretise(bare, nodes_on(1.0, 1.0), [(0.0, 0.0), (0.0, 0.0)], u, 2).functionals
    data = {(side.axis, side.last): side.read(source) for side in sides}
    values = [(data[axis, False], data[axis, True]) for axis in range(2)]
    boundary = discretise(bare, nodes_on(1.0, 1.0), values, u, 2)
    result = ExtensionStep(SmoothExtension(length=0.1, reach=0.0), 4, 1).double()(u, boundary)
    for side in boundary.functionals:
        assert torch.allclose(side.read(result), data[side.axis, side.last], atol=1e-9)


def _without_value(side):
    return Robin(side.a, side.b) if isinstance(side, Robin) else type(side)()


@pytest.mark.parametrize("length", [0.0, -1.0, float("nan")])
def test_lengths_must_be_positive_and_the_reach_a_part_of_the_axis(length):
    with pytest.raises(InvalidArgumentError, match="length of SmoothExtension must be positive"):
        SmoothExtension(length=length)
    with pytest.raises(InvalidArgumentError, match=r"reach of SmoothExtension must be between 0 and 1, got 1.5"):
        SmoothExtension(reach=1.5)


def test_lengths_that_make_the_ends_one():
    rows = torch.zeros(2, 10, dtype=torch.float64)
    rows[0, 0] = rows[1, -1] = 1.0
    with pytest.raises(SingularKernelError, match="are dependent under extension lengths"):
        extension_columns(rows, torch.full((2, 1), 1e12, dtype=torch.float64))


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("n", [5, 8, 50])
def test_derivatives_of_cubic_polynomials_are_read_exactly(order, last, n):
    length, (a, b) = 2.0, (0.7, -0.3)
    x = torch.linspace(0, length, n, dtype=torch.float64)
    u = (1 + x - 0.5 * x**2 + 0.25 * x**3).view(1, 1, -1)
    end = length if last else 0.0
    expected = a * float(u[0, 0, -1 if last else 0]) + b * (1 - end + 0.75 * end**2)
    side = functional(Part(Robin(a, b)), 0, last, length / (n - 1), min(order, n - 2))
    assert float(read_smoothly(side, u, 0.25)) == pytest.approx(expected, rel=1e-10)


def test_the_derivative_read_from_a_stretch_converges_to_one_functional():
    values = []
    for n in (65, 129, 257, 513, 4097):
        x = torch.linspace(0, 1, n, dtype=torch.float64)
        weights = derivative_weights(n, 0.25)
        values.append(float(weights @ torch.sin(9 * x[: len(weights)])))
    errors = [abs(value - values[-1]) for value in values[:-1]]
    assert all(later < 0.3 * earlier for earlier, later in pairwise(errors)), errors
    assert errors[0] < 0.02 * 9
    assert abs(values[-1] - 9) < 0.05 * 9  # fourth order in 9 × 0.25, with a small constant


CHANGES = FNOConfig(width=4, modes=(3,), depth=1, increment=0.1)
SIDES = {
    "slopes": [(Neumann(0.3), Neumann(-0.4))],
    "Robin": [(Robin(1.0, -0.2, 0.7), Robin(1.0, 0.2, 0.4))],
    "mixed": [(Dirichlet(1.0), Robin(1.0, 0.2, 0.4))],
    "Robin by channel": [(Robin(torch.tensor([[1.0]]), -0.2, 0.7), Neumann(0.1))],
}


def of_no_change(config: FNOConfig) -> FNO:
    """An operator of increments that predicts none, so that every step is the correction alone."""
    operator = FNO(config).double()
    for parameter in operator.parameters():
        parameter.data.zero_()
    return operator


@torch.no_grad()
@pytest.mark.parametrize("count", [51, 201])
@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("around", [lambda operator: operator, Normalised])
def test_an_operator_of_increments_leaves_a_field_that_meets_its_conditions(name: str, count: int, around):
    """As it is given its own output, a correction that moved such a field would grow: by 1.3^200 in two hundred steps.

    The data are met to rounding, Σ|w u| ε, which extensions of 0.01 of the axis pass on at most 100 times.
    """
    operator = of_no_change(CHANGES)
    if around is Normalised:
        one = torch.ones(1, dtype=torch.float64)
        operator = Normalised(operator, 0 * one, one, torch.zeros(1, count).double(), one)
    model = BOON(operator, SIDES[name]).eval()
    first = model(torch.randn(2, 1, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert boundary_error(first, model.discretise(first)).relative_maximum < 1e-13
    u = first
    for _ in range(200):
        u = model(u)
    torch.testing.assert_close(u, first, rtol=0, atol=1e-10)


@torch.no_grad()
def test_increments_in_two_axes_and_of_channels_stay_bounded():
    operator = of_no_change(replace(CHANGES, modes=(3, 3), in_channels=2, out_channels=2))
    flat = (Neumann(0.0), Neumann(0.0))
    field = torch.randn(2, 2, 31, 27, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = [((Part(Dirichlet(0.0), (0.2, 0.5)), Part(Neumann(0.0))), flat[1]), flat]
    models = [BOON(operator, [flat, flat]), BOON(operator, parts), ChannelBOON(operator, [[flat, flat], [flat, None]])]
    for model in models:
        u = first = model.eval()(field)
        for _ in range(60):
            u = model(u)
        assert float((u - first).abs().max()) < 1e-8
        assert float(first.abs().max()) < 20


def test_the_correction_of_other_operators_is_as_it_was():
    """It reads smooth slopes, whatever the differences are: a field that meets these is moved."""
    model = BOON(FNO(replace(CHANGES, increment=None)), SIDES["slopes"])
    assert not model.step.of_increments
    assert not BOON(torch.nn.Identity(), SIDES["slopes"]).step.of_increments


def test_columns_are_made_once_in_evaluation_and_anew_when_lengths_change(monkeypatch):
    made = []
    columns = lambda *arguments: made.append(1) or extension_columns(*arguments)  # noqa: E731
    monkeypatch.setattr("boon.corrections.extension.extension_columns", columns)
    u = torch.randn(2, 1, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    boundary = discretise([(Dirichlet(1.0), Neumann(0.5))], nodes_on(1.0), None, u, 2)
    step = SmoothExtension().step(check_conditions([(Dirichlet(1.0), Neumann(0.5))]), 1).eval()
    assert isinstance(step, ExtensionStep)
    with torch.inference_mode():
        first = step(u, boundary)
    with torch.no_grad():
        assert torch.equal(step(u, boundary), first)
        assert len(made) == 1
        step.log_length.data += 1.0  # as an average of weights does, without a trace
        changed = step(u, boundary)
        assert len(made) == 2
    fresh = SmoothExtension(length=0.01 * math.e).step(check_conditions([(Dirichlet(1.0), Neumann(0.5))]), 1)
    torch.testing.assert_close(fresh(u, boundary), changed, rtol=1e-6, atol=0)
    step(u, boundary).sum().backward()  # derivatives are recorded: made anew
    assert step.log_length.grad is not None
    assert len(made) == 4


@pytest.mark.parametrize("pair", [(Neumann(0.3), Neumann(-0.4)), (Periodic(), Periodic())])
def test_a_floor_is_the_smallest_length_in_steps_of_the_grid(pair):
    for count in (17, 65):
        u = torch.randn(1, 1, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        boundary = discretise([pair], nodes_on(1.0), None, u, 2)
        floored = SmoothExtension(length=1e-3, floor=2.0).step(check_conditions([pair]), 1)
        longer = SmoothExtension(length=2.0 / (count - 1)).step(check_conditions([pair]), 1)
        torch.testing.assert_close(floored(u, boundary), longer(u, boundary), rtol=1e-6, atol=1e-8)
    long = SmoothExtension(length=0.3).step(check_conditions([pair]), 1)(u, boundary)
    assert torch.equal(SmoothExtension(length=0.3, floor=2.0).step(check_conditions([pair]), 1)(u, boundary), long)
    with pytest.raises(InvalidArgumentError, match="floor of SmoothExtension must be finite and not negative"):
        SmoothExtension(floor=-1.0)
