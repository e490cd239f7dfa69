"""Cost of reference solutions at equal error: ours beside scipy's LSODA, FiPy and py-pde, on one core.

Every method takes the fastest of its settings whose L1 error against the exact cell averages is within 10 % of a
target, 15 % above the spatial error of 200 cells. All use one core; seconds are per function, without compilation.
"""

from typing import Any

from experiments.benchmarks.equal_error import planes as squares
from experiments.benchmarks.equal_error.attempts import LIMIT, Measured, case_of, fastest
from experiments.benchmarks.equal_error.cases import Case, cases, ours
from experiments.benchmarks.equal_error.libraries import fipy, py_pde
from experiments.benchmarks.equal_error.lsoda import lsoda, spatial_error
from experiments.benchmarks.measure import report

LIBRARIES = {"FiPy": fipy, "py-pde": py_pde}


def run(
    functions: int = 256, looped: int = 16, planes: tuple[int, ...] = squares.SIZES, limit: float = LIMIT
) -> dict[str, Any]:
    """Compares single functions, a batch in one call beside others one after another, and Barenblatt's solution.

    Args:
        functions: Functions of a batch, whose parameters spread by 5 % each way.
        looped: Of them, those that LSODA solves one after another, and whose errors count.
        planes: Cells an axis in two dimensions.
        limit: Seconds per function at which no more accurate settings of a method are tried.
    """
    entries = []
    for case in cases():
        entries += _intervals(case, functions, looped, limit)
    return report("solver", [*entries, *(squares.measure(cells, limit) for cells in planes)])


def _intervals(case: Case, functions: int, looped: int, limit: float) -> list[dict[str, Any]]:
    """A single function, then a batch; the time of a library's loop is that of one function."""
    floor = spatial_error(case)
    libraries = {name: fastest(ladders(case), case.error, floor, limit) for name, ladders in LIBRARIES.items()}
    others = {"LSODA": fastest(lsoda(case), case.error, floor, limit), **libraries}
    single = fastest(ours(case), case.error, floor, limit)
    batch = case.spread(functions)
    some = batch.every(functions // looped)
    floor_of_batch = spatial_error(some)
    batched = fastest(ours(batch), some.error, floor_of_batch, limit)
    loop: dict[str, Measured] = {"LSODA": fastest(lsoda(some), some.error, floor_of_batch, limit), **libraries}
    return [
        case_of(f"{case.name}, one function", single, others, floor),
        case_of(f"{case.name}, one of {functions} in a call", batched, loop, floor_of_batch),
    ]
