"""Data of experiments do not depend on the default stepper of ``solve``."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("experiments", "solvers/problems")
TIMINGS = ROOT / "experiments" / "benchmarks"
SOLVERS = {"solve", "solve_problem", "sampling.solve_problem"}


def unnamed(source: str) -> list[int]:
    """Lines with a call of a solver, or a partial one, that neither names a stepper nor hands on options."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    solving = [call for call in calls if SOLVERS & {ast.unparse(part) for part in (call.func, *call.args[:1])}]
    return [
        call.lineno
        for call in solving
        if len(call.args) > 1 and not {"stepper", None} & {keyword.arg for keyword in call.keywords}
    ]


def test_every_experiment_names_its_stepper():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if TIMINGS not in path.parents]
    assert len(files) > 50
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in unnamed(path.read_text(encoding="utf-8"))]
    assert not found, f"calls without stepper=: {found}; name one, such as stepper=LeastCost()."


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("solve(law, grid, sides, 0.0, times)", [1]),
        ("partial(sampling.solve_problem, problem, grid)", [1]),
        ("solve(law, grid, sides, 0.0, times, stepper=LeastCost())", []),
        ("solve(law, grid, sides, 0.0, times, **options)", []),
        ("matrix.solve(values, rest)", []),
        ("solve()", []),
    ],
)
def test_calls_without_a_stepper_are_found(source, lines):
    assert unnamed(source) == lines
