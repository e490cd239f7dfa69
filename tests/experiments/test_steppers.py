"""Data of experiments do not depend on the defaults of ``solve`` and ``solve_system``."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("experiments", "solvers/problems")
TIMINGS = ROOT / "experiments" / "benchmarks"
STEPPER, SCHEME = {"stepper"}, {"flux", "reconstruction", "courant"}
SOLVERS = {"solve": STEPPER, "solve_problem": STEPPER, "sampling.solve_problem": STEPPER, "solve_system": SCHEME}
"""The options with defaults that decide numbers, by solver."""


def unnamed(source: str) -> list[int]:
    """Lines with a call of a solver, or a partial one, that neither names these options nor hands on options."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and len(node.args) > 1]
    lines = []
    for call in calls:
        named = {keyword.arg for keyword in call.keywords}
        solvers = SOLVERS.keys() & {ast.unparse(part) for part in (call.func, call.args[0])}
        if None not in named and any(not SOLVERS[solver] <= named for solver in solvers):
            lines.append(call.lineno)
    return lines


def test_every_experiment_names_its_stepper_and_scheme():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if TIMINGS not in path.parents]
    assert len(files) > 50
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in unnamed(path.read_text(encoding="utf-8"))]
    assert not found, f"calls that leave {STEPPER} or {SCHEME} to the default: {found}; name them."


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("solve(law, grid, sides, 0.0, times)", [1]),
        ("partial(sampling.solve_problem, problem, grid)", [1]),
        ("solve(law, grid, sides, 0.0, times, stepper=LeastCost())", []),
        ("solve(law, grid, sides, 0.0, times, **options)", []),
        ("solve_system(law, grid, sides, 0.0, times, courant=0.4)", [1]),
        ("solve_system(law, grid, sides, 0.0, times, courant=0.4, flux=HLL(), reconstruction=MUSCL())", []),
        ("matrix.solve(values, rest)", []),
        ("solve()", []),
    ],
)
def test_calls_that_leave_it_to_the_default_are_found(source, lines):
    assert unnamed(source) == lines
