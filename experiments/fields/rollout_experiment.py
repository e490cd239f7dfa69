"""Rollouts of shallow water under fixers of mass, as an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from typing_extensions import override

from experiments.errors import require_at_least
from experiments.experiment import Experiment, Preset, RunContext, Stored, Style
from experiments.fields import fixers
from experiments.fields.basins import Basins
from experiments.fields.rollout import fitted, roll_out, score_rollout, score_truth
from experiments.plots import BARE, BLACK, CONSERVED, ENSEMBLE, SKY, SOFT, legend_below, panels
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
ROUND_OFF = 1e-17
"""What stands for no drift at all on a logarithmic axis."""
STEPPERS = {
    "penalised": ("stepper with a large penalty, λ = 1e-6", 1e-6),
    "fitted": ("stepper fitted closely, λ = 1e-9", 1e-9),
}


@dataclass(frozen=True, kw_only=True)
class RolloutExperiment(Experiment):
    """Waves in closed basins by a stepper that does not conserve mass, under fixers after every step."""

    name: str = "shallow_water_rollout"

    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)

    overview_leads = False
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
        return score_rollout(*roll_out(model.stepper, fixer, truth[:, 0], case.sizes.steps), truth)

    @override
    def figures(self, case: Case, stored: Stored, context: RunContext, folder: Any) -> dict[str, Figure]:
        """Mass, error and energy over the steps and the spectrum; where the fixers changed the depth."""
        shown = {key: arrays for (key, _), arrays in stored.items()}
        methods = [method for method in METHODS if method.key in shown]
        if METHODS[0] not in methods or len(methods) < 2:
            return {}
        curves = draw_curves(case.label, methods, shown)
        return {"curves": curves, "changes": draw_changes(case.label, methods, shown)}


def draw_curves(label: str, methods: Sequence[Method], shown: Mapping[str, Arrays]) -> Figure:
    """Drift of mass, error and energy over the steps, and the spectrum at the end; means over basins."""
    figure, axes = panels(4, f"Mean over basins; {label}", share_y=False, columns=2, width=1.1)
    mass, error, energy, power = axes
    for method in methods:
        arrays = shown[method.key]
        line = {"color": method.style.colour, "ls": method.style.dashes, "lw": 1.5, "label": method.label}
        power.loglog(np.arange(1, len(arrays["power"]) + 1), arrays["power"], **line)
        if method is methods[0]:
            continue
        steps = np.arange(len(arrays["drift_by_step"]))
        mass.semilogy(steps[1:], np.maximum(arrays["drift_by_step"][1:], ROUND_OFF), **line)
        error.plot(steps, arrays["error_by_step"], **line)
        energy.plot(steps, arrays["energy_by_step"], **line)
    energy.axhline(1.0, color="0.5", lw=0.8)
    mass.set(title="relative change of mass", xlabel="step")
    error.set(title="error of the depth / waves", xlabel="step")
    energy.set(title="energy of the waves / the truth's", xlabel="step")
    power.set(title="spectrum at the end", xlabel="wavenumber, half waves per side")
    for panel in axes:
        panel.title.set_fontsize(10)
    legend_below(figure, power)
    return figure


def draw_changes(label: str, methods: Sequence[Method], shown: Mapping[str, Arrays]) -> Figure:
    """Sum over the steps of |change of depth| by each fixer in the first basin, over the rms wave height.

    ``methods`` and ``shown`` are as for ``draw_curves``; the first panel has the true depth at the end.
    """
    fixing = [method for method in methods[1:] if shown[method.key]["map"].any()]
    figure, axes = panels(len(fixing) + 1, f"Where fixers changed the depth of a basin; {label}", columns=3, width=0.8)
    first = axes[0].imshow(shown[methods[0].key]["depth"].T, origin="lower", cmap="viridis")
    axes[0].set_title("true depth at the end", fontsize=10)
    figure.colorbar(first, ax=axes[0], pad=0.02)
    most = float(np.median([np.quantile(shown[method.key]["map"], 0.99) for method in fixing]))
    for panel, method in zip(axes[1:], fixing, strict=True):
        values = shown[method.key]["map"]
        image = panel.imshow(values.T, origin="lower", cmap="magma", vmin=0.0, vmax=most)
        panel.set_title(f"{method.label}, mean {values.mean():.2g}", fontsize=10)
        figure.colorbar(image, ax=panel, pad=0.02, extend="max")  # one scale for all
    for panel in axes:
        panel.set(xticks=[], yticks=[])
        panel.grid(False)
    figure.draw_without_rendering()  # the second layout, when it is saved, knows how wide the labels of the bars are
    return figure
