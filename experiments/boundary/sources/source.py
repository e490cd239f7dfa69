"""What an experiment asks of its samples: a config in, tensors out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from experiments.errors import InvalidArgumentError, require_at_least
from solvers.conditions import AxisConditions

Conditions = tuple[AxisConditions, ...]
"""One (first, last) pair per axis of space."""
SideValues = tuple[tuple[Tensor | None, Tensor | None] | None, ...]
"""Per axis the values of its (first, last) side; None for a side or an axis without data."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Which samples of a source.

    Args:
        validation: How many of them, the last, are the validation set; of test samples none.
        times: Output times: 1 for the single-step version, more for equally spaced ones up to the final time.
        final_time: Last output time; None for the usual one of the source.
        split: Training samples, or test samples, which are none of the training samples of any seed.
    """

    samples: int = 500
    validation: int = 0
    nodes: int = 128
    times: int = 25
    final_time: float | None = None
    seed: int = 0
    split: Literal["train", "test"] = "train"

    def __post_init__(self) -> None:
        require_at_least(self, samples=1, validation=0, nodes=5, times=1, seed=0)
        if self.validation > self.samples:
            raise InvalidArgumentError(
                f"validation must not exceed the number of samples, {self.samples}, got {self.validation}."
            )


@dataclass(frozen=True, kw_only=True)
class DataStore:
    """Where samples are kept and how they are made.

    Args:
        version: Version of the data, part of their names.
        given: Folder of files that other people made; None without.
    """

    folder: Path
    version: int
    jobs: int = 1
    given: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples of a source, in float32 unless they were just drawn.

    Args:
        times: Output times ``(t,)``; 0 for a steady problem.
        values: Values of the conditions on the sides, ``(batch, t, unknowns, *face)`` each: of the field for Dirichlet,
            of ∂/∂x along the axis for Neumann.
    """

    times: Float[Tensor, " t"]
    input: Float[Tensor, "batch inputs *space"]
    output: Float[Tensor, "batch t unknowns *space"]
    values: SideValues


class Source(ABC):
    """Samples of one problem on the unit interval or square, on nodes that include both ends of every axis.

    A source that is not of a ``problem`` has a name and an equation, for tables, of its own.
    """

    problem: Any
    reconstructed = ""
    """Settings that a paper does not give, for tables; may be empty."""

    @property
    def name(self) -> str:
        """Name in files."""
        return self.problem.name

    @property
    def equation(self) -> str:
        """Equation, for tables."""
        return self.problem.equation

    @property
    @abstractmethod
    def conditions(self) -> tuple[Conditions, ...]:
        """Conditions of every unknown; where unknowns differ in them they have their values built in."""

    @abstractmethod
    def times(self, config: SampleConfig) -> Float[Tensor, " t"]:
        """Output times of a config."""

    @abstractmethod
    def describe(self, config: SampleConfig) -> dict[str, Any]:
        """Everything that decides samples but the version of the data, as JSON can hold it."""

    @abstractmethod
    def samples(self, config: SampleConfig, store: DataStore) -> Samples:
        """The samples, made once and read afterwards.

        Raises:
            DataFileError: If a file that was given is missing or damaged.
        """
