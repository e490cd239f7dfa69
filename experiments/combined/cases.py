"""Cases, a problem on one interval of its parameter, and their sizes by preset."""

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from experiments.combined.fields import FieldProblem, Interval
from experiments.errors import InvalidArgumentError, require_at_least
from experiments.experiment import Preset
from experiments.records.release import data_version
from probconserv.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a run.

    Of training, validation and random test parameters (the latter for every interval), the grid, finite-volume cells
    per interval between nodes (``refinement``), the operators and their training (its seed is set for each) with
    ``batch`` fields a step; trainings or heads that an ensemble joins, passes of an operator under dropout, and
    independent groups of trainings, over which standard errors of the tables are.
    """

    samples: int = 256
    validation: int = 32
    test: int = 100
    nodes: int = 101
    times: int = 25
    refinement: int = 4
    width: int = 32
    modes: int = 32
    depth: int = 4
    training: TrainingConfig
    batch: int = 20
    members: int = 4
    passes: int = 10
    groups: int = 3

    def __post_init__(self) -> None:
        require_at_least(self, samples=1, validation=1, test=2, batch=1, width=1, members=2, passes=2, groups=1)
        if self.batch > self.samples:
            raise InvalidArgumentError(f"batch must not exceed the {self.samples} samples, got {self.batch}.")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem tested on one interval of its parameter, by number; 0 is the training range."""

    problem: FieldProblem
    number: int
    sizes: Sizes

    @property
    def key(self) -> str:
        return f"{self.problem.name}-{self.number}"

    @property
    def interval(self) -> Interval:
        return self.problem.intervals[self.number]

    @property
    def label(self) -> str:
        low, high = self.interval
        trained = "" if self.number else ", trained on"
        return f"{self.problem.label}, {self.problem.problem.symbol} in [{low:g}, {high:g}]{trained}"

    @property
    def config(self) -> dict[str, Any]:
        version, sizes = data_version(self.problem.name), {"test": self.sizes.test, "passes": self.sizes.passes}
        return {**self.problem.description, "data_version": version, "interval": self.interval, **sizes}

    def parameters(self, seed: int) -> Float[Tensor, " test"]:
        """Random test parameters by the seed of the run, the same for all methods and groups."""
        return self.problem.parameters(self.interval, self.sizes.test, seed=1000 * seed + self.number)


def cases_of(problem: FieldProblem, sizes: Sizes) -> list[Case]:
    """The cases of a problem in these sizes, one per interval."""
    sized = replace(problem, nodes=sizes.nodes, times=sizes.times, refinement=sizes.refinement)
    return [Case(problem=sized, number=number, sizes=sizes) for number in range(len(sized.intervals))]


def _training(steps: int, peak_rate: float) -> TrainingConfig:
    validate, store = max(1, steps // 10), max(1, steps // 4)
    every = TrainingConfig(steps=steps, validate_every=validate, checkpoint_every=store, precision="32-true")
    return replace(every, peak_rate=peak_rate, weight_decay=1e-4)


_SMALL_GRID = {"nodes": 33, "times": 5, "refinement": 2, "width": 12, "modes": 6, "depth": 2}
_SMALL_NUMBERS = {"samples": 32, "validation": 8, "test": 8, "batch": 8, "members": 2, "passes": 3, "groups": 1}
_LARGE = {"samples": 512, "validation": 64, "test": 200, "nodes": 201, "width": 64, "modes": 64, "members": 10}
SIZES: dict[Preset, Sizes] = {
    "smoke": Sizes(training=_training(150, 4e-3), **_SMALL_GRID, **_SMALL_NUMBERS),
    "laptop": Sizes(training=_training(3000, 4e-3)),
    "paper": Sizes(training=_training(20_000, 2e-3), groups=5, **_LARGE),
}
