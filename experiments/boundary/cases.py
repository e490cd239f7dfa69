"""Cases of the boundary-condition experiments: a version of a problem, with the sizes of its operators and samples."""

from dataclasses import dataclass, field
from math import frexp
from typing import Any

from torch import Tensor

from boon import MatchedTransform
from experiments.checks import require_at_least
from experiments.errors import InvalidArgumentError
from experiments.records.store import as_json
from probconserv.training import TrainingConfig
from solvers import Periodic
from solvers.problems.boundary_samples import BoundaryProblem

SHORT_EXTENSION = 0.01
"""Length of the smooth extension for fields that are largest on the walls and hardly reach beyond, as vorticity is."""


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """Sizes of the operators of a case, the same for every method.

    Args:
        modes: Frequencies kept along every axis of space.
        time_modes: Frequencies kept along time, which then is the last axis of the fields, the input being repeated
            along it, as Saad et al. do; 0 makes the output times channels, which costs a sixth to a twentieth.
        order: Order of the one-sided differences of Neumann conditions.
        unit: Fields and boundary values are divided by it; a power of two, which rounds nothing.
    """

    width: int = 64
    modes: int = 16
    time_modes: int = 0
    depth: int = 4
    order: int = 4
    unit: float = 1.0

    def __post_init__(self) -> None:
        if not self.unit > 0 or frexp(self.unit)[0] != 0.5:
            raise InvalidArgumentError(f"unit must be a power of two, got {self.unit}.")


@dataclass(frozen=True, kw_only=True)
class BoundarySizes:
    """Samples, network and training of a case.

    Args:
        samples: Training samples, the validation set included.
        validation: Samples of the validation set; every choice is made on them.
        seeds: Trainings of every method.
    """

    samples: int = 500
    validation: int = 50
    test: int = 200
    nodes: int = 128
    network: NetworkSizes = field(default_factory=NetworkSizes)
    training: TrainingConfig
    batch: int = 20
    seeds: int = 3

    def __post_init__(self) -> None:
        require_at_least(self, validation=1, test=1, batch=1, seeds=1)
        if self.batch > self.samples - self.validation:
            rest = f"{self.samples} − {self.validation} samples that are trained on"
            raise InvalidArgumentError(f"batch must not exceed the {rest}, got {self.batch}.")


@dataclass(frozen=True, kw_only=True)
class BoundaryDataConfig:
    """Which samples of a problem.

    Args:
        times: Output times: 1 for the single-step version, more for equally spaced ones up to the final time.
        final_time: Last output time; None for the problem's usual one.
    """

    samples: int = 500
    nodes: int = 128
    times: int = 25
    final_time: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, samples=1, nodes=5, times=1, seed=0)

    def output_times(self, problem: BoundaryProblem) -> Tensor:
        """Output times of the version ``(t,)``."""
        single = self.times == 1 and self.final_time is None
        return problem.single_step() if single else problem.multi_step(self.times, self.final_time)


@dataclass(frozen=True, kw_only=True)
class BoundaryCase:
    """One version of a problem in an experiment.

    Args:
        final_time: Last output time; None for the problem's usual one.
        independent: Whether boundary data are random apart from the initial field, so that an operator needs them as
            input.
        extension: Initial length of the smooth extension of ``boon-default``, see ``boon.MatchedTransform``.
        trained_on: Case whose operators are tested on this one; None for those of the case itself.
    """

    key: str
    label: str
    problem: BoundaryProblem
    times: int = 1
    final_time: float | None = None
    independent: bool = False
    extension: float = MatchedTransform().length
    sizes: BoundarySizes
    trained_on: "BoundaryCase | None" = None

    @property
    def training_case(self) -> "BoundaryCase":
        """The case that operators are trained on."""
        return self.trained_on or self

    @property
    def config(self) -> dict[str, Any]:
        """What decides data and scores, apart from seeds and weights."""
        sizes = {"batch": self.sizes.batch, "network": as_json(self.sizes.network)}
        return {"test": describe_samples(self.problem, self.test_data(0)), **sizes}

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes of space are periodic."""
        return tuple(isinstance(pair[0], Periodic) for pair in self.problem.conditions)

    @property
    def channels(self) -> int:
        """Output channels of the operators: the output times, unless time is an axis."""
        return 1 if self.sizes.network.time_modes else self.times

    def training_data(self, seed: int) -> BoundaryDataConfig:
        """The training samples, the validation set last."""
        return self._data(self.sizes.samples, 2 * seed)

    def test_data(self, seed: int) -> BoundaryDataConfig:
        """The test samples, from other random numbers than the training samples of any seed."""
        return self._data(self.sizes.test, 2 * seed + 1)

    def _data(self, samples: int, seed: int) -> BoundaryDataConfig:
        times = {"times": self.times, "final_time": self.final_time}
        return BoundaryDataConfig(samples=samples, nodes=self.sizes.nodes, seed=seed, **times)


def describe_samples(problem: BoundaryProblem, config: BoundaryDataConfig) -> dict[str, Any]:
    """Everything that decides samples but the version of the data, as JSON can hold it."""
    return {
        "problem": problem.name,
        "equation": problem.equation,
        "start": problem.start,
        "times": config.output_times(problem).tolist(),
        "constants": dict(problem.constants),
        "parameters": as_json(problem.parameters),
        "config": as_json(config),
    }
