"""``python -m experiments.benchmarks.first_calls [FOLDER …]``: what first calls of the solvers compile, and how long.

Every line is one more kind of solve in a process whose cache of compiled code is empty: functions that pass the
compiler and processor seconds. Each folder is a copy of the library to measure, this one by default.
"""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

_SCRIPT = """
import logging, sys, time, warnings
logging.disable(logging.WARNING)
import numba, llvmlite, torch
from numba.core import event
from solvers import *

class Counter(event.Listener):
    count = 0
    def on_start(self, event): Counter.count += 1
    def on_end(self, event): pass

event.register("numba:compile", Counter())
torch.set_num_threads(1)
print(f"numba {numba.__version__}, llvmlite {llvmlite.__version__}")
line, plane = CellGrid(0.0, 1.0, 50), CellGrid((0.0, 0.0), (1.0, 1.0), (8, 8))
ends, wave = (Dirichlet(1.0), Dirichlet(0.0)), torch.sin(torch.arange(50, dtype=torch.float64))
gas = torch.tensor([1.0, 0.0, 2.5], dtype=torch.float64)[:, None].expand(3, 50)
implicit, nine = {"stepper": TRBDF2()}, torch.full((9,), 2.0)
kinds = {
    "diffusion, one row": lambda: solve(PorousMedium(2.0), line, ends, 0.0, [0.01], **implicit),
    "the same, a batch of 9": lambda: solve(PorousMedium(nine), line, ends, 0.0, [0.01], **implicit),
    "Burgers": lambda: solve(Burgers(), line, (Periodic(), Periodic()), wave, [0.1]),
    "Burgers, a batch of 9": lambda: solve(Burgers(), line, (Periodic(), Periodic()), wave.expand(9, -1), [0.1]),
    "diffusion, explicit": lambda: solve(Diffusion(1.0), line, ends, 0.0, [0.01], stepper=RKL2()),
    "plane, implicit": lambda: solve(PorousMedium(1.0), plane, (ends, ends), 0.0, [0.1], **implicit),
    "Euler": lambda: solve_system(Euler(), line, ((Reflecting(), Reflecting()),), gas, [0.01]),
}
for name, action in kinds.items():
    before, start = Counter.count, time.process_time()
    action()
    print(f"{name:<28}{Counter.count - before:4} functions {time.process_time() - start:7.2f} s", flush=True)
"""


def main(folders: list[str]) -> None:
    """Prints the lines of every folder."""
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for folder in folders or [str(Path(__file__).parents[2])]:
        with tempfile.TemporaryDirectory() as cache:
            kept = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_", "OPENBLAS_"))}
            given = kept | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
            print(f"{folder}:", flush=True)
            subprocess.run([sys.executable, "-c", _SCRIPT], env=given, cwd=folder, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
