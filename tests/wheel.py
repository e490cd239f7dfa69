"""Builds the wheel and the sdist and runs the README from empty environments.

``python -m tests.wheel [PYTHON ...]`` takes interpreters such as ``python3.12``; the present one by default. The wheel
is installed for each, the sdist for the first.
"""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.blocks import BLOCK
from tests.documents import README, ROOT

_COMMAND = "python -m experiments"
_LONG = ("run", "data")
"""Commands of README that train or simulate for minutes; of these the help is shown."""
_ROWS = "t,x,u\n" + "".join(f"{t / 50},{x / 5},{1 - x / 6}\n" for t in range(6) for x in range(6))


def check(python: str, distribution: Path, folder: Path) -> None:
    """Installs a distribution in a new environment and runs the Python and the commands of README in an empty folder.

    Args:
        python: The interpreter.
        distribution: Wheel or sdist.
        folder: Takes the environment and what the commands write; must not exist.

    Raises:
        subprocess.CalledProcessError: If something fails.
    """
    print(f"{python}: {distribution.name}", flush=True)
    _call(python, "-m", "venv", str(folder / "environment"))
    installed = str(folder / "environment" / "bin" / "python")
    _call(installed, "-m", "pip", "install", "--quiet", str(distribution))
    work = folder / "work"
    work.mkdir()
    text = README.read_text(encoding="utf-8")
    (work / "data.csv").write_text(_ROWS, encoding="utf-8")
    (work / "readme.py").write_text("".join(block["code"] for block in BLOCK.finditer(text)), encoding="utf-8")
    _call(installed, "readme.py", cwd=work)
    _call(installed, "-m", "experiments", "demo", cwd=work)  # make demo
    for arguments in commands(text):
        _call(installed, "-m", "experiments", *arguments, cwd=work)


def commands(text: str) -> list[list[str]]:
    """The arguments of every command of README; ``--help`` in place of those of a long one."""
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith(_COMMAND)]
    arguments = [words[len(_COMMAND.split()) :] for words in lines]
    return [[*words[:1], "--help"] if words[:1] and words[0] in _LONG else words for words in arguments]


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
            check(python, wheel, folder / str(i))
        check(pythons[0], sdist, folder / "sdist")


if __name__ == "__main__":
    main(sys.argv[1:] or [sys.executable])
