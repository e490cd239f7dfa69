"""What type checkers say of scripts as users write them."""

import runpy
import subprocess
import sys

import pytest

from tests.documents import ROOT

SCRIPTS = sorted((ROOT / "tests" / "user_scripts").glob("[a-z]*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs(script: str) -> None:
    runpy.run_path(str(script))


@pytest.mark.long
def test_types_are_known_and_arrays_are_accepted() -> None:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, *map(str, SCRIPTS)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
