"""A campaign: random walls around random operators, held against the conditions written out in NumPy.

A seed draws one set-up in one to three axes: the condition of every side, its values or coefficients, given with the
condition or at the call; the correction, the order of its differences, precision, batch and channels, and whether the
operator itself is periodic along periodic axes. Values are those of one random field, so that they agree where sides
meet.
"""

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, example, given, settings
from torch import Tensor

from boon import BOON, FNO, FNOConfig
from boon.corrections.without_schur import EliminationWithoutSchur
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.boon.cases import EVERY
from tests.strategies import seeds

ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6}
"""Of residuals, relative to the size of their terms: every node is computed in float64 and rounded once.

Where sides meet, the data of each are rounded, so that one misses its condition by the rounding of the largest.
"""
ON_ONE_SIDE = [each for each in EVERY if not isinstance(each, EliminationWithoutSchur)]
Array = np.ndarray


@dataclass(frozen=True)
class Side:
    """a u + b ∂u/∂x on one end of an axis, by a one-sided difference with weights from the side inwards."""

    axis: int
    last: bool
    a: float
    b: float
    weights: Array

    def of(self, u: Array) -> Array:
        """The functional of fields (batch, channels, *space)."""
        nodes = np.moveaxis(u, 2 + self.axis, 0)[:: -1 if self.last else 1]
        return self.a * nodes[0] + self.b * np.tensordot(self.weights, nodes[: len(self.weights)], axes=1)

    def size(self, u: Array) -> Array:
        """The sum of the sizes of its terms."""
        return Side(self.axis, self.last, abs(self.a), abs(self.b), np.abs(self.weights)).of(np.abs(u))


def a_side(random: np.random.Generator, axis: int, last: bool, spacing: float, order: int) -> tuple[Any, Side]:
    """A random condition, as a function of its values, and what it says; the differences are exact for polynomials."""
    nodes = (-spacing if last else spacing) * np.arange(order + 1)
    weights = np.linalg.solve(nodes ** np.arange(order + 1)[:, None], np.eye(order + 1)[1])
    kind = random.choice(["value", "gradient", "mixed"])
    if kind == "value":
        return Dirichlet, Side(axis, last, 1.0, 0.0, weights)
    if kind == "gradient":
        return Neumann, Side(axis, last, 0.0, 1.0, weights)
    a, b = random.uniform(0.5, 2.0), (1 if last else -1) * random.uniform(0.05, 0.5)  # the signs of a side that leaks
    return lambda *value: Robin(a, b, *value), Side(axis, last, a, b, weights)


@dataclass(frozen=True)
class SetUp:
    """An operator under conditions, its input, its values at the call, and what its output has to meet."""

    operator: BOON
    a: Tensor
    boundary: list[Any]
    required: list[tuple[Side, Array]]
    circles: list[int]


def drawn(random: np.random.Generator) -> SetUp:
    """A random set-up."""
    dimension, order = int(random.integers(1, 4)), int(random.integers(1, 5))
    shape, lengths = random.integers(7, 14, dimension), random.choice([0.5, 1.0, 3.0], dimension)
    batch, channels = (int(size) for size in random.integers(1, 4, 2))
    dtype = torch.float64 if random.random() < 0.7 else torch.float32
    kinds = random.choice(["both", "both", "both", "one", "circle", "free"], dimension)
    circles = [axis for axis in range(dimension) if kinds[axis] == "circle"]
    source = random.standard_normal((batch, channels, *shape))
    for axis in circles:  # both ends are one node
        nodes = np.moveaxis(source, 2 + axis, 0)
        nodes[-1] = nodes[0]
    conditions: list[Any] = [(Periodic(), Periodic()) if kind == "circle" else None for kind in kinds]
    boundary: list[Any] = [None] * dimension
    required = []
    for axis in range(dimension):
        if kinds[axis] not in ("both", "one"):
            continue
        pair, values, left_free = [None, None], [None, None], int(random.integers(2))
        for last in (False, True):
            if kinds[axis] == "one" and last == left_free:
                continue
            make, side = a_side(random, axis, last, lengths[axis] / (shape[axis] - 1), order)
            required.append((side, side.of(source)))
            value = torch.tensor(required[-1][1])
            at_call = bool(random.random() < 0.5)
            pair[last], values[last] = make() if at_call else make(value), value if at_call else None
        conditions[axis], boundary[axis] = tuple(pair), tuple(values)
    corrections = ON_ONE_SIDE if "one" in kinds else EVERY
    correction = corrections[int(random.integers(len(corrections)))]
    periodic = tuple(kind == "circle" and random.random() < 0.5 for kind in kinds)
    config = FNOConfig(out_channels=channels, width=4, depth=2, modes=(3,) * dimension, periodic=periodic)
    torch.manual_seed(int(random.integers(2**31)))
    operator = BOON(FNO(config), conditions, lengths.tolist(), correction=correction, order=order).to(dtype)
    return SetUp(operator, torch.randn(batch, 1, *shape, dtype=dtype), boundary, required, circles)


def where_sides_meet(setup: SetUp, side: Side, shape: tuple[int, ...]) -> Array:
    """The nodes of a side (batch, channels, *face) on which sides of other axes have conditions too."""
    met = np.zeros(shape, dtype=bool)
    for other, _ in setup.required:
        if other.axis != side.axis:
            met.swapaxes(0, 2 + other.axis - (other.axis > side.axis))[-1 if other.last else 0] = True
    return met


def require(seed: int) -> None:
    """Raises unless the output meets its conditions, and is the same from an operator stored and read again."""
    setup = drawn(np.random.default_rng(seed))
    with torch.no_grad():
        u = setup.operator(setup.a, setup.boundary)
        again = pickle.loads(pickle.dumps(setup.operator))(setup.a, setup.boundary)
    assert u.dtype == setup.a.dtype
    assert torch.equal(u, again)
    field, rounding = u.double().numpy(), ROUNDING[u.dtype]
    for side, values in setup.required:
        missed, size = np.abs(side.of(field) - values), side.size(field) + np.abs(values)
        size[where_sides_meet(setup, side, size.shape)] = size.max()
        assert (missed <= rounding * size).all(), (setup.operator, side, (missed / size).max())
        if not side.b:  # values are set, to the last bit
            assert np.array_equal(side.of(field), torch.tensor(values).to(u.dtype).numpy())
    for axis in setup.circles:
        assert torch.equal(u.select(2 + axis, 0), u.select(2 + axis, -1))


@pytest.mark.parametrize("seed", range(20))
def test_an_operator_meets_its_conditions(seed: int) -> None:
    require(seed)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(seeds)
@example(3119)  # small values beside large ones where three sides meet, in float32
def test_operators_of_random_set_ups_meet_their_conditions(seed: int) -> None:
    require(seed)
