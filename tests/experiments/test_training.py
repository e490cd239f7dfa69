"""The training loop: exact resumption after kills and interrupts, the rate, divergence, checkpoints, data streams."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from experiments.data import BankConfig, solution_bank
from experiments.errors import DataFileError, InvalidArgumentError, TrainingDivergedError, UnknownNameError
from experiments.experiment import Preset
from experiments.networks import network_training
from experiments.train_anp import ANPTraining, train_anp
from experiments.training import (
    Moment,
    Progression,
    Task,
    TrainingConfig,
    one_cycle,
    random_seed,
    shorten_gradients,
    train,
)
from probconserv import ANP
from solvers import PROBLEMS
from solvers.problems.sampling import Protocol, sample_exact

CONFIG = TrainingConfig(
    steps=30, peak_rate=1e-2, validate_every=10, checkpoint_every=5, precision="32-true", device="cpu"
)


class Stop(Exception):
    """Stands for a crash."""


def line_task(interrupt_at: int | None = None, crash_at: int | None = None, poison_at: int | None = None) -> Task:
    """A straight line fitted with dropout to noisy data, so that every kind of randomness takes part."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))

    def loss(model: nn.Module, moment: Moment) -> torch.Tensor:
        if moment.step == crash_at:
            raise Stop
        if moment.step == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        x = torch.rand(16, 1, generator=moment.generator)
        y = 2 * x + 0.1 * torch.randn(16, 1)
        factor = math.nan if moment.step == poison_at else 1.0
        return factor * (model(x) - y).square().mean()

    def validate(model: nn.Module, generator: torch.Generator) -> dict[str, float]:
        x = torch.rand(100, 1, generator=generator)
        assert not model.training
        return {"error": float((model(x) - 2 * x).square().mean())}

    return Task(model=model, loss=loss, validate=validate, identity={"name": "line"})


def run(folder: Path, task: Task, config: TrainingConfig = CONFIG) -> tuple[Progression, dict[str, torch.Tensor]]:
    progression = train(task, config, folder, progress=False)
    return progression, {name: value.clone() for name, value in task.model.state_dict().items()}


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


class Recorder(nn.Module):
    """Keeps what it is called with, and the format in which it multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[tuple[torch.Tensor, torch.dtype]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.layer(x.float())
        self.seen.append((x, result.dtype))
        return result


def test_reduced_precision_multiplies_in_bfloat16_but_keeps_the_inputs(tmp_path: Path) -> None:
    places = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    model = Recorder()
    task = Task(model=model, loss=lambda model, moment: model(places).float().square().mean())  # noqa: ARG005
    train(task, replace(CONFIG, steps=1, precision="bf16-mixed"), tmp_path, progress=False)
    (seen, multiplied_in) = model.seen[0]
    assert seen.dtype == torch.float64
    assert torch.equal(seen, places)
    assert multiplied_in == torch.bfloat16


def test_interrupt_stops_with_a_checkpoint_and_goes_on_later(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    _, expected = run(tmp_path / "whole", line_task())
    stopped, _ = run(tmp_path / "stopped", line_task(interrupt_at=12))
    assert stopped.step == 13
    assert signal.getsignal(signal.SIGINT) is before
    resumed, weights = run(tmp_path / "stopped", line_task())
    assert resumed.step == 30
    assert resumed.seconds > stopped.seconds
    assert_equal(weights, expected)


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    _, expected = run(tmp_path, line_task())
    _, weights = run(tmp_path, line_task(crash_at=0))
    assert_equal(weights, expected)


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
    with pytest.raises(
        TrainingDivergedError, match=r"diverged at step 13 of 30: loss nan.*last good checkpoint is '.*'"
    ):
        run(tmp_path, line_task(poison_at=12))
    kept = load_file(tmp_path / "checkpoint.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())
    resumed, weights = run(tmp_path, line_task())
    assert resumed.step == 30
    assert_equal(weights, run(tmp_path / "whole", line_task())[1])
    with pytest.raises(TrainingDivergedError, match="There is no checkpoint yet"):
        run(tmp_path / "early", line_task(poison_at=2))


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    run(tmp_path, line_task(interrupt_at=3))
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    for part in (len(whole) // 2, 4, 0):
        path.write_bytes(whole[:part])
        with pytest.raises(DataFileError, match="is damaged, perhaps cut off"):
            run(tmp_path, line_task())
    path.write_bytes(whole)
    assert run(tmp_path, line_task())[0].step == 30


def test_checkpoints_of_another_training_are_refused(tmp_path: Path) -> None:
    run(tmp_path, line_task())
    with pytest.raises(DataFileError, match=r"another training \(training.peak_rate is 0.01 there and 0.001 here\)"):
        run(tmp_path, line_task(), replace(CONFIG, peak_rate=1e-3))
    with pytest.raises(DataFileError, match=r"task.name is 'line' there and 'curve' here"):
        run(tmp_path, replace(line_task(), identity={"name": "curve"}))
    with pytest.raises(DataFileError, match="does not fit this model"):
        run(tmp_path, replace(line_task(), model=nn.Linear(1, 1)))


def test_gradients_are_shortened_together_complex_ones_too() -> None:
    model = nn.ParameterList([torch.zeros(3), torch.zeros(2, dtype=torch.complex64), torch.zeros(1)])
    real, imaginary, unused = model
    real.grad, imaginary.grad = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([3.0 + 4.0j, 2.0j])
    length = 33**0.5
    assert shorten_gradients(model, 10.0) == pytest.approx(length)
    assert imaginary.grad[0] == 3.0 + 4.0j, "short enough"
    assert shorten_gradients(model, 1.0) == pytest.approx(length)
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


def tiny(problem: str = "stefan", **changes: object) -> ANPTraining:
    config = network_training(problem, "anp", "smoke", "exact")
    network = replace(config.network, width=8, heads=2, latent_width=4, frequencies=2, latent_samples=3)
    training = replace(config.training, steps=12, validate_every=6, checkpoint_every=4)
    return replace(config, network=network, training=training, batch=4, validation_functions=5, **changes)


CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.experiments.test_training import tiny
from experiments.train_anp import train_anp
folder = Path(sys.argv[1])
config = tiny()
train_anp(replace(config, training=replace(config.training, steps=60)), folder, folder, progress=False)
"""


def test_killed_neural_process_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)], cwd=root, env=environment, stderr=subprocess.PIPE
        )

    child = start(tmp_path / "killed")
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    while not checkpoint.exists() and child.poll() is None:
        time.sleep(0.002)
    child.kill()
    child.communicate()
    assert not (tmp_path / "killed" / "weights.safetensors").exists(), "the training ended before it was killed"
    for folder in ("killed", "whole"):
        child = start(tmp_path / folder)
        _, errors = child.communicate()
        assert child.returncode == 0, errors.decode()
    first, second = (load_file(tmp_path / folder / "weights.safetensors") for folder in ("killed", "whole"))
    assert_equal(first, second)


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_every_problem_trains_with_the_soft_penalty(tmp_path: Path, problem: str) -> None:
    config = tiny(problem, soft_penalty=1e-3, penalty_functions=2, penalty_points=5)
    config = replace(config, training=replace(config.training, steps=2, precision="32-true"))
    result = train_anp(config, tmp_path / "soft", tmp_path, progress=False)
    assert result.weights is not None
    assert ANP.load(result.weights, problem=problem).config == config.network
    # The same seed without penalty: equal first steps, other second ones.
    plain = train_anp(replace(config, soft_penalty=0.0), tmp_path / "plain", tmp_path, progress=False)
    weights = result.network.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert any(not torch.equal(value, weights[name]) for name, value in plain.network.state_dict().items())


def test_solver_data_are_cached_and_close_to_the_closed_form(tmp_path: Path) -> None:
    config = BankConfig(members=3, cells=100, keep_every=2, times=20)
    problem = PROBLEMS["porous_medium"]
    bank = solution_bank(problem, config, tmp_path, group=2)
    assert bank.values.shape == (3, 20, 50)
    exact = problem.solution(bank.times[:, None], bank.places, bank.parameter[:, None, None])
    # First-order scheme on 100 cells: the L1 error is below one cell times the size of the field.
    assert float((bank.values - exact).abs().mean()) < 0.01
    (path,) = tmp_path.glob("*.h5")
    stamp = path.stat().st_mtime_ns
    again = solution_bank(problem, config, tmp_path)
    assert path.stat().st_mtime_ns == stamp
    assert torch.equal(again.values, bank.values)


def test_neural_process_learns_from_solver_data(tmp_path: Path) -> None:
    config = tiny("porous_medium", data="solver", bank=BankConfig(members=4, cells=16, keep_every=1, times=20))
    training = replace(config.training, steps=40, peak_rate=1e-2, validate_every=20)
    result = train_anp(replace(config, training=training), tmp_path, tmp_path, progress=False)
    history = result.progression.history
    assert history[-1]["loss"] < history[0]["loss"]
    assert {"MSE", "LL", "seconds", "rate"} <= history[-1].keys()


def test_bad_anp_trainings_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no conservation problem 'stephan'"):
        network_training("stephan", "anp", "smoke", "exact")
    with pytest.raises(InvalidArgumentError, match="batch must be at least 1, got 0"):
        replace(tiny(), batch=0)
    with pytest.raises(InvalidArgumentError, match="soft_penalty must not be negative"):
        replace(tiny(), soft_penalty=-1.0)
    with pytest.raises(InvalidArgumentError, match="cells must be at least 8"):
        BankConfig(cells=2)


@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_networks_see_inputs_and_values_on_the_scale_of_the_problem(problem: str, preset: Preset) -> None:
    """Random functions of the training range lie in the network's box and its value scale, and fill them."""
    spec, network = PROBLEMS[problem], network_training(problem, "anp", preset, "exact").network
    generator = torch.Generator().manual_seed(3)
    parameter = torch.linspace(*spec.training_range, 50, dtype=torch.float64)
    batch = sample_exact(spec, parameter, Protocol(target_times=20, target_places=20), generator)
    low, high = (torch.tensor(end, dtype=torch.float64) for end in (network.low, network.high))
    for points in (batch.context_points, batch.target_points):
        scaled = (points.flatten(0, 1) - low) / (high - low)
        least, most = scaled.amin(dim=0), scaled.amax(dim=0)
        assert bool(((least >= 0) & (least < 0.01) & (most > 0.99) & (most <= 1)).all())
    largest = float(batch.target_values.abs().max())
    assert 0.9 < largest / network.value_scale <= 1


def test_presets_grow_from_seconds_to_the_authors_sizes() -> None:
    for problem in PROBLEMS:
        smoke, laptop, paper = (network_training(problem, "anp", preset, "exact") for preset in get_args(Preset))
        assert smoke.training.steps < laptop.training.steps < paper.training.steps
        assert smoke.network.width < laptop.network.width <= paper.network.width
        assert smoke.bank.members * smoke.bank.cells < laptop.bank.members * laptop.bank.cells
        assert laptop.batch < paper.batch
        weights = [sum(value.numel() for value in ANP(c.network).parameters()) for c in (smoke, laptop, paper)]
        assert weights == sorted(weights)
        assert weights[0] < weights[1] / 4
