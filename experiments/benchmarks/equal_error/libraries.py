"""FiPy and py-pde on the problems of the benchmark, each with several settings."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.equal_error.attempts import Attempt, Ladder
from experiments.benchmarks.equal_error.cases import CELLS, Case
from experiments.errors import LibraryError

_FLAT = 1e-12


class Steps(NamedTuple):
    """Settings of FiPy: equal steps, sweeps for the coefficient in each, weight of the new state, cells."""

    steps: int
    sweeps: int
    implicit: float = 0.5
    cells: int = CELLS

    def __str__(self) -> str:
        scheme = "implicit Euler" if self.implicit == 1.0 else "Crank–Nicolson"
        return f"{scheme}, {self.steps} steps × {self.sweeps} sweeps, {self.cells} cells"


_EULER = tuple(Steps(steps, 2, 1.0) for steps in (100, 400, 1600))
FIPY = {
    "diffusion": (tuple(Steps(steps, 1) for steps in (5, 10, 20, 40)),),
    "burgers_shock": ((*_EULER[:2], Steps(400, 2, 1.0, 2 * CELLS), Steps(800, 2, 1.0, 4 * CELLS)),),
}
FIPY_DEGENERATE = ((Steps(120, 2), Steps(200, 3), Steps(400, 3), Steps(800, 3)), _EULER)
"""Settings of FiPy by problem."""
PY_PDE = (
    (1e-2, 1e-2),
    (1e-2, 1e-4),
    (1e-3, 1e-3),
    (1e-3, 1e-4),
    (1e-4, 1e-4),
    (1e-5, 1e-5),
    (1e-6, 1e-6),
    (1e-6, 1e-8),
)
"""Relative and absolute tolerances of scipy's LSODA, banded, on the compiled right-hand sides of py-pde."""


def library(name: str, title: str) -> Any:
    """A package of the extra ``bench``; raises LibraryError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        text = f"compares with {title}, which is not installed; pip install 'probconserv-boon[bench]'."
        raise LibraryError(f"The benchmark 'solver' {text}") from error


def fipy(case: Case) -> list[Ladder]:
    """FiPy's ladders for the first function of a case."""
    library("fipy", "FiPy")
    ways = FIPY.get(case.problem.name, FIPY_DEGENERATE)
    return [[Attempt(str(steps), lambda steps=steps: _by_fipy(case, steps)) for steps in way] for way in ways]


def _by_fipy(case: Case, setting: Steps) -> np.ndarray:
    """Cell averages ``(1, t, cells)`` by equal steps; what the old state adds to the rate of change is a source."""
    package, parameter, name = library("fipy", "FiPy"), case.parameters[0], case.problem.name
    low, high = case.problem.domain
    grid = package.PeriodicGrid1D if name == "diffusion" else package.Grid1D
    mesh = grid(nx=setting.cells, dx=(high - low) / setting.cells)
    u = package.CellVariable(mesh=mesh, value=case.initial(parameter, setting.cells), hasOld=True)
    inflow, earlier = package.Variable(0.0), package.CellVariable(mesh=mesh, value=0.0)
    if name != "diffusion":
        u.constrain(inflow, mesh.facesLeft)
        u.constrain(0.0, mesh.facesRight)
    term, flow, refresh = _fipy_law(package, case, u, inflow)
    equation = package.TransientTerm() == setting.implicit * term + earlier
    solver, step, values = package.LinearLUSolver(), case.times[-1] / setting.steps, []
    every = setting.steps // len(case.times)
    for k in range(1, setting.steps + 1):
        if setting.implicit < 1.0:
            refresh()
            earlier.setValue((1.0 - setting.implicit) * flow.divergence.value)
        u.updateOld()
        inflow.value = _inflow(name, parameter, k * step)
        for _ in range(setting.sweeps):
            refresh()
            equation.sweep(var=u, dt=step, solver=solver)
        if k % every == 0:
            values.append(np.array(u.value))
    return np.stack(values)[None]


def _fipy_law(package: Any, case: Case, u: Any, inflow: Any) -> tuple[Any, Any, Callable[[], None]]:
    """The term of the implicit part, what the rate of change is the divergence of, and what renews both."""
    name, parameter, mesh = case.problem.name, case.parameters[0], u.mesh
    if name == "burgers_shock":
        speed = 0.5 * u.faceValue * [[1.0]]
        return -package.UpwindConvectionTerm(coeff=speed), -speed * u.faceValue, lambda: None
    if name == "diffusion":
        return package.DiffusionTerm(coeff=parameter), parameter * u.faceGrad, lambda: None
    potential, k = package.CellVariable(mesh=mesh, value=0.0), package.FaceVariable(mesh=mesh, value=0.0)
    power = parameter + 1.0
    stefan = name == "stefan"
    potential.constrain(inflow - parameter if stefan else inflow**power / power, mesh.facesLeft)
    potential.constrain(0.0, mesh.facesRight)

    def refresh() -> None:
        """Φ of the cells, and the conductivity ΔΦ/Δu of the faces: that between neighbours, as ours."""
        states = u.value
        potential.setValue(np.maximum(states - parameter, 0.0) if stefan else np.maximum(states, 0.0) ** power / power)
        slope, by_slope = u.faceGrad.value[0], potential.faceGrad.value[0]
        steep = np.abs(slope) > _FLAT
        k.setValue(np.where(steep, by_slope / np.where(steep, slope, 1.0), 0.0))

    return package.DiffusionTerm(coeff=k), potential.faceGrad, refresh


def _inflow(name: str, parameter: float, time: float) -> float:
    """State on the first side."""
    return {"porous_medium": (parameter * time) ** (1.0 / parameter), "stefan": 1.0}.get(name, parameter)


def py_pde(case: Case) -> list[Ladder]:
    """py-pde's ladders for the first function of a case; shocks take upwind differences, if needed on more cells."""
    sizes = (CELLS, 2 * CELLS, 4 * CELLS) if case.problem.name == "burgers_shock" else (CELLS,)
    return [_by_py_pde(case, cells) for cells in sizes]


def _by_py_pde(case: Case, cells: int) -> Ladder:
    """Settings that share what py-pde compiles."""
    package, parameter = library("pde", "py-pde"), case.parameters[0]
    grid = package.CartesianGrid([case.problem.domain], cells, periodic=case.problem.name == "diffusion")
    start = package.ScalarField(grid, case.initial(parameter, cells))
    rate, conditions = _py_pde_terms(case.problem.name, parameter)
    equation = package.PDE({"u": rate}, bc=conditions)
    options = {"solver": "scipy", "method": "LSODA", "lband": 2, "uband": 2}

    def run(relative: float, absolute: float) -> np.ndarray:
        storage = package.MemoryStorage()
        tracker = storage.tracker(package.FixedInterrupts(case.times))
        equation.solve(start, case.times[-1], tracker=tracker, rtol=relative, atol=absolute, **options)
        return np.stack(storage.data)[None, -len(case.times) :]

    for relative, absolute in PY_PDE:
        name = f"LSODA, rtol {relative:.0e}, atol {absolute:.0e}, {cells} cells"
        yield Attempt(name, lambda pair=(relative, absolute): run(*pair))


def _py_pde_terms(name: str, parameter: float) -> tuple[str, Any]:
    """Rate of change, and conditions for what stands under its operator."""
    p, power = parameter, parameter + 1.0
    return {
        "porous_medium": (
            f"laplace(u**{power} / {power})",
            {"x-": {"value_expression": f"({p} * t)**({power / p}) / {power}"}, "x+": {"value": 0.0}},
        ),
        "stefan": (f"laplace(heaviside(u - {p}, 0.5) * (u - {p}))", {"x-": {"value": 1.0 - p}, "x+": {"value": 0.0}}),
        "diffusion": (f"{p} * laplace(u)", {"x": "periodic"}),
        "burgers_shock": ("-d_dx_backward(u**2 / 2)", {"x-": {"value": 0.5 * p * p}, "x+": {"derivative": 0.0}}),
    }[name]
