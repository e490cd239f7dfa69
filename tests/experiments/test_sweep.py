"""Sweeps: what runs, what is read back, what fails, what is asked of SLURM, and the tables over seeds."""

import csv
import json
import math
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from submitit.core.test_core import MockedSubprocess
from submitit.slurm.slurm import SlurmJob

from experiments.cluster import ClusterOptions, Job
from experiments.commands import main
from experiments.config import conservation_config
from experiments.errors import DataFileError, InvalidArgumentError
from experiments.experiment import RunOptions
from experiments.operator_problems import CASES
from experiments.operator_run import run_config
from experiments.registry import EXPERIMENTS
from experiments.runs import Run
from experiments.ship_seeds import ship_seeds, shipped_seeds
from experiments.storage import cached_arrays, read_arrays
from experiments.sweep import SweepJob, SweepOptions
from experiments.sweep_table import seed_table
from experiments.tables import Row
from probconserv.surrogates.gp import GPConfig
from tests.experiments.sweep_stub import FAILING, STUB, calls


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERIMENTS, "stub", STUB)


def words(out: Path, *more: str) -> list[str]:
    return ["sweep", "stub", "--out", str(out), *more]


def test_local_sweep_ends_with_a_table_over_seeds_and_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that fails is named with its log, the others finish; started again, only it runs."""
    monkeypatch.setenv(FAILING, "1")
    assert main(words(tmp_path, "--seeds", "0", "1", "--jobs", "2", "--json")) == 2
    printed = capsys.readouterr()
    (failed,) = json.loads(printed.out)["failed"]
    assert failed["job"] == "stub, smoke, seed 1"
    assert failed["reason"] == "ValueError: seed 1 is unlucky"
    assert "seed 1 is unlucky" in Path(failed["log"]).read_text()
    assert "1 of the jobs failed" in printed.err
    assert failed["log"] in printed.err
    assert calls(tmp_path) == 1

    monkeypatch.delenv(FAILING)
    assert main(words(tmp_path, "--seeds", "0", "1")) == 0
    printed = capsys.readouterr().out
    assert calls(tmp_path) == 2
    # Mean of 1 and 2, and their standard deviation 1/√2.
    assert "| m=1 | ours | 0 ± 0 | 1.5 ± 0.707 |" in printed
    assert "somebody else's" not in printed
    files = {Path(line.removeprefix("Table: ")) for line in printed.splitlines() if line.startswith("Table: ")}
    assert {file.name for file in files} == {"stub-smoke.md", "stub-smoke.csv", "stub-smoke.json"}

    assert main(words(tmp_path, "--seeds", "0", "1")) == 0
    assert calls(tmp_path) == 2, "nothing is run again"
    job = SweepJob(experiment=STUB, seed=0, preset="smoke", options=SweepOptions(out=tmp_path))
    assert job.rows() is not None
    for file in tmp_path.glob("stub/*/metrics.json"):
        file.unlink()
    assert job.rows() is None, "a run whose scores are lost is run again"


def test_a_finished_sweep_ships_its_table_and_how_its_runs_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.ship_seeds.FOLDER", tmp_path / "seeds")
    with pytest.raises(InvalidArgumentError, match="add --preset laptop"):
        ship_seeds("stub", SweepOptions(seeds=(0, 1), out=tmp_path))
    options = SweepOptions(seeds=(0, 1), preset=("laptop",), out=tmp_path)
    assert shipped_seeds("stub") is None
    for seed in (0, 1):
        with pytest.raises(DataFileError, match=f"'stub, laptop, seed {seed}' is not finished"):
            ship_seeds("stub", options)
        job = SweepJob(experiment=STUB, seed=seed, preset="laptop", options=options)
        job.note(job())
    path = ship_seeds("stub", options)
    assert [run["seed"] for run in json.loads(path.read_text())["runs"]] == [0, 1]
    table = shipped_seeds("stub")
    assert table is not None
    assert table.rows[0].scores["MSE"] == (1.5, pytest.approx(math.sqrt(0.5)))
    path.write_text('{"rows": []}')
    with pytest.raises(DataFileError, match="does not hold a table over seeds"):
        shipped_seeds("stub")


def test_table_over_seeds_has_mean_and_deviation_of_each_score(tmp_path: Path) -> None:
    runs = {
        seed: [Row("m=1", "GP", {"MSE": (mse, 5.0)} | ({"shock": (mse, None)} if seed else {}))]
        for seed, mse in {0: 1.0, 1: 2.0, 2: 6.0}.items()
    }
    table = seed_table("stefan", "laptop", runs)
    deviation = float(np.std([1.0, 2.0, 6.0], ddof=1))
    assert table.rows[0].scores["MSE"] == (3.0, pytest.approx(deviation))
    assert table.rows[0].scores["shock"] == (4.0, pytest.approx(math.sqrt(8)))
    md, text, content = table.write(tmp_path)
    assert "Stefan, preset laptop, seeds 0, 1, 2" in md.read_text()
    assert "Mean ± standard deviation over seeds" in md.read_text()
    (line,) = csv.DictReader(text.read_text().splitlines())
    assert float(line["MSE_sd"]) == pytest.approx(deviation)
    stored = json.loads(content.read_text())
    assert stored["seeds"] == [0, 1, 2]
    assert stored["rows"][0]["MSE"] == [3.0, pytest.approx(deviation)]
    single = seed_table("stefan", "smoke", {4: runs[0]})
    assert single.rows[0].scores["MSE"] == (1.0, None)
    assert "seed 4" in single.title


def test_local_jobs_see_the_gpus_of_their_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    executor = ClusterOptions(gpus=1).executor(tmp_path, "jobs")
    assert executor.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() == "3,5"


def test_slurm_is_asked_for_what_the_options_say(tmp_path: Path) -> None:
    options = ClusterOptions(
        cluster="slurm", jobs=3, hours=1.5, cpus=4, gpus=2, memory=20, partition="long", account="physics"
    )
    jobs = [
        SweepJob(experiment=STUB, seed=seed, preset="laptop", options=SweepOptions(out=tmp_path)) for seed in range(5)
    ]
    mock = MockedSubprocess(known_cmds=["srun"])
    with mock.context():
        try:
            executor = options.executor(tmp_path / "logs", "experiments")
            with executor.batch():
                submitted = [executor.submit(job) for job in jobs]
            assert submitted[3].submission().function == jobs[3]
            assert submitted[3].submission()._timeout_countdown == 100
        finally:
            SlurmJob.watcher.clear()
    (script,) = {file.read_text() for file in tmp_path.rglob("*.sh")}
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(.*)", script))
    expected = {"partition": "long", "account": "physics", "time": "90", "cpus-per-task": "4", "gpus-per-node": "2"}
    assert expected | {"mem": "20GB", "array": "0-4%3"} == {name: asked[name] for name in (*expected, "mem", "array")}


def test_a_job_at_its_time_limit_is_queued_again_as_it_was(tmp_path: Path) -> None:
    work = SweepJob(experiment=STUB, seed=3, preset="smoke", options=SweepOptions(out=tmp_path))
    job = Job(work, tmp_path / "note")
    again = job.checkpoint()
    assert again.function == job
    assert Path(again.result()) == next(tmp_path.glob("stub/*"))
    assert job.process == os.getpid()


def test_a_sweep_without_slurm_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "--cluster", "slurm")) == 2
    assert "--cluster slurm cannot be used here" in capsys.readouterr().err
    assert calls(tmp_path) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "-1"], r"--seed must lie in"),
        (["--device", "nonsense"], "--device nonsense cannot be used here"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--hours", "-2"], "--hours must be positive, got -2"),
    ],
)
def test_impossible_sweeps_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(words(tmp_path, *options)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sweep_needs_experiments_and_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "stub", "stubb", "--out", str(tmp_path)]) == 2
    assert "There is no experiment 'stubb'" in capsys.readouterr().err
    with pytest.raises(InvalidArgumentError, match="at least one of --seeds"):
        SweepOptions(seeds=())


def test_runs_with_other_seeds_and_presets_have_other_folders(tmp_path: Path) -> None:
    def conservation(seed: int) -> Path:
        config = conservation_config("stefan", RunOptions(seed=seed), "solver", GPConfig(), {})
        return Run("stefan", config, tmp_path).folder

    def boundary(seed: int) -> Path:
        return Run("stokes", run_config("stokes", CASES["stokes"]("smoke"), seed), tmp_path).folder

    assert len({conservation(seed) for seed in range(3)} | {boundary(seed) for seed in range(3)}) == 6
    job = SweepJob(experiment=STUB, seed=0, preset="smoke", options=SweepOptions(out=tmp_path))
    others = (SweepOptions(data="exact"), SweepOptions(networks=("anp",)), SweepOptions(cases=("single",)))
    changed = (replace(job, seed=1), replace(job, preset="laptop"), *(replace(job, options=own) for own in others))
    assert len({entry.record.name for entry in (job, *changed)}) == 6
    assert changed[3].run_options().networks == ("anp",)


def test_jobs_that_share_a_file_of_data_leave_it_whole(tmp_path: Path) -> None:
    """Of several that find no file one makes it; all have the same arrays, and so has who reads it later."""
    path, built = tmp_path / "bank.h5", list[int]()

    def build() -> dict[str, np.ndarray]:
        built.append(1)
        time.sleep(0.01)
        return {"values": np.arange(10_000.0)}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cached_arrays(path, build), range(32)))
    assert all(np.array_equal(arrays["values"], np.arange(10_000.0)) for arrays in found)
    assert np.array_equal(read_arrays(path)["values"], np.arange(10_000.0))
    assert len(built) == 1
    assert {file.name for file in tmp_path.glob("[!.]*")} == {"bank.h5", "bank.h5.sha256"}
