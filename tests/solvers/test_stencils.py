"""Difference weights: exact on polynomials, of the stated order on smooth functions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.errors import InvalidArgumentError
from solvers.stencils import difference_weights, one_sided_gradient


def test_classical_weights():
    assert difference_weights((-1, 0, 1), 2).tolist() == [1.0, -2.0, 1.0]
    assert one_sided_gradient(2, "first").tolist() == [-1.5, 2.0, -0.5]
    assert one_sided_gradient(2, "last").tolist() == [1.5, -2.0, 0.5]


@settings(deadline=None, max_examples=50)
@given(st.sets(st.integers(-4, 4), min_size=2, max_size=6), st.integers(0, 3))
def test_weights_meet_the_moment_equations(offsets, derivative):
    """Σ c_j offsetᵖ = p! [p = derivative], to round-off of sums of terms |c_j| 4⁵."""
    offsets = tuple(sorted(offsets))
    if derivative >= len(offsets):
        return
    weights = difference_weights(offsets, derivative)
    for power in range(len(offsets)):
        terms = weights * torch.tensor([float(offset) ** power for offset in offsets], dtype=torch.float64)
        expected = math.factorial(power) if power == derivative else 0.0
        assert float(terms.sum()) == pytest.approx(expected, abs=1e-14 * float(terms.abs().sum()) + 1e-15)


@pytest.mark.parametrize("side", ["first", "last"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_observed_order(order, side):
    inward = 1.0 if side == "first" else -1.0
    errors = []
    for n in (20, 40, 80, 160):
        positions = 0.3 + inward * torch.arange(order + 1, dtype=torch.float64) / n
        errors.append(abs(float((one_sided_gradient(order, side) * positions.sin()).sum() * n) - math.cos(0.3)))
    assert torch.tensor(errors).log2().diff().neg().tolist() == pytest.approx([order] * 3, abs=0.2)


def test_invalid_arguments_raise_with_reason():
    with pytest.raises(InvalidArgumentError, match="distinct offsets"):
        difference_weights((0, 0, 1), 1)
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        one_sided_gradient(0, "first")
    with pytest.raises(InvalidArgumentError, match='"first" or "last", got \'left\''):
        one_sided_gradient(2, "left")
