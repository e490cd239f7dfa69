"""Compiled loops work where nothing can be written."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from solvers._compiled import compiled
from tests.documents import ROOT

IMPORTS = """
from solvers.finite_volume import solve, steppers
from solvers.finite_volume.convection.reconstruction_kernels import minmod
from solvers.systems import solve
from probconserv._linalg import kernels, row_kernels
from probconserv.inequalities import _kernels, _hamiltonian
assert minmod(1.0, 2.0) == 1.0
"""
SOLVE = """
import torch
from solvers import CellGrid, Diffusion, Dirichlet, solve
result = solve(Diffusion(1.0), CellGrid(0.0, 1.0, 8), (Dirichlet(0.0), Dirichlet(1.0)), 0.0, [5.0])
torch.testing.assert_close(result.values[-1], (torch.arange(8.0).double() + 0.5) / 8, atol=1e-3, rtol=0)
"""


@pytest.fixture
def read_only_packages(tmp_path: Path) -> Path:
    """A copy of the libraries that an unprivileged user can read only."""
    if os.name != "posix" or os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to become another user")
    for name in ("solvers", "probconserv"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/") and not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    return tmp_path


def run_as_nobody(code: str, packages: Path) -> None:
    """Runs the code as a user who can write nowhere but in temporary folders, and has no home."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_", "XDG_"))}
    environment |= {"HOME": "/nonexistent", "PYTHONPATH": str(packages)}
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    run = subprocess.run(
        [*user, sys.executable, "-B", "-c", code], env=environment, cwd="/", capture_output=True, text=True
    )
    if "Permission denied" in run.stderr and "site-packages" in run.stderr:
        pytest.skip("the environment cannot be read by other users")
    assert run.returncode == 0, run.stderr


@pytest.mark.long
def test_import_and_first_call_in_a_read_only_installation(read_only_packages: Path) -> None:
    run_as_nobody(IMPORTS, read_only_packages)


@pytest.mark.slow
def test_solve_in_a_read_only_installation(read_only_packages: Path) -> None:
    run_as_nobody(SOLVE, read_only_packages)


def test_options_replace_the_usual_ones() -> None:
    @compiled(error_model="python")
    def divide(a: float, b: float) -> float:
        return a / b

    assert divide.targetoptions["nogil"]
    with pytest.raises(ZeroDivisionError):
        divide(1.0, 0.0)
