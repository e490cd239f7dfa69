"""Rollouts of shallow water under fixers of mass, as an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from typing_extensions import override

from experiments.errors import require_at_least
from experiments.experiment import Experiment, Preset, RunContext, Stored, Style
from experiments.fields import fixers
from experiments.fields.basins import Basins
from experiments.fields.rollout import fitted, roll_out, score_rollout, score_truth
from experiments.fields.rollout_figures import draw_changes, draw_curves
from experiments.plots import BARE, BLACK, CONSERVED, ENSEMBLE, SKY, SOFT
from experiments.records.record import Arrays
from experiments.records.release import data_version


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a run: basins for training and test, steps between pairs, and the basins' cells and steps."""

    training: int = 8
    test: int = 16
    every: int = 4
    cells: int = 32
    refinement: int = 2
    steps: int = 100

    def __post_init__(self) -> None:
        require_at_least(self, training=1, test=2, every=1, steps=2)


SIZES: Mapping[Preset, Sizes] = {
    "smoke": Sizes(training=3, test=3, every=2, cells=16, steps=20),
    "laptop": Sizes(),
    "paper": Sizes(training=16, test=64, refinement=4),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A stepper by the ridge penalty of its correction."""

    key: str
    label: str
    penalty: float
    sizes: Sizes
    seed: int

    @property
    def test(self) -> Basins:
        """The basins of the test."""
        sizes = self.sizes
        shape = {"cells": sizes.cells, "refinement": sizes.refinement, "steps": sizes.steps}
        return Basins(count=sizes.test, stream=1, seed=self.seed, **shape)

    @property
    def training(self) -> Basins:
        """The basins that the stepper is fitted to."""
        return replace(self.test, count=self.sizes.training, stream=0)

    @property
    def config(self) -> dict[str, Any]:
        version = data_version("shallow_water_rollout")
        return {"penalty": self.penalty, "sizes": self.sizes, "seed": self.seed, "data_version": version}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row; ``prepare`` makes its fixer, None for the truth."""

    key: str
    label: str
    style: Style
    prepare: fixers.Prepared | None = field(default=None, compare=False)
    information: str = ""


METHODS: tuple[Method, ...] = (
    Method(key="truth", label="truth", style=Style(BLACK)),
    Method(key="nothing", label="no fixer", style=Style(BARE), prepare=fixers.nothing),
    Method(key="shift", label="uniform shift", style=Style(SOFT), prepare=fixers.shift),
    Method(key="scale", label="scaling", style=Style(SKY, "--"), prepare=fixers.scale),
    Method(key="update-diagonal", label="update, diagonal", style=Style(CONSERVED, ":"), prepare=fixers.diagonal),
    Method(key="update-low-rank", label="update, low rank", style=Style(CONSERVED), prepare=fixers.low_rank),
    Method(
        key="update-by-correction", label="update, by correction", style=Style(ENSEMBLE), prepare=fixers.by_correction
    ),
)
"""All rows; those with a fixer start from the same step."""
STEPPERS = {
    "penalised": ("stepper with a large penalty, λ = 1e-6", 1e-6),
    "fitted": ("stepper fitted closely, λ = 1e-9", 1e-9),
}


@dataclass(frozen=True, kw_only=True)
class RolloutExperiment(Experiment):
    """Waves in closed basins by a stepper that does not conserve mass, under fixers after every step."""

    name: str = "shallow_water_rollout"

    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)

    shown = ("rollout_error", "final_error", "mass_drift", "energy_error", "spectrum_error")

    def title(self, cases: Sequence[Case]) -> str:
        sizes = cases[0].sizes
        return f"Shallow water in {sizes.test} closed basins of {sizes.cells}² cells, {sizes.steps} steps, mass given"

    def cases(self, context: RunContext) -> list[Case]:
        sizes, seed = self.sizes[context.options.preset], context.options.seed
        return [
            Case(key=key, label=label, penalty=penalty, sizes=sizes, seed=seed)
            for key, (label, penalty) in STEPPERS.items()
        ]

    @override
    def methods(self, case: Case) -> tuple[Method, ...]:
        return METHODS

    @override
    def seeds(self, case: Case, context: RunContext) -> tuple[int, ...]:
        """That of the test fields: what is fitted is fitted when it is scored, by ``reproduce`` too."""
        return (context.options.seed,)

    @override
    def score(self, case: Case, method: Method, seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
        truth = case.test.states(context.data_folder)
        if method.prepare is None:
            return score_truth(truth)
        model = fitted(case.training, case.sizes.every, case.penalty, context.data_folder)
        fixer = method.prepare(model.error, model.correction)
        return score_rollout(roll_out(model.stepper, fixer, truth[:, 0], case.sizes.steps), truth)

    @override
    def figures(self, case: Case, stored: Stored, context: RunContext, folder: Any) -> dict[str, Figure]:
        """Mass, error and energy over the steps and the spectrum; where the fixers changed the depth."""
        shown = {key: arrays for (key, _), arrays in stored.items()}
        methods = [method for method in METHODS if method.key in shown]
        if METHODS[0] not in methods or len(methods) < 2:
            return {}
        curves = draw_curves(case.label, methods, shown)
        return {"curves": curves, "changes": draw_changes(case.label, methods, shown)}
