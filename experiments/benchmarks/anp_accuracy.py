"""Steps and minutes in which the neural process reaches an error when it is trained from nothing."""

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, nn

from experiments.conservation.data import exact_stream
from experiments.conservation.networks import NetworkConfig
from experiments.conservation.training import evidence_loss
from experiments.errors import TrainingInterruptedError
from experiments.records.published import published
from probconserv import ANP, condition, integral
from probconserv.scores import mse
from probconserv.surrogates.surrogate import Context, Query
from probconserv.training import Task, TrainingConfig, random_seed, say_once, train
from probconserv.training.loop import VALIDATION
from solvers import NodeGrid
from solvers.problems import STEFAN
from solvers.problems.sampling import Protocol, sample_exact

PARAMETER, POINTS, LATENT_SAMPLES = 0.6, 201, 10


class Goal(NamedTuple):
    """The error at which a training ends, evaluated every so many steps, or the steps after which it is given up."""

    evaluate: Callable[[nn.Module], float]
    error: float
    every: int
    most_steps: int


def paper_error() -> float:
    """MSE of ProbConserv-ANP on Stefan, u* = 0.6, from the released weights of Hansen et al. 2023 as they are."""
    return published("probconserv")["recomputed_as_released"]["stefan"][f"u={PARAMETER:g}"]["probconserv-anp"]["MSE"][0]


def time_to_accuracy(
    config: NetworkConfig, name: str, functions: int = 50, every: int = 100, most_steps: int = 8000
) -> dict[str, Any]:
    """Trains a network from nothing, on its schedule and seed, until the conditioned error is that of the paper."""
    config = replace(config, network=replace(config.network, latent_samples=LATENT_SAMPLES))
    torch.manual_seed(config.training.seed)
    stream = exact_stream(STEFAN, config.protocol)
    task = Task(ANP(config.network), lambda model, step: evidence_loss(model, step, config, stream, STEFAN))
    goal = Goal(conditioned_error(functions), paper_error(), every, most_steps)
    seconds, errors = train_until(task, config.training, goal)
    steps, error = errors[-1]
    lowest_at, lowest = min(errors, key=lambda pair: pair[1])
    missed = f"not reached in {steps:,} steps; the lowest was {lowest:.4g} at step {lowest_at:,}"
    result = {"MSE": error, "result": "reached" if error <= goal.error else missed}
    case = f"{name}, trained from nothing to the paper's MSE on Stefan, u* = {PARAMETER:g}"
    baseline = f"ProbConserv-ANP of the released weights, MSE {goal.error:.4g} (an accuracy, not a time)"
    times = {"seconds": seconds, "baseline": baseline, "baseline_seconds": None, "ratio": None}
    return {"case": case, **times, "steps": steps, "minutes": seconds / 60, **result}


def conditioned_error(functions: int = 50) -> Callable[[nn.Module], float]:
    """Network → mean squared error of its prediction under the law of the total, over functions at the test time."""
    instant, grid = STEFAN.test_time, NodeGrid(*STEFAN.domain, POINTS)
    parameters = torch.full((functions,), PARAMETER, dtype=torch.float64)
    batch = sample_exact(STEFAN, parameters, Protocol(), Generator().manual_seed(round(100 * PARAMETER)))
    context = Context(batch.context_points, batch.context_values, STEFAN.name)
    points = torch.stack((torch.full_like(grid.points, instant), grid.points), dim=-1)
    query = Query(points.expand(functions, -1, -1), STEFAN.name)
    truth, law = STEFAN.solution(instant, grid.points, PARAMETER), integral(grid, STEFAN.total(instant, PARAMETER))

    def error(network: nn.Module) -> float:
        assert isinstance(network, ANP)
        return float(mse(truth, condition(network.predict(context, query), law, keep_weights=True).mean).mean())

    return error


def train_until(
    task: Task, training: TrainingConfig, goal: Goal, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, list[tuple[int, float]]]:
    """Trains as ``train`` does, with the rates of the whole schedule, until the goal or the schedule ends it.

    Seconds of the steps alone, and the errors after numbers of steps. An interruption raises KeyboardInterrupt.
    """
    errors, seconds, resumed = [], 0.0, clock()

    def after_step(step: int, *_: float) -> None:
        nonlocal seconds, resumed
        if step % goal.every and step < training.steps:
            return
        seconds += clock() - resumed
        task.model.eval()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(random_seed(training.seed, VALIDATION))
            errors.append((step, goal.evaluate(task.model)))
        task.model.train()
        say_once(f"step {step}: {seconds / 60:.1f} minutes, error {errors[-1][1]:.4g}, goal {goal.error:.4g}")
        if errors[-1][1] <= goal.error or step >= goal.most_steps:
            raise StopIteration
        resumed = clock()

    config = replace(training, validate_every=training.steps, checkpoint_every=training.steps)
    try:
        with suppress(StopIteration), tempfile.TemporaryDirectory() as folder:
            train(replace(task, validate=None), config, Path(folder), after_step)
    except TrainingInterruptedError:
        raise KeyboardInterrupt from None
    return seconds, errors
