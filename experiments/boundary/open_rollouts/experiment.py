"""Rollouts of open systems under the balance of their walls, as an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from boon import BOON, Prescription, boundary_error
from boon.conditions.functionals import DIFFERENCES
from experiments import plots
from experiments.boundary.open_rollouts.figures import draw_dumbbells
from experiments.boundary.open_rollouts.methods import (
    NAME,
    Case,
    Method,
    Predicted,
    methods_of,
    predicted,
    trainings_of,
)
from experiments.boundary.open_rollouts.networks import Sizes, train_operator
from experiments.boundary.open_rollouts.systems import SYSTEMS, Heat, OpenSystem, RobinRod
from experiments.boundary.scoring import NEAR, ORDER, at_walls, wall_scores
from experiments.experiment import Preset, RunContext, Stored, Table, Training
from experiments.records.record import Arrays, Over
from experiments.records.release import data_version
from probconserv.rollout.trajectories import Functions
from probconserv.training.distributed import say_once
from solvers import Neumann

SIZES: Mapping[Preset, Sizes] = {
    "smoke": Sizes(
        training=6, validation=18, test=3, steps=24, trained_steps=24, width=8, modes=6, depth=2, optimiser_steps=20
    ),
    "laptop": Sizes(),
    "paper": Sizes(training=200, validation=200, test=200, width=64, optimiser_steps=20_000),
}
_SMALL = {1: 32, 2: 12}
"""Intervals along an axis in a trial, by the number of axes."""
LONG = ("heat", "channel")
"""Systems of which long rollouts are made, too."""
EARLY = 20
"""Step at which bands are looked at, besides the last."""
DRAWN = ("regression", "fno", "increments", "regression-walls-response", "increments-walls-response", "emulator")
"""Rows in figures, with the uniform balance where there are no conditions."""
SHOWN = ("open_error", "open_final", "total_drift", "wall_error")
"""Scores of tables."""
PANELS = {"error_by_step": "error relative to the field", "drift_by_step": "error of the total, in spreads of u"}


@dataclass(frozen=True, kw_only=True)
class OpenRolloutExperiment:
    """Open systems, operators of one step, and what the balance of the walls makes of their rollouts."""

    name: str = NAME
    systems: Sequence[OpenSystem] = SYSTEMS
    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=data_version(self.name),
            cases=self.cases,
            methods=self.methods,
            score=self.score,
            trainings=self.trainings,
            train=self.train,
            figures=self.figures,
            overview=self.overview,
            headline=self.headline,
            shown=SHOWN,
            reference=lambda _: "fno",
            over=Over.SEEDS,
        )

    def title(self, cases: Sequence[Case]) -> str:
        sizes = cases[0].sizes
        return f"Open systems: {sizes.steps} steps of {sizes.test} functions, data of the walls given"

    def cases(self, context: RunContext) -> list[Case]:
        options = context.options
        systems = self.systems
        if options.preset == "smoke":
            systems = [replace(each, intervals=_SMALL[each.dimension]) for each in systems]
        sizes, groups = self.sizes[options.preset], ((False, systems), (True, [s for s in systems if s.name in LONG]))
        return [
            Case(system=each, sizes=sizes, folder=context.data_folder, long=long)
            for long, group in groups
            for each in group
        ]

    def methods(self, case: Case) -> tuple[Method, ...]:
        return methods_of(case.system)

    def trainings(self, case: Case, method: Method, seed: int, _context: RunContext) -> list[Training]:
        return trainings_of(method, case, seed)

    def train(self, training: Training, context: RunContext) -> None:
        case = next(case for case in self.cases(context) if case.system == training.config.system)
        train_operator(training, case.functions("training"), context)

    def score(self, case: Case, method: Method, seed: int, weights: Sequence[Path], _context: RunContext) -> Arrays:
        budget = upper_quartile(case.functions("training"), case.system)
        return score(predicted(case, method, seed, weights), case.functions("test"), case.system, budget)

    def headline(self, case: Case, _records: object) -> tuple[Sequence[str], Sequence[str]]:
        rows = [each for each in methods_of(case.system) if each.law != "uniform" or case.system.conditions is None]
        return [each.key for each in rows], SHOWN

    def figures(self, case: Case, stored: Stored, _context: RunContext) -> Mapping[str, Figure]:
        return draw_over_time(case, self.methods(case), stored)

    def overview(self, cases: Sequence[Case], records: pd.DataFrame) -> Mapping[str, Figure]:
        return draw_dumbbells(records, {case.key: case.label for case in cases})


def upper_quartile(known: Functions, system: OpenSystem) -> float:
    """A budget: what a quarter of the totals of functions exceed."""
    return float(_totals(known.fields, system).quantile(0.75))


def _totals(fields: Tensor, system: OpenSystem) -> Tensor:
    """∫ u of the first conserved channel ``(b, t)``."""
    first = (system.conserved or (0,))[0]
    return (fields[:, :, first].double() * system.grid.weights).flatten(2).sum(dim=-1)


def score(predicted: Predicted, test: Functions, system: OpenSystem, budget: float) -> Arrays:
    """Scores per function; for the figures root mean squares over functions by step."""
    truth, u = test.fields.double(), predicted.fields.double()
    size = truth.flatten(2).square().mean(dim=(1, 2)).sqrt()[:, None]
    error = (u - truth).flatten(2).square().mean(dim=-1).sqrt() / size
    first = (system.conserved or (0,))[0]
    missed = (u - truth)[:, :, first] / truth[:, :, first].std()
    total = (missed * system.grid.weights).flatten(2).sum(dim=-1)
    exceeds = [_totals(each[:, 1:], system) > budget for each in (u, truth)]
    arrays = {
        "open_error": error[:, 1:].mean(dim=1),
        "open_final": error[:, -1],
        **wall_scores(missed[:, 1:], system.open_axes, system.grid.weights),
        "budget_error": (exceeds[0] != exceeds[1]).double().mean(dim=1),
        "error_by_step": error.mean(dim=0),
        "drift_by_step": total.square().mean(dim=0).sqrt(),
    }
    if system.conditions is not None:
        arrays["boundary"] = enforced(predicted.fields, test)
        arrays |= _at_ends(u[:, 1:, 0], test, system)
    if predicted.chosen:
        say_once(f"{system.name}: {predicted.chosen}")
    if predicted.band is not None:
        arrays |= _coverage(predicted, test, system, first)
    values = {name: np.asarray(value) for name, value in arrays.items()}
    return {name: np.where(np.isfinite(value), value, np.inf) for name, value in values.items()}


def enforced(fields: Tensor, test: Functions) -> Tensor:
    """max |B u − g| of every function over all steps, by the differences that are prescribed, over max |u| ``(b,)``."""
    operator, found = BOON(torch.nn.Identity(), test.setting.conditions, correction=Prescription()), []
    for u, *sides in zip(fields[:, 1:], *_given(test), strict=True):
        first, last = (side[1:].to(u) for side in sides)
        found.append(boundary_error(u, operator.discretise(u, [(first, last)])).maximum / float(u.abs().max()))
    return torch.tensor(found)


def _given(test: Functions) -> list[Tensor]:
    """The data at both ends of an interval."""
    return [side for side in test.walls[0] or () if isinstance(side, Tensor)]


def _at_ends(u: Tensor, test: Functions, system: OpenSystem) -> dict[str, Tensor]:
    """Of u ``(b, t, n)``: ∂u/∂x at the walls and the heat that is conducted there against those of the truth."""
    stencil = torch.tensor(DIFFERENCES[ORDER, False], dtype=u.dtype) * (u.shape[-1] - 1)
    nodes = len(stencil)
    slopes = torch.stack([u[..., :nodes] @ stencil, -(u[..., -nodes:].flip(-1) @ stencil)], dim=-1)
    given = torch.cat([side.double() for side in _given(test)], dim=-1)[:, 1:]
    arrays = {}
    if isinstance(test.setting.conditions[0][0], Neumann):
        arrays["slope_error"] = _relative(slopes, given)
    if isinstance(system, Heat | RobinRod):
        heat = system.conducted(u[..., [0, -1]], slopes)
        true = test.fields[:, 1:, 0, [0, -1]].double()
        flux = system.flux[0] if isinstance(system.flux, tuple) else (system.flux, system.flux)
        passed = [of_side(true[..., end], given[..., end]) for end, of_side in enumerate(flux)]
        arrays["wall_flux_error"] = _relative(heat, torch.stack(passed, dim=-1))
    return arrays


def _relative(values: Tensor, true: Tensor) -> Tensor:
    """Root mean square of the error over that of the truth ``(b,)``."""
    return (values - true).square().mean(dim=(1, 2)).sqrt() / true.square().mean(dim=(1, 2)).sqrt()


def _coverage(predicted: Predicted, test: Functions, system: OpenSystem, channel: int) -> dict[str, Tensor]:
    """Parts of values in the conformal band at an early step and at the last: at walls, near them, and of totals."""
    assert predicted.band is not None
    error = (predicted.fields - test.fields).abs()
    inside = (error <= predicted.band.fields)[:, :, channel].double()
    missed = ((predicted.fields - test.fields)[:, :, channel].double() * system.grid.weights).flatten(2).sum(dim=-1)
    held = (missed.abs() <= predicted.band.totals[:, 0]).double()
    walls, near = (at_walls(inside, system.open_axes, count).mean(dim=-1) for count in (1, NEAR))
    arrays = {}
    for name, step in (("", min(EARLY, test.steps)), ("_end", test.steps)):
        arrays |= {
            f"band_wall{name}": walls[:, step],
            f"band_near{name}": near[:, step],
            f"band_total{name}": held[:, step],
        }
    return arrays


def draw_over_time(case: Case, methods: Sequence[Method], stored: Stored) -> dict[str, Figure]:
    """Mean error of a field, and root mean square of the total's, after every step of the first seed."""
    drawn = {key if case.system.conditions else key.replace("-walls-response", "-uniform") for key in DRAWN}
    shown = [method for method in methods if method.key in drawn and (method.key, 0) in stored]
    if not shown:
        return {}
    figure, axes = plots.panels(len(PANELS), case.label, share_y=False, width=1.2)
    for panel, (name, title) in zip(axes, PANELS.items(), strict=True):
        for method in shown:
            values = stored[method.key, 0][name]
            panel.plot(values, color=method.style.colour, ls=method.style.dashes, lw=1.4, label=method.label)
        panel.set(title=title, xlabel="step", yscale="log")
    plots.legend_below(figure, *axes)
    return {"steps": figure}
