"""Compiled loops work where nothing can be written."""

import gc
import os
import re
import shutil
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from solvers._compiled import compiled
from solvers.errors import InvalidArgumentError
from solvers.warm import KINDS, warm
from tests.documents import ROOT

IMPORTS = """
from solvers.finite_volume import march, solve
from solvers.finite_volume.convection.reconstruction_kernels import minmod
from solvers.systems import solve
from probconserv._linalg import row_kernels
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


def run_as_nobody(packages: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as a user who can write nowhere but in temporary folders, and has no home."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_", "XDG_"))}
    environment |= {"HOME": "/nonexistent", "PYTHONPATH": str(packages)} | variables
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    run = subprocess.run(
        [*user, sys.executable, "-B", *arguments], env=environment, cwd="/", capture_output=True, text=True
    )
    if "Permission denied" in run.stderr and "site-packages" in run.stderr:
        pytest.skip("the environment cannot be read by other users")
    return run


@pytest.mark.long
def test_import_and_first_call_in_a_read_only_installation(read_only_packages: Path) -> None:
    run = run_as_nobody(read_only_packages, "-c", IMPORTS)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("Compiling for a first call, for this process alone, see NUMBA_CACHE_DIR") == 1


@pytest.mark.slow
def test_solve_in_a_read_only_installation(read_only_packages: Path) -> None:
    run = run_as_nobody(read_only_packages, "-c", SOLVE)
    assert run.returncode == 0, run.stderr
    refused = run_as_nobody(read_only_packages, "-m", "solvers.warm")
    assert refused.returncode == 1
    assert "Compiled code cannot be kept" in refused.stderr
    assert "Set NUMBA_CACHE_DIR to a folder" in refused.stderr


@pytest.mark.slow
def test_warmed_code_is_not_compiled_again(read_only_packages: Path) -> None:
    folder = read_only_packages / "kept"
    folder.mkdir()
    folder.chmod(0o777)
    warmed = run_as_nobody(read_only_packages, "-m", "solvers.warm", "diffusion", NUMBA_CACHE_DIR=str(folder))
    assert warmed.returncode == 0, warmed.stderr
    assert re.search(rf"kept in {folder}.*\ndiffusion +\d+\.\d s\n", warmed.stdout)
    run = run_as_nobody(read_only_packages, "-c", SOLVE, NUMBA_CACHE_DIR=str(folder))
    assert run.returncode == 0, run.stderr
    assert "Compiling" not in run.stderr
    assert set(KINDS) >= {"porous medium", "Burgers", "shallow water", "Euler", "diffusion in a plane"}
    with pytest.raises(InvalidArgumentError, match=r"kinds must be some of diffusion, .*, got fluid"):
        warm(["fluid"])


def test_options_replace_the_usual_ones() -> None:
    @compiled(error_model="python")
    def divide(a: float, b: float) -> float:
        return a / b

    assert divide.targetoptions["nogil"]
    with pytest.raises(ZeroDivisionError):
        divide(1.0, 0.0)


def test_garbage_collector_waits_for_a_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("disable", "enable"):
        monkeypatch.setattr(gc, name, partial(calls.append, name))
    twice = compiled(lambda x: 2.0 * x, cache=False)
    twice.py_func.__module__ = "solvers.twice"
    assert twice(1.0) == 2.0
    assert calls == ["disable", "enable"]
