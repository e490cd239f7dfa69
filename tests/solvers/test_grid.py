"""Grids: coordinates, spacing and quadrature weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import CellGrid, NodeGrid
from solvers.errors import InvalidArgumentError
from solvers.grids import trapezoid_weights

sizes = st.integers(2, 30)


def test_cells_and_nodes_of_a_small_domain():
    cells, nodes = CellGrid(0.0, 1.0, 4), NodeGrid(0.0, 1.0, 5)
    assert cells.points.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert cells.faces[0].tolist() == nodes.points.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert cells.spacing == nodes.spacing == (0.25,)
    assert (cells.location, nodes.location) == ("cell", "node")
    assert nodes.weights.tolist() == [0.125, 0.25, 0.25, 0.25, 0.125]


def test_points_of_two_axes_are_pairs():
    grid = CellGrid((0.0, -1.0), (1.0, 1.0), (2, 4))
    assert grid.points.shape == (2, 4, 2)
    assert grid.points[1, 2].tolist() == [0.75, 0.25]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([CellGrid, NodeGrid]), sizes, sizes, st.floats(-3, 3), st.floats(0.1, 5))
def test_weights_integrate_bilinear_fields_exactly(kind, nx, ny, low, length):
    """∫∫ (1 + x)(2 − y) over [a, a+L] × [0, 1] = (L + ((a+L)² − a²)/2)·1.5; some 10³ sums of round-off."""
    grid = kind((low, 0.0), (low + length, 1.0), (nx, ny))
    x, y = grid.points.unbind(-1)
    expected = (length + ((low + length) ** 2 - low**2) / 2) * 1.5
    scale = length * (1 + abs(low) + length)
    assert float((grid.weights * (1 + x) * (2 - y)).sum()) == pytest.approx(expected, abs=1e-12 * scale)
    assert float(grid.weights.sum()) == pytest.approx(grid.volume, rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 20), st.integers(0, 1000))
def test_trapezoid_weights_of_unequal_points_match_interval_sums(n, seed):
    """Oracle: the trapezoid sum written out interval by interval."""
    generator = torch.Generator().manual_seed(seed)
    points = (torch.rand(n, generator=generator, dtype=torch.float64) + 0.01).cumsum(0)
    u = torch.randn(n, generator=generator, dtype=torch.float64)
    by_interval = sum(0.5 * (points[i + 1] - points[i]) * (u[i] + u[i + 1]) for i in range(n - 1))
    assert float((trapezoid_weights(points) * u).sum()) == pytest.approx(float(by_interval), rel=1e-12, abs=1e-13)


def test_trapezoid_is_second_order():
    """∫₀¹ eˣ dx: error h²/12·(e − 1) + O(h⁴)."""
    errors = []
    for n in (11, 21, 41, 81):
        points = NodeGrid(0.0, 1.0, n).points
        errors.append(abs(float((trapezoid_weights(points) * points.exp()).sum()) - (torch.e - 1)))
    assert torch.tensor(errors).log2().diff().neg().tolist() == pytest.approx([2.0] * 3, abs=0.2)


def test_weights_are_float64_for_float32_points():
    assert trapezoid_weights(torch.tensor([0.0, 0.5, 1.0])).dtype == torch.float64


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_extents_may_be_arrays(array):
    assert NodeGrid(array([0.0, -1.0]), array([1.0, 1.0]), array([3, 5])) == NodeGrid((0.0, -1.0), (1.0, 1.0), (3, 5))
    assert CellGrid(array(0.0), array(1.0), array(4)) == CellGrid(0.0, 1.0, 4)


def test_invalid_arguments_raise_with_reason():
    with pytest.raises(InvalidArgumentError, match="low < high"):
        CellGrid(1.0, 0.0, 4)
    with pytest.raises(InvalidArgumentError, match="at least 2"):
        NodeGrid(0.0, 1.0, 1)
    for count in (float("nan"), float("inf"), 2.5):
        with pytest.raises(InvalidArgumentError, match=f"integer of at least 1 on every axis, got {count}"):
            CellGrid(0.0, 1.0, count)
    with pytest.raises(InvalidArgumentError, match="count must be a number, or one number per axis, got '44'"):
        CellGrid(0.0, 1.0, "44")
    with pytest.raises(InvalidArgumentError, match="high must be a number, or one number per axis, got None"):
        CellGrid(0.0, None, 4)
    with pytest.raises(InvalidArgumentError, match="low must be a number, or one number per axis"):
        CellGrid(np.zeros((1, 2)), (1.0, 1.0), (4, 4))
    with pytest.raises(InvalidArgumentError, match="one entry per axis"):
        CellGrid((0.0, 0.0), (1.0, 1.0), 4)
    with pytest.raises(InvalidArgumentError, match="strictly increasing"):
        trapezoid_weights(torch.tensor([0.0, 0.5, 0.5]))
    with pytest.raises(InvalidArgumentError, match="at least two entries"):
        trapezoid_weights(torch.tensor([0.0]))
