"""Conservation to round-off for every law, boundary condition, stepper and dimension; observed orders."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import (
    ESDIRK4,
    MUSCL,
    SSPRK3,
    TRBDF2,
    Burgers,
    CellGrid,
    Diffusion,
    Dirichlet,
    Neumann,
    Periodic,
    PorousMedium,
    Robin,
    Stefan,
    solve,
)
from solvers.problems import Problem, exact
from solvers.problems.conservation import ADVECTION, BURGERS, DIFFUSION, POROUS_MEDIUM, STEFAN
from tests.documents import DOCS

DIFFUSIVE_LAWS = [
    Diffusion(torch.tensor([0.7, 2.0])),
    PorousMedium(torch.tensor([0.5, 3.0])),
    Stefan(np.array([0.3, 0.6])),
]


def side_condition(name, end, values):
    """A well-posed condition by name; values depend on the batch entry or on time."""
    outward = 1.0 if end == "last" else -1.0
    return {
        "dirichlet": Dirichlet(values),
        "time": Dirichlet(lambda t: values * (1.0 + t)),
        "gradient": Neumann(gradient=outward * (values - 0.5)),
        "flux": Neumann(flux=values - 0.5),
        "robin": Robin(1.0, outward * 0.4, values),
        "periodic": Periodic(),
    }[name]


@st.composite
def axis_conditions(draw, names, values):
    """A pair of conditions, periodic on both sides or any two others."""
    if draw(st.booleans()) and draw(st.booleans()):
        return Periodic(), Periodic()
    first, last = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    return side_condition(first, "first", values), side_condition(last, "last", values)


@st.composite
def diffusive_cases(draw, dimension):
    law = draw(st.sampled_from(DIFFUSIVE_LAWS))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    values = torch.rand((2,) + (1,) * (dimension - 1), generator=generator, dtype=torch.float64)
    names = ["dirichlet", "time", "gradient", "flux", "robin"]
    shape = tuple(draw(st.integers(4, 9)) for _ in range(dimension))
    boundary = [draw(axis_conditions(names, values)) for _ in range(dimension)]
    return law, shape, boundary, torch.rand((2, *shape), generator=generator, dtype=torch.float64)


def unit_grid(shape):
    return CellGrid((0.0,) * len(shape), (1.0,) * len(shape), shape)


def assert_conserves(result, initial):
    """|total − (initial + boundary fluxes)| ≤ 1e-12 of ∫|u0| + Σ|flux|: round-off of at most some 10³ sums."""
    size = (initial.abs() * result.grid.weights).flatten(1).sum(-1)[:, None] + result.boundary_flux.abs().sum(-1)
    assert torch.isfinite(result.values).all()
    assert (result.imbalance.abs() <= 1e-12 * size).all()


@pytest.mark.parametrize("dimension", [1, 2])
@settings(deadline=None, max_examples=30)
@given(st.data(), st.sampled_from([TRBDF2(1e-2), ESDIRK4(1e-2), SSPRK3()]))
def test_diffusive_laws_conserve(dimension, data, stepper):
    law, shape, boundary, initial = data.draw(diffusive_cases(dimension))
    result = solve(law, unit_grid(shape), boundary, initial, times=[0.0, 0.005, 0.01], stepper=stepper)
    assert result.values.shape == (2, 3, *shape)
    assert result.boundary_flux.shape == (2, 3, 2 * dimension)
    assert_conserves(result, initial)


def test_periodic_fluxes_are_the_same_number_on_both_sides():
    initial = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for law in (PorousMedium(2.5), Burgers()):
        result = solve(law, CellGrid(0.0, 1.0, 7), (Periodic(), Periodic()), initial, [0.1])
        assert (result.boundary_flux[..., 0] == result.boundary_flux[..., 1]).all()


def stated(name, u, slope, end):
    """The condition of the name that a field with these values and slopes on the side meets."""
    weight = 0.7 * end
    return {
        "dirichlet": Dirichlet(u),
        "gradient": Neumann(gradient=slope),
        "flux": Neumann(flux=lambda t: -slope(t)),
        "robin": Robin(1.0, weight, lambda t: u(t) + weight * slope(t)),
    }[name]


@pytest.mark.parametrize("name", ["dirichlet", "gradient", "flux", "robin"])
@pytest.mark.parametrize("stepper", [TRBDF2, ESDIRK4])
def test_order_of_every_condition_on_smooth_diffusion(name, stepper):
    """u = e^{−t} sin(x + 0.3) solves u_t = u_xx; time steps shrink with h (TR-BDF2) or h² (Euler): order 2."""

    def value(x):
        return lambda t: math.exp(-t) * math.sin(x + 0.3)

    def slope(x):
        return lambda t: math.exp(-t) * math.cos(x + 0.3)

    errors = []
    for n in (10, 20, 40, 80):
        grid = CellGrid(0.0, 2.0, n)
        boundary = tuple(stated(name, value(x), slope(x), end) for x, end in ((0.0, -1.0), (2.0, 1.0)))
        step = 1.0 / n if stepper is TRBDF2 else 4.0 / n**2
        average = -(torch.cos(grid.faces[0] + 0.3)).diff() / grid.spacing[0]
        result = solve(Diffusion(1.0), grid, boundary, average, [0.5], stepper=stepper(math.inf, largest_step=step))
        errors.append(float((result.values[0] - math.exp(-0.5) * average).abs().mean()))
    slopes = np.diff(np.log2(errors)) * -1
    assert abs(slopes[-1] - 2.0) < 0.2, errors


def test_steady_robin_profile_is_exact():
    """u = 1 + 2x is linear, so every difference is exact: u − u_x = −1 at x = 0, u + u_x = 5 at x = 1."""
    grid = CellGrid(0.0, 1.0, 10)
    start = 1.0 + 2.0 * grid.points
    result = solve(Diffusion(1.0), grid, (Robin(1.0, -1.0, -1.0), Robin(1.0, 1.0, 5.0)), start, [1.0])
    assert torch.allclose(result.values[0], start, rtol=0, atol=1e-12)
    assert result.boundary_flux[0].tolist() == pytest.approx([-2.0, -2.0], rel=1e-12)


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
    advection = partial(problem_error, ADVECTION, 3.0, [0.1])
    return [
        OrderCase("smooth diffusion, periodic, k = 1, t = 0.5", 1.8, diffusion_error),
        *(OrderCase(f"porous medium, m = {m:g}, t = 0.5", 0.9, error) for m, error in porous.items()),
        *(OrderCase(f"Stefan, u* = {u:g}, 20 times to 0.1", 0.9, error) for u, error in stefan.items()),
        OrderCase("Burgers, a = 1, 20 times to 0.8 (no shock)", 0.9, burgers[1.0], quick_sizes=SIZES[:3]),
        OrderCase("Burgers, a = 3, 20 times to 0.8 (shock from 1/3)", 0.9, burgers[3.0], quick_sizes=SIZES[:3]),
        OrderCase("advected step, MUSCL, a = 3, t = 0.1", 0.65, advection, quick_sizes=SIZES[:3]),
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
    page = (DOCS / "speed.md").read_text(encoding="utf-8")
    (row,) = (line.split(" | ") for line in page.splitlines() if line.startswith(f"| {case.name} |"))
    assert row[1] == ", ".join(map(str, case.sizes))
    assert errors == pytest.approx([float(error) for error in row[2].split(", ")], rel=0.1), "the page is stale"
