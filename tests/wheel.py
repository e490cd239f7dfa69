"""Builds the wheel and the sdist and runs the README from empty environments.

``python -m tests.wheel [PYTHON ...]`` takes interpreters such as ``python3.12``; the present one by default. The wheel
is installed for each, with nothing else; the sdist is unpacked and run with the extra ``experiments`` for the first.
"""

import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from zipfile import ZipFile

from docs.blocks import BLOCK
from tests.documents import README, ROOT

_COMMAND = "python -m experiments"
_LONG = ("run", "data")
"""Commands of README that train or simulate for minutes; of these the help is shown."""
_OWN_FOLDER = """
import experiments
assert experiments.MINE == 1, "the user's own folder"
"""
_FITS = """
import torch
from probconserv import ANP, Context, FlowMatching, GPSurrogate, Query
from probconserv.surrogates.anp import ANPConfig
from probconserv.surrogates.fitting import FitOptions, FunctionSet
from probconserv.surrogates.flow import KarhunenLoeve, ResidualVelocity
from probconserv.training import TrainingConfig

torch.manual_seed(0)
training = TrainingConfig(steps=3)
points, values = torch.rand(20, 16, 2).double(), torch.rand(20, 16).double()
network = ANP(ANPConfig(low=(0.0, 0.0), high=(1.0, 1.0), width=8, latent_width=4))
functions = FunctionSet(points=points, values=values, context=8)
network.fit(functions, config=training, folder="anp", options=FitOptions(batch=4), progress=False)
flow = FlowMatching(KarhunenLoeve.of(values, 2), ResidualVelocity(2, width=8, blocks=1))
flow.fit(values, config=training, folder="flow", batch=4, progress=False)
assert flow.sample(2).shape == (2, 16)
process = GPSurrogate()
process.fit(Context(points[0], values[0]))
assert process.predict(Context(points[0], values[0]), Query(points[1])).mean.isfinite().all()
"""


def check_wheel(python: str, wheel: Path, folder: Path) -> None:
    """Installs the wheel in a new environment and runs the README there, beside an ``experiments`` of the user's own.

    Args:
        python: The interpreter.
        wheel: The wheel.
        folder: Takes the environment and what is written; must not exist.

    Raises:
        subprocess.CalledProcessError: If something fails.
    """
    print(f"{python}: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
    packages = {name.partition("/")[0] for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packages == {"boon", "probconserv", "solvers"}, packages
    installed = _environment(python, folder / "environment", str(wheel))
    own = folder / "work" / "experiments"
    own.mkdir(parents=True)
    (own / "__init__.py").write_text("MINE = 1\n", encoding="utf-8")
    for code in (_OWN_FOLDER, "".join(_blocks()), _FITS):
        _run(installed, code, folder / "work")


def check_sdist(python: str, sdist: Path, folder: Path) -> None:
    """Unpacks the sdist, installs it as a clone is, and runs the Python and the commands of README in it.

    Args:
        python: The interpreter.
        sdist: The archive.
        folder: Takes the environment and the files; must not exist.

    Raises:
        subprocess.CalledProcessError: If something fails.
    """
    print(f"{python}: {sdist.name}, {sdist.stat().st_size / 1e6:.1f} MB", flush=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (clone,) = folder.iterdir()
    installed = _environment(python, folder / "environment", "--editable", f"{clone}[experiments]")
    _run(installed, "".join(_blocks()), clone)
    for arguments in (["demo"], *commands(README.read_text(encoding="utf-8"))):
        _call(installed, "-m", "experiments", *arguments, cwd=clone)


def commands(text: str) -> list[list[str]]:
    """The arguments of every command of README; ``--help`` in place of those of a long one."""
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith(_COMMAND)]
    arguments = [words[len(_COMMAND.split()) :] for words in lines]
    return [[*words[:1], "--help"] if words[:1] and words[0] in _LONG else words for words in arguments]


def _blocks() -> list[str]:
    return [block["code"] for block in BLOCK.finditer(README.read_text(encoding="utf-8"))]


def _environment(python: str, folder: Path, *packages: str) -> str:
    """The interpreter of a new environment with some packages."""
    _call(python, "-m", "venv", str(folder))
    installed = str(folder / "bin" / "python")
    _call(installed, "-m", "pip", "install", "--quiet", *packages)
    return installed


def _run(python: str, code: str, folder: Path) -> None:
    (folder / "program.py").write_text(code, encoding="utf-8")
    _call(python, "program.py", cwd=folder)


def _call(*command: str, cwd: Path = ROOT) -> None:
    print("$", shlex.join(command), flush=True)
    subprocess.run(command, cwd=cwd, check=True)


def main(pythons: list[str]) -> None:
    """Builds both distributions and checks them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _call(sys.executable, "-m", "build", "--outdir", str(folder / "dist"))
        sdist, wheel = sorted(folder.glob("dist/*"), key=lambda path: path.suffix)
        _call(sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel))
        for i, python in enumerate(pythons):
            check_wheel(python, wheel, folder / str(i))
        check_sdist(pythons[0], sdist, folder / "sdist")


if __name__ == "__main__":
    main(sys.argv[1:] or [sys.executable])
