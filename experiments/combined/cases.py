"""Cases, a problem on one interval of its parameter, and their sizes by preset."""

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from experiments.checks import require_at_least
from experiments.combined.fields import FieldProblem, Interval
from experiments.errors import InvalidArgumentError
from experiments.experiment import Preset
from experiments.records.release import data_version
from probconserv.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a run.

    Args:
        samples: Training parameters.
        validation: Parameters of the validation set.
        test: Random test parameters of every interval.
        nodes: Nodes of the domain.
        times: Output times.
        refinement: Finite-volume cells per interval between nodes.
        width: Channels of the operators.
        modes: Frequencies that they keep.
        depth: Their Fourier layers.
        training: Steps, rate, decay; its seed is set for each training.
        batch: Fields a step.
        members: Trainings that an ensemble joins; an operator with heads has as many.
        passes: Passes of an operator under dropout that are joined.
        groups: Independent repetitions, each with other trainings; standard errors of the tables are over them.

    Raises:
        InvalidArgumentError: If a number is out of range.
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
    """A problem tested on one interval of its parameter.

    Args:
        problem: The problem on the grid of the sizes.
        number: Number of the interval; 0 is the training range.
        sizes: Sizes of the run.
    """

    problem: FieldProblem
    number: int
    sizes: Sizes

    @property
    def key(self) -> str:
        """Name in files and options."""
        return f"{self.problem.name}-{self.number}"

    @property
    def interval(self) -> Interval:
        """The tested interval of the parameter."""
        return self.problem.intervals[self.number]

    @property
    def label(self) -> str:
        """Name in tables and figures."""
        low, high = self.interval
        trained = "" if self.number else ", trained on"
        return f"{self.problem.label}, {self.problem.problem.symbol} in [{low:g}, {high:g}]{trained}"

    @property
    def config(self) -> dict[str, Any]:
        """What decides test data and scores."""
        return {
            **self.problem.description,
            "data_version": data_version(self.problem.name),
            "interval": self.interval,
            "test": self.sizes.test,
            "passes": self.sizes.passes,
        }

    def parameters(self, seed: int) -> Float[Tensor, " test"]:
        """Random test parameters, the same for all methods and groups.

        Args:
            seed: Seed of the run.
        """
        return self.problem.parameters(self.interval, self.sizes.test, seed=1000 * seed + self.number)


def cases_of(problem: FieldProblem, sizes: Sizes) -> list[Case]:
    """The cases of a problem in these sizes, one per interval."""
    sized = replace(problem, nodes=sizes.nodes, times=sizes.times, refinement=sizes.refinement)
    return [Case(problem=sized, number=number, sizes=sizes) for number in range(len(sized.intervals))]


def _training(steps: int, peak_rate: float) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        peak_rate=peak_rate,
        weight_decay=1e-4,
        validate_every=max(1, steps // 10),
        checkpoint_every=max(1, steps // 4),
        precision="32-true",
    )


SIZES: dict[Preset, Sizes] = {
    "smoke": Sizes(
        samples=32,
        validation=8,
        test=8,
        nodes=33,
        times=5,
        refinement=2,
        width=12,
        modes=6,
        depth=2,
        training=_training(150, 4e-3),
        batch=8,
        members=2,
        passes=3,
        groups=1,
    ),
    "laptop": Sizes(training=_training(3000, 4e-3)),
    "paper": Sizes(
        samples=512,
        validation=64,
        test=200,
        nodes=201,
        width=64,
        modes=64,
        training=_training(20_000, 2e-3),
        members=10,
        groups=5,
    ),
}
