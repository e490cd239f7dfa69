"""Boundary conditions: their forms, values and what finite volumes make of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Dirichlet, InvalidArgumentError, Neumann, Outflow, Periodic, Robin
from solvers.finite_volume._sides import Side, ghost_cells
from solvers.finite_volume.boundary import per_axis, value_at


def test_per_axis_accepts_a_pair_or_one_pair_per_axis():
    pair = (Dirichlet(0.0), Neumann(0.0))
    assert per_axis(pair, 1) == per_axis([pair], 1) == (pair,)
    assert per_axis([pair, (Periodic(), Periodic())], 2) == (pair, (Periodic(), Periodic()))


def test_robin_takes_numbers_of_numpy_too():
    assert Robin(np.float32(1.0), np.int64(2)).b == 2


def test_robin_takes_one_number_per_batch_entry():
    assert np.shape(Robin(torch.ones(3), np.array([1.0, 2.0, -1.0])).a) == (3,)


def test_values_may_be_numbers_arrays_or_functions_of_time():
    assert value_at(2.0, 0.0).item() == 2.0
    assert value_at(np.array([1.0, 2.0]), 0.0).tolist() == [1.0, 2.0]
    assert value_at(lambda t: torch.tensor([t, 2 * t]), 1.5).tolist() == [1.5, 3.0]
    assert value_at(torch.tensor(1.0), 0.0).dtype == torch.float64


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["first", "last"]),
    st.floats(-2, 2),
    st.floats(0.2, 2),
    st.floats(-2, 2),
    st.integers(3, 50),
)
def test_side_state_meets_the_robin_condition(end, a, b, edge, n):
    """a·u + b·c₀(u − u_edge) = g exactly; the gradient of the condition is the half-cell difference."""
    side = Side(Robin(a, b, 0.7), 0, end, 1.0 / n)
    if abs(a + b * side.edge_weight) < 0.1:
        return
    cell = torch.full((1,), edge, dtype=torch.float64)
    value = side.value(0.0, cell)
    state, slope = side.side_state(value, cell)
    gradient, _ = side.gradient(value, state)
    assert float(gradient) == pytest.approx(float(side.edge_weight * (state - cell)), rel=1e-9, abs=1e-9 * n)
    shifted, _ = side.side_state(value, cell + 1.0)
    assert float(shifted - state) == pytest.approx(slope, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("condition", "first", "last"),
    [
        (Dirichlet(9.0), [9.0, 9.0], [9.0, 9.0]),
        (Outflow(), [1.0, 1.0], [3.0, 3.0]),
        (Neumann(flux=5.0), [1.0, 1.0], [3.0, 3.0]),
        (Periodic(), [2.0, 3.0], [1.0, 2.0]),
        (Neumann(gradient=4.0), [-1.0, 0.0], [4.0, 5.0]),
    ],
)
def test_ghost_cells_by_hand(condition, first, last):
    """Cells 1, 2, 3 of length 1/4; the gradient 4 changes u by 1 from cell to cell."""
    cells = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert ghost_cells(Side(condition, 0, "first", 0.25), 0.0, cells, 2).tolist() == first
    assert ghost_cells(Side(condition, 0, "last", 0.25), 0.0, cells, 2).tolist() == last


def test_messages():
    with pytest.raises(InvalidArgumentError, match="gradient or a flux, not both"):
        Neumann(gradient=0.0, flux=0.0)
    with pytest.raises(InvalidArgumentError, match="use Dirichlet for b = 0"):
        Robin(1.0, 0.0)
    with pytest.raises(InvalidArgumentError, match="periodic on one side only"):
        per_axis((Periodic(), Dirichlet(0.0)), 1)
    with pytest.raises(InvalidArgumentError, match="pair for each of 2 axes"):
        per_axis([(Dirichlet(0.0), Dirichlet(0.0))], 2)
    with pytest.raises(InvalidArgumentError, match="axis 0 must be a"):
        per_axis((Dirichlet(0.0), 1.0), 1)
    with pytest.raises(InvalidArgumentError, match=r"axis 0 must be a \(first, last\) pair .* got Dirichlet"):
        per_axis((Dirichlet(0.0), Dirichlet(0.0)), 2)
    with pytest.raises(InvalidArgumentError, match=r"must be a \(first, last\) pair .* got Dirichlet\(value=0.0\)"):
        per_axis(Dirichlet(0.0), 1)
    with pytest.raises(InvalidArgumentError, match=r"one such pair per axis, got \(\)"):
        per_axis((), 1)
    with pytest.raises(InvalidArgumentError, match=r"Robin takes numbers .* per batch entry, got a=<function"):
        Robin(lambda time: time, 1.0)
    with pytest.raises(InvalidArgumentError, match=r"Robin takes numbers .* b=\[1.0, 2.0\]"):
        Robin(1.0, [1.0, 2.0])
    with pytest.raises(InvalidArgumentError, match="Robin needs finite a and b with b ≠ 0"):
        Robin(1.0, torch.tensor([1.0, 0.0]))
    with pytest.raises(InvalidArgumentError, match="Robin needs finite a and b"):
        Robin(np.array([1.0, np.nan]), 1.0)
    with pytest.raises(InvalidArgumentError, match="requires gradients"):
        value_at(torch.ones(2, requires_grad=True), 0.0)
    with pytest.raises(InvalidArgumentError, match="must be a number, an array or a tensor"):
        value_at(lambda _: "warm", 0.0)
    with pytest.raises(InvalidArgumentError, match="not finite at time 2"):
        value_at(lambda t: t * float("nan"), 2.0)
    with pytest.raises(InvalidArgumentError, match="is missing"):
        value_at(None, 0.0)
    with pytest.raises(InvalidArgumentError, match=r"does not broadcast to \(\*batch, \*face\) = \(3,\)"):
        Side(Dirichlet(torch.zeros(2)), 0, "first", 0.1).value(0.0, torch.zeros(3, 1))
    with pytest.raises(InvalidArgumentError, match="does not determine the value"):
        Side(Robin(-20.0, 1.0, 0.0), 1, "last", 0.1)
