"""The comparison: the problems with their intervals, sizes by preset, and the rows of both experiments.

Colours of rows say which constraints act (neither, boundary conditions, the law), dashes which operator they act on.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from jaxtyping import Float
from torch import Tensor

from boon import Correction, Prescription
from experiments.combined.fields import FieldProblem, Interval
from experiments.combined.networks import Network
from experiments.errors import InvalidArgumentError, require_at_least
from experiments.experiment import Preset, Style
from experiments.plots import BARE, BLACK, CONSERVED, SKY
from experiments.records.release import data_version
from probconserv.training import TrainingConfig
from solvers.problems import Problem
from solvers.problems.conservation import ADVECTION, DIFFUSION, POROUS_MEDIUM, STEFAN


def _fields(problem: Problem, final_time: float, *ends: float, tolerance: float | None = None) -> FieldProblem:
    """A problem by the ends of its intervals, each of which adjoins the one before."""
    intervals = tuple((min(pair), max(pair)) for pair in pairwise(ends))
    return FieldProblem(problem=problem, intervals=intervals, final_time=final_time, tolerance=tolerance)


DIFFUSION_FIELDS = _fields(DIFFUSION, 1.0, 1.0, 5.0, 6.0, 7.0, 8.0, tolerance=1e-6)
POROUS_FIELDS = _fields(POROUS_MEDIUM, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
STEFAN_FIELDS = _fields(STEFAN, 0.1, 0.65, 0.6, 0.55, 0.5, 0.45)
ADVECTION_FIELDS = _fields(ADVECTION, 0.1, 1.0, 3.0, 3.5, 4.0, 4.5)
"""Diffusion (heat) as in Mouli et al. 2024; the others adjoin a part of the range of Hansen et al. 2023 likewise,
towards steeper fields. Advection ends before its front leaves the domain."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a run.

    Of training, validation and random test parameters (the latter for every interval), the grid, finite-volume cells
    per interval between nodes (``refinement``), the operators and their training (its seed is set for each) with
    ``batch`` fields a step; trainings that an ensemble joins, and independent groups of trainings, over which standard
    errors of the tables are.
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
    groups: int = 3

    def __post_init__(self) -> None:
        require_at_least(self, samples=1, validation=1, test=2, batch=1, width=1, members=2, groups=1)
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
        version, test = data_version(self.problem.name), self.sizes.test
        return {**self.problem.description, "data_version": version, "interval": self.interval, "test": test}

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
_SMALL_NUMBERS = {"samples": 32, "validation": 8, "test": 8, "batch": 8, "members": 2, "groups": 1}
_LARGE = {"samples": 512, "validation": 64, "test": 200, "nodes": 201, "width": 64, "modes": 64, "members": 10}
SIZES: dict[Preset, Sizes] = {
    "smoke": Sizes(training=_training(150, 4e-3), **_SMALL_GRID, **_SMALL_NUMBERS),
    "laptop": Sizes(training=_training(3000, 4e-3)),
    "paper": Sizes(training=_training(20_000, 2e-3), groups=5, **_LARGE),
}

PLAIN = Network(name="fno")
BOUNDED = Network(name="boon", correction=Prescription())
THROUGH_UPDATE = Network(name="end-to-end", conserved=True)
AFTER, IN_TRAINING = "after-training", "in-training"
DASHED, DOTTED, MIXED = "--", ":", "-."


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row.

    Args:
        network: What is trained; None for the truth.
        joined: Whether a group is an ensemble of trainings, else a single one.
        bounded: The correction of a BOON that is put around the operators after training; None for none.
        conserved: Whether the prediction is conditioned on the law.
        correlated: Whether what is joined has the covariance of its members, else their variances alone.
    """

    key: str
    label: str
    network: Network | None
    joined: bool = False
    bounded: Correction | None = None
    conserved: bool = False
    correlated: bool = False
    dashes: str = "-"
    information: str = ""

    @property
    def style(self) -> Style:
        if self.network is None:
            return Style(BLACK)
        if self.conserved or self.network.conserved:
            return Style(CONSERVED, self.dashes)
        return Style(SKY if self.bounded or self.network.correction else BARE, self.dashes)


TRUTH = Method(key="truth", label="truth", network=None)


def _conserved(method: Method) -> Method:
    return replace(method, key=f"probconserv-{method.key}", label=f"ProbConserv-{method.label}", conserved=True)


_INSIDE = (
    Method(key="fno", label="FNO", network=PLAIN, joined=True, dashes=DASHED),
    Method(key="boon", label="BOON", network=PLAIN, joined=True, bounded=Prescription()),
    Method(key="boon-in-training", label="BOON in training", network=BOUNDED, joined=True, dashes=DOTTED),
)
_OUTSIDE = tuple(map(_conserved, _INSIDE))
CONSTRAINTS = (
    TRUTH,
    *_INSIDE,
    *_OUTSIDE,
    replace(
        _OUTSIDE[1],
        key=f"{_OUTSIDE[1].key}-members-covariance",
        label=f"{_OUTSIDE[1].label} (members' covariance)",
        correlated=True,
        dashes=MIXED,
    ),
)
"""An ensemble with neither constraint, each alone and both; boundaries also in training, the law by covariances."""
TRAININGS = (
    TRUTH,
    Method(key="fno", label="FNO", network=PLAIN),
    Method(key=AFTER, label="ProbConserv after training", network=PLAIN, conserved=True),
    Method(key=IN_TRAINING, label="ProbConserv in training", network=THROUGH_UPDATE, conserved=True, dashes=DASHED),
)
"""One operator: without the update, with it after training, and trained through it."""
