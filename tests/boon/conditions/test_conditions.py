"""Boundary conditions as users state them: values of every shape, functions of a face, messages."""

import math

import pytest
import torch

from boon import Part
from boon.conditions.discretisation import boundary_channels
from boon.conditions.sides import check_conditions
from boon.domain import domain_of
from boon.errors import IncompatibleCornersError, InvalidArgumentError, MissingBoundaryError
from solvers import Dirichlet, Neumann, Outflow, Periodic, Robin
from tests.boon.cases import discretise, nodes_on

U = torch.zeros(3, 2, 5, 6)


def data_of(conditions, values=None, u=U, lengths=(1.0, 2.0)):
    return discretise(conditions, domain_of(lengths, None, len(conditions)), values, u, 2).data


@pytest.mark.parametrize(
    "value",
    [4.0, torch.tensor(4.0), torch.full((3, 1, 1), 4.0), torch.full((3, 2, 6), 4.0), torch.full((6,), 4.0).numpy()],
)
def test_values_of_every_broadcastable_shape_fill_the_face(value):
    (data,) = data_of([(Dirichlet(value), Dirichlet(0.0)), None])[:1]
    assert data.shape == (3, 2, 6)
    assert (data == 4.0).all()


@pytest.mark.parametrize(
    ("shape", "value"),
    [((6, 1, 5, 6), (6,)), ((3, 3, 5, 6), (3,)), ((3, 3, 5, 6), (3, 1)), ((3, 3, 5, 6), (3, 6)), ((2, 2, 5), (2,))],
)
@pytest.mark.parametrize("split", [False, True])
def test_a_value_that_may_start_with_the_batch_is_refused(shape, value, split):
    """It was spread along the side, or over the channels: every sample got the same numbers."""
    if split and len(shape) == 3:
        pytest.skip("a side of one node has no parts")
    axes, given = [None] * (len(shape) - 3), torch.ones(value)
    first, call = (Part(Dirichlet(), (0.0, 1.0)), [given]) if split else (Dirichlet(), given)
    clear = rf"one axis for the batch, .*: \({shape[0]}(, 1)+\) holds one number for each sample"
    with pytest.raises(InvalidArgumentError, match=clear):
        data_of([(first, None), *axes], [(call, None), *axes], torch.zeros(shape), (1.0,) * (len(shape) - 2))


def test_values_with_clear_axes_are_taken_at_any_size_of_the_batch():
    u, side = torch.zeros(6, 6, 5, 6), torch.arange(6.0)
    for value in (side.view(6, 1, 1), side.view(1, 6, 1), side.view(1, 1, 6), lambda y: torch.arange(6.0) + 0 * y):
        (data,) = data_of([(Dirichlet(value), None), None], u=u)
        assert torch.equal(data, (side if callable(value) else value).double().expand(6, 6, 6))
    (data,) = data_of([(Dirichlet(side), None), None], u=u[:1])
    assert torch.equal(data, side.double().expand(1, 6, 6))


def test_functions_of_two_coordinates_see_them_in_the_order_of_the_axes():
    u = torch.zeros(1, 1, 4, 5, 6)
    condition = (Dirichlet(lambda x, t: x + 100 * t), Dirichlet(lambda x, t: 0 * x * t))
    (data, _) = discretise([None, condition, None], nodes_on(1.0, 1.0, 1.0), None, u, 2).data
    assert data.shape == (1, 1, 4, 6)
    assert data[0, 0, 3, 0].item() == pytest.approx(1.0)
    assert data[0, 0, 0, 5].item() == pytest.approx(100.0)


def test_functions_without_remaining_axes_take_no_argument():
    data = discretise([(Dirichlet(lambda: 3.0), Dirichlet(0.0))], nodes_on(1.0), None, torch.zeros(2, 1, 5), 2).data
    assert (data[0] == 3.0).all()


def test_data_are_rounded_to_the_precision_of_the_field():
    data = discretise([(Dirichlet(0.1), Dirichlet(0.1))], nodes_on(1.0), None, torch.zeros(1, 1, 5), 2).data
    assert data[0].item() == torch.tensor(0.1).double().item()


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (Outflow(), "must be Dirichlet"),
        (Neumann(flux=1.0), "physical law"),
        (Part(Dirichlet()), "A side of axis 0 is a single node, which has no parts"),
        ((Part(Dirichlet()), Neumann()), "or parts of a side with one of the first three"),
    ],
)
def test_conditions_an_operator_cannot_meet(side, message):
    with pytest.raises(InvalidArgumentError, match=message):
        check_conditions([(side, Dirichlet())])


@pytest.mark.parametrize("lengths", [(1.0,), (1.0, 0.0), (1.0, float("nan"))])
def test_lengths_must_be_positive_and_one_per_axis(lengths):
    with pytest.raises(InvalidArgumentError, match="lengths needs one positive number per axis"):
        domain_of(lengths, None, 2)


ONES, OPEN = (Dirichlet(1.0), Dirichlet(1.0)), (Dirichlet(1.0), Dirichlet())
LINE = torch.zeros(1, 1, 3)


@pytest.mark.parametrize(
    ("conditions", "values", "u", "error", "message"),
    [
        ([None, (None, None)], None, U, MissingBoundaryError, r"axis 1 must be a .* condition on one side"),
        (
            [(Dirichlet(1.0), Robin(1.0, 1.0)), None],
            None,
            U,
            MissingBoundaryError,
            "The last side of axis 0 has no value",
        ),
        (
            [ONES, None],
            [(2.0, None), None],
            U,
            MissingBoundaryError,
            "The first side .* has a value in its condition and another",
        ),
        ([(Periodic(), Dirichlet())], None, LINE, InvalidArgumentError, "Axis 0 is periodic on one side only"),
        (
            [(Dirichlet(torch.zeros(3, 2, 5)), Dirichlet(0.0)), None],
            *(None, U, InvalidArgumentError),
            r"first side of axis 0 .* = \(3, 2, 6\), got shape \(3, 2, 5\)",
        ),
        ([(Dirichlet(math.nan), OPEN[0]), None], None, U, InvalidArgumentError, "first side of axis 0 has values"),
        ([(OPEN[0], Dirichlet(math.inf)), None], None, U, InvalidArgumentError, "last side .* NaN or infinite"),
        ([ONES, None], [None, (1.0, None)], U, InvalidArgumentError, "first side of axis 1 is free or periodic"),
        ([OPEN, None], [(None, 1.0)], U, InvalidArgumentError, "one .first, last. pair or None for each of 2 axes"),
        ([(Neumann(0.0),) * 2], None, LINE, InvalidArgumentError, "Axis 0 needs at least 4 nodes .* got 3"),
        ([ONES, None], None, LINE, InvalidArgumentError, "field has 1 axes but conditions are given for 2"),
    ],
)
def test_conditions_and_values_that_do_not_fit(conditions, values, u, error, message):
    with pytest.raises(error, match=message):
        data_of(conditions, values, u, (1.0,) * len(conditions))


def test_boundary_channels_repeat_the_data_along_the_axis_of_their_side():
    u = torch.zeros(2, 1, 5, 6)
    right = torch.arange(12.0).view(2, 1, 6)
    boundary = discretise([(Dirichlet(3.0), Neumann()), None], nodes_on(1.0, 1.0), [(None, right), None], u, 2)
    channels = boundary_channels(boundary, (5, 6), torch.float32)
    assert channels.shape == (2, 2, 5, 6)
    assert (channels[:, 0] == 3.0).all()
    assert torch.equal(channels[:, 1], right.expand(2, 5, 6))


def test_invalid_arguments_raise_with_reason():
    conditions = [(Dirichlet(0.0), Dirichlet(0.0)), (Dirichlet(0.0), Dirichlet(1.0))]
    with pytest.raises(
        IncompatibleCornersError, match=r"Part\(Dirichlet\(1\.0\), where=lambda x: \(x > 0\) & \(x < 1\)\)"
    ):
        data_of(conditions, lengths=(1.0, 1.0))
    lid = Part(Dirichlet(1.0), where=lambda x: (x > 0) & (x < 1))
    data_of([conditions[0], (Dirichlet(0.0), lid)], lengths=(1.0, 1.0))
    boundary = discretise([(Periodic(), Periodic())], nodes_on(1.0), None, torch.zeros(2, 1, 5), 2)
    with pytest.raises(MissingBoundaryError, match="needs a side with data"):
        boundary_channels(boundary, (5,), torch.float32)


def test_periodic_stands_for_both_sides_of_an_axis():
    walls = (Dirichlet(0.0), None)
    assert check_conditions([Periodic(), walls]) == check_conditions([(Periodic(), Periodic()), walls])
    assert check_conditions([Periodic()])[0].periodic
