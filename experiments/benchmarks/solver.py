"""Cost of 1,000 porous medium functions in one batch against FiPy solving one function on the same cells.

Both run on one thread, FiPy because it uses no more.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks.measure import best_of, compared, report
from experiments.errors import ExperimentError
from experiments.stages import one_thread
from solvers import TRBDF2, CellGrid, Dirichlet, PorousMedium, Solution, solve
from solvers.problems import exact

FUNCTIONS = 1000
CELLS = 200
END = 0.5
COMPARED = (1.0, 3.0, 6.0)
FIPY_STEPS = 250
FIPY_SWEEPS = 3
FIPY = f"FiPy, {FIPY_STEPS} steps × {FIPY_SWEEPS} sweeps"
TOLERANCES = (5e-3, 1e-3)
Solver = Callable[[float, int], tuple[float, np.ndarray]]


def run(functions: int = FUNCTIONS, cells: int = CELLS, baseline: Solver | None = None) -> dict[str, Any]:
    """Times both, with the L1 errors against the exact cell averages beside the times.

    Args:
        functions: Functions of the batch.
        cells: Cells of the grid.
        baseline: From exponent and cells to seconds and cell averages of one function; FiPy by default.

    Returns:
        One case per tolerance and compared exponent: seconds a function of the batch and of the baseline, their ratio,
        and both errors.

    Raises:
        ExperimentError: If FiPy is not installed.
    """
    exponents = torch.linspace(1.0, 6.0, functions, dtype=torch.float64)
    indices = [int((exponents - exponent).abs().argmin()) for exponent in COMPARED]
    exponents[indices] = torch.tensor(COMPARED, dtype=torch.float64)
    theirs = [(baseline or _fipy)(exponent, cells) for exponent in COMPARED]
    cases = []
    for tolerance in TOLERANCES:
        with one_thread():
            seconds, result = best_of(lambda tolerance=tolerance: _batch(exponents, cells, tolerance))
        averages = exact_averages(result.grid, exponents)
        errors = (result.values[:, 0] - averages).abs().mean(-1)
        for index, exponent, (baseline_seconds, values) in zip(indices, COMPARED, theirs, strict=True):
            both = {
                "L1 error": float(errors[index]),
                "baseline L1 error": float((torch.from_numpy(values) - averages[index]).abs().mean()),
            }
            name = f"m = {exponent:g}; one of {functions:,}, TRBDF2({tolerance:g})"
            cases.append(compared(name, seconds / functions, FIPY, baseline_seconds, **both))
    return report("solver", cases)


def exact_averages(grid: CellGrid, exponents: Tensor) -> Tensor:
    """Exact cell averages at the end time ``(*batch, n)``."""
    antiderivative = exact.porous_medium_antiderivative(END, grid.faces[0], exponents[..., None])
    return antiderivative.diff() / grid.spacing[0]


def _batch(exponents: Tensor, cells: int, tolerance: float) -> Solution:
    return solve(
        PorousMedium(exponents),
        CellGrid(0.0, 1.0, cells),
        boundary=(Dirichlet(lambda t: exact.porous_medium_inflow(t, exponents)), Dirichlet(0.0)),
        initial=0.0,
        times=[END],
        stepper=TRBDF2(tolerance),
    )


def _fipy(exponent: float, cells: int) -> tuple[float, np.ndarray]:
    """Seconds and cell averages of FiPy with implicit steps, each with three sweeps for the conductivity."""
    try:
        import fipy  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ExperimentError(
            "The benchmark 'solver' compares with FiPy, which is not installed; pip install 'probconserv-boon[bench]'."
        ) from error
    started = time.perf_counter()
    mesh = fipy.Grid1D(nx=cells, dx=1.0 / cells)
    u = fipy.CellVariable(mesh=mesh, value=0.0, hasOld=True)
    inflow = fipy.Variable(0.0)
    u.constrain(inflow, mesh.facesLeft)
    u.constrain(0.0, mesh.facesRight)
    equation = fipy.TransientTerm() == fipy.DiffusionTerm(coeff=u.faceValue**exponent)
    step = END / FIPY_STEPS
    for k in range(1, FIPY_STEPS + 1):
        u.updateOld()
        inflow.value = float(exact.porous_medium_inflow(k * step, exponent))
        for _ in range(FIPY_SWEEPS):
            equation.sweep(var=u, dt=step)
    return time.perf_counter() - started, np.array(u.value)
