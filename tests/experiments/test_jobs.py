"""Many runs at once: what is done, what fails, what an interrupt leaves, what a cluster is asked for."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import submitit
from submitit.core.test_core import MockedSubprocess
from submitit.slurm.slurm import SlurmJob

from experiments import jobs
from experiments.errors import InvalidArgumentError, JobsFailedError
from experiments.jobs import Failure, Job, on_cluster, require_all, run_jobs
from experiments.options import ClusterOptions, seeds_of

INTERRUPTED = """
import sys
from pathlib import Path
from experiments.jobs import run_jobs
from experiments.options import ClusterOptions
from tests.experiments.stub import Endless

folder = Path(sys.argv[1])
run_jobs({name: Endless(folder / name) for name in "abc"}, 2, ClusterOptions(), folder / "logs")
"""


def square(number: int, after: Path | None = None, before: Path | None = None) -> int:
    """Work that says what it does, after one file is there and before another."""
    while after and not after.exists():
        time.sleep(0.05)
    print(f"squaring {number}")
    if before:
        before.touch()
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number**2


@pytest.mark.long
def test_results_come_in_order_and_a_failure_stops_no_other_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    works = {
        "slow": partial(square, 2, after=tmp_path / "done"),
        "negative, seed 1": partial(square, -1),
        "killed": partial(os._exit, 3),
        "last": partial(square, 3, before=tmp_path / "done"),
    }
    results, failures = run_jobs(works, 2, ClusterOptions(), tmp_path / "logs")
    assert results == {"slow": 4, "last": 9}
    assert list(results) == ["slow", "last"]
    assert {failure.label for failure in failures} == {"negative, seed 1", "killed"}
    negative = next(failure for failure in failures if failure.label == "negative, seed 1")
    assert negative.reason == "ValueError: -1 is negative"
    log = negative.log.read_text()
    assert log.startswith("squaring -1\nTraceback")
    assert log.endswith("ValueError: -1 is negative\n")
    assert "squaring 2" in (tmp_path / "logs" / "slow.log").read_text()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "4/4" in printed.err


def test_failures_are_named_with_their_logs() -> None:
    require_all([])
    with pytest.raises(JobsFailedError, match=r"1 of the jobs failed; start again.*\n  a: no luck \(log: a\.log\)"):
        require_all([Failure("a", "no luck", Path("a.log"))])


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_an_interrupt_ends_running_jobs_with_their_checkpoints_and_starts_no_other(
    terminal: bool, tmp_path: Path
) -> None:
    """At a terminal the whole process group gets the signal, from ``kill`` the command alone."""
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while not all((tmp_path / name / "under-way").exists() for name in "ab"):
        assert child.poll() is None
        time.sleep(0.1)
    (os.killpg if terminal else os.kill)(child.pid, signal.SIGINT)
    _, printed = child.communicate(timeout=60)
    assert "Stopping; trainings write their checkpoints." in printed
    for name in "ab":
        assert (tmp_path / name / "checkpoint.safetensors").exists()
        assert "TrainingInterruptedError" in (tmp_path / "logs" / f"{name}.log").read_text()
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_jobs_of_a_cluster_give_their_results_and_the_last_line_of_an_error(tmp_path: Path) -> None:
    works = [Job(str(number), partial(square, number), tmp_path / f"{number}.log") for number in (2, -1)]
    executor = submitit.LocalExecutor(tmp_path)
    executor.update_parameters(timeout_min=10)
    ended = {job.label: future for job, future in on_cluster(works, executor, every=0.1)}
    assert ended["2"].result() == 4
    assert jobs._reason(ended["-1"].exception()) == "ValueError: -1 is negative"


def test_slurm_is_asked_for_what_the_options_say(tmp_path: Path) -> None:
    given = ("partition=long", "account=physics", "cpus-per-task=4", "gpus-per-node=2", "mem=20GB")
    options = ClusterOptions(cluster="slurm", hours=1.5, slurm=given)
    works = [Job(str(number), partial(square, number), tmp_path / "log") for number in range(5)]
    mock = MockedSubprocess(known_cmds=["srun"])
    with mock.context():
        try:
            executor = jobs.slurm(3, options, tmp_path / "logs")
            with executor.batch():
                submitted = [executor.submit(work) for work in works]
            assert submitted[3].submission().function.label == "3"
            assert submitted[3].submission()._timeout_countdown == jobs.REQUEUES
        finally:
            SlurmJob.watcher.clear()
    (script,) = {file.read_text() for file in tmp_path.rglob("*.sh")}
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(.*)", script))
    expected = {"partition": "long", "account": "physics", "time": "90", "cpus-per-task": "4", "gpus-per-node": "2"}
    expected |= {"mem": "20GB", "array": "0-4%3"}
    assert {name: asked[name] for name in expected} == expected


def test_a_job_at_its_time_limit_is_queued_again_as_it_was(tmp_path: Path) -> None:
    job = Job("three", partial(square, 3), tmp_path / "log")
    assert job.checkpoint().function == job
    assert job.checkpoint().result() == 9


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="--cluster slurm cannot be used here"):
        run_jobs({"one": partial(square, 1)}, None, ClusterOptions(cluster="slurm"), tmp_path)
    with pytest.raises(InvalidArgumentError, match="--hours, --slurm: only for a cluster; add --cluster slurm"):
        ClusterOptions(slurm=("partition=gpu",), hours=2.0)
    with pytest.raises(InvalidArgumentError, match="--hours must be positive, got -2"):
        ClusterOptions(cluster="slurm", hours=-2.0)
    with pytest.raises(InvalidArgumentError, match=r"--slurm takes options of sbatch with a value, .* got exclusive"):
        ClusterOptions(cluster="slurm", slurm=("exclusive",))


@pytest.mark.parametrize(
    ("words", "seeds"), [(("0-3",), (0, 1, 2, 3)), (("0,2,5",), (0, 2, 5)), (("0", "1-2", "2"), (0, 1, 2)), ((), ())]
)
def test_seeds_are_numbers_lists_and_ranges(words: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    assert seeds_of(words) == seeds


@pytest.mark.parametrize("word", ["a", "-1", "3-", "1-2-3", "0,", "", "3-1", "0,3-1"])
def test_other_seeds_are_refused(word: str) -> None:
    with pytest.raises(InvalidArgumentError, match="--seeds takes numbers and rising ranges, as 0-7 or 0,2,5, got "):
        seeds_of((word,))
