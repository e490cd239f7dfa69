"""Barenblatt's solution in two dimensions at equal error: ours beside a bare loop of RKL2, FiPy and py-pde."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch
from numba import njit

from experiments.benchmarks.equal_error.attempts import Attempt, Ladder, case_of, fastest
from experiments.benchmarks.equal_error.cases import DIFFUSIVE, own_ladders
from experiments.benchmarks.equal_error.libraries import Steps, library
from experiments.stages import one_thread
from solvers import CellGrid, Dirichlet, Neumann, PorousMedium, Solution, solve
from solvers.problems import exact

SIZES = (64, 128, 256)
START, END, CONSTANT = 0.05, 0.2, 0.1
_Array = np.ndarray
_STEPS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_MOST_STEPS = 1024
FIPY = tuple(Steps(steps, sweeps) for steps, sweeps in ((8, 2), (16, 2), (32, 2), (64, 3)))
PY_PDE = tuple({"method": "RK23", "rtol": tolerance, "atol": tolerance} for tolerance in (1e-2, 1e-3, 1e-4, 1e-5))


def barenblatt(cells: int) -> tuple[_Array, _Array]:
    """Cell averages ``(cells, cells)`` on the quarter [0, 1]² of m = 2 at the start and at the end, by 5 × 5 points."""
    fine = CellGrid((0.0, 0.0), (1.0, 1.0), (5 * cells, 5 * cells)).points
    fields = (exact.barenblatt(time, fine, 2.0, CONSTANT) for time in (START, END))
    first, last = (field.reshape(cells, 5, cells, 5).mean((1, 3)).numpy() for field in fields)
    return first, last


def measure(cells: int, limit: float) -> dict[str, Any]:
    """The case on ``cells`` cells an axis."""
    start, end = barenblatt(cells)

    def error(values: _Array) -> float:
        return float(np.abs(values[0] - end).mean())

    floor = error(rkl2_loop(start, _MOST_STEPS)[None])
    loop: Ladder = [Attempt(f"{n} steps", lambda n=n: rkl2_loop(start, n)[None]) for n in _STEPS]
    ladders = {"RKL2 loop": [loop], "FiPy": _fipy(start), "py-pde": _py_pde(start)}
    others = {name: fastest(each, error, floor, limit) for name, each in ladders.items()}
    return case_of(f"Barenblatt m = 2, {cells}²", fastest(_ours(start), error, floor, limit), others, floor)


def rkl2_loop(start: _Array, steps: int) -> _Array:
    """Values ``(cells, cells)`` at the end by equal steps."""
    return _march(start, steps, (END - START) / steps)


@njit(error_model="numpy", nogil=True, cache=True)
def _march(start: _Array, steps: int, step: float) -> _Array:
    """Steps of the second-order Runge–Kutta–Legendre method (Meyer, Balsara and Aslam 2014), stages as needed."""
    u, rate, first = start.copy(), np.empty_like(start), np.empty_like(start)
    before, now, potential = np.empty_like(start), np.empty_like(start), np.empty_like(start)
    for _ in range(steps):
        largest = u.max()
        stages = int(np.ceil(0.5 * (sqrt(9.0 + 16.0 * step * 4.0 * largest**2 * u.size) - 1.0)))
        stages = max(3, stages + 1 - stages % 2)
        weight = 4.0 / (stages * stages + stages - 2.0)
        _rate(u, potential, first)
        for i in range(u.shape[0]):
            for j in range(u.shape[1]):
                before[i, j] = u[i, j]
                now[i, j] = u[i, j] + weight / 3.0 * step * first[i, j]
        b2 = b1 = 1.0 / 3.0
        for stage in range(2, stages + 1):
            b = (stage * stage + stage - 2.0) / (2.0 * stage * (stage + 1.0))
            mu, nu = (2.0 * stage - 1.0) / stage * b / b1, -(stage - 1.0) / stage * b / b2
            gain = mu * weight * step
            _rate(now, potential, rate)
            for i in range(u.shape[0]):
                for j in range(u.shape[1]):
                    before[i, j] = (
                        mu * now[i, j]
                        + nu * before[i, j]
                        + (1.0 - mu - nu) * u[i, j]
                        + gain * (rate[i, j] - (1.0 - b1) * first[i, j])
                    )
            before, now, b2, b1 = now, before, b1, b
        u, now = now, u
    return u


@njit(error_model="numpy", nogil=True, cache=True)
def _rate(u: _Array, potential: _Array, rate: _Array) -> None:
    """∇²(u³/3) on the unit square, no flux through the first sides, u = 0 on the last ones."""
    n = u.shape[0]
    factor = float(n * n)
    for i in range(n):
        for j in range(n):
            potential[i, j] = max(u[i, j], 0.0) ** 3 / 3.0
    for i in range(n):
        below, above = potential[max(i - 1, 0)], potential[min(i + 1, n - 1)]
        outer = -1.0 if i == n - 1 else 1.0
        row = potential[i]
        for j in range(1, n - 1):
            rate[i, j] = factor * (below[j] + outer * above[j] + row[j - 1] + row[j + 1] - 4.0 * row[j])
        rate[i, 0] = factor * (below[0] + outer * above[0] + row[1] - 3.0 * row[0])
        rate[i, n - 1] = factor * (below[n - 1] + outer * above[n - 1] + row[n - 2] - 5.0 * row[n - 1])


def _ours(start: _Array) -> list[Ladder]:
    grid, wall = CellGrid((0.0, 0.0), (1.0, 1.0), start.shape), (Neumann(flux=0.0), Dirichlet(0.0))
    law, initial = PorousMedium(2.0), torch.from_numpy(start)

    def prepare(**options: Any) -> Callable[[], Solution]:
        def run() -> Solution:
            with one_thread():
                return solve(law, grid, [wall, wall], initial, [END], start=START, **options)

        return run

    return own_ladders(prepare, DIFFUSIVE)


def _fipy(start: _Array) -> list[Ladder]:
    package, cells = library("fipy", "FiPy"), len(start)

    def run(setting: Steps) -> _Array:
        mesh = package.Grid2D(nx=cells, ny=cells, dx=1.0 / cells, dy=1.0 / cells)
        u = package.CellVariable(mesh=mesh, value=start.T.ravel(), hasOld=True)
        earlier = package.CellVariable(mesh=mesh, value=0.0)
        u.constrain(0.0, mesh.facesRight | mesh.facesTop)
        k = u.faceValue**2
        equation = package.TransientTerm() == package.DiffusionTerm(coeff=0.5 * k) + earlier
        solver, step = package.LinearPCGSolver(tolerance=1e-8), (END - START) / setting.steps
        for _ in range(setting.steps):
            earlier.setValue((0.5 * k * u.faceGrad).divergence.value)
            u.updateOld()
            for _ in range(setting.sweeps):
                equation.sweep(var=u, dt=step, solver=solver)
        return np.array(u.value).reshape(cells, cells).T[None]

    return [[Attempt(f"{each.steps} steps × {each.sweeps} sweeps", lambda each=each: run(each)) for each in FIPY]]


def _py_pde(start: _Array) -> list[Ladder]:
    package, cells = library("pde", "py-pde"), len(start)
    state = package.ScalarField(package.CartesianGrid([(0.0, 1.0)] * 2, cells), start)
    sides = {side: {"derivative": 0.0} if side.endswith("-") else {"value": 0.0} for side in ("x-", "x+", "y-", "y+")}
    equation = package.PDE({"u": "laplace(u**3 / 3)"}, bc=sides)

    def run(setting: dict[str, Any]) -> _Array:
        return equation.solve(state, [START, END], solver="scipy", tracker=None, **setting).data[None]

    return [
        [Attempt(f"{each['method']}, tolerance {each['rtol']:.0e}", lambda each=each: run(each)) for each in PY_PDE]
    ]
