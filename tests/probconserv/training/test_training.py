"""The training loop: exact resumption after kills and interrupts, the rate, divergence, checkpoints, data streams."""

import json
import math
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from probconserv.errors import (
    DataFileError,
    InvalidArgumentError,
    OutputFolderError,
    TrainingDivergedError,
    TrainingInterruptedError,
)
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv.training.checkpoint import TrainingState, read_checkpoint, write_checkpoint
from probconserv.training.config import one_cycle
from probconserv.training.files import write_bytes
from probconserv.training.fingerprint import fingerprint
from probconserv.training.loop import clip_gradients, pushforward, random_seed
from solvers.tensor_files import decode_tensors, encode_tensors

CONFIG = TrainingConfig(
    steps=30, peak_rate=1e-2, validate_every=10, checkpoint_every=5, precision="32-true", device="cpu"
)
LONG = replace(CONFIG, steps=300, checkpoint_every=20)


class Stop(Exception):
    """Stands for a crash."""


def line_task(
    interrupt_at: int | None = None, crash_at: int | None = None, poison_at: int | None = None, interrupts: int = 1
) -> Task:
    """A straight line fitted with dropout to noisy data, so that every kind of randomness takes part."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))

    def loss(model: nn.Module, context: StepContext) -> torch.Tensor:
        if context.step == crash_at:
            raise Stop
        if context.step == interrupt_at:
            for _ in range(interrupts):
                signal.raise_signal(signal.SIGINT)
        x = torch.rand(16, 1, generator=context.generator)
        y = 2 * x + 0.1 * torch.randn(16, 1)
        factor = math.nan if context.step == poison_at else 1.0
        return factor * (model(x) - y).square().mean()

    def validate(model: nn.Module, generator: torch.Generator) -> dict[str, float]:
        x = torch.rand(100, 1, generator=generator)
        assert not model.training
        return {"error": float((model(x) - 2 * x).square().mean())}

    return Task(model=model, loss=loss, validate=validate, config={"name": "line"})


def run(folder: Path, task: Task, config: TrainingConfig = CONFIG) -> tuple[TrainingState, dict[str, torch.Tensor]]:
    state = train(task, config, folder, progress=False)
    return state, {name: value.clone() for name, value in task.model.state_dict().items()}


def stored(folder: Path) -> dict[str, Any]:
    """Step, seconds and history of a checkpoint."""
    return json.loads(decode_tensors((folder / "checkpoint.safetensors").read_bytes())[1]["content"])


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resumed_training_ends_with_the_same_weights(tmp_path: Path, precision: str) -> None:
    config = replace(CONFIG, precision=precision)
    whole, expected = run(tmp_path / "whole", line_task(), config)
    with pytest.raises(Stop):
        run(tmp_path / "broken", line_task(crash_at=17), config)
    resumed, weights = run(tmp_path / "broken", line_task(), config)
    assert_equal(weights, expected)
    assert resumed.step == whole.step == 30
    assert [entry["step"] for entry in resumed.history] == [10, 20, 30]
    assert [entry["error"] for entry in resumed.history] == [entry["error"] for entry in whole.history]
    assert whole.history[-1]["error"] < whole.history[0]["error"]
    _, finished = run(tmp_path / "broken", line_task(crash_at=0), config)
    assert_equal(finished, expected)


def test_a_short_training_needs_no_folder(tmp_path: Path) -> None:
    task, _ = line_task(), run(tmp_path, line_task())
    assert train(task, CONFIG, progress=False).step == 30
    assert_equal(task.model.state_dict(), run(tmp_path, line_task())[1])
    with pytest.raises(TrainingDivergedError, match="There is no checkpoint yet"):
        train(line_task(poison_at=12), CONFIG, progress=False)


def test_pushforward_differentiates_the_last_step_alone() -> None:
    rate, start, added = torch.tensor(0.5, requires_grad=True), torch.ones(2, 1, 3), torch.ones(2, 4, 1, 3)
    u = pushforward(lambda u, more: rate * u + more, start, 4, added)
    before = 0.5 * (0.5 * (0.5 * 1 + 1) + 1) + 1
    torch.testing.assert_close(u, torch.full_like(u, 0.5 * before + 1))
    u.sum().backward()
    assert float(rate.grad) == pytest.approx(6 * before)


single, double = torch.float32, torch.float64


class Pair(NamedTuple):
    first: torch.Tensor
    second: dict[str, Any]


class Nested(nn.Module):
    """Notes the formats of its input and of a product, and returns nested tensors in those that it computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.name = nn.Linear(1, 1), "nested"
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor, *, more: list[torch.Tensor]) -> Pair:
        u = self.layer(x.float() if self.layer.weight.dtype == torch.float32 else x)
        self.seen = [x.dtype, *(part.dtype for part in more), torch.ones(1).dtype, u.dtype]
        return Pair(u, {"wide": u.double(), "index": more[1], "text": "none"})


@pytest.mark.parametrize(
    ("precision", "seen", "returned"),
    [
        ("32-true", (double, single, torch.int64, single, single), [single, double]),
        ("64-true", (double, double, torch.int64, double, double), [single, single]),
        ("bf16-mixed", (double, single, torch.int64, single, torch.bfloat16), [single, single]),
    ],
)
def test_the_precision_says_what_a_model_gets_and_returns(
    tmp_path: Path, precision: Any, seen: tuple[torch.dtype, ...], returned: list[torch.dtype]
) -> None:
    def loss(model: nn.Module, _: StepContext) -> torch.Tensor:
        assert model.name == "nested", "attributes are those of the model"
        pair = model(torch.ones(2, 1, dtype=torch.float64), more=[torch.ones(1), torch.ones(1, dtype=torch.int64)])
        assert [pair.first.dtype, pair.second["wide"].dtype] == returned
        assert (pair.second["index"].dtype, pair.second["text"]) == (torch.int64, "none")
        return pair.first.square().mean()

    model = Nested()
    train(Task(model, loss), replace(CONFIG, steps=1, precision=precision), tmp_path, progress=False)
    assert model.seen == list(seen)
    assert torch.get_default_dtype() == torch.float32


def test_a_gpu_that_is_not_here_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"device is 'cuda:99', but PyTorch finds \d+ GPUs here; choose"):
        run(tmp_path, line_task(), replace(CONFIG, device="cuda:99"))


def test_an_interrupt_stops_with_a_checkpoint_and_the_training_goes_on_later(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    _, expected = run(tmp_path / "whole", line_task())
    with pytest.raises(TrainingInterruptedError, match=r"^training: interrupted after step 13 of 30; '.*' holds"):
        run(tmp_path / "stopped", line_task(interrupt_at=12))
    assert signal.getsignal(signal.SIGINT) is before
    stopped = stored(tmp_path / "stopped")
    assert (stopped["step"], [entry["step"] for entry in stopped["history"]]) == (13, [10, 13])
    resumed, weights = run(tmp_path / "stopped", line_task())
    assert resumed.step == 30
    assert resumed.seconds > stopped["seconds"]
    assert_equal(weights, expected)


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, line_task(interrupt_at=12, interrupts=2))
    assert stored(tmp_path)["step"] == 10


def test_a_job_that_gets_every_interrupt_twice_writes_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    with pytest.raises(TrainingInterruptedError, match="after step 13 of 30"):
        run(tmp_path, line_task(interrupt_at=12, interrupts=2))


def test_other_seeds_give_other_weights_and_outer_randomness_does_not_matter(tmp_path: Path) -> None:
    _, first = run(tmp_path / "first", line_task())
    task = line_task()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    _, again = run(tmp_path / "again", task)
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal(first, again)
    _, other = run(tmp_path / "other", line_task(), replace(CONFIG, seed=1))
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"at step 13 of 30 with loss nan.*The last checkpoint is '.*'"):
        run(tmp_path, line_task(poison_at=12))
    kept = load_file(tmp_path / "checkpoint.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())
    resumed, weights = run(tmp_path, line_task())
    assert resumed.step == 30
    assert_equal(weights, run(tmp_path / "whole", line_task())[1])
    with pytest.raises(TrainingDivergedError, match="There is no checkpoint yet"):
        run(tmp_path / "early", line_task(poison_at=2))


def test_a_checkpoint_holds_the_tensors_of_a_module_that_adds_to_its_state(tmp_path: Path) -> None:
    """As the models of neuraloperator do, which add the arguments they were built with."""

    class Describing(nn.Linear):
        def state_dict(self, **options: Any) -> dict[str, Any]:
            return super().state_dict(**options) | {"_metadata": {"width": 1}}

    model, path = Describing(1, 1), tmp_path / "checkpoint.safetensors"
    optimizer = torch.optim.AdamW(model.parameters())
    write_checkpoint(path, model, optimizer, TrainingState(), {})
    assert set(load_file(path)) == {"model.weight", "model.bias"}
    assert read_checkpoint(path, model, optimizer, {}) == TrainingState()


def test_checkpoints_of_another_training_are_refused(tmp_path: Path) -> None:
    run(tmp_path, line_task())
    with pytest.raises(DataFileError, match=r"another training \(training.peak_rate is 0.01 there and 0.001 here\)"):
        run(tmp_path, line_task(), replace(CONFIG, peak_rate=1e-3))
    with pytest.raises(DataFileError, match=r"task.name is 'line' there and 'curve' here"):
        run(tmp_path, replace(line_task(), config={"name": "curve"}))
    with pytest.raises(DataFileError, match=r"network.0 is \{'type': 'Linear\(in_features=1, .*there and None here"):
        run(tmp_path, replace(line_task(), model=nn.Linear(1, 1)))
    with pytest.raises(DataFileError, match=r"data.x is None there and 'float32 \(3,\) \w{16}' here"):
        run(tmp_path, replace(line_task(), data={"x": torch.ones(3)}))


def as_in_release_4(path: Path) -> None:
    """Takes network and data out of a checkpoint."""
    tensors, metadata = decode_tensors(path.read_bytes())
    content = json.loads(metadata["content"])
    del content["config"]["network"], content["config"]["data"]
    metadata = {name: text for name, text in metadata.items() if name != "checksum"}
    path.write_bytes(encode_tensors(tensors, metadata | {"content": json.dumps(content)}))


def test_checkpoints_of_release_4_are_resumed_with_a_warning_of_what_they_lack(tmp_path: Path) -> None:
    weights = run(tmp_path / "whole", line_task())[1]
    with pytest.raises(Stop):
        run(tmp_path / "broken", line_task(crash_at=17))
    path = tmp_path / "broken" / "checkpoint.safetensors"
    as_in_release_4(path)
    with pytest.raises(DataFileError, match=r"task.name is 'line' there and 'curve' here"):
        run(path.parent, replace(line_task(), config={"name": "curve"}))
    with (
        pytest.warns(UserWarning, match=r"does not hold the data and the network of its training.* release 0\.4"),
        pytest.raises(DataFileError, match="does not fit this model"),
    ):
        run(path.parent, replace(line_task(), model=nn.Linear(1, 1)))
    with pytest.warns(UserWarning, match="does not hold the data and the network of its training") as caught:
        resumed = run(path.parent, line_task())
    assert len(caught) == 1
    assert_equal(resumed[1], weights)
    run(path.parent, line_task())  # a checkpoint of now, without a warning


class Switched(nn.Module):
    """A network whose option is neither a parameter nor printed."""

    def __init__(self, config: TrainingConfig, scale: float) -> None:
        super().__init__()
        self.config, self.linear, self.calls = config, nn.Linear(1, 1), 0
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen += 1.0
        return self.scale * self.linear(x)


def test_options_of_a_network_belong_to_its_training_and_what_a_training_changes_does_not(tmp_path: Path) -> None:
    def task(model: nn.Module) -> Task:
        return replace(line_task(), model=model)

    model = Switched(CONFIG, 1.0)
    weights = run(tmp_path, task(model))[1]
    assert_equal(run(tmp_path, task(model))[1], weights)  # again in one process, after 60 calls
    with pytest.raises(DataFileError, match=r"network.model.scale is 'float32 \(\) \w+' there and 'float32"):
        run(tmp_path, task(Switched(CONFIG, 2.0)))
    with pytest.raises(DataFileError, match=r"network.model.config.steps is 30 there and 300 here"):
        run(tmp_path, task(Switched(replace(CONFIG, steps=300), 1.0)))


def test_fingerprints_are_those_of_content() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    same = (x.clone(), x.numpy(), x.mT.contiguous().mT, x.clone().requires_grad_())
    assert {fingerprint(part) for part in same} == {fingerprint(x)}
    other = (x + 1e-6, x.double(), x.flatten(), x.to(torch.bfloat16), x.to(torch.complex64), x[:1], x.flip(0))
    assert len({fingerprint(part) for part in other} - {fingerprint(x)}) == len(other)
    assert fingerprint(torch.tensor(2)) != fingerprint(torch.tensor(3))
    assert fingerprint({"a": (1, None), "b": CONFIG, "c": run}) == {
        "a": [1, None],
        "b": {"type": "TrainingConfig", **asdict(CONFIG)},
        "c": "function",
    }


def test_gradients_are_clipped_together_complex_ones_too() -> None:
    model = nn.ParameterList([torch.zeros(3), torch.zeros(2, dtype=torch.complex64), torch.zeros(1)])
    real, imaginary, unused = model
    real.grad, imaginary.grad = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([3.0 + 4.0j, 2.0j])
    length = 33**0.5
    assert clip_gradients(model, 10.0) == pytest.approx(length)
    assert imaginary.grad[0] == 3.0 + 4.0j, "short enough"
    assert clip_gradients(model, 1.0) == pytest.approx(length)
    torch.testing.assert_close(real.grad[0], torch.tensor(2.0 / length))
    torch.testing.assert_close(imaginary.grad[0], torch.tensor((3.0 + 4.0j) / length))
    assert unused.grad is None


def test_rate_rises_linearly_and_falls_along_a_cosine() -> None:
    config = TrainingConfig(steps=100, peak_rate=2.0, warmup=0.1)
    rates = [one_cycle(step, config) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2.0 * (0.001 + 0.999 * 0.5))
    assert rates[100] == pytest.approx(0.002)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_seeds_of_different_steps_and_streams_differ_and_are_those_of_the_networks_that_ship() -> None:
    seeds = {random_seed(s, k, i) for s in range(3) for k in range(2) for i in range(50)}
    assert len(seeds) == 3 * 2 * 50
    assert random_seed(5, 0, 7) == 4696125535729916907 // 2
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"peak_rate": 0.0}, "peak_rate must be positive, got 0.0"),
        ({"warmup": 1.0}, r"warmup must lie in \[0, 1\)"),
    ],
)
def test_bad_training_configs_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        replace(CONFIG, **changes)


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.probconserv.training.test_training import LONG, line_task, run
run(Path(sys.argv[1]), line_task(), LONG)
"""


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path / "killed")]
    child = subprocess.Popen(command, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE)
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    while not checkpoint.exists() and child.poll() is None:
        time.sleep(0.002)
    child.kill()
    _, errors = child.communicate()
    assert checkpoint.exists(), errors.decode()
    assert stored(tmp_path / "killed")["step"] < LONG.steps, "the training ended before it was killed"
    _, weights = run(tmp_path / "killed", line_task(), LONG)
    _, expected = run(tmp_path / "whole", line_task(), LONG)
    assert_equal(weights, expected)


def test_progress_is_a_bar_of_80_columns_or_the_callers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, float, float]] = []
    state = train(line_task(), CONFIG, tmp_path / "hook", progress=lambda *entry: seen.append(entry))
    assert [step for step, _, _ in seen] == list(range(1, 31))
    assert [rate for _, _, rate in seen] == [one_cycle(step, CONFIG) for step in range(30)]
    assert sum(loss for _, loss, _ in seen[20:]) / 10 == pytest.approx(state.history[-1]["loss"])
    assert capsys.readouterr().err == ""
    train(replace(line_task(), title="Member 3 of the ensemble of five"), CONFIG, tmp_path / "bar")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Member 3 of the ens")
    assert "30/30" in line
    assert re.search(r"loss 0\.\d+ rate 4.4e-05", line)
    assert len(line) <= 80


def test_unwritable_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match=r"folder '.*file/inner' cannot be written .*; choose another one"):
        run(tmp_path / "file" / "inner", line_task())
    with pytest.raises(OutputFolderError, match=r"cannot be written .*; choose another folder"):
        write_bytes(tmp_path / "missing" / "file", b"")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_crashed_training_on_a_gpu_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def task(crash_at: int | None = None) -> Task:
        task = line_task(crash_at=crash_at)
        return replace(task, model=OnDevice(task.model))

    config = replace(CONFIG, device="cuda")
    _, expected = run(tmp_path / "whole", task(), config)
    with pytest.raises(Stop):
        run(tmp_path / "broken", task(17), config)
    _, weights = run(tmp_path / "broken", task(), config)
    for name, value in expected.items():
        assert value.device.type == "cuda"
        assert torch.allclose(weights[name], value, rtol=1e-5, atol=1e-6), name


class OnDevice(nn.Module):
    """Takes data from the CPU to the model's device and its result back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x.to(next(self.parameters()).device)).cpu()


_PAGES = """
import resource, sys
import torch
from probconserv.training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(4):
    torch.zeros(16 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _pages(what: str) -> int:
    done = subprocess.run([sys.executable, "-c", _PAGES, what], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide for themselves")
def test_arrays_of_a_step_do_not_ask_for_new_pages_again():
    assert _pages("keep") < 1000 < _pages("return")
