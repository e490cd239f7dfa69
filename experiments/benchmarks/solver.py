"""Cost of 1,000 porous medium functions in one batch against FiPy solving one function on the same cells.

Both run on one thread, FiPy because it uses no more.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks.measure import best_of, report
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
TOLERANCES = (5e-3, 1e-3)


def run() -> dict[str, Any]:
    """Times both, prints the L1 errors against the exact cell averages beside the times.

    Returns:
        One case per tolerance and compared exponent: seconds a function of the batch and of FiPy, their ratio, and
        both errors.

    Raises:
        ExperimentError: If FiPy is not installed.
    """
    _require_fipy()
    exponents = torch.linspace(1.0, 6.0, FUNCTIONS, dtype=torch.float64)
    places = [int((exponents - exponent).abs().argmin()) for exponent in COMPARED]
    exponents[places] = torch.tensor(COMPARED, dtype=torch.float64)
    baseline = {exponent: _fipy(exponent) for exponent in COMPARED}
    cases = []
    for tolerance in TOLERANCES:
        with one_thread():
            seconds, result = best_of(lambda tolerance=tolerance: _batch(exponents, tolerance))
        errors = (result.values[:, 0] - exact_averages(result.grid, exponents)).abs().mean(-1)
        for place, exponent in zip(places, COMPARED, strict=True):
            baseline_seconds, values = baseline[exponent]
            average = exact_averages(result.grid, exponents[place])
            cases.append(
                {
                    "case": f"m = {exponent:g}; one of {FUNCTIONS:,}, TRBDF2({tolerance:g})",
                    "seconds": seconds / FUNCTIONS,
                    "baseline": f"FiPy, {FIPY_STEPS} steps × {FIPY_SWEEPS} sweeps",
                    "baseline_seconds": baseline_seconds,
                    "ratio": baseline_seconds / (seconds / FUNCTIONS),
                    "L1 error": float(errors[place]),
                    "baseline L1 error": float((torch.from_numpy(values) - average).abs().mean()),
                }
            )
    return report("solver", cases)


def exact_averages(grid: CellGrid, exponents: Tensor) -> Tensor:
    """Exact cell averages at the end time ``(*batch, n)``."""
    antiderivative = exact.porous_medium_antiderivative(END, grid.faces[0], exponents[..., None])
    return antiderivative.diff() / grid.spacing[0]


def _batch(exponents: Tensor, tolerance: float) -> Solution:
    return solve(
        PorousMedium(exponents),
        CellGrid(0.0, 1.0, CELLS),
        boundary=(Dirichlet(lambda t: exact.porous_medium_inflow(t, exponents)), Dirichlet(0.0)),
        initial=0.0,
        times=[END],
        stepper=TRBDF2(tolerance),
    )


def _require_fipy() -> None:
    try:
        import fipy  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ExperimentError(
            "The benchmark 'solver' compares with FiPy, which is not installed; pip install 'probconserv-boon[bench]'."
        ) from error


def _fipy(exponent: float) -> tuple[float, np.ndarray]:
    """Seconds and cell averages of FiPy with implicit steps, each with three sweeps for the conductivity."""
    from fipy import (  # pyright: ignore[reportMissingImports]
        CellVariable,
        DiffusionTerm,
        Grid1D,
        TransientTerm,
        Variable,
    )

    started = time.perf_counter()
    mesh = Grid1D(nx=CELLS, dx=1.0 / CELLS)
    u = CellVariable(mesh=mesh, value=0.0, hasOld=True)
    inflow = Variable(0.0)
    u.constrain(inflow, mesh.facesLeft)
    u.constrain(0.0, mesh.facesRight)
    equation = TransientTerm() == DiffusionTerm(coeff=u.faceValue**exponent)
    step = END / FIPY_STEPS
    for k in range(1, FIPY_STEPS + 1):
        u.updateOld()
        inflow.value = float(exact.porous_medium_inflow(k * step, exponent))
        for _ in range(FIPY_SWEEPS):
            equation.sweep(var=u, dt=step)
    return time.perf_counter() - started, np.array(u.value)
