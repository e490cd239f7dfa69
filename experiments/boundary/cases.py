"""Cases of the boundary-condition experiments: a version of a problem, its samples, operators and methods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.boundary.samples import Conditions, SampleConfig, Source
from experiments.errors import InvalidArgumentError, require_at_least
from experiments.experiment import Preset
from experiments.records.store import as_json
from probconserv.training import TrainingConfig
from solvers import CellGrid, Periodic


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """Sizes of the operators of a case, the same for every method.

    Args:
        time_modes: Frequencies kept along time, which then is the last axis of the fields, the input being repeated
            along it, as Saad et al. do; 0 makes the output times channels, which costs a sixth to a twentieth.
        order: Order of the one-sided differences of Neumann conditions.
    """

    width: int = 64
    modes: int = 16
    time_modes: int = 0
    depth: int = 4
    order: int = 4


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
class Setting:
    """Settings of a method, chosen on the validation set.

    Every method had four trials of a fifth of the steps: structures at the usual peak learning rate (padding and
    channel MLP of an FNO, with mixed kernels the share of Fourier series too), and then, where these are fewer, the
    first of them at a third.

    Args:
        architecture: Options of its network.
        correction: Options of its correction.
        rate: Peak learning rate in units of that of the case.
    """

    architecture: Mapping[str, float] = field(default_factory=dict)
    correction: Mapping[str, float] = field(default_factory=dict)
    rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class BoundaryCase:
    """One version of a problem in an experiment.

    Args:
        final_time: Last output time; None for the usual one of the source.
        given: Whether there are boundary data that differ between samples; else they are no input.
        methods: Keys of the methods that are compared.
        settings: What was chosen for some of them.
        cells: Whether fields are averages over cells, else at nodes.
    """

    key: str
    label: str
    source: Source
    times: int = 1
    final_time: float | None = None
    given: bool = True
    methods: tuple[str, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    sizes: BoundarySizes
    cells: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """All settings that change data and scores, apart from seeds and weights.

        Inputs are not disturbed, as 0.4 could do: the entry keeps the hashes.
        """
        sizes = {"batch": self.sizes.batch, "network": as_json(self.sizes.network)}
        return {"test": self.source.describe(self.test_data(0)), **sizes, "disturbance": None}

    @property
    def conditions(self) -> Conditions:
        """One pair per axis of space: of all unknowns, or of the first where they differ."""
        return self.source.conditions[0]

    @property
    def shared(self) -> bool:
        """Whether all unknowns have the same conditions."""
        return all(each == self.conditions for each in self.source.conditions)

    @property
    def axes(self) -> int:
        """Number of axes of space."""
        return len(self.conditions)

    @property
    def grid(self) -> CellGrid | None:
        """The cells of fields that are averages; None for fields at nodes."""
        axes = self.axes
        return CellGrid((0.0,) * axes, (1.0,) * axes, (self.sizes.nodes,) * axes) if self.cells else None

    @property
    def periodic(self) -> tuple[bool, ...]:
        """True for each periodic axis of space."""
        return tuple(isinstance(pair[0], Periodic) for pair in self.conditions)

    @property
    def channels(self) -> int:
        """Output channels of the operators: the unknowns, at every output time unless time is an axis."""
        return len(self.source.conditions) * (1 if self.sizes.network.time_modes else self.times)

    def training_data(self, seed: int) -> SampleConfig:
        """The training samples, the validation set last."""
        return replace(
            self.test_data(seed), samples=self.sizes.samples, validation=self.sizes.validation, split="train"
        )

    def test_data(self, seed: int) -> SampleConfig:
        """The test samples."""
        return SampleConfig(
            samples=self.sizes.test,
            nodes=self.sizes.nodes,
            times=self.times,
            final_time=self.final_time,
            seed=seed,
            split="test",
        )


Versions = Callable[[Preset], tuple[BoundaryCase, ...]]
"""From the preset to the cases of a problem."""


def trained(steps: int, peak_rate: float, network: NetworkSizes, **numbers: int) -> BoundarySizes:
    """Sizes with the usual training of this many steps."""
    training = TrainingConfig(steps=steps, peak_rate=peak_rate, weight_decay=1e-4, precision="32-true")
    return BoundarySizes(network=network, training=replace(training, validate_every=max(1, steps // 20)), **numbers)
