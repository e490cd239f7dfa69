"""Where features meet: every prior under every constraint, asked everything in every way, against dense rows.

A cell gives the dense answer within rounding, or it is listed in ``refusals`` with its error and the reason; one that
stops refusing, or starts to, fails. The default tests hold every pair of entries of two axes that any answering cell
holds, and more; ``make test-slow`` has all cells, and random set-ups of them.
"""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings

from tests.probconserv.pairs.constraints import CONSTRAINTS
from tests.probconserv.pairs.matrix import QUESTIONS, WAYS, Case, check
from tests.probconserv.pairs.priors import PRIORS, Numbers
from tests.probconserv.pairs.refusals import REFUSALS, Cell, refusal_of
from tests.recording import records
from tests.strategies import seeds

CELLS: list[Cell] = list(itertools.product(PRIORS, CONSTRAINTS, QUESTIONS, WAYS))
ORDERS = {"two laws": 2}
NUMBERS = Numbers.drawn(0)
CHEAP: Cell = ("dense", "nonlinear law", "mean", "compiled")
"""Compiled in half the time that other priors take under a nonlinear law."""


def covering() -> set[Cell]:
    """Few answering cells that hold all pairs of names which any of them holds; the first cell of each refusal; the
    covariance of every prior under every constraint.

    Greedy: every next cell holds as many new pairs as any.
    """
    answering = [cell for cell in CELLS if refusal_of(cell) is None]
    numbers: dict[tuple[int, str, int, str], int] = {}
    pairs = [
        [numbers.setdefault((i, cell[i], j, cell[j]), len(numbers)) for i, j in itertools.combinations(range(4), 2)]
        for cell in answering
    ]
    index, missing = np.array(pairs), np.ones(len(numbers), dtype=int)
    chosen, best = [], answering.index(CHEAP)
    while missing.any():
        missing[index[best]] = 0
        chosen.append(answering[best])
        best = int(missing[index].sum(axis=1).argmax())
    first = [next(cell for cell in CELLS if refusal_of(cell) is refusal) for refusal in REFUSALS]
    second_order = [cell for cell in answering if cell[2:] == ("covariance", "alone")]
    return {*chosen, *first, *second_order}


DEFAULT = covering()


def marks(cell: Cell) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] * (cell not in DEFAULT) + [records] * (cell[3] == "compiled")


def require(cell: Cell, numbers: Numbers) -> None:
    """Raises unless a cell gives the dense answer, for every order of its statements, or refuses as listed."""
    prior, constraint, question, way = cell
    refusal = refusal_of(cell)
    for order in range(ORDERS.get(constraint, 1)):
        case = Case(numbers, prior, constraint, order)
        if refusal is None:
            check(case, question, way)
        else:
            with pytest.raises(refusal.error, match=refusal.says):
                check(case, question, way)


@pytest.mark.parametrize("cell", [pytest.param(cell, marks=marks(cell), id=", ".join(cell)) for cell in CELLS])
def test_a_cell_gives_the_dense_answer_or_refuses_as_listed(cell: Cell) -> None:
    require(cell, NUMBERS)


def test_the_default_cells_are_few() -> None:
    assert len(DEFAULT) <= 150
    assert sum(cell[3] == "compiled" for cell in DEFAULT) <= 12


@pytest.mark.slow
@settings(max_examples=300, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.sampled_from([cell for cell in CELLS if cell[3] != "compiled"]), seeds)
def test_a_random_set_up_gives_the_dense_answer_or_refuses_as_listed(cell: Cell, seed: int) -> None:
    """Other numbers of points, units of the field, scales of the rows, precisions."""
    random = np.random.default_rng(seed)
    bounded = cell[0] == "projected" or cell[1] == "inequality"
    numbers = Numbers.drawn(
        seed,
        n=int(random.integers(6, 9 if bounded else 25)),
        dtype=torch.float32 if random.random() < 0.3 else torch.float64,
        scale=10.0 ** random.integers(-6, 7),
        factor=10.0 ** random.integers(-12, 13),
    )
    require(cell, numbers)
