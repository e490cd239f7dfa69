"""Fields of many parameters from few noisy observations, with a known total: surrogates against their rivals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from typing_extensions import override

from experiments.experiment import Experiment, Preset, RunContext, Stored, Training
from experiments.gpme import figures
from experiments.gpme.cases import COUNTS, SIZES, Case, Sizes
from experiments.gpme.functions import MEMBERS, Member
from experiments.gpme.methods import METHODS, Method, drawn
from experiments.gpme.networks import network_training, train_network, train_refined
from experiments.records.record import Arrays, Over
from probconserv import scores
from probconserv.surrogates.refined import RefinedConfig

SEEDS = (0, 1, 2)
POSITIVE, PLUME = 1e-3, 0.2
"""Where a field counts as positive, and where it belongs to a plume."""
IN_TWO_AXES = 50
"""Functions of the validation set and of the test in two axes, where a prediction has thousands of points."""
SHOWN = 0
"""The test function of the figures."""


@dataclass(frozen=True, kw_only=True)
class RandomMediaExperiment(Experiment):
    """Random profiles in random media at several numbers of observations.

    Args:
        members: Kinds of functions.
        counts: Numbers of observations.
    """

    name: str = "gpme"
    members: Sequence[Member] = MEMBERS
    counts: Sequence[int] = COUNTS
    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)

    seeded = True
    over = Over.SEEDS
    shown = ("CE", "MSE", "CRPS", "energy", "coverage90", "coverage90_positive")

    @override
    def title(self, cases: Sequence[Case]) -> str:
        sizes = cases[0].sizes
        return f"Random media: {sizes.test} functions, {sizes.training} to learn from, {sizes.draws} draws each"

    @override
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

    @override
    def methods(self, case: Case) -> tuple[Method, ...]:
        """All rows in one axis; in two a step of training the network on an EmpiricalGP, with dense covariances of all
        cells, takes seconds, and so does a draw of a truncated Gaussian.
        """
        if case.member.grid.dimension == 1:
            return METHODS
        return tuple(each for each in METHODS if each.treatment != "truncated" and each.box.key != "refined")

    @override
    def reference(self, case: Case) -> str:
        return "anp"

    @override
    def trainings(self, case: Case, method: Method, seed: int, context: RunContext) -> list[Training]:
        return [network_training(name, case, seed, context.options.preset) for name in method.box.networks]

    @override
    def seeds(self, case: Case, context: RunContext) -> Sequence[int]:
        """Three sets of data and networks for the first member, one for the others and for a trial."""
        several = case.member == self.members[0] and context.options.preset != "smoke"
        return SEEDS if several else SEEDS[:1]

    @override
    def train(self, training: Training, context: RunContext) -> None:
        """Trains a neural process, or the network on an EmpiricalGP."""
        case = next(case for case in self.cases(context) if case.source == training.config.member)
        make = train_refined if isinstance(training.config.network, RefinedConfig) else train_network
        make(training, case, training.config.training.seed // 100, context)

    @override
    def score(self, case: Case, method: Method, seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
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

    @override
    def headline(self, case: Case, records: pd.DataFrame) -> tuple[Sequence[str], Sequence[str]]:
        return [method.key for method in METHODS if method.treatment in ("", "bounded")], self.shown

    @override
    def figures(self, case: Case, stored: Stored, context: RunContext, folder: Path) -> Mapping[str, Figure]:
        return figures.fields(case, {method.key: method for method in METHODS}, stored)

    @override
    def overview(self, cases: Sequence[Case], records: pd.DataFrame) -> Mapping[str, Figure]:
        return figures.over_counts(cases, METHODS, records)
