"""Observed orders of the finite volumes: L1 errors against exact cell averages on 100, 200, 400 and 800 cells."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.measure import report
from solvers import (
    MUSCL,
    TRBDF2,
    WENO,
    Advection,
    Burgers,
    CellGrid,
    Diffusion,
    Dirichlet,
    Neumann,
    Outflow,
    Periodic,
    PorousMedium,
    Stefan,
    solve,
)
from solvers.finite_volume.fluxes import Reconstruction
from solvers.problems import exact

SIZES = (100, 200, 400, 800)
QUARTER_SIZES = (50, 100, 200, 400)


@dataclass(frozen=True)
class OrderCase:
    """A problem whose error is measured.

    Args:
        name: What the table calls it.
        required: Least order that the theory promises.
        error: L1 error (mean over the cells, and over the output times) on a number of cells.
        sizes: Numbers of cells.
        quick_sizes: Fewer and smaller ones, for a quick check.
    """

    name: str
    required: float
    error: Callable[[int], float]
    sizes: tuple[int, ...] = SIZES
    quick_sizes: tuple[int, ...] = (50, 100, 200)


def cases() -> list[OrderCase]:
    """All cases of the table."""
    return [
        OrderCase("smooth diffusion", 1.8, diffusion_error),
        *(OrderCase(f"porous medium, m = {m:g}", 0.9, partial(porous_medium_error, m)) for m in (1.0, 3.0, 6.0)),
        *(OrderCase(f"Stefan, u* = {u:g}", 0.9, partial(stefan_error, u)) for u in (0.5, 0.6, 0.7)),
        *(
            OrderCase(f"Burgers, a = {a:g}", 0.9, partial(burgers_error, MUSCL(), a), quick_sizes=SIZES[:3])
            for a in (1.0, 3.0)
        ),
        OrderCase("advected step, MUSCL", 0.65, partial(advection_error, MUSCL()), quick_sizes=SIZES[:3]),
        OrderCase("advected step, WENO", 0.8, partial(advection_error, WENO()), quick_sizes=SIZES[:3]),
        OrderCase("2-D Barenblatt, m = 2", 0.9, partial(barenblatt_error, 2.0), QUARTER_SIZES, (12, 24, 48)),
    ]


def run() -> dict[str, Any]:
    """Measures every case.

    Returns:
        One case per problem: sizes, errors, orders between neighbouring sizes, the required order, seconds.
    """
    measured = []
    for case in cases():
        started = time.perf_counter()
        errors = [case.error(size) for size in case.sizes]
        measured.append(
            {
                "case": case.name,
                "cells": "; ".join(str(size) for size in case.sizes),
                "L1 errors": "; ".join(f"{error:.2e}" for error in errors),
                "orders": "; ".join(f"{order:.2f}" for order in observed_orders(errors)),
                "required": case.required,
                "seconds": time.perf_counter() - started,
            }
        )
    return report("orders", measured)


def observed_orders(errors: Sequence[float]) -> list[float]:
    """log₂ of the ratio of errors on grids of n and 2n cells."""
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


def diffusion_error(cells: int) -> float:
    """sin x on a periodic axis, k = 1, t = 0.5, with steps of 1/n."""
    grid = CellGrid(0.0, 2.0 * math.pi, cells)
    faces = grid.faces[0]
    stepper = TRBDF2(math.inf, largest_step=1.0 / cells)
    start = _averages(exact.diffusion_antiderivative(0.0, faces, 1.0), grid)
    result = solve(Diffusion(1.0), grid, (Periodic(), Periodic()), start, [0.5], stepper=stepper)
    return _error(result.values[0], _averages(exact.diffusion_antiderivative(0.5, faces, 1.0), grid))


def porous_medium_error(exponent: float, cells: int) -> float:
    """Porous medium equation from u = 0, t = 0.5."""
    grid = CellGrid(0.0, 1.0, cells)
    boundary = (Dirichlet(lambda t: exact.porous_medium_inflow(t, exponent)), Dirichlet(0.0))
    result = solve(PorousMedium(exponent), grid, boundary, 0.0, [0.5], stepper=TRBDF2(1e-6))
    return _error(result.values[0], _averages(exact.porous_medium_antiderivative(0.5, grid.faces[0], exponent), grid))


def stefan_error(threshold: float, cells: int) -> float:
    """Stefan problem, mean over 20 output times up to 0.1, since at one time the error jumps within a cell."""
    grid = CellGrid(0.0, 1.0, cells)
    times = 0.1 * _fractions()
    result = solve(Stefan(threshold), grid, (Dirichlet(1.0), Dirichlet(0.0)), 0.0, times, stepper=TRBDF2(1e-5))
    return _error(result.values, _averages(exact.stefan_antiderivative(times[:, None], grid.faces[0], threshold), grid))


def burgers_error(reconstruction: Reconstruction, slope: float, cells: int) -> float:
    """Burgers' ramp, mean over 20 output times up to 0.8: a shock from t = 1/a on."""
    grid = CellGrid(-1.0, 1.0, cells)
    faces, times = grid.faces[0], 0.8 * _fractions()
    start = _averages(exact.burgers_antiderivative(0.0, faces, slope), grid)
    boundary = (Dirichlet(slope), Outflow())
    result = solve(Burgers(), grid, boundary, start, times, reconstruction=reconstruction)
    return _error(result.values, _averages(exact.burgers_antiderivative(times[:, None], faces, slope), grid))


def advection_error(reconstruction: Reconstruction, cells: int) -> float:
    """A step advected with a = 3, t = 0.1."""
    grid = CellGrid(0.0, 1.0, cells)
    faces = grid.faces[0]
    start = _averages(exact.advection_antiderivative(0.0, faces, 3.0), grid)
    boundary = (Dirichlet(1.0), Outflow())
    result = solve(Advection(3.0), grid, boundary, start, [0.1], reconstruction=reconstruction)
    return _error(result.values[0], _averages(exact.advection_antiderivative(0.1, faces, 3.0), grid))


def barenblatt_error(exponent: float, cells: int) -> float:
    """Barenblatt's solution on a quarter, [0, 1]², of a square of 2·``cells`` an axis, from t = 0.05 to 0.2."""
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (cells, cells))
    constant = 0.1
    wall = (Neumann(flux=0.0), Dirichlet(0.0))
    start, end = (_cell_means(grid, lambda x, t=t: exact.barenblatt(t, x, exponent, constant)) for t in (0.05, 0.2))
    result = solve(PorousMedium(exponent), grid, [wall, wall], start, [0.2], start=0.05, stepper=TRBDF2(3e-5))
    return _error(result.values[0], end)


def _cell_means(grid: CellGrid, field: Callable[[Tensor], Tensor], points: int = 5) -> Tensor:
    """Cell averages by the midpoint rule on ``points`` × ``points`` points a cell."""
    fine = CellGrid(grid.low, grid.high, [points * count for count in grid.count])
    nx, ny = grid.count
    return field(fine.points).reshape(nx, points, ny, points).mean((1, 3))


def _fractions() -> Tensor:
    return torch.arange(1, 21, dtype=torch.float64) / 20.0


def _averages(antiderivative: Tensor, grid: CellGrid) -> Tensor:
    return antiderivative.diff(dim=-1) / grid.spacing[0]


def _error(computed: Tensor, expected: Tensor) -> float:
    return float((computed - expected).abs().mean())
