"""Several processes of one training: equal weights, the loss of the whole batch, interruption and resumption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from probconserv.errors import InvalidArgumentError
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv.training.distributed import Ranks, connect, first_before_others, launched
from probconserv.training.loop import TRAINING, random_seed
from tests.probconserv.training import train_in_processes
from tests.probconserv.training.train_in_processes import BATCH, EVERY_STEP, STEPS, line_error, line_model

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]


def start(folder: Path, *names: str, processes: int = 2) -> subprocess.Popen[str]:
    """Starts processes on this machine, in a process group of their own as a terminal does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    program = ["-m", train_in_processes.__name__, str(folder), *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *program], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def local_losses(folder: Path, rank: int) -> list[float]:
    return json.loads((folder / f"losses-{rank}.json").read_text())


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings in two processes: one to its end, one interrupted and resumed."""
    folder = tmp_path_factory.mktemp("two")
    child = start(folder, "line", "interrupted", "resumed", "around")
    _, errors = child.communicate()
    assert child.returncode == 0, errors[-3000:]
    return folder


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float) -> None:
    for name in first.keys() | second.keys():
        torch.testing.assert_close(first[name], second[name], rtol=tolerance, atol=tolerance)


def test_all_ranks_end_with_the_same_weights(two: Path) -> None:
    first, second = (load_file(two / "line" / f"weights-{rank}.safetensors") for rank in (0, 1))
    assert_close(first, second, 0.0)


def test_two_ranks_train_as_one_process_does_on_the_rows_of_both(two: Path, tmp_path: Path) -> None:
    def loss(model: nn.Module, context: StepContext) -> torch.Tensor:
        parts = []
        for rank in (0, 1):
            seed = random_seed(0, TRAINING, context.step, rank)
            torch.manual_seed(seed)
            parts.append(line_error(model, torch.Generator().manual_seed(seed), BATCH // 2))
        return torch.stack(parts).mean()

    model = line_model()
    config = TrainingConfig(steps=STEPS, peak_rate=1e-2, **EVERY_STEP)
    history = train(Task(model, loss), config, tmp_path, progress=False).history
    # Sums in another order, six steps in float64.
    assert_close(model.state_dict(), load_file(two / "line" / "weights-0.safetensors"), 1e-12)
    local = [local_losses(two / "line", rank) for rank in (0, 1)]
    assert len({*local[0], *local[1]}) == 2 * STEPS, "every rank draws its rows"
    assert [entry["loss"] for entry in history] == pytest.approx([sum(pair) / 2 for pair in zip(*local, strict=True)])


def test_an_interrupt_of_one_rank_stops_all_and_the_training_goes_on_later(two: Path) -> None:
    for rank in (0, 1):
        text = (two / "interrupted" / f"error-{rank}.txt").read_text()
        assert text.startswith("training: interrupted after step 3 of 6; ")
    resumed, whole = (load_file(two / name / "weights-1.safetensors") for name in ("interrupted", "line"))
    assert_close(resumed, whole, 0.0)


def test_a_loss_that_goes_around_the_forward_of_its_model_is_refused(two: Path) -> None:
    for rank in (0, 1):
        text = (two / "around" / f"error-{rank}.txt").read_text()
        assert text.startswith("The loss calls the method 'extend' of its model, but several processes only average")


def test_only_rank_0_writes_files(two: Path) -> None:
    written = {path.name for path in (two / "line").iterdir()} - {path.name for path in (two / "line").glob("*-?.*")}
    assert written == {"checkpoint.safetensors"}


def test_processes_connect_once_for_all_trainings(two: Path) -> None:
    assert [(two / f"groups-{rank}.txt").read_text() for rank in (0, 1)] == ["1", "1"]


@pytest.mark.parametrize("processes", [2, 3])
def test_all_ranks_stop_early_together_and_take_the_best_weights(processes: int, tmp_path: Path) -> None:
    child = start(tmp_path, "early", "improving", processes=processes)
    _, errors = child.communicate()
    assert child.returncode == 0, errors[-3000:]
    for name, steps in (("early", "1 of 3"), ("improving", "3 of 3")):
        best = load_file(tmp_path / name / "best.safetensors")
        for rank in range(processes):
            assert (tmp_path / name / f"steps-{rank}.txt").read_text() == steps
            assert_close(best, load_file(tmp_path / name / f"weights-{rank}.safetensors"), 0.0)


@pytest.mark.slow
def test_an_interrupt_at_the_terminal_ends_with_a_checkpoint(tmp_path: Path) -> None:
    child = start(tmp_path, "endless")
    while not (tmp_path / "endless" / "under-way").exists():
        assert child.poll() is None
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGINT)
    child.communicate()
    assert (tmp_path / "endless" / "checkpoint.safetensors").exists()
    steps = [len(local_losses(tmp_path / "endless", rank)) for rank in (0, 1)]
    assert steps[0] == steps[1]


@pytest.mark.slow
def test_processes_end_without_aborting(tmp_path: Path) -> None:
    for repetition in range(10):
        child = start(tmp_path / str(repetition), "line")
        _, errors = child.communicate()
        assert child.returncode == 0, errors[-3000:]
        assert "terminate called" not in errors


def test_a_batch_is_divided_among_the_ranks_or_refused() -> None:
    context = StepContext(0, 0.0, torch.Generator(), Ranks(1, 4, 1, 2))
    assert context.rows(8) == 2
    with pytest.raises(InvalidArgumentError, match="processes must divide the batch of 6, got 4; start fewer"):
        context.rows(6)


def test_every_process_of_a_node_takes_its_own_gpu() -> None:
    assert Ranks(5, 8, 1, 4).device("cuda") == torch.device("cuda", 1)
    assert Ranks(5, 8, 1, 4).device("cpu") == torch.device("cpu")
    assert Ranks().device("cuda:2") == torch.device("cuda", 2)
    assert [Ranks(rank, 2).first for rank in (0, 1)] == [True, False]


def test_a_process_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # other programs set it too
    assert launched() == Ranks()
    with first_before_others() as ranks:
        assert ranks == connect() == Ranks()


def test_configs_of_another_number_of_processes_are_refused(tmp_path: Path) -> None:
    task = Task(nn.Linear(1, 1), lambda model, context: torch.zeros(()))  # noqa: ARG005
    with pytest.raises(InvalidArgumentError, match=r"processes is 3.*started is 1; start.*--nproc-per-node 3"):
        train(task, TrainingConfig(steps=1, processes=3), tmp_path)
    assert not list(tmp_path.iterdir())
