"""Scores of trained operators on test samples: relative L2, boundary error, error over time, cost of a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import boon
from boon import boundary_error, relative_l2
from experiments.benchmarks.measure import take_turns
from experiments.operator_config import OperatorCase
from experiments.operator_data import Fields, by_time
from experiments.operator_methods import ConditionedOperator, Method, build
from experiments.stages import one_thread
from experiments.storage import Arrays
from experiments.train_operator import load_operator, predict

SHOWN = 1  # test samples whose fields are kept for figures
TIMED_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a run keeps of one case.

    Args:
        methods: The methods, the plain FNO first.
        truth: Of the true fields, see ``truth``.
        scores: By method's name, then one per seed, see ``score``.
        seconds: Of a training step, by method's name.
    """

    methods: tuple[Method, ...]
    truth: Arrays
    scores: dict[str, list[Arrays]]
    seconds: Arrays


def score(path: Path, method: Method, case: OperatorCase, test: Fields) -> Arrays:
    """Scores of one trained operator.

    Args:
        path: The file of weights.
        method: The method.
        case: The case.
        test: Test samples.

    Returns:
        ``relative_l2`` per sample; ``over_time`` ``(samples, t)``; ``boundary`` in units of the conditions,
        ``boundary_relative``, ``boundary_relative_max``, see ``boon.BoundaryError``; ``validation``; ``shown``, the
        fields of the first test samples ``(samples, t, *nodes)``.
    """
    model = load_operator(path, method, case)
    with one_thread():
        u = predict(model, test, case.sizes.batch)
    history = boon.read_notes(path)["history"]
    return {
        "relative_l2": _per_sample(u, test.output).numpy(),
        "over_time": over_time(by_time(u, case), by_time(test.output, case)).numpy(),
        "validation": np.array(history[-1]["relative_l2"]),
        "shown": by_time(u[:SHOWN], case).numpy(),
        **_boundary(model, u, test, case),
    }


def truth(case: OperatorCase, test: Fields) -> Arrays:
    """Boundary error of the true fields under the one-sided differences, and the fields that figures show."""
    plain = build(Method(name="FNO"), case)
    first = test.input[:SHOWN, 0] * case.sizes.network.unit
    return {
        "input": (first[..., 0] if case.sizes.network.time_modes else first).numpy(),
        "shown": by_time(test.output[:SHOWN], case).numpy(),
        **_boundary(plain, test.output, test, case),
    }


def over_time(u: Float[Tensor, "batch t *space"], truth: Float[Tensor, "batch t *space"]) -> Float[Tensor, "batch t"]:
    """‖u − truth‖₂ at each time relative to the root mean square over times of ‖truth‖₂ of the sample.

    Its root mean square over times is the relative L2 of the whole field, and it is defined when the truth vanishes
    at some moment, as standing waves do.
    """
    error, size = ((field.double().flatten(2).norm(dim=2)) for field in (u - truth, truth))
    return error / size.square().mean(dim=1, keepdim=True).sqrt()


def step_costs(case: OperatorCase, methods: Sequence[Method], fields: Fields) -> Arrays:
    """Seconds of a training step of every method, taking turns on one thread.

    Args:
        case: The case.
        methods: The methods.
        fields: At least one batch of samples.

    Returns:
        Shortest seconds of a step, by method's name.
    """
    batch = fields.take(slice(case.sizes.batch))
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(0)
        steps = [_step(build(method, case), batch) for method in methods]
        seconds = take_turns(steps, TIMED_STEPS)
    return {method.name: np.array(time) for method, time in zip(methods, seconds, strict=True)}


def _step(model: ConditionedOperator, batch: Fields) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimiser.zero_grad()
        model.loss(batch).backward()
        optimiser.step()

    return step


def _per_sample(u: Tensor, target: Tensor) -> Float[Tensor, " batch"]:
    return torch.stack([relative_l2(u[i : i + 1].double(), target[i : i + 1].double()) for i in range(len(u))])


def _boundary(model: ConditionedOperator, u: Tensor, test: Fields, case: OperatorCase) -> Arrays:
    found = boundary_error(u, model.discretise(u, test.values))
    return {
        "boundary": np.array(found.maximum * case.sizes.network.unit),
        "boundary_relative": np.array(found.relative_l2),
        "boundary_relative_max": np.array(found.relative_maximum),
    }
