"""The default stepper: which law takes which, and how accurate linear diffusion then is."""

import math

import pytest
import torch

from solvers import (
    ESDIRK4,
    TRBDF2,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    Diffusion,
    Dirichlet,
    LeastCost,
    Logistic,
    Neumann,
    Periodic,
    PorousMedium,
    Stefan,
    solve,
)

PERIODIC = (Periodic(), Periodic())


def transport_and_diffusion(k):
    return ConvectionDiffusion(Burgers(), Diffusion(k))


@pytest.mark.parametrize(
    ("law", "dimension", "source", "default"),
    [
        (Diffusion, 1, None, ESDIRK4(1e-5)),
        (Diffusion, 1, Logistic(1.0), TRBDF2(1e-4)),
        (PorousMedium, 1, None, TRBDF2(1e-4)),
        (lambda k: Stefan(0.3, k), 1, None, TRBDF2(1e-4)),
        (transport_and_diffusion, 1, None, LeastCost()),
        (Diffusion, 2, None, LeastCost()),
        (Burgers, 1, None, LeastCost()),
    ],
)
def test_the_default_is_the_stepper_that_the_documentation_states(law, dimension, source, default):
    """Bit for bit, for rows that ``LeastCost`` would separate; its estimates are reported where it chooses."""
    grid, sides = CellGrid((0.0,) * dimension, (1.0,) * dimension, (20, 8)[:dimension]), [PERIODIC] * dimension
    arguments = () if law is Burgers else (torch.tensor([1e-2, 5.0], dtype=torch.float64),)
    first = grid.points if dimension == 1 else grid.points[..., 0]
    start = (1.0 + 0.5 * torch.sin(2.0 * math.pi * first)).expand(2, *grid.shape)
    given = law(*arguments), grid, sides if dimension > 1 else PERIODIC, start, [0.1]
    usual, named = (solve(*given, source=source, stepper=stepper) for stepper in (None, default))
    assert usual.work.steppers == named.work.steppers
    assert torch.equal(usual.values, named.values)
    assert bool(usual.work.estimates) == (default == LeastCost())


@pytest.mark.parametrize(
    ("walls", "start"),
    [
        ((Dirichlet(1.0), Dirichlet(0.0)), lambda x: 0.0 * x),
        (PERIODIC, lambda x: (x < 0.3).double()),
        ((Dirichlet(lambda t: math.sin(20.0 * float(t))), Neumann(flux=0.0)), lambda x: 0.0 * x),
    ],
)
def test_linear_diffusion_by_default_is_exact_to_the_error_of_100_cells(walls, start):
    """Steps add less than the cells do: a jump in the data, a jump at the start, a wall that swings three times.

    The error of the cells is the difference from three times as many, whose error is a ninth.
    """
    times, grids = [0.1, 1.0], [CellGrid(0.0, 1.0, n) for n in (100, 300)]
    runs = [(grid, start(grid.points)) for grid in grids]
    coarse, fine = (solve(Diffusion(0.1), grid, walls, u, times, stepper=ESDIRK4(1e-9)).values for grid, u in runs)
    of_cells = (coarse - fine.unflatten(-1, (100, 3)).mean(-1)).abs().mean(-1)
    of_steps = (solve(Diffusion(0.1), grids[0], walls, runs[0][1], times).values - coarse).abs().mean(-1)
    assert bool((of_steps < of_cells).all()), (of_steps, of_cells)
