"""Commands that Ctrl-C or a signal stops."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from experiments import registry
from experiments.cli import answered
from tests.experiments.stub import Stub


def test_ctrl_c_in_a_training_keeps_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "require_known", lambda _: None)
    monkeypatch.setattr(registry, "table", lambda _: Stub(interrupted=1).table)
    printed = command("run stub --out", tmp_path)
    assert (printed.status, printed.out) == (130, "")
    assert "stub, seed 0: interrupted after step 2 of 3" in printed.err
    assert printed.err.rstrip().endswith("Start the same command again to go on.")
    assert list(tmp_path.rglob("checkpoint.safetensors"))
    assert command("run stub --out", tmp_path).status == 0


@pytest.mark.long
def test_ctrl_c_anywhere_else_ends_with_a_hint(tmp_path: Path) -> None:
    script = (
        "import signal, sys; from experiments import cli; "
        "cli.list_command = lambda: signal.raise_signal(signal.SIGINT); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(cli.main(['list']))"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr == "Interrupted. Start the same command again to go on.\n"


def test_an_interrupted_kernel_ends_with_the_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """A compiled kernel raises SystemError from the interrupt."""

    def interrupted() -> None:
        raise SystemError("a kernel returned a result with an exception set") from KeyboardInterrupt()

    def broken() -> None:
        raise SystemError("another")

    assert answered(lambda: interrupted) == 130
    assert capsys.readouterr().err == "Interrupted. Start the same command again to go on.\n"
    with pytest.raises(SystemError, match="another"):
        answered(lambda: broken)


ENDLESS = """
import sys
from experiments import registry
from experiments.cli import main
from tests.experiments.stub import Stub, forget

registry.register(Stub(seconds=1.0).table)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("text", ["run stub", "run stub --seeds 0-1 --workers 2"])
def test_sigterm_ends_a_command_as_ctrl_c_does_with_checkpoints_and_without_workers(text: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", ENDLESS, *text.split(), "--out", str(tmp_path)]
    child, trainings = subprocess.Popen(words, stderr=subprocess.DEVNULL), 2 if "seeds" in text else 1
    while len(list(tmp_path.rglob("under-way"))) < trainings:
        assert child.poll() is None
        time.sleep(0.1)
    workers = children_of(child.pid)
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout=60)
        time.sleep(0.5)
        left = [pid for pid in workers if "popen_loky" in command_of(pid)]
    finally:
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert (child.returncode, left) == (130, [])
    assert len(list(tmp_path.rglob("checkpoint.safetensors"))) == trainings


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def command_of(pid: int) -> str:
    file = Path(f"/proc/{pid}/cmdline")
    return file.read_text() if file.exists() else ""
