"""Fields of many parameters from few noisy observations, with a known total: surrogates against their rivals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import plots
from experiments.experiment import Preset, RunContext, Stored, Table, Training
from experiments.gpme.cases import COUNTS, SIZES, Case, Sizes
from experiments.gpme.functions import MEMBERS, Member
from experiments.gpme.methods import METHODS, Method, drawn
from experiments.gpme.networks import network_training, train_network
from experiments.records.record import Arrays, Over
from experiments.records.release import data_version
from probconserv import scores

SEEDS = (0, 1, 2)
POSITIVE, PLUME = 1e-3, 0.2
"""Thresholds above which a field counts as positive, and as part of a plume."""
IN_TWO_AXES = 50
"""Functions of the validation set and of the test in two axes, where a prediction has thousands of points."""
SHOWN = 0
"""The test function of the figures."""
BOXES = ("anp", "local")
"""Models whose fields are drawn: without the law in the upper row, with it and u ≥ 0 in the lower one."""
DRAWS = 6
HEADLINE = tuple(method.key for method in METHODS if method.treatment in ("", "bounded"))
SCORED = ("CE", "MSE", "CRPS", "energy", "coverage90", "coverage90_positive")
"""What the terminal shows."""
REFERENCE, RATIOS = "bounded-anp", (1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class RandomMediaExperiment:
    """Random profiles in random media at several numbers of observations.

    Args:
        members: Kinds of functions.
        counts: Numbers of observations.
    """

    name: str = "gpme"
    members: Sequence[Member] = MEMBERS
    counts: Sequence[int] = COUNTS
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
            seeds=self.seeds,
            trainings=self.trainings,
            train=self.train,
            figures=lambda case, stored, _: draw_fields(case, stored),
            overview=draw_over_counts,
            headline=lambda *_: (HEADLINE, SCORED),
            reference=lambda _: "anp",
            redraws=lambda method: method.box.redraws,
            over=Over.SEEDS,
            seeded=True,
        )

    def title(self, cases: Sequence[Case]) -> str:
        sizes = cases[0].sizes
        return f"Random media: {sizes.test} functions, {sizes.training} to learn from, {sizes.draws} draws each"

    def cases(self, context: RunContext) -> list[Case]:
        options, sizes = context.options, self.sizes[context.options.preset]
        fewer = replace(sizes, validation=min(IN_TWO_AXES, sizes.validation), test=min(IN_TWO_AXES, sizes.test))
        return [
            Case(
                member=member,
                count=count,
                sizes=sizes if member.grid.dimension == 1 else fewer,
                seed=options.seed,
                folder=context.data_folder,
            )
            for member in self.members
            for count in self.counts
        ]

    def methods(self, case: Case) -> tuple[Method, ...]:
        """All rows in one axis; in two a draw of a truncated Gaussian takes seconds."""
        if case.member.grid.dimension == 1:
            return METHODS
        return tuple(each for each in METHODS if each.treatment != "truncated")

    def trainings(self, case: Case, method: Method, seed: int, context: RunContext) -> list[Training]:
        return [network_training(name, case, seed, context.options.preset) for name in method.box.networks]

    def seeds(self, case: Case, context: RunContext) -> Sequence[int]:
        """Three sets of data and networks for the first member, one for the others and for a trial."""
        several = case.member == self.members[0] and context.options.preset != "smoke"
        return SEEDS if several else SEEDS[:1]

    def train(self, training: Training, context: RunContext) -> None:
        """Trains a neural process."""
        case = next(case for case in self.cases(context) if case.source == training.config.member)
        train_network(training, case, training.config.training.seed // 100, context)

    def score(self, case: Case, method: Method, seed: int, weights: Sequence[Path], _context: RunContext) -> Arrays:
        draws, observed, milliseconds = drawn(case, method, seed, weights)
        truth, positive = observed.truth, observed.truth > POSITIVE
        lower, upper = scores.interval_of_samples(draws, 0.9)
        inside = (truth >= lower) & (truth <= upper)
        arrays = {
            "CE": observed.law.residual(draws)[..., 0].abs().amax(dim=0),
            "MSE": scores.mse(truth, draws.mean(dim=0)),
            "CRPS": scores.crps_of_samples(truth, draws),
            "energy": scores.energy_score(truth, draws),
            "coverage90": inside.double().mean(dim=-1),
            "coverage90_positive": (inside & positive).sum(dim=-1) / positive.sum(dim=-1),
            "draw_milliseconds": truth.new_tensor([milliseconds]),
            "shown_truth": truth[SHOWN],
            "shown_draws": draws[:, SHOWN],
        }
        if case.member.grid.dimension == 2:
            area, true_area = ((u > PLUME).double().mean(dim=-1, keepdim=True) for u in (draws, truth))
            arrays["area_CRPS"] = scores.crps_of_samples(true_area, area)
        return {name: values.numpy() for name, values in arrays.items()}


def draw_fields(case: Case, stored: Stored) -> dict[str, Figure]:
    """One function in one axis: truth, mean, central 90 % and a few draws."""
    methods = {method.key: method for method in METHODS}
    shown = [f"{treatment}{box}" for treatment in ("", "bounded-") for box in BOXES]
    if case.member.grid.dimension != 1 or any((key, 0) not in stored for key in shown):
        return {}
    figure, axes = plots.panels(len(shown), f"{case.label}: without and with the law", columns=len(BOXES))
    for panel, key in zip(axes, shown, strict=True):
        _draw_field(panel, case, methods[key], stored[key, 0])
    plots.legend_below(figure, axes[0], grey=("mean", "90 % band", "draws"))
    return {"fields": figure}


def _draw_field(panel: Axes, case: Case, method: Method, arrays: Arrays) -> None:
    x, draws = case.member.grid.axes[0], arrays["shown_draws"]
    lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
    panel.fill_between(x, lower, upper, color=method.style.colour, alpha=0.25, lw=0, label="90 % band")
    for number, draw in enumerate(draws[:DRAWS]):
        panel.plot(x, draw, color=method.style.colour, lw=0.5, alpha=0.6, label="" if number else "draws")
    panel.plot(x, draws.mean(axis=0), color=method.style.colour, lw=1.6, label="mean")
    panel.plot(x, arrays["shown_truth"], color=plots.TRUTH, lw=1.2, label="truth")
    inside = np.mean((lower <= arrays["shown_truth"]) & (arrays["shown_truth"] <= upper))
    panel.set(xlabel="x")
    panel.set_title(f"{method.label}\n90 % band holds {inside:.0%} of the truth", fontsize=9)


def draw_over_counts(cases: Sequence[Case], records: pd.DataFrame) -> dict[str, Figure]:
    """CRPS under the law and u ≥ 0 over that of the neural process, a panel for every kind of functions.

    Where that was not scored, over that of the first black box.
    """
    members = list(dict.fromkeys(case.member.name for case in cases))
    means = records[records["score"] == "CRPS"].set_index(["method", "case"])["mean"]
    treated = [method for method in METHODS if method.treatment == "bounded" and method.key in means]
    if len({case.count for case in cases}) < 2 or not treated:
        return {}
    reference = next((method for method in treated if method.key == REFERENCE), treated[0])
    table = means[[method.key for method in treated]].unstack("method")
    best = table.idxmin(axis=1).map({method.key: method.box.label for method in treated}).value_counts()
    title = f"Smallest CRPS under the law and u ≥ 0 in {best.iloc[0]} of {len(table)} cases by {best.index[0]}"
    figure, axes = plots.panels(len(members), title, share_y=False, columns=2)
    figure.supylabel(f"CRPS over that of {reference.box.label}", fontsize=10)
    for panel, member in zip(axes, members, strict=True):
        own = {case.key: case.count for case in cases if case.member.name == member}
        for method in treated:
            ratio = (means[method.key] / means[reference.key]).reindex(own)
            panel.plot(list(own.values()), ratio, marker="o", ms=3, color=method.box.colour, label=method.box.label)
        panel.set(title=member, xlabel="observations", xscale="log", yscale="log")
        panel.set_xticks(sorted(own.values()), [str(count) for count in sorted(own.values())])
        panel.set_yticks(RATIOS, [str(ratio) for ratio in RATIOS])
        panel.minorticks_off()
    plots.legend_below(figure, *axes)
    return {"observations": figure}
