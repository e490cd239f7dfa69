"""Steps and minutes in which the neural process reaches an error when it is trained from nothing."""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from experiments.data import exact_stream
from experiments.errors import InvalidArgumentError
from experiments.tables import paper_rows
from experiments.train_anp import ANPTraining, evidence_loss
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv import ANP, condition, integral
from probconserv.scores import mse
from probconserv.surrogates.surrogate import Context, Query
from solvers import PROBLEMS, NodeGrid
from solvers.problems.sampling import Protocol, sample_exact

PROBLEM, PARAMETER = "stefan", 0.6
FUNCTIONS, PLACES, LATENT_SAMPLES = 50, 201, 10


@dataclass(frozen=True, kw_only=True)
class StoppingRule:
    """When a training has what is wanted of it.

    Args:
        goal: Error to be reached.
        every: Steps between evaluations of the error.
        most_steps: Steps after which it is given up, a multiple of ``every``.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    goal: float
    every: int = 100
    most_steps: int = 8000

    def __post_init__(self) -> None:
        if not self.goal > 0 or self.every < 1:
            raise InvalidArgumentError(
                f"goal must be positive and every at least 1, got {self.goal:g} and {self.every}."
            )
        if self.most_steps < self.every or self.most_steps % self.every:
            raise InvalidArgumentError(
                f"most_steps must be a multiple of every = {self.every}, got {self.most_steps}; "
                "the last steps would not be evaluated."
            )


@dataclass(frozen=True)
class Outcome:
    """How a training went that was stopped by a rule.

    Args:
        reached: Whether the error reached the goal.
        seconds: Wall time of the steps, evaluations not counted.
        errors: Steps and the error after them, in order.
    """

    reached: bool
    seconds: float
    errors: Sequence[tuple[int, float]]

    def as_text(self, goal: float) -> str:
        """Says whether the goal was reached; if not, after how many steps it was given up, and the lowest error."""
        if self.reached:
            return "reached"
        step, lowest = min(self.errors, key=lambda pair: pair[1])
        return f"{goal:.4g} not reached in {self.errors[-1][0]:,} steps; the lowest was {lowest:.4g} at step {step:,}"


def paper_error() -> float:
    """MSE of ProbConserv-ANP on Stefan, u* = 0.6, from the released weights of Hansen et al. 2023 as they are."""
    rows = paper_rows(PROBLEM, f"u*={PARAMETER:g}")
    (row,) = (row for row in rows if (row.method, row.source) == ("ProbConserv-ANP", "Hansen et al., released weights"))
    return row.scores["MSE"][0]


def time_to_accuracy(config: ANPTraining, name: str, rule: StoppingRule) -> dict[str, Any]:
    """Trains a network from nothing, on its own schedule and seed, until the conditioned error is low enough.

    Args:
        config: Network and training, on closed-form data.
        name: What the table calls it.
        rule: The error, how often it is looked at, and when to give up.

    Returns:
        The case: seconds, steps and minutes of training, the last error, and whether the goal was reached.
    """
    config = replace(config, network=replace(config.network, latent_samples=LATENT_SAMPLES))
    torch.manual_seed(config.training.seed)
    stream = exact_stream(PROBLEMS[PROBLEM], config.protocol)
    task = Task(ANP(config.network), lambda model, context: evidence_loss(model, context, config, stream))
    outcome = train_until(task, config.training, rule, conditioned_error())
    steps, error = outcome.errors[-1]
    return {
        "case": f"{name}, trained from nothing to the paper's MSE on Stefan, u* = {PARAMETER:g}",
        "seconds": outcome.seconds,
        "baseline": f"ProbConserv-ANP of the released weights, MSE {rule.goal:.4g} (an accuracy, not a time)",
        "baseline_seconds": None,
        "ratio": None,
        "steps": steps,
        "minutes": outcome.seconds / 60,
        "MSE": error,
        "result": outcome.as_text(rule.goal),
    }


def conditioned_error() -> Callable[[nn.Module], float]:
    """Mean squared error of the prediction under the law of the total, over the test functions at the test time.

    Returns:
        network → error; the functions and their law are drawn and computed once.
    """
    problem = PROBLEMS[PROBLEM]
    instant, grid = problem.test_time, NodeGrid(*problem.domain, PLACES)
    parameters = torch.full((FUNCTIONS,), PARAMETER, dtype=torch.float64)
    batch = sample_exact(problem, parameters, Protocol(), Generator().manual_seed(round(100 * PARAMETER)))
    context = Context(batch.context_points, batch.context_values, PROBLEM)
    points = torch.stack((torch.full_like(grid.points, instant), grid.points), dim=-1)
    query = Query(points.expand(FUNCTIONS, -1, -1), PROBLEM)
    truth, law = problem.solution(instant, grid.points, PARAMETER), integral(grid, problem.total(instant, PARAMETER))

    def error(network: nn.Module) -> float:
        assert isinstance(network, ANP)
        return float(mse(truth, condition(network.predict(context, query), law).mean).mean())

    return error


class _Ended(Exception):
    """A stopping rule ends a training."""


@dataclass
class _Watch:
    """Loss and validation of a task under a stopping rule, with the time of the steps alone."""

    task: Task
    rule: StoppingRule
    evaluate: Callable[[nn.Module], float]
    clock: Callable[[], float]
    step: int = 0
    started: float = math.nan
    evaluating: float = 0.0
    seconds: float = 0.0
    errors: list[tuple[int, float]] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        """Whether the last error is the goal or below."""
        return self.errors[-1][1] <= self.rule.goal

    def loss(self, model: nn.Module, context: StepContext) -> Tensor:
        """The task's own loss; the first one starts the clock."""
        if not context.step:
            self.started = self.clock()
        self.step = context.step + 1
        return self.task.loss(model, context)

    def validate(self, model: nn.Module, generator: Generator) -> dict[str, float]:  # noqa: ARG002 - the loop's signature
        """Evaluates the error, its time not counted; ends the training if the rule says so."""
        paused = self.clock()
        self.seconds = paused - self.started - self.evaluating
        self.errors.append((self.step, self.evaluate(model)))
        self.evaluating += self.clock() - paused
        minutes, error = self.seconds / 60, self.errors[-1][1]
        say(f"step {self.step}: {minutes:.1f} minutes, error {error:.4g}, goal {self.rule.goal:.4g}")
        if self.reached or self.step >= self.rule.most_steps:
            raise _Ended
        return {}


def train_until(
    task: Task,
    training: TrainingConfig,
    rule: StoppingRule,
    evaluate: Callable[[nn.Module], float],
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Trains as ``train`` does, with the rates of the whole schedule, until the rule or the schedule ends it.

    Args:
        task: What is trained; validation is replaced by the evaluation.
        training: The schedule.
        rule: When to stop.
        evaluate: model → error.
        clock: Seconds.

    Returns:
        How it went.

    Raises:
        TrainingDivergedError: If a loss or a gradient is not finite.
        TrainingInterruptedError: If it was interrupted, since then there is no result.
    """
    watch = _Watch(task, rule, evaluate, clock)
    watched = replace(task, loss=watch.loss, validate=watch.validate)
    config = replace(training, validate_every=rule.every, checkpoint_every=training.steps)
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(watched, config, Path(folder))
    except _Ended:
        pass
    return Outcome(watch.reached, watch.seconds, watch.errors)


def say(text: str) -> None:
    """Prints a line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)
