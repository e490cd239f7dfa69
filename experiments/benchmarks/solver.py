"""Cost of 1,000 porous medium functions in one batch against FiPy solving one function on the same cells.

Both run on one thread, FiPy because it uses no more.
"""

import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks.measure import best_of, compared, report
from experiments.errors import ExperimentError
from experiments.stages import one_thread
from solvers import TRBDF2, CellGrid, Solution, solve
from solvers.problems import POROUS_MEDIUM, exact

END = 0.5
COMPARED = (1.0, 3.0, 6.0)
FIPY_STEPS, FIPY_SWEEPS = 250, 3
TOLERANCES = (5e-3, 1e-3)
Solver = Callable[[float, int], tuple[float, np.ndarray]]


def run(functions: int = 1000, cells: int = 200, baseline: Solver | None = None) -> dict[str, Any]:
    """Times both, with L1 errors against the exact cell averages; a baseline other than FiPy is as ``_fipy``."""
    exponents = torch.linspace(1.0, 6.0, functions, dtype=torch.float64)
    indices = [int((exponents - exponent).abs().argmin()) for exponent in COMPARED]
    exponents[indices] = torch.tensor(COMPARED, dtype=torch.float64)
    theirs = [(baseline or _fipy)(exponent, cells) for exponent in COMPARED]
    cases = []
    for tolerance in TOLERANCES:
        seconds, result = best_of(lambda t=tolerance: porous_medium(exponents, cells, t))
        averages = POROUS_MEDIUM.averages(END, result.grid, exponents)
        errors = (result.values[:, 0] - averages).abs().mean(-1)
        for index, exponent, (baseline_seconds, values) in zip(indices, COMPARED, theirs, strict=True):
            error = float((torch.from_numpy(values) - averages[index]).abs().mean())
            both = {"L1 error": float(errors[index]), "baseline L1 error": error}
            name = f"m = {exponent:g}; one of {functions:,}, TRBDF2({tolerance:g})"
            other = f"FiPy, {FIPY_STEPS} steps × {FIPY_SWEEPS} sweeps"
            cases.append(compared(name, seconds / functions, other, baseline_seconds, **both))
    return report("solver", cases)


def porous_medium(exponents: Tensor, cells: int, tolerance: float = TRBDF2.tolerance) -> Solution:
    """Functions ``(batch, 1, cells)`` at t = 0.5, on one thread."""
    law, boundary = POROUS_MEDIUM.law(exponents), POROUS_MEDIUM.boundary(exponents)
    with one_thread():
        return solve(law, CellGrid(0.0, 1.0, cells), boundary, 0.0, [END], stepper=TRBDF2(tolerance))


def _fipy(exponent: float, cells: int) -> tuple[float, np.ndarray]:
    """Seconds and cell averages of FiPy with implicit steps, each with three sweeps for the conductivity."""
    try:
        import fipy  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        text = "compares with FiPy, which is not installed; pip install 'probconserv-boon[bench]'."
        raise ExperimentError(f"The benchmark 'solver' {text}") from error
    started = timeit.default_timer()
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
    return timeit.default_timer() - started, np.array(u.value)
