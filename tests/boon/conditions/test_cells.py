"""Conditions at the walls of averages over cells."""

from math import pi

import numpy as np
import pytest
import torch
from torch import nn

from boon import (
    BOON,
    FNO,
    CellFourier,
    ChannelBOON,
    Elimination,
    FNOConfig,
    MixedTransform,
    Normalised,
    Part,
    Prescription,
    SmoothExtension,
    boundary_error,
    load,
    save,
)
from boon.conditions.functionals import STENCILS
from boon.corrections.matched import matched_basis
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.errors import DataFileError, IncompatibleCornersError, InvalidArgumentError
from solvers import CellGrid, Dirichlet, Neumann, NodeGrid, Periodic, Robin
from tests.strategies import normal

VALUE, SLOPE, ROUND = Dirichlet(0.7), Neumann(0.3), Periodic()
FIRST, LAST = Robin(1.0, -0.2, 0.4), Robin(1.0, 0.2, 0.4)
WAVY = Robin(lambda y: 1 + 0.5 * torch.sin(6 * y), -0.2, 0.4)
CASES = {
    "values": [(VALUE, Dirichlet(0.2))],
    "slopes": [(SLOPE, Neumann(-1.0))],
    "Robin": [(FIRST, LAST)],
    "value, free": [(VALUE, None)],
    "periodic": [(ROUND, ROUND)],
    "2-D values": [(VALUE, VALUE), (VALUE, VALUE)],
    "2-D mixed": [(VALUE, SLOPE), (FIRST, VALUE)],
    "2-D periodic": [(VALUE, LAST), (ROUND, ROUND)],
    "2-D parts": [((Part(VALUE, (0.2, 0.5)), Part(SLOPE)), LAST), (Neumann(0.0), Neumann(0.0))],
    "2-D part, free": [(Part(FIRST, (0.3, 0.6)), VALUE), (Neumann(0.0), None)],
    "2-D Robin of place": [(WAVY, SLOPE), (Neumann(0.0), VALUE)],
    "3-D mixed": [(VALUE, SLOPE), (ROUND, ROUND), (FIRST, LAST)],
    "3-D part": [(Part(VALUE, ((0.2, 0.5), (0.3, 0.8))), SLOPE), (Neumann(0.0),) * 2, (FIRST, LAST)],
}
CORRECTIONS = [Prescription(), SmoothExtension(), SmoothExtension(hidden=True, reach=0.0, floor=2.0), MixedTransform()]


def grid_of(dimension: int, finer: int = 1) -> CellGrid:
    count = {1: 24, 2: 14, 3: 9}[dimension]
    return CellGrid((0.0,) * dimension, (1.0,) * dimension, tuple(finer * (count - axis) for axis in range(dimension)))


def network(dimension: int, **options) -> FNO:
    config = FNOConfig(width=4, modes=(3,) * dimension, depth=2, projection=4, transform=CellFourier(), **options)
    return FNO(config).double()


@pytest.mark.parametrize("order", [2, 3])
def test_wall_cells_of_a_quadratic_move_by_the_error_of_the_value_at_the_face(order: int):
    """By 2/9 h² u″ from (3 u₀ − u₁)/2, which is exact for lines, in corners along both axes; not at all by order 3."""
    n = 10
    ends = torch.arange(n + 1, dtype=torch.float64) / n
    x, xx = ends.square().diff() * n / 2, ends.pow(3).diff() * n / 3  # averages of x and x²
    u = (xx[:, None] - 0.5 * xx + x[:, None] * x)[None, None]
    sides = [(-0.5 * xx, 1 - 0.5 * xx + x), (xx, xx - 0.5 + x)]
    values = [tuple(side[None, None] for side in pair) for pair in sides]
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (n, n))
    model = BOON(nn.Identity(), [(Dirichlet(), Dirichlet())] * 2, correction=Prescription(), order=order, grid=grid)
    moved = (model(u, values) - u)[0, 0]
    step = 2 / 9 / n**2 if order == 2 else 0.0
    assert moved[0, 1:-1].tolist() == pytest.approx([2 * step] * (n - 2), abs=1e-14)  # u_xx = 2
    assert moved[1:-1, -1].tolist() == pytest.approx([-step] * (n - 2), abs=1e-14)  # u_yy = −1
    assert float(moved[[0, 0, -1, -1], [0, -1, 0, -1]].abs().max()) <= 2 * step + 1e-14
    assert float(moved[1:-1, 1:-1].abs().max()) == 0


def averages(function, count: int, length: float = 1.0) -> np.ndarray:
    """Averages over cells from an antiderivative."""
    return np.diff(function(np.linspace(0, length, count + 1))) * count / length


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("correction", CORRECTIONS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_conditions_in_cells_hold_to_rounding_on_the_grid_and_on_a_finer_one(name, correction, dtype):
    """To a hundred roundings of the terms of B, those of the sum of stencils at corners included."""
    torch.manual_seed(0)
    conditions = CASES[name]
    dimension = len(conditions)
    operator = BOON(network(dimension).to(dtype), conditions, None, correction, grid=grid_of(dimension))
    for finer in (1, 2):
        a = normal(2, 1, *grid_of(dimension, finer).shape).to(dtype)
        u = operator(a)
        assert boundary_error(u, operator.discretise(u)).relative_maximum < 100 * torch.finfo(dtype).eps


def test_the_functionals_are_those_of_the_documentation():
    x, h = normal(1, 1, 9)[0, 0], 0.1
    grid = CellGrid(2.0, 2.9, 9)
    of = lambda *pair: BOON(nn.Identity(), [pair], grid=grid).discretise(x[None, None]).sides  # noqa: E731
    first, last = (side.read(x[None, None]).item() for side in of(VALUE, VALUE))
    assert first == pytest.approx(float(3 * x[0] - x[1]) / 2, rel=1e-14)
    assert last == pytest.approx(float(3 * x[-1] - x[-2]) / 2, rel=1e-14)
    first, last = (side.read(x[None, None]).item() for side in of(SLOPE, SLOPE))
    assert first == pytest.approx(float(-2 * x[0] + 3 * x[1] - x[2]) / h, rel=1e-13)
    assert last == pytest.approx(float(2 * x[-1] - 3 * x[-2] + x[-3]) / h, rel=1e-13)
    robin, _ = of(Robin(3.0, 0.5, 0.0), SLOPE)
    combined = 3 * float(3 * x[0] - x[1]) / 2 + 0.5 * float(-2 * x[0] + 3 * x[1] - x[2]) / h
    assert robin.read(x[None, None]).item() == pytest.approx(combined, rel=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("last", [False, True])
def test_values_and_slopes_at_walls_of_averages_are_of_the_order(order, last):
    errors = []
    for count in (16, 32, 64, 128):
        u = averages(lambda x: -np.cos(2 * x + 0.3) / 2, count)  # of sin(2x + .3)
        near = u[::-1][: order + 1] if last else u[: order + 1]
        value, slope = (np.array(weights) for weights in STENCILS[order, last, True])
        x = 1.0 if last else 0.0
        missed = [value @ near[: len(value)] - np.sin(2 * x + 0.3), count * slope @ near - 2 * np.cos(2 * x + 0.3)]
        errors.append(np.abs(missed))
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(slopes[-1] - order) < 0.2)


def test_functions_of_a_side_get_the_centres_of_its_cells_from_the_lower_end_of_the_grid():
    seen = []
    grid = CellGrid((0.0, -1.0), (1.0, 1.0), (6, 4))
    operator = BOON(nn.Identity(), [(Dirichlet(lambda y: seen.append(y) or 0 * y), None), None], grid=grid)
    operator(normal(1, 1, 6, 4))
    assert seen[0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    nodes = BOON(
        nn.Identity(),
        [(Dirichlet(lambda y: seen.append(y) or 0 * y), None), None],
        grid=NodeGrid((0.0, -1.0), (1.0, 1.0), (6, 5)),
    )
    nodes(normal(1, 1, 6, 5))
    assert seen[1].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_a_part_holds_in_the_cells_whose_centres_it_covers():
    conditions, grid = [(Part(Dirichlet(1.0), (0.25, 0.5)), None), None], CellGrid((0, 0), (1, 1), (6, 8))
    operator = BOON(nn.Identity(), conditions, correction=Prescription(), grid=grid)
    u = operator(torch.zeros(1, 1, 6, 8))
    assert u[0, 0, 0].tolist() == pytest.approx([0, 0, 2 / 3, 2 / 3, 0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_fields_in_cells_move_by_the_response_and_meet_the_same_conditions(name, order):
    conditions = CASES[name]
    grid = grid_of(len(conditions))
    model = BOON(nn.Identity(), conditions, correction=Prescription(), order=order, grid=grid)
    response = model.response(grid)
    assert float(response.min()) >= 0
    assert float(response.max()) == pytest.approx(1.0, abs=1e-15)
    u = model(normal(3, 2, *grid.shape))
    moved = u + response * normal(3, 2, *[1] * grid.dimension, seed=1)
    assert boundary_error(moved, model.discretise(u)).relative_maximum < 1e-13
    moved = u + model.response(None, normal(2, 3, 2, *grid.shape))[0]
    assert boundary_error(moved, model.discretise(u)).relative_maximum < 1e-13


def test_the_response_between_values_in_cells_is_a_parabola():
    """Its averages over cells, by the extrapolation of order 2 that is exact for straight lines: h² from it."""
    grid = CellGrid(0.0, 1.0, 200)
    r = BOON(nn.Identity(), [(VALUE, VALUE)], grid=grid).response(grid)[0]
    x = grid.points
    torch.testing.assert_close(r, 4 * x * (1 - x), rtol=0, atol=1e-3 / 8 + 4 / 200**2)
    parts = [(Part(VALUE), Part(VALUE)), (Neumann(0.0), Neumann(0.0))]
    square = CellGrid((0.0, 0.0), (1.0, 1.0), (40, 12))
    r = BOON(nn.Identity(), parts, grid=square).response(square)[0]
    x = square.axes[0][:, None].expand(40, 12)
    torch.testing.assert_close(r, 4 * x * (1 - x), rtol=0, atol=1e-3 / 8 + 4 / 40**2)


def test_the_response_on_a_circle_of_cells_turns_with_the_parts_of_a_side():
    grid, here = CellGrid((0.0, 0.0), (1.0, 1.0), (10, 12)), torch.arange(12) < 4

    def response(shift):
        side = Part(VALUE, where=here.roll(shift)), Part(Neumann(0.0))
        return BOON(nn.Identity(), [(side, LAST), (ROUND, ROUND)], grid=grid).response(grid)[0]

    torch.testing.assert_close(response(5), response(0).roll(5, -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("parts", [False, True])
def test_smooth_extension_in_cells_has_its_kernel_at_their_centres(parts):
    """u′ − u is along the axis Σ_j w_j exp(−(x − x_j)²/2ℓ²) with the weights of the value, up to a factor."""
    value = (Part(VALUE), None) if parts else (VALUE, None)
    grid = CellGrid((0.0, 0.0), (2.0, 1.0), (20, 3))
    operator = BOON(nn.Identity(), [value, None], correction=SmoothExtension(length=0.1), grid=grid).double()
    u = normal(1, 1, 20, 3)
    change = (operator(u) - u).detach()[0, 0]
    x = (torch.arange(20, dtype=torch.float64) + 0.5) / 20
    length = operator.step.log_length.detach().exp()[0]  # 0.1 in float32
    near, next_ = (torch.exp(-0.5 * ((x - centre) / length) ** 2) for centre in x[:2])
    bump = 1.5 * near - 0.5 * next_
    torch.testing.assert_close(change / change[0], (bump / bump[0])[:, None].expand(20, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"periodic": (True,)}])
def test_a_network_in_cells_is_one_function_of_the_field_on_any_grid(options):
    """Averages of a smooth periodic field: sums over cells differ by the h² of the activation's averages alone."""
    torch.manual_seed(0)
    model, found = network(1, **options), []
    for count in (32, 64, 128):
        fine = model(torch.from_numpy(averages(lambda x: np.sin(2 * pi * x) / (2 * pi), count))[None, None])
        found.append(fine.reshape(1, 1, 32, -1).mean(-1))
    first, second = ((found[k] - found[k + 1]).abs().max() for k in (0, 1))
    assert first < 1e-2
    assert 3 < first / second < 5


def test_matched_functions_in_cells_are_orthogonal_and_match_the_walls():
    for odd in ((False, False), (True, True), (True, False), (False, True)):
        basis = matched_basis(11, 6, odd, torch.zeros((), dtype=torch.float64), cells=True)
        torch.testing.assert_close(basis.analysis @ basis.synthesis, torch.eye(6).double(), rtol=0, atol=1e-14)
        fine = matched_basis(2000, 6, odd, torch.zeros((), dtype=torch.float64), cells=True).analysis
        for end, vanishes in zip((0, -1), odd, strict=True):
            wall = fine[:, end] if vanishes else (fine[:, end] - fine[:, (1, -2)[end]]) * 2000
            assert float(wall.abs().max()) < (6 * pi) ** 2 / 2000  # second derivative over half a cell, or a whole one


def test_the_mean_of_the_training_is_interpolated_between_the_centres_of_cells():
    x = [CellGrid(0.0, 1.0, count).points for count in (16, 48)]
    cubic = [(each**3 - 2 * each)[None, None] for each in x]
    for operator, cells in ((nn.Identity(), True), (network(1), False)):
        model = Normalised.fit(operator, cubic[0].expand(3, 1, 16), cubic[0].expand(3, 1, 16), cells=cells)
        assert model.cells
        torch.testing.assert_close(model.restore(torch.zeros(1, 1, 48).double()), cubic[1], rtol=0, atol=1e-14)


def test_normalised_operators_meet_conditions_of_the_physical_field():
    outputs = 3 + normal(5, 1, 24)
    inner = Normalised.fit(network(1), normal(5, 1, 24), outputs)
    operator = BOON(inner, [(VALUE, SLOPE)], grid=CellGrid(0.0, 2.0, 24))
    u = operator(normal(2, 1, 48))
    assert boundary_error(u, operator.discretise(u)).relative_maximum < 1e-13


def test_channels_in_cells_have_conditions_of_their_own():
    grid = CellGrid((0.0, 0.0), (1.0, 2.0), (8, 9))
    still, flat = (Dirichlet(0.0),) * 2, (Neumann(0.0),) * 2
    operator = ChannelBOON(nn.Identity(), [[still, flat], [flat, still]], grid=grid)
    u = operator(normal(2, 2, 8, 9))
    assert boundary_error(u, operator.discretise(u)).maximum < 1e-12
    assert operator.response(grid).shape == (2, 8, 9)


def test_values_that_disagree_at_a_corner_of_cells_are_refused_and_smooth_ones_are_not():
    walls = lambda first, second: [(Dirichlet(first), None), (Dirichlet(second), None)]  # noqa: E731
    grid, u = CellGrid((0, 0), (1, 1), (8, 8)), normal(1, 1, 8, 8)
    with pytest.raises(IncompatibleCornersError, match="first side of axis 1 disagree by 1 "):
        BOON(nn.Identity(), walls(1.0, 0.0), grid=grid)(u)
    for power in (1, 2, 3):  # both are 1 at the corner, and what is read there is wrong by the order h²
        smooth = BOON(nn.Identity(), walls(lambda y, p=power: 1 + y**p, lambda x, p=power: torch.cos(x**p)), grid=grid)
        found = smooth(u)
        assert boundary_error(found, smooth.discretise(found)).relative_maximum < 1e-13


def test_operators_in_cells_are_stored_with_their_grid(tmp_path):
    grid = CellGrid(-1.0, 2.0, 24)
    inner = Normalised.fit(network(1), normal(5, 1, 24), normal(5, 1, 24))
    operators = {
        "cells": BOON(inner, [(VALUE, SLOPE)], grid=grid),
        "shifted": BOON(FNO(FNOConfig(width=4, modes=(3,))).double(), [(VALUE, SLOPE)], grid=NodeGrid(1.0, 2.0, 9)),
        "channels": ChannelBOON(network(1), [[(VALUE, SLOPE)]], grid=grid),
    }
    for name, operator in operators.items():
        path = tmp_path / f"{name}.safetensors"
        save(operator, path)
        assert torch.equal(load(path)(normal(2, 1, 24)), operator(normal(2, 1, 24)))
        assert b'"boon-3"' in path.read_bytes()[:3000]  # which version 0.3 refuses: it would take cells for nodes
    plain = tmp_path / "plain.safetensors"
    save(BOON(FNO(FNOConfig(width=4, modes=(3,))), [(VALUE, SLOPE)], grid=NodeGrid(0.0, 2.0, 9)), plain)
    assert b'"boon-2"' in plain.read_bytes()[:3000]
    path.write_bytes(path.read_bytes().replace(b"boon-3", b"boon-9"))
    with pytest.raises(DataFileError):
        load(path)


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("cells", [False, True])
def test_training_fields_that_miss_the_walls_are_noticed(cells, channels):
    """By their mean, on sides with one number as value; not by fields that are on the walls, or by noise."""
    amplitudes = normal(20, 1, 1).abs()
    nodes = torch.sin(pi * torch.linspace(0, 1, 33, dtype=torch.float64))
    averages_ = torch.sin(pi * (torch.arange(32, dtype=torch.float64) + 0.5) / 32)

    def build(field):
        outputs = field if field.ndim == 3 else 2 + amplitudes * field
        walls = [(Dirichlet(2.0), Dirichlet(2.0))]
        grid = CellGrid(0.0, 1.0, 32) if cells else None
        inner = Normalised.fit(nn.Identity(), outputs, outputs, cells=cells)
        return ChannelBOON(inner, [walls], grid=grid) if channels else BOON(inner, walls, grid=grid)

    right, wrong = (averages_, nodes) if cells else (nodes, averages_)
    build(right)
    for seed in range(200):
        build(2 + 0.1 * normal(20, 1, 32, seed=seed))
    with pytest.warns(UserWarning, match=r"on the (first|last) side of axis 0 says 2.0; .* about 0\.5 grid steps"):
        build(wrong)
    if not cells:
        with pytest.warns(UserWarning, match=r"on the last side .* 1\.0 grid steps.*append its nodes"):
            build(nodes[:-1])


CELLS, NODES = CellGrid(0.0, 1.0, 24), NodeGrid(0.0, 1.0, 24)
WALLS = [(VALUE, SLOPE)]
REFUSED = {
    "nodes of the network, cells of BOON": (
        lambda: BOON(FNO(FNOConfig(modes=(3,))), WALLS, grid=CELLS),
        r"fields in cells, but the FNO has transform=DomainFourier\(\); build it with FNOConfig\(transform=CellFourier",
    ),
    "cells of the network, nodes of BOON": (
        lambda: BOON(network(1), WALLS),
        r"fields at nodes, but the FNO has transform=CellFourier\(\).* or give BOON the grid of the fields",
    ),
    "nodes of the mean": (
        lambda: BOON(Normalised.fit(nn.Identity(), normal(5, 1, 24), normal(5, 1, 24)), WALLS, grid=CELLS),
        r"fields in cells, its Normalised has cells=False",
    ),
    "elimination": (lambda: BOON(network(1), WALLS, correction=Elimination(), grid=CELLS), "needs fields at nodes"),
    "the old elimination": (
        lambda: BOON(network(1), WALLS, correction=EliminationWithoutSchur(), grid=CELLS),
        "needs fields at nodes",
    ),
    "a response of cells": (
        lambda: BOON(nn.Identity(), WALLS).response(CELLS),
        "those of fields at nodes, but the grid is a CellGrid",
    ),
    "a response of nodes": (
        lambda: BOON(nn.Identity(), WALLS, grid=CELLS).response(NODES),
        "those of fields in cells, but the grid is a NodeGrid",
    ),
    "lengths and grid": (lambda: BOON(nn.Identity(), WALLS, [1.0], grid=CELLS), "in place of lengths"),
    "axes": (lambda: BOON(nn.Identity(), WALLS, grid=CellGrid((0, 0), (1, 1), (3, 3))), "with 1 axes"),
    "no grid": (lambda: BOON(nn.Identity(), WALLS, grid="cells"), "got 'cells'"),
    "too few cells": (
        lambda: BOON(nn.Identity(), [(VALUE, VALUE)], order=4, grid=CELLS)(normal(1, 1, 4)),
        "needs at least 5 cells",
    ),
    "another grid": (
        lambda: boundary_error(normal(1, 1, 9), BOON(nn.Identity(), WALLS, grid=CELLS).discretise(normal(1, 1, 8))),
        "another|anew",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nodes_where_cells_are_needed_and_the_reverse_are_refused(name):
    call, match = REFUSED[name]
    with pytest.raises(InvalidArgumentError, match=match):
        call()
