"""First calls of the solvers: how many functions they compile, and for how long.

``python -m experiments bench solver`` has them as cases; ``python -m experiments.benchmarks.first_calls COPY .`` prints
them for copies of the library.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.benchmarks.measure import compared

KINDS = {
    "diffusion": "solve(PorousMedium(2.0), line, ends, 0.0, [0.01], stepper=TRBDF2())",
    "diffusion, a batch of 9": "solve(PorousMedium(nine), line, ends, 0.0, [0.01], stepper=TRBDF2())",
    "Burgers": "solve(Burgers(), line, circle, wave, [0.1])",
    "Burgers, a batch of 9": "solve(Burgers(), line, circle, wave.expand(9, -1), [0.1])",
    "diffusion, explicit": "solve(Diffusion(1.0), line, ends, 0.0, [0.01], stepper=RKL2())",
    "diffusion in a plane": "solve(PorousMedium(1.0), plane, (ends, ends), 0.0, [0.1], stepper=TRBDF2())",
    "Euler": "solve_system(Euler(), line, ((Reflecting(), Reflecting()),), gas, [0.01])",
}
"""Calls in the order in which one process makes them: each compiles what those before it did not."""

_SCRIPT = """
import json, logging, sys, time
logging.disable(logging.WARNING)
import numba, torch
from numba.core import event
from solvers import *

class Counter(event.Listener):
    count = 0
    def on_start(self, event): Counter.count += 1
    def on_end(self, event): pass

def seconds(call):
    start = time.process_time()
    eval(call)
    return time.process_time() - start

event.register("numba:compile", Counter())
torch.set_num_threads(1)
line, plane = CellGrid(0.0, 1.0, 50), CellGrid((0.0, 0.0), (1.0, 1.0), (8, 8))
ends, circle = (Dirichlet(1.0), Dirichlet(0.0)), (Periodic(), Periodic())
wave, nine = torch.sin(torch.arange(50, dtype=torch.float64)), torch.full((9,), 2.0)
gas = torch.tensor([1.0, 0.0, 2.5], dtype=torch.float64)[:, None].expand(3, 50)
for name, call in json.loads(sys.argv[1]).items():
    before, first = Counter.count, seconds(call)
    print(json.dumps([name, Counter.count - before, first, seconds(call)]), flush=True)
"""


def first_calls(folder: Path = Path(__file__).parents[2]) -> list[dict[str, Any]]:
    """A case for every kind of call: processor seconds of the first call, with its functions, and of the second one.

    The process is a new one, on one thread, and its cache of compiled code is empty at the start.

    Args:
        folder: The copy of the library to measure.
    """
    with tempfile.TemporaryDirectory() as cache:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_", "OPENBLAS_"))}
        given = inherited | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-c", _SCRIPT, json.dumps(KINDS)]
        printed = subprocess.run(words, env=given, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    calls = map(json.loads, printed.splitlines())
    return [
        compared(f"first call: {name}", first, "the second call", second, functions=count)
        for name, count, first, second in calls
    ]


def compilers() -> str:
    """The versions of the packages that compile."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite"))


def main(folders: list[str]) -> None:
    """Prints the cases of every folder, one after another."""
    print(f"Python {sys.version.split()[0]}, {compilers()}")
    for folder in map(Path, folders or ["."]):
        print(f"{folder.resolve()}:", flush=True)
        for case in first_calls(folder.resolve()):
            print(f"{case['case']:<36}{case['functions']:4} functions {case['seconds']:7.2f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
