"""Fields to point sets and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probconserv import InvalidArgumentError, stacked_integrals
from probconserv.fields import FieldLayout
from solvers import NodeGrid

few = settings(deadline=None, max_examples=40)


@st.composite
def layouts(draw):
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    time_axis = draw(st.none() | st.integers(0, len(shape) - 1))
    return FieldLayout(
        channels=draw(st.integers(1, 3)), shape=shape, time_axis=time_axis, joint_time=draw(st.booleans())
    )


@few
@given(layouts(), st.sampled_from([(), (2,), (3, 2)]))
def test_unflatten_inverts_flatten(layout, batch):
    field = torch.rand(*batch, layout.channels, *layout.shape)
    points = layout.flatten(field)
    assert points.shape[-1] == layout.points
    assert points.numel() == field.numel()
    assert torch.equal(layout.unflatten(points), field)


def test_time_as_a_batch_axis_gives_one_field_per_time():
    field = torch.rand(5, 2, 7, 3)  # functions, channels, x, t
    layout = FieldLayout(channels=2, shape=(7, 3), time_axis=1)
    points = layout.flatten(field)
    assert points.shape == (5, 3, 14)
    assert torch.equal(points[4, 1], field[4, :, :, 1].flatten())


def test_joint_time_and_no_time_give_one_vector():
    field = torch.rand(5, 2, 7, 3)
    joint = FieldLayout(channels=2, shape=(7, 3), time_axis=1, joint_time=True)
    for layout in (FieldLayout(channels=2, shape=(7, 3)), joint):
        assert torch.equal(layout.flatten(field), field.flatten(1))


def test_points_run_through_channels_as_stacked_integrals_expect():
    grid = NodeGrid(0.0, 1.0, 6)
    fields = torch.rand(4, 2, 6, dtype=torch.float64)
    points = FieldLayout(channels=2, shape=(6,)).flatten(fields)
    # Sums of six numbers of order one.
    assert float(stacked_integrals(grid, fields @ grid.weights).residual(points).abs().max()) <= 1e-15


def test_messages():
    with pytest.raises(InvalidArgumentError, match=r"length of every axis, as \(64,\) for one axis, got 64"):
        FieldLayout(channels=1, shape=64)
    with pytest.raises(InvalidArgumentError, match="at least one channel and one point"):
        FieldLayout(channels=0, shape=(3,))
    with pytest.raises(InvalidArgumentError, match="time_axis must be one of the 1 axes"):
        FieldLayout(channels=1, shape=(3,), time_axis=1)
    layout = FieldLayout(channels=1, shape=(3, 2), time_axis=1)
    with pytest.raises(InvalidArgumentError, match=r"field must end in the shape \(1, 3, 2\), got \(3, 2\)"):
        layout.flatten(torch.zeros(3, 2))
    with pytest.raises(InvalidArgumentError, match=r"values must end in the shape \(2, 3\), got \(6,\)"):
        layout.unflatten(torch.zeros(6))
