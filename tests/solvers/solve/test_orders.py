"""Observed orders of the finite volumes: L1 errors against exact cell averages on smaller sizes by default.

The sizes of the table in ``docs/solver_orders.md`` are marked slow.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch

from solvers import MUSCL, TRBDF2, WENO, CellGrid, Dirichlet, Neumann, PorousMedium, Problem, solve
from solvers.problems import ADVECTION, BURGERS, DIFFUSION, POROUS_MEDIUM, STEFAN, exact
from tests.documents import DOCS

SIZES = (100, 200, 400, 800)
TIMES = torch.arange(1, 21, dtype=torch.float64) / 20.0


class OrderCase(NamedTuple):
    """A problem whose L1 error (mean over the cells, and over the output times) is measured on numbers of cells.

    ``required`` is the least order that the theory promises; a quick check takes fewer and smaller sizes.
    """

    name: str
    required: float
    error: Callable[[int], float]
    sizes: tuple[int, ...] = SIZES
    quick_sizes: tuple[int, ...] = (50, 100, 200)


def cases() -> list[OrderCase]:
    """All cases of the table. At one time the error of a front jumps within a cell, so there it is a mean over 20."""
    porous = {m: partial(problem_error, POROUS_MEDIUM, m, [0.5], stepper=TRBDF2(1e-6)) for m in (1.0, 3.0, 6.0)}
    stefan = {u: partial(problem_error, STEFAN, u, 0.1 * TIMES, stepper=TRBDF2(1e-5)) for u in (0.5, 0.6, 0.7)}
    burgers = {a: partial(problem_error, BURGERS, a, 0.8 * TIMES, reconstruction=MUSCL()) for a in (1.0, 3.0)}
    muscl, weno = (partial(problem_error, ADVECTION, 3.0, [0.1], reconstruction=by) for by in (MUSCL(), WENO()))
    return [
        OrderCase("smooth diffusion, periodic, k = 1, t = 0.5", 1.8, diffusion_error),
        *(OrderCase(f"porous medium, m = {m:g}, t = 0.5", 0.9, error) for m, error in porous.items()),
        *(OrderCase(f"Stefan, u* = {u:g}, 20 times to 0.1", 0.9, error) for u, error in stefan.items()),
        OrderCase("Burgers, a = 1, 20 times to 0.8 (no shock)", 0.9, burgers[1.0], quick_sizes=SIZES[:3]),
        OrderCase("Burgers, a = 3, 20 times to 0.8 (shock from 1/3)", 0.9, burgers[3.0], quick_sizes=SIZES[:3]),
        OrderCase("advected step, MUSCL, a = 3, t = 0.1", 0.65, muscl, quick_sizes=SIZES[:3]),
        OrderCase("advected step, WENO, a = 3, t = 0.1", 0.8, weno, quick_sizes=SIZES[:3]),
        OrderCase("2-D Barenblatt, m = 2, t = 0.05 to 0.2", 0.9, barenblatt_error, (50, 100, 200, 400), (12, 24, 48)),
    ]


def observed_orders(errors: Sequence[float]) -> list[float]:
    """log₂ of the ratio of errors on grids of n and 2n cells."""
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


def problem_error(problem: Problem, parameter: float, times: Any, cells: int, **options: Any) -> float:
    """Error of a problem with a closed form at the output times."""
    grid = CellGrid(*problem.domain, cells)
    boundary, start = problem.boundary(parameter), problem.initial(grid, parameter)
    values = solve(problem.law(parameter), grid, boundary, start, times, **options).values
    return float((values - problem.averages(times, grid, parameter)).abs().mean())


def diffusion_error(cells: int) -> float:
    """sin x on a periodic axis, k = 1, t = 0.5, with steps of 1/n."""
    return problem_error(DIFFUSION, 1.0, [0.5], cells, stepper=TRBDF2(math.inf, largest_step=1.0 / cells))


def barenblatt_error(cells: int) -> float:
    """Barenblatt's solution, m = 2, on a quarter, [0, 1]², of a square of 2·``cells`` an axis, from t = 0.05 to 0.2.

    Cell averages are by the midpoint rule on 5 × 5 points a cell.
    """
    grid, fine = (CellGrid((0.0, 0.0), (1.0, 1.0), (count, count)) for count in (cells, 5 * cells))
    fields = (exact.barenblatt(t, fine.points, 2.0, 0.1) for t in (0.05, 0.2))
    start, end = (field.reshape(cells, 5, cells, 5).mean((1, 3)) for field in fields)
    wall = (Neumann(flux=0.0), Dirichlet(0.0))
    result = solve(PorousMedium(2.0), grid, [wall, wall], start, [0.2], start=0.05, stepper=TRBDF2(3e-5))
    return float((result.values[0] - end).abs().mean())


CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_orders_on_small_grids(case: OrderCase):
    """Mean order over the quick sizes; a tenth of slack, since these are not yet asymptotic."""
    orders = observed_orders([case.error(size) for size in case.quick_sizes])
    assert sum(orders) / len(orders) >= case.required - 0.1, orders


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_orders_on_the_documented_grids(case: OrderCase):
    errors = [case.error(size) for size in case.sizes]
    orders = observed_orders(errors)
    assert sum(orders) / len(orders) >= case.required, orders
    page = (DOCS / "solver_orders.md").read_text(encoding="utf-8")
    (row,) = (line.split(" | ") for line in page.splitlines() if line.startswith(f"| {case.name} |"))
    assert row[1] == ", ".join(map(str, case.sizes))
    assert errors == pytest.approx([float(error) for error in row[2].split(", ")], rel=0.1), "the page is stale"
