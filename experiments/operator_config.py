"""Configs of the boundary-condition experiments as frozen values, and the presets that fill them."""

from dataclasses import dataclass, field, replace
from math import frexp

from boon import MatchedTransform
from experiments.boundary_data import BoundaryDataConfig
from experiments.checks import require_at_least
from experiments.errors import InvalidArgumentError
from experiments.experiment import Preset
from probconserv.training import TrainingConfig
from solvers.problems.boundary_samples import BoundaryProblem

SHORT_EXTENSION = 0.01
"""Length of the smooth extension for fields that are largest on the walls and hardly reach beyond, as vorticity is."""


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """Sizes of the operators of a case, the same for every method.

    Args:
        width: Channels of the hidden layers.
        modes: Frequencies kept along every axis of space.
        time_modes: Frequencies kept along time, which then is the last axis of the fields, the input being repeated
            along it, as Saad et al. do; 0 makes the output times channels, which costs a sixth to a twentieth.
        depth: Fourier layers.
        order: Order of the one-sided differences of Neumann conditions.
        unit: Fields and boundary values are divided by it; a power of two, which rounds nothing.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    width: int = 64
    modes: int = 16
    time_modes: int = 0
    depth: int = 4
    order: int = 4
    unit: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(self, width=1, modes=1, time_modes=0, depth=1)
        if self.order not in (1, 2, 3, 4):
            raise InvalidArgumentError(f"order must be 1, 2, 3 or 4, got {self.order}.")
        if not self.unit > 0 or frexp(self.unit)[0] != 0.5:
            raise InvalidArgumentError(f"unit must be a power of two, got {self.unit}.")


@dataclass(frozen=True, kw_only=True)
class OperatorSizes:
    """Samples, network and training of a case.

    Args:
        samples: Training samples, those held out included.
        validation: Training samples held out; every choice is made on them.
        test: Test samples, for tables and figures only.
        nodes: Nodes along every axis of space.
        network: Sizes of the operators.
        training: Steps, rate, decay; its seed and device are set for each training.
        batch: Samples a step.
        seeds: Trainings of every method.

    Raises:
        InvalidArgumentError: If a number is out of range.
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
            raise InvalidArgumentError(
                f"batch must not exceed the {self.samples} − {self.validation} samples that are trained on, got "
                f"{self.batch}."
            )


@dataclass(frozen=True, kw_only=True)
class OperatorCase:
    """One version of a problem in an experiment.

    Args:
        name: Name in files.
        label: Name in tables and figures.
        problem: The problem.
        times: Output times; 1 for single-step versions.
        final_time: Last output time; None for the problem's own.
        independent: Whether boundary data are random apart from the initial field, so that an operator must be told.
        few_methods: Whether only the four main rows are trained.
        extension: Initial length of the smooth extension in the row BOON (default), see ``boon.MatchedTransform``.
        sizes: Samples, network and training.
    """

    name: str
    label: str
    problem: BoundaryProblem
    times: int = 1
    final_time: float | None = None
    independent: bool = False
    few_methods: bool = False
    extension: float = MatchedTransform().length
    sizes: OperatorSizes

    def training_data(self, seed: int) -> BoundaryDataConfig:
        """The training samples, those held out last."""
        return self._data(self.sizes.samples, 2 * seed)

    def test_data(self, seed: int) -> BoundaryDataConfig:
        """The test samples, from other random numbers than the training samples of any seed."""
        return self._data(self.sizes.test, 2 * seed + 1)

    def _data(self, samples: int, seed: int) -> BoundaryDataConfig:
        return BoundaryDataConfig(
            samples=samples, nodes=self.sizes.nodes, times=self.times, final_time=self.final_time, seed=seed
        )


def _training(steps: int, peak_rate: float) -> TrainingConfig:
    return TrainingConfig(
        steps=steps, peak_rate=peak_rate, weight_decay=1e-4, validate_every=max(1, steps // 20), precision="32-true"
    )


_SMOKE = OperatorSizes(
    samples=40,
    validation=8,
    test=8,
    nodes=33,
    network=NetworkSizes(width=12, modes=6, depth=2),
    training=_training(40, 3e-3),
    batch=8,
    seeds=1,
)
_LAPTOP = OperatorSizes(network=NetworkSizes(width=32), training=_training(5000, 3e-3))
_LAPTOP_SQUARE = OperatorSizes(
    samples=220,
    validation=20,
    test=50,
    nodes=50,
    network=NetworkSizes(width=32, modes=8),
    training=_training(2500, 3e-3),
    batch=10,
    seeds=1,
)
_PAPER_SINGLE = OperatorSizes(test=100, nodes=500, training=_training(12_500, 3e-3))
_PAPER_MULTI = OperatorSizes(
    samples=1000,
    validation=100,
    nodes=500,
    network=NetworkSizes(width=32, modes=12, time_modes=12),
    training=_training(25_000, 1e-3),
)
_PAPER_SQUARE = replace(
    _PAPER_MULTI,
    nodes=50,
    network=NetworkSizes(width=20, modes=8, time_modes=8),
    training=_training(50_000, 1e-3),
    batch=10,
    seeds=1,
)


def sized(case: OperatorCase, preset: Preset) -> OperatorCase:
    """A case with the sizes of a preset; the unit and the stencil's order of the case stay.

    Args:
        case: The case.
        preset: ``smoke`` (seconds), ``laptop`` (on one core a minute or two a training, five to ten on the square) or
            ``paper`` (the samples, nodes, widths, modes, batches and numbers of steps of Saad et al. 2023).
    """
    square = len(case.problem.conditions) == 2
    paper = _PAPER_SQUARE if square else _PAPER_SINGLE if case.times == 1 else _PAPER_MULTI
    small = replace(_SMOKE, nodes=17, samples=20, batch=4) if square else _SMOKE
    sizes = {"smoke": small, "laptop": _LAPTOP_SQUARE if square else _LAPTOP, "paper": paper}[preset]
    kept = case.sizes.network
    network = replace(sizes.network, unit=kept.unit, order=kept.order)
    return replace(case, sizes=replace(sizes, network=network))


def single_step(problem: BoundaryProblem, key: str = "", label: str = "", independent: bool = False) -> OperatorCase:
    """The version with one output time, in the laptop's sizes.

    Args:
        problem: The problem.
        key: Tells it from other single-step versions in file names.
        label: Tells it from them in tables.
        independent: As in ``OperatorCase``.
    """
    return OperatorCase(
        name=_joined("-", "single", key),
        label=_joined(", ", label, f"single step to t = {problem.single_time:g}"),
        problem=problem,
        independent=independent,
        sizes=_LAPTOP,
    )


def many_steps(
    problem: BoundaryProblem,
    key: str = "",
    label: str = "",
    independent: bool = False,
    final: float | None = None,
    unit: float = 1.0,
) -> OperatorCase:
    """The version with 25 output times, in the laptop's sizes; other arguments as for ``single_step``.

    Args:
        problem: The problem.
        key: Tells it from other versions in file names.
        label: Tells it from them in tables.
        independent: As in ``OperatorCase``.
        final: Last output time; None for the problem's own.
        unit: As in ``NetworkSizes``.
    """
    square = len(problem.conditions) == 2
    sizes = _LAPTOP_SQUARE if square else _LAPTOP
    return OperatorCase(
        name=_joined("-", "multi", key),
        label=_joined(", ", label, f"25 times to t = {problem.final_times[0] if final is None else final:g}"),
        problem=problem,
        times=25,
        final_time=final,
        independent=independent,
        few_methods=square,
        sizes=replace(sizes, network=replace(sizes.network, unit=unit)),
    )


def _joined(separator: str, *parts: str) -> str:
    return separator.join(part for part in parts if part)
