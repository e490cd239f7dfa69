"""Several processes of one training: what each does, and that together they train as one does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.errors import InvalidArgumentError
from experiments.processes import Share, WholeBatchDraws, launched
from tests.experiments import train_in_processes
from tests.experiments.draws import check_shared_draws
from tests.experiments.train_in_processes import STEPS, TRAININGS

ROOT = Path(__file__).parents[2]
QUICK = ("line", "anp", "operator", "field", "interrupted")
ROUNDING = {"line": 1e-12, "anp": 1e-6, "soft_anp": 1e-6, "bank_anp": 1e-6, "operator": 1e-5, "field": 1e-5}
"""Of six steps: in float64, in float64 with a loss of outputs rounded to float32, in float32."""


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    """Starts two processes on this machine, in a group of their own as a terminal does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = ["-m", train_in_processes.__name__, str(folder), *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *program], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def train(folder: Path, *names: str) -> None:
    """Trains in two processes to the end."""
    child = start(folder, *names)
    _, errors = child.communicate()
    assert child.returncode == 0, errors[-3000:]


def losses(folder: Path, name: str, index: int) -> list[float]:
    return [float(text) for text in (folder / f"{name}-{index}.txt").read_text().split()]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings by two processes."""
    folder = tmp_path_factory.mktemp("two")
    train(folder, *QUICK)
    return folder


def assert_alike(folder: Path, name: str, alone: Path) -> None:
    expected = [entry["loss"] for entry in TRAININGS[name](alone).history]
    assert len(expected) == STEPS
    assert len(set(expected)) == STEPS
    for index in (0, 1):
        assert losses(folder, name, index) == pytest.approx(expected, rel=ROUNDING[name])


@pytest.mark.parametrize("name", ["line", "anp", "operator", "field"])
def test_two_processes_have_the_loss_curve_of_one(name: str, two: Path, tmp_path: Path) -> None:
    assert_alike(two, name, tmp_path)


def test_an_interrupt_of_one_process_stops_all_and_one_process_goes_on(two: Path, tmp_path: Path) -> None:
    whole = train_in_processes.line(tmp_path)
    expected = [entry["loss"] for entry in whole.history]
    for index in (0, 1):
        assert losses(two, "interrupted", index) == pytest.approx(expected[:3], rel=1e-12)
    resumed = train_in_processes.line(two / "interrupted")
    assert [entry["step"] for entry in resumed.history] == list(range(1, STEPS + 1))
    assert [entry["loss"] for entry in resumed.history] == pytest.approx(expected, rel=1e-12)


def test_several_processes_write_what_one_does(two: Path) -> None:
    found = {
        path.name
        for name in ("line", "anp", "operator", "field")
        for path in (two / name).rglob("[!.]*")
        if path.is_file()
    }
    assert {"checkpoint.safetensors", "weights.safetensors"} <= found
    assert all(name.endswith((".safetensors", ".h5", ".sha256")) for name in found)


@pytest.mark.slow
def test_penalty_solver_data_and_resumption_in_two_processes(tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.mkdir()
    train(two, "soft_anp", "bank_anp", "interrupted", "resumed")
    for name in ("soft_anp", "bank_anp"):
        assert_alike(two, name, tmp_path / name)
    expected = [entry["loss"] for entry in train_in_processes.line(tmp_path / "line").history]
    assert losses(two, "resumed", 1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_an_interrupt_at_the_terminal_ends_with_a_checkpoint(tmp_path: Path) -> None:
    child = start(tmp_path, "endless")
    while not (tmp_path / "endless" / "under-way").exists():
        assert child.poll() is None
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGINT)
    child.communicate()
    assert (tmp_path / "endless" / "checkpoint.safetensors").exists()
    steps = [len(losses(tmp_path, "endless", index)) for index in (0, 1)]
    assert steps == [1, 1], "each process ends its program with one entry of history"


def test_rows_are_shared_evenly_or_refused() -> None:
    shares = [Share(index, 4, index % 2, 2) for index in range(4)]
    assert [row for share in shares for row in list(range(8))[share.rows(8)]] == list(range(8))
    assert [share.first for share in shares] == [True, False, False, False]
    with pytest.raises(InvalidArgumentError, match="4 processes cannot share a batch of 6 evenly"):
        shares[0].rows(6)


def test_every_process_of_a_node_has_a_gpu_of_its_own() -> None:
    assert Share(5, 8, 1, 4).device("cuda") == torch.device("cuda", 1)
    assert Share(5, 8, 1, 4).device("cpu") == torch.device("cpu")
    assert Share().device("cuda:2") == torch.device("cuda", 2)


def test_a_process_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # set by other programs too
    assert launched() == Share()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_draws_of_processes_are_the_rows_of_one(count: int) -> None:
    def draw(rows: int) -> list[torch.Tensor]:
        x = torch.ones(rows, 5)
        normal = torch.distributions.Normal(torch.zeros(rows, 3), 1.0).rsample()
        return [
            normal,
            nn.functional.dropout(x, 0.5),
            torch.empty(rows).uniform_(),
            torch.native_dropout(x, 0.5, True)[0],
        ]

    check_shared_draws(draw, count)


def test_generators_of_ones_own_are_left_alone_and_other_draws_refused() -> None:
    with WholeBatchDraws(Share(1, 2)):
        own = torch.rand(4, generator=torch.Generator().manual_seed(1))
        with pytest.raises(NotImplementedError, match=r"'aten::randperm' draws random numbers in a way"):
            torch.randperm(4)
    assert torch.equal(own, torch.rand(4, generator=torch.Generator().manual_seed(1)))


def test_configs_of_other_processes_than_there_are_are_refused(tmp_path: Path) -> None:
    config = train_in_processes.CONFIG
    with pytest.raises(InvalidArgumentError, match=r"processes is 3.*started is 1; start.*--nproc-per-node 3"):
        train_in_processes.train(
            train_in_processes.Task(nn.Linear(1, 1), lambda model, moment: torch.zeros(())),  # noqa: ARG005
            train_in_processes.replace(config, processes=3),
            tmp_path,
        )
    assert not list(tmp_path.iterdir())
