"""Stages of any term; along one axis by the compiled functions of the steps, one row after the other."""

from typing import Any

import numpy as np
from numba import njit

from solvers.finite_volume._kernels import Callback
from solvers.finite_volume.diffusion import _newton_kernels as kernels
from solvers.finite_volume.diffusion._diffusion import DiffusionTerm
from solvers.finite_volume.diffusion.newton import Stage, StageSolution


def solve_stage(term: DiffusionTerm, stage: Stage) -> StageSolution:
    """The solution of a stage."""
    if term.grid.dimension > 1:
        return term.solve(stage)
    errors, callbacks = [], []

    def address(function: Any, **options: bool) -> int:
        callbacks.append(Callback(function, errors, **options))
        return callbacks[-1].address

    medium = term.medium_with(address)
    rows = [_solve_row(medium, tuple(stage), row, term.newton.iterations) for row in range(len(stage.right))]
    assert not errors
    return StageSolution(*(np.array(part) for part in zip(*rows, strict=True)))


@njit(error_model="numpy")
def _solve_row(medium: Any, stage: Any, row: int, limit: int) -> Any:
    right, s, data, times, guess, allowed = stage
    n = right.shape[1]
    tile, u, rate, flow = kernels.empty_tile(n, 1), np.empty(n), np.empty(n), np.empty((3, 1))
    kernels.enter_medium(tile, medium, row, 0, 1)
    tile.s[0], tile.allowed[0], tile.open[0], tile.info[1] = s[row], allowed[row], True, times[row]
    tile.right[:], tile.u[1:-1] = right[row], guess[row]
    kernels.solve_stage(tile, medium, data[row : row + 1], limit, 1.0, 1)
    kernels.finish_stage(tile, medium, (u, rate, flow), 1.0, 1)
    return u, rate, flow[:, 0].copy(), tile.converged[0], tile.iterations[0], tile.before[0]
