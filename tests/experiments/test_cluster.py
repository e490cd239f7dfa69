"""Tests of jobs that are interrupted: their trainings keep a checkpoint."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.cluster import ClusterOptions, run_jobs
from tests.experiments.sweep_stub import Endless

START = "import sys; from tests.experiments.test_cluster import start; start(sys.argv[1])"


def start(folder: str) -> None:
    """Two endless trainings side by side; called in a process of its own, which hears Ctrl-C wherever tests run."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    works = [Endless(Path(folder) / name) for name in ("a", "b")]
    run_jobs(works, ClusterOptions(jobs=2), Path(folder) / "logs", lambda work, result: None)  # noqa: ARG005


@pytest.mark.parametrize("terminal", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_interrupt_ends_trainings_with_a_checkpoint(terminal: bool, tmp_path: Path) -> None:
    """At the terminal all processes get the signal; sent to the command alone, its jobs get it from there."""
    command = [sys.executable, "-c", START, str(tmp_path)]
    child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while not all((tmp_path / name / "under-way").exists() for name in ("a", "b")):
        assert child.poll() is None
        time.sleep(0.1)
    (os.killpg if terminal else os.kill)(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert "Stopping; trainings write their checkpoints." in said
    assert "KeyboardInterrupt" in said
    for name in ("a", "b"):
        assert (tmp_path / name / "ended").read_text() == "True"
        assert (tmp_path / name / "checkpoint.safetensors").exists()


def test_every_call_has_its_own_logs(tmp_path: Path) -> None:
    """A process number that comes again must not read the result of an earlier job."""
    results: list[str] = []
    for number in range(2):
        work = Endless(tmp_path / str(number), steps=1)
        assert run_jobs([work], ClusterOptions(), tmp_path / "logs", lambda work, _: results.append(work.label)) == []
    assert len(results) == 2
    assert len(list((tmp_path / "logs").iterdir())) == 2
