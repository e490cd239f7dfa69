"""What users hand to laws of fields, and fields as point sets: masks, byte orders, whole numbers, arrays, axes."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal

from probconserv import Bounded, Monotone, ProbConserv, boundary_value, fit_band, from_samples, integral
from probconserv.calibration import displaced
from probconserv.calibration.conformal import ConformalBand
from probconserv.calibration.marginals import marginal_crps
from probconserv.calibration.variance import variance_factor
from probconserv.errors import DependentConstraintsError, IncompatibleQueryError, InvalidArgumentError
from probconserv.fields import FieldLayout, block_means, condition_fields, level_totals, region_totals
from probconserv.fields.laws import block_budgets
from solvers import CellGrid, NodeGrid

# Few members under many rows, on purpose; test_members.py has the warning.
pytestmark = pytest.mark.filterwarnings("ignore:The law has .* rows and the ensemble")

FIELD = torch.arange(24, dtype=torch.float64).reshape(4, 6)
MEANS = FIELD.reshape(2, 2, 3, 2).mean((1, 3))
TURNED = FieldLayout(channels=1, shape=(6, 4))


class Fields(nn.Module):
    def forward(self, mean):
        return unit(mean)


def unit(mean):
    return Normal(mean, torch.ones(mean.shape, dtype=torch.float64))


def test_masked_entries_are_no_data():
    means = np.ma.masked_values(np.array([[280.0, 281.0], [1e20, 283.0]]), 1e20)
    weights = np.ma.masked_array(np.ones((4, 4)), mask=np.eye(4, dtype=bool))
    labels = np.ma.masked_array([[0, 0], [1, 1]], mask=[[0, 1], [0, 0]])
    for law in (
        lambda: block_means(means, 2),
        lambda: block_means(np.zeros((2, 2)), 2, weights=weights),
        lambda: region_totals(torch.ones(2), labels),
        lambda: Bounded(lower=means.ravel()),
    ):
        with pytest.raises(InvalidArgumentError, match="masked entries, behind which stand fill values"):
            law()
    assert block_means(np.zeros((2, 2)), 2, weights=weights.filled(0)).rows[0, 0] == 0
    assert torch.equal(block_means(np.ma.masked_array(MEANS.numpy()), 2).b, MEANS.flatten())


@pytest.mark.parametrize(
    "law",
    [
        block_means(MEANS, 2),
        block_budgets(
            CellGrid((0.0, 0.0), (1.0, 1.0), (4, 6)), 2, torch.ones(2, 3), (torch.ones(3, 3), torch.ones(2, 4))
        ),
        integral(NodeGrid((0.0, 0.0), (1.0, 1.0), (4, 6)), 1.0),
        boundary_value(NodeGrid((0.0, 0.0), (1.0, 1.0), (4, 6)), 7.0, side="first"),
        region_totals(torch.ones(2), torch.tensor([[0] * 6, [1] * 6, [-1] * 6, [1] * 6])),
        level_totals(torch.ones(4), torch.ones(4, 6)),
    ],
    ids=["means", "budgets", "integral", "side", "regions", "levels"],
)
def test_a_law_of_the_field_with_its_axes_turned_is_refused(law):
    with pytest.raises(IncompatibleQueryError, match=r"a field of the shape \(4, 6\), but the layout has \(1, 6, 4\)"):
        condition_fields(unit(FIELD.T[None]), law, TURNED)
    with pytest.raises(IncompatibleQueryError, match="but the layout has"):
        ProbConserv(Fields(), law, layout=TURNED)(FIELD.T[None])
    condition_fields(unit(FIELD[None]), law, FieldLayout(channels=1, shape=(4, 6)))
    with pytest.raises(InvalidArgumentError, match="join only on the same field"):
        law & block_means(torch.ones(3, 2), 2)


def test_laws_may_join_axes_or_count_channels():
    layout = FieldLayout(channels=2, shape=(3, 4))
    field = torch.zeros(2, 3, 4, dtype=torch.float64)
    for law in (
        level_totals(torch.ones(2), torch.ones(1, 12)),
        level_totals(torch.ones(2), torch.ones(1, 3, 4)),
        level_totals(torch.ones(2), torch.ones(1, 3, 4)) & level_totals(torch.ones(2), torch.arange(1.0, 13)[None]),
        block_means(torch.ones(2, 3, 2), (1, 1, 2)),
        region_totals(torch.ones(1), torch.zeros(24)),
    ):
        assert torch.allclose(
            law.residual(condition_fields(unit(field), law, layout).points.mean), torch.zeros(1).double()
        )


def test_labels_are_whole_numbers():
    with pytest.raises(InvalidArgumentError, match="whole numbers, got fractions or NaN"):
        region_totals(torch.ones(2), np.array([[0.0, 0.9], [1.0, 1.9]]))
    whole = np.array([[0.0, 0.0], [1.0, -1.0]])
    assert region_totals(torch.ones(2), whole).rows.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0]]


def test_whole_numbers_are_read_in_double_precision():
    layout, law = FieldLayout(channels=1, shape=(4, 6)), block_means(MEANS + 1, 2)
    counts = FIELD.long()[None]
    expected = condition_fields(unit(FIELD[None]), law, layout).mean
    assert torch.equal(condition_fields(Normal(counts, torch.ones(counts.shape)), law, layout).mean, expected)
    members = torch.randint(0, 9, (5, 1, 4, 6), generator=torch.Generator().manual_seed(0))
    actual = condition_fields(members, law, layout, noise_variance=0.1)
    assert torch.equal(actual.mean, condition_fields(members.double(), law, layout, noise_variance=0.1).mean)
    assert from_samples(members.flatten(1)).mean.dtype == torch.float64
    assert displaced(Normal(torch.zeros(5, 8), torch.ones(5, 8)), torch.arange(8), 1.0).mean.shape == (5, 8)


def test_arrays_of_any_byte_order_and_their_numbers():
    layout = FieldLayout(channels=1, shape=(4, 6))
    law = block_means(MEANS.numpy().astype(">f4"), np.int64(2))
    assert torch.equal(law.b, MEANS.flatten())
    members = torch.randn(5, 1, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = condition_fields(members, law, layout, noise_variance=0.1).mean
    for noise in (np.full((1, 4, 6), 0.1), torch.tensor(0.1, dtype=torch.float64), np.float64(0.1)):
        assert torch.allclose(condition_fields(members.numpy(), law, layout, noise_variance=noise).mean, expected)


def test_no_fields_at_several_times():
    layout = FieldLayout(channels=1, shape=(3, 4, 4), time_axis=0)
    points = layout.flatten(torch.zeros(0, 1, 3, 4, 4))
    assert points.shape == (0, 3, 16)
    assert layout.unflatten(points).shape == (0, 1, 3, 4, 4)


def test_predictions_of_fields_are_not_scored_row_by_row():
    """One field of 12 × 12 is one function; its rows would pass for enough functions for a band."""
    members = torch.randn(4, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layout = FieldLayout(channels=1, shape=(12, 12))
    law = block_means(torch.zeros(3, 3), 4)
    prediction = condition_fields(members, law, layout, noise_variance=0.1)
    truth = torch.zeros(1, 12, 12, dtype=torch.float64)
    for score in (
        lambda: fit_band(prediction, truth, level=0.9),
        lambda: ConformalBand(factor=1.0, level=0.9).ends(prediction),
        lambda: marginal_crps(truth, prediction),
        lambda: variance_factor(prediction, truth),
    ):
        with pytest.raises(InvalidArgumentError, match=r"give prediction\.points, .* layout\.flatten"):
            score()
    assert marginal_crps(layout.flatten(truth), prediction.points).shape == ()


def test_too_few_members_are_not_blamed_on_the_rows():
    members = torch.randn(4, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layout = FieldLayout(channels=1, shape=(12, 12))
    with pytest.raises(DependentConstraintsError, match="4 members varies in at most 3 directions, too few for 9 rows"):
        condition_fields(members, block_means(torch.zeros(3, 3), 4), layout)
    means = members.mean(0)[0].reshape(3, 4, 3, 4).mean((1, 3))
    once, twice = block_means(means, 4), block_means(means, 4) & block_means(means, 4)
    both = [condition_fields(members, law, layout, noise_variance=0.1).mean for law in (once, twice)]
    assert torch.allclose(*both)


def test_bounds_of_a_field_say_how_they_are_flattened():
    layout = FieldLayout(channels=1, shape=(4, 6))
    with pytest.raises(InvalidArgumentError, match=r"layout\.flatten\(bounds\)"):
        block_means(MEANS, 2) & Bounded(torch.zeros(1, 4, 6), 100.0)
    joined = block_means(MEANS, 2) & Bounded(layout.flatten(torch.zeros(1, 4, 6)), 100.0)
    assert bool((condition_fields(unit(FIELD[None]), joined, layout).mode >= 0).all())


@pytest.mark.parametrize("shape", [(3,), (4,), (3, 3), (2, 1, 3)])
def test_noise_of_another_shape_than_the_blocks_is_refused(shape):
    with pytest.raises(InvalidArgumentError, match=rf"\(\*batch, 1, 2\), .* got {re.escape(str(shape))}"):
        block_means(torch.rand(1, 2), 2, noise_variance=torch.rand(shape))
    law = block_means(torch.rand(3, 1, 2), 2, noise_variance=torch.rand(3, 1, 1))
    assert law.noise.shape == (3, 2)


def test_an_order_names_its_axis():
    layout = FieldLayout(channels=1, shape=(4, 6))
    with pytest.raises(InvalidArgumentError, match="say along which axis"):
        ProbConserv(Fields(), Monotone(), layout=layout)(FIELD[None])


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


def test_points_run_through_channels_as_integrals_of_several_fields_expect():
    grid = NodeGrid(0.0, 1.0, 6)
    fields = torch.rand(4, 2, 6, dtype=torch.float64)
    points = FieldLayout(channels=2, shape=(6,)).flatten(fields)
    # Means of six numbers below one, formed twice: at most 12 ε.
    assert float(integral(grid, fields @ grid.weights, dim=-1).residual(points).abs().max()) <= 3e-15


def test_messages_of_layouts():
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
