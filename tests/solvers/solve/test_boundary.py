"""Boundary conditions: their forms and values."""

import numpy as np
import pytest
import torch

from solvers import Dirichlet, InvalidArgumentError, Neumann, Periodic, Robin
from solvers.conditions import per_axis, value_at


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
    with pytest.raises(InvalidArgumentError, match="only the value may be a function of time"):
        per_axis((Robin(lambda time: time, 1.0, 0.0), Dirichlet(0.0)), 1)
    with pytest.raises(InvalidArgumentError, match=r"Robin takes numbers .* b=\[1.0, 2.0\]"):
        Robin(1.0, [1.0, 2.0])
    with pytest.raises(InvalidArgumentError, match="Robin needs finite a and b with b ≠ 0"):
        Robin(1.0, torch.tensor([1.0, 0.0]))
    with pytest.raises(InvalidArgumentError, match="Robin needs finite a and b"):
        Robin(np.array([1.0, np.nan]), 1.0)
    with pytest.raises(InvalidArgumentError, match="requires a gradient"):
        value_at(torch.ones(2, requires_grad=True), 0.0)
    with pytest.raises(InvalidArgumentError, match="must be a number, an array or a tensor"):
        value_at(lambda _: "warm", 0.0)
    with pytest.raises(InvalidArgumentError, match="not finite at time 2"):
        value_at(lambda t: t * float("nan"), 2.0)
    with pytest.raises(InvalidArgumentError, match="is missing"):
        value_at(None, 0.0)
