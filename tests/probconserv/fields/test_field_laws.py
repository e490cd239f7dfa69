"""Laws on fields: what their rows say, and what a field gains from them."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from probconserv import Monotone, NonNegative, ProbConserv, condition, local_conservation
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fields import FieldLayout, block_means, condition_fields, level_totals, region_totals, sphere_areas
from probconserv.fields.laws import FluxLayout, block_budgets, divergence, flux_budgets
from probconserv.fields.prediction import FieldPrediction
from solvers import CellGrid

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def unit(*shape):
    return Normal(torch.zeros(shape).double(), torch.ones(shape).double())


def test_block_means_are_those_of_average_pooling():
    field = normal(3, 2, 12, 8)
    means = nn.functional.avg_pool2d(field, 4)
    law = block_means(means, 4)
    # Means of 16 numbers of order one, formed twice: at most 32 ε.
    assert float(law.residual(field.flatten(-2)).abs().max()) <= 1e-14
    assert law.rows.shape == (6, 96)
    channels = block_means(means, (1, 4, 4))
    assert float(channels.residual(field.flatten(1)).abs().max()) <= 1e-14
    along_one_axis = block_means(field.unflatten(-1, (4, 2)).mean(-1), (1, 2))
    assert float(along_one_axis.residual(field.flatten(-2)).abs().max()) <= 1e-14


def test_equal_variances_spread_the_error_of_a_mean_evenly():
    means = normal(2, 3, 2)
    posterior = condition(unit(2, 96), block_means(means, 4))
    expected = nn.functional.interpolate(means[:, None], scale_factor=4)[:, 0]
    assert torch.allclose(posterior.mean, expected.flatten(1), atol=1e-15)
    assert torch.allclose(posterior.variance, torch.tensor(15 / 16).double(), atol=1e-15)


def test_weighted_block_means():
    field, areas = normal(4, 6), sphere_areas(torch.linspace(-60, 75, 5), torch.linspace(0, 90, 7))
    law = block_means(torch.zeros(2, 2), (2, 3), weights=areas)
    for i in range(2):
        for j in range(2):
            part = (slice(2 * i, 2 * i + 2), slice(3 * j, 3 * j + 3))
            expected = (field[part] * areas[part]).sum() / areas[part].sum()
            assert float(law.residual(field.flatten())[2 * i + j]) == pytest.approx(float(expected), abs=1e-14)


def test_noise_of_means():
    noise = normal(3, 2).square() + 0.1
    law = block_means(torch.zeros(5, 3, 2), 2, noise_variance=noise)
    assert torch.equal(law.noise, noise.flatten())
    assert block_means(torch.zeros(3, 2), 2, noise_variance=0.3).noise.tolist() == pytest.approx([0.3] * 6)


def test_areas_add_up_to_the_sphere():
    areas = sphere_areas(torch.linspace(90, -90, 37), torch.linspace(0, 360, 73), radius=2.0)
    assert float(areas.sum()) == pytest.approx(4 * math.pi * 2.0**2, rel=1e-14)
    # An octant, by hand.
    assert float(sphere_areas(torch.tensor([0.0, 90]), torch.tensor([0.0, 90]))) == pytest.approx(math.pi / 2)


def test_level_totals():
    field, weights = normal(2, 3, 4, 5), normal(3, 4, 5).abs()
    law = level_totals((field * weights).sum((-1, -2)), weights)
    assert float(law.residual(field.flatten(1)).abs().max()) <= 1e-14
    shared = level_totals((field * weights[:1]).sum((-1, -2)), weights[:1])
    assert float(shared.residual(field.flatten(1)).abs().max()) <= 1e-14


def test_region_totals():
    labels = torch.tensor([[0, 0, -1], [2, 1, 1]])
    weights = torch.tensor([[1.0, 2, 9], [4, 5, 6]])
    law = region_totals(torch.zeros(3), labels, weights)
    assert law.rows.tolist() == [[1, 2, 0, 0, 0, 0], [0, 0, 0, 0, 5, 6], [0, 0, 0, 4, 0, 0]]
    posterior = condition(unit(6), region_totals(torch.tensor([2.0, 4, 7]), labels))
    assert torch.allclose(posterior.mean, torch.tensor([1.0, 1, 0, 7, 2, 2]).double(), atol=1e-15)


GRID = CellGrid((0.0, 0.0, 0.0), (1.0, 2.0, 0.5), (4, 3, 2))


def exact_budget(grid):
    """Initial contents, final field and passed fluxes that balance, by summing the fluxes cell by cell."""
    layout = FluxLayout(grid)
    initial = normal(2, *grid.shape)
    fluxes = [normal(2, *shape) for shape in layout.shapes[1:]]
    final = initial.clone()
    for axis, flux in enumerate(fluxes):
        count = grid.shape[axis]
        final += flux.narrow(1 + axis, 0, count) - flux.narrow(1 + axis, 1, count)
    return initial, final / grid.weights, fluxes


def test_flux_budgets_hold_where_contents_balance():
    initial, final, fluxes = exact_budget(GRID)
    layout, law = FluxLayout(GRID), flux_budgets(GRID, initial)
    vector = layout.flatten(final, *fluxes)
    assert float(law.residual(vector).abs().max()) <= 1e-14
    for part, expected in zip(layout.unflatten(vector), (final, *fluxes), strict=True):
        assert torch.equal(part, expected)


def test_uncertain_fluxes_move_with_the_contents():
    # One cell of volume 1, three unit variances, u + P_right − P_left = 1: each moves by a third.
    grid = CellGrid(0.0, 1.0, 1)
    posterior = condition(unit(3), flux_budgets(grid, torch.ones(1)))
    assert torch.allclose(posterior.mean, torch.tensor([1.0, -1, 1]).double() / 3, atol=1e-15)


def test_divergence_of_a_field_of_fluxes():
    _, _, fluxes = exact_budget(GRID)
    layout = FluxLayout(GRID, cells=False)
    expected = sum(flux.diff(dim=1 + axis) / GRID.spacing[axis] for axis, flux in enumerate(fluxes))
    law = divergence(GRID, expected)
    assert float(law.residual(layout.flatten(*fluxes)).abs().max()) <= 1e-12
    mean = condition(unit(layout.points), divergence(GRID)).mean
    assert torch.equal(mean, torch.zeros(layout.points).double())


def test_budgets_of_blocks_add_up_and_agree_with_one_axis():
    initial, final, fluxes = exact_budget(CellGrid((0.0, 0.0), (1.0, 2.0), (4, 6)))
    grid, blocks = CellGrid((0.0, 0.0), (1.0, 2.0), (4, 6)), (2, 3)
    contents = initial.unflatten(-1, (2, 3)).sum(-1).unflatten(-2, (2, 2)).sum(-2)
    passed = [fluxes[0][:, ::2].unflatten(-1, (2, 3)).sum(-1), fluxes[1][..., ::3].unflatten(-2, (2, 2)).sum(-2)]
    law = block_budgets(grid, blocks, contents, passed)
    assert float(law.residual(final.flatten(1)).abs().max()) <= 1e-13
    line = CellGrid(0.0, 1.0, 6)
    start, through = normal(3), normal(4)
    first = block_budgets(line, 2, start, [through])
    second = local_conservation(line, torch.linspace(0, 1, 4, dtype=torch.float64), start, through)
    assert torch.allclose(first.rows, second.rows, atol=1e-15)
    assert torch.allclose(first.b, second.b, atol=1e-15)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The law has .* rows and the ensemble")
def test_fields_go_in_and_come_out_as_fields():
    members = normal(5, 2, 3, 8, 12)  # members, functions, channels, space
    means = nn.functional.avg_pool2d(members[0], 4)
    layout = FieldLayout(channels=3, shape=(8, 12))
    law = block_means(means, (1, 4, 4))
    prediction = condition_fields(members, law, layout, noise_variance=0.1)
    assert prediction.mean.shape == prediction.variance.shape == (2, 3, 8, 12)
    draws = prediction.sample((4,), generator=torch.Generator().manual_seed(1))
    assert draws.shape == (4, 2, 3, 8, 12)
    for fields in (prediction.mean, *draws):
        assert float((nn.functional.avg_pool2d(fields, 4) - means).abs().max()) <= 1e-13
    assert prediction.log_prob(draws).shape == (4, 2)
    assert torch.equal(prediction.stddev, prediction.variance.sqrt())
    positive = block_means(means.abs(), (1, 4, 4)) & NonNegative()
    mode = condition_fields(members, positive, layout, noise_variance=torch.full((3, 8, 12), 0.1)).mode
    assert float((nn.functional.avg_pool2d(mode, 4) - means.abs()).abs().max()) <= 1e-13
    assert float(mode.min()) == 0


def test_a_layer_of_fields():
    class Net(nn.Module):
        def forward(self, x):
            return Normal(x, torch.ones_like(x))

    x, layout = normal(2, 1, 8, 8), FieldLayout(channels=1, shape=(8, 8))
    layer = ProbConserv(Net(), lambda x: block_means(nn.functional.avg_pool2d(x[:, 0], 2), 2), layout=layout)
    prediction = layer(x)
    assert isinstance(prediction, FieldPrediction)
    assert torch.allclose(prediction.mean, x, atol=1e-15)
    fixed = ProbConserv(Net(), block_means(torch.ones(4, 4), 2), layout=layout)
    assert torch.allclose(nn.functional.avg_pool2d(fixed(x).mean, 2), torch.ones(4, 4).double(), atol=1e-14)
    names = {name.removeprefix("constraint_") for name, _ in fixed.named_buffers()}
    assert names == {"G_entries", "b", "noise_variance"}


ONE, TWO = FieldLayout(channels=1, shape=(4, 4)), torch.zeros(2)
WRONG = [
    (lambda: block_means(torch.zeros(3), 2), "factor needs a number of points"),
    (lambda: block_means(torch.zeros(2, 2), 2, weights=torch.ones(4, 3)), r"weights must be \(4, 4\), not negative"),
    (lambda: block_means(torch.zeros(2, 2), 2, weights=torch.zeros(4, 4)), "add up to zero"),
    (lambda: level_totals(torch.zeros(3), torch.ones(2, 4)), r"weights must be .* with the 3 levels"),
    (lambda: level_totals(torch.tensor(1.0), torch.ones(1, 4)), r"totals \(\*batch, levels\), got one number"),
    (lambda: region_totals(TWO, torch.tensor([0, 2])), "labels must lie between −1 and 1"),
    (lambda: region_totals(TWO, torch.tensor([0, 0])), "A row of G is zero"),
    (lambda: region_totals(TWO, torch.zeros(0, dtype=torch.int64)), r"at least one cell, got \(2,\) and \(0,\)"),
    (lambda: region_totals(torch.tensor(1.0), torch.zeros(4)), r"totals \(\*batch, regions\) .* got \(\)"),
    (lambda: sphere_areas(torch.tensor([0.0, 100]), torch.tensor([0.0, 1])), r"within \[−90, 90\]"),
    (
        lambda: sphere_areas(torch.tensor([0.0, 10]), torch.tensor([0.0, 1, 0.5])),
        "longitudes must be at least two f",
    ),
    (lambda: flux_budgets(GRID, torch.zeros(3)), "one number per cell"),
    (lambda: block_budgets(GRID, 3, torch.zeros(1), []), "do not divide the grid"),
    (lambda: block_budgets(GRID, (2, 3, 2), torch.zeros(2, 1, 1), 3 * [torch.zeros(2, 1, 1)]), "contents must end in"),
    (lambda: FluxLayout(GRID).flatten(torch.zeros(GRID.shape)), "The parts must end in the shapes"),
    (lambda: FluxLayout(GRID).unflatten(torch.zeros(3)), "values must be"),
    (
        lambda: condition_fields(unit(1, 4, 4), block_means(TWO[None], 4), ONE, noise_variance=0.1),
        "members of an e",
    ),
    (lambda: condition_fields(unit(1, 4, 4), block_means(torch.ones(1, 1), 4), ONE).with_draws(5), "closed form"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_invalid_arguments_raise_with_reason(call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call()


@pytest.mark.parametrize("channels", [1, 2])
def test_laws_of_every_channel_by_itself_are_refused(channels):
    layout, law = FieldLayout(channels=channels, shape=(4, 4)), block_means(torch.zeros(5, channels, 2, 2), 2)
    for constraint in (law, law & NonNegative()):
        with pytest.raises(IncompatibleQueryError, match=r"in the channels, .* block_means\(means, \(1, f, f\)\)"):
            condition_fields(unit(5, channels, 4, 4), constraint, layout)


@pytest.mark.long
def test_an_order_of_fields_with_several_axes_names_one_of_them():
    with pytest.raises(InvalidArgumentError, match=r"the flattened field \(1, 4, 4\) row by row"):
        condition_fields(unit(5, 1, 4, 4), Monotone(), FieldLayout(channels=1, shape=(4, 4)))
    along = Monotone(axis=1, shape=(1, 4, 4))
    u = normal(5, 1, 4, 4)
    mode = condition_fields(Normal(u, torch.ones_like(u)), along, FieldLayout(channels=1, shape=(4, 4))).mode
    assert bool((mode.diff(dim=2) >= 0).all())
    # With every time apart there is one axis, and nothing to choose.
    layout = FieldLayout(channels=1, shape=(4, 4), time_axis=0)
    assert bool((condition_fields(Normal(u, torch.ones_like(u)), Monotone(), layout).mode.diff(dim=3) >= 0).all())


def test_an_order_is_refused_on_a_field_with_its_axes_turned():
    turned = Monotone(axis=0, shape=(6, 4))
    with pytest.raises(
        InvalidArgumentError, match=r"order is on a field \(6, 4\), but this one has the axes \(1, 4, 6"
    ):
        condition_fields(unit(5, 1, 4, 6), turned, FieldLayout(channels=1, shape=(4, 6)))
    law = block_means(torch.zeros(2, 3), 2)
    with pytest.raises(InvalidArgumentError, match=r"order is on a field \(6, 4\), but this one has the axes \(4, 6"):
        law & turned
    assert (law & Monotone(axis=1, shape=(1, 4, 6))).lines is not None
