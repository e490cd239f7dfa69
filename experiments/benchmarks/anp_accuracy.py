"""Steps and minutes in which the neural process reaches an error when it is trained from nothing."""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from probconserv.training import Task, TrainingConfig, random_seed, train
from probconserv.training.loop import VALIDATION
from solvers import NodeGrid
from solvers.problems import STEFAN
from solvers.problems.sampling import Protocol, sample_exact

PARAMETER = 0.6
FUNCTIONS, POINTS, LATENT_SAMPLES = 50, 201, 10


@dataclass(frozen=True)
class Goal:
    """When a training ends.

    Args:
        evaluate: model → error.
        error: Error to be reached.
        every: Steps between evaluations.
        most_steps: Steps after which it is given up.
    """

    evaluate: Callable[[nn.Module], float]
    error: float
    every: int
    most_steps: int


@dataclass(frozen=True)
class Outcome:
    """How a training with a goal went.

    Args:
        reached: Whether the error reached the goal.
        seconds: Wall time of the steps, evaluations not counted.
        errors: Steps and the error after them, in order.
    """

    reached: bool
    seconds: float
    errors: list[tuple[int, float]]

    def __str__(self) -> str:
        step, lowest = min(self.errors, key=lambda pair: pair[1])
        missed = f"not reached in {self.errors[-1][0]:,} steps; the lowest was {lowest:.4g} at step {step:,}"
        return "reached" if self.reached else missed


def paper_error() -> float:
    """MSE of ProbConserv-ANP on Stefan, u* = 0.6, from the released weights of Hansen et al. 2023 as they are."""
    return published("probconserv")["recomputed_as_released"]["stefan"][f"u={PARAMETER:g}"]["probconserv-anp"]["MSE"][0]


def time_to_accuracy(
    config: NetworkConfig, name: str, functions: int = FUNCTIONS, every: int = 100, most_steps: int = 8000
) -> dict[str, Any]:
    """Trains a network from nothing, on its schedule and seed, until the conditioned error is that of the paper.

    Args:
        config: Network and training, on closed-form data.
        name: What the table calls it.
        functions: Test functions of the error.
        every: Steps between evaluations of the error.
        most_steps: Steps after which it is given up.

    Returns:
        The case: seconds, steps and minutes of training, the last error, and whether the goal was reached.
    """
    config = replace(config, network=replace(config.network, latent_samples=LATENT_SAMPLES))
    torch.manual_seed(config.training.seed)
    stream = exact_stream(STEFAN, config.protocol)
    task = Task(ANP(config.network), lambda model, step: evidence_loss(model, step, config, stream, STEFAN))
    goal = Goal(conditioned_error(functions), paper_error(), every, most_steps)
    outcome = train_until(task, config.training, goal)
    steps, error = outcome.errors[-1]
    return {
        "case": f"{name}, trained from nothing to the paper's MSE on Stefan, u* = {PARAMETER:g}",
        "seconds": outcome.seconds,
        "baseline": f"ProbConserv-ANP of the released weights, MSE {goal.error:.4g} (an accuracy, not a time)",
        "baseline_seconds": None,
        "ratio": None,
        "steps": steps,
        "minutes": outcome.seconds / 60,
        "MSE": error,
        "result": str(outcome),
    }


def conditioned_error(functions: int = FUNCTIONS) -> Callable[[nn.Module], float]:
    """Mean squared error of the prediction under the law of the total, over test functions at the test time.

    Args:
        functions: Number of test functions.

    Returns:
        network → error; the functions and their law are drawn and computed once.
    """
    instant, grid = STEFAN.test_time, NodeGrid(*STEFAN.domain, POINTS)
    parameters = torch.full((functions,), PARAMETER, dtype=torch.float64)
    batch = sample_exact(STEFAN, parameters, Protocol(), Generator().manual_seed(round(100 * PARAMETER)))
    context = Context(batch.context_points, batch.context_values, STEFAN.name)
    points = torch.stack((torch.full_like(grid.points, instant), grid.points), dim=-1)
    query = Query(points.expand(functions, -1, -1), STEFAN.name)
    truth, law = STEFAN.solution(instant, grid.points, PARAMETER), integral(grid, STEFAN.total(instant, PARAMETER))

    def error(network: nn.Module) -> float:
        assert isinstance(network, ANP)
        return float(mse(truth, condition(network.predict(context, query), law).mean).mean())

    return error


class _Ended(Exception):
    """A stopping rule ends a training."""


def train_until(
    task: Task, training: TrainingConfig, goal: Goal, clock: Callable[[], float] = time.perf_counter
) -> Outcome:
    """Trains as ``train`` does, with the rates of the whole schedule, until the goal or the schedule ends it.

    Args:
        task: What is trained.
        training: The schedule.
        goal: When to stop.
        clock: Seconds.

    Returns:
        How it went.

    Raises:
        TrainingDivergedError: If a loss or a gradient is not finite.
        KeyboardInterrupt: If it was interrupted, since then there is no result.
    """
    errors, seconds, resumed = [], 0.0, clock()

    def after_step(step: int, *_: float) -> None:
        nonlocal seconds, resumed
        if step % goal.every and step < training.steps:
            return
        seconds += clock() - resumed
        errors.append((step, _evaluated(task.model, goal.evaluate, training.seed)))
        say(f"step {step}: {seconds / 60:.1f} minutes, error {errors[-1][1]:.4g}, goal {goal.error:.4g}")
        if errors[-1][1] <= goal.error or step >= goal.most_steps:
            raise _Ended
        resumed = clock()

    config = replace(training, validate_every=training.steps, checkpoint_every=training.steps)
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(replace(task, validate=None), config, Path(folder), after_step)
    except _Ended:
        pass
    except TrainingInterruptedError:
        raise KeyboardInterrupt from None
    return Outcome(errors[-1][1] <= goal.error, seconds, errors)


def _evaluated(model: nn.Module, evaluate: Callable[[nn.Module], float], seed: int) -> float:
    """The error in evaluation mode, with the random numbers of a validation."""
    model.eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(random_seed(seed, VALIDATION))
        error = evaluate(model)
    model.train()
    return error


def say(text: str) -> None:
    """Prints a line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)
