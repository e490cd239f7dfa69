"""Laws that are known only with the query: the update against rivals that are given them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments import plots
from experiments.experiment import Preset, RunContext, Stored, Table, Training
from experiments.gpme.cases import SIZES, Case, Sizes
from experiments.gpme.experiment import POSITIVE, SEEDS
from experiments.gpme.functions import MEMBERS, Member
from experiments.gpme.networks import network_training
from experiments.gpme.networks import train_network as train_process
from experiments.gpme.queries.cases import QueryCase, rays, windows
from experiments.gpme.queries.methods import METHODS, OURS, Method, drawn
from experiments.gpme.queries.network import COUNTS, WindowConfig, train_network, validation_curve, window_training
from experiments.records.record import Arrays, Over
from experiments.records.release import data_version
from experiments.stages import take_released
from probconserv import scores

VALUES = 5
"""Noisy values of every function."""
ERROR = 0.01
"""Deviation of the averages' errors where they have any: a tenth of a common mass in a window."""
IN_TWO_AXES = 50
"""Functions of the validation set and of the test on the square, where a prediction has a thousand points."""
DRAWN = ("identity", "identity-search", "esmda", "network", "law-gaussian", "law-anp", OURS)
"""Lines of the figure."""
SHOWN = ("CRPS", "energy", "Brier", "coverage90", "coverage90_positive", "law_residual")
"""Scores of tables."""
TICKS = {"CRPS": (0.006, 0.01, 0.02, 0.04), "Brier": (0.001, 0.003, 0.01, 0.03, 0.1)}


@dataclass(frozen=True, kw_only=True)
class QueryLawExperiment:
    """Random media and plumes seen at five places, under laws that are drawn with the query.

    Args:
        line: Functions on an interval, with windows.
        square: Functions on a square, with rays.
    """

    name: str = "query_laws"
    line: Member = MEMBERS[0]
    square: Member = MEMBERS[2]
    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=data_version("gpme"),
            cases=self.cases,
            methods=self.methods,
            score=self.score,
            seeds=self.seeds,
            trainings=self.trainings,
            train=self.train,
            figures=self.figures,
            overview=self.overview,
            shown=SHOWN,
            reference=lambda _: OURS,
            over=Over.SEEDS,
            seeded=True,
        )

    def title(self, cases: Sequence[QueryCase]) -> str:
        sizes = cases[0].base.sizes
        return f"Laws known only with the query: {VALUES} values, {sizes.test} queries, {sizes.draws} draws each"

    def cases(self, context: RunContext) -> list[QueryCase]:
        sizes = self.sizes[context.options.preset]
        few = replace(sizes, validation=min(IN_TWO_AXES, sizes.validation), test=min(IN_TWO_AXES, sizes.test))
        line, square = (
            Case(member=member, count=VALUES, sizes=size, seed=context.options.seed, folder=context.data_folder)
            for member, size in ((self.line, sizes), (self.square, few))
        )
        cases = [QueryCase(base=line, rows=windows, laws=count) for count in (2, 4, 8, 16)]
        cases += [QueryCase(base=line, rows=windows, laws=4, empty=True)]
        cases += [QueryCase(base=line, rows=windows, laws=4, error=ERROR)]
        return cases + [QueryCase(base=square, rows=rays, laws=count) for count in (4, 16)]

    def methods(self, case: QueryCase) -> list[Method]:
        """All rows; the network knows windows alone, and bounds are tried under few exact laws."""
        rows = [row for row in METHODS if case.rows is windows or "windows" not in row.networks]
        return [row for row in rows if row.imposed is not None or case.is_bounded]

    def seeds(self, case: QueryCase, context: RunContext) -> Sequence[int]:
        """Three sets of functions for windows of all numbers, one for their variants, on the square and for a trial."""
        several = case.rows is windows and not (case.error or case.empty) and context.options.preset != "smoke"
        return SEEDS if several else SEEDS[:1]

    def trainings(self, case: QueryCase, method: Method, _seed: int, context: RunContext) -> list[Training]:
        """Networks of the functions of seed 0, whatever functions are asked for."""
        preset = context.options.preset
        if method.missing:
            return [
                Training(
                    key=method.key, label=method.label, folder="", config="", data_version=0, missing=method.missing
                )
            ]
        return [
            window_training(case, preset) if name == "windows" else network_training(name, case.base, 0, preset)
            for name in method.networks
        ]

    def train(self, training: Training, context: RunContext) -> None:
        """Trains the network on windows; takes the released neural process, or trains it where there is none."""
        if isinstance(training.config, WindowConfig):
            train_network(training, self.cases(context)[0], context)
        elif not take_released(training, context):
            bases = (case.base for case in self.cases(context))
            train_process(training, next(base for base in bases if base.member == training.config.member), 0, context)

    def score(
        self, case: QueryCase, method: Method, seed: int, weights: Sequence[Path], _context: RunContext
    ) -> Arrays:
        draws, observed, milliseconds = drawn(case, method, seed, weights)
        truth, positive = observed.truth, observed.truth > POSITIVE
        lower, upper = scores.interval_of_samples(draws, 0.9)
        inside = (truth >= lower) & (truth <= upper)
        region, threshold = case.decision(seed)
        exceeds = ((draws @ region) > threshold).double().mean(dim=0)
        arrays = {
            "CRPS": scores.crps_of_samples(truth, draws),
            "energy": scores.energy_score(truth, draws),
            "Brier": (exceeds - ((truth @ region) > threshold).double()).square(),
            "coverage90": inside.double().mean(dim=-1),
            "coverage90_positive": (inside & positive).sum(dim=-1) / positive.sum(dim=-1),
            "law_residual": observed.law.residual(draws).abs().amax(dim=(0, 2)),
            "draw_milliseconds": truth.new_tensor([milliseconds]),
        }
        if method.key == "network":
            arrays |= validation_curve(weights[0])
        return {name: values.numpy() for name, values in arrays.items()}

    def figures(self, case: QueryCase, stored: Stored, _context: RunContext) -> Mapping[str, Figure]:
        """The validation of the trained network, once."""
        if case.key != "windows-2" or ("network", 0) not in stored:
            return {}
        arrays = stored["network", 0]
        figure, (panel,) = plots.panels(1, "Network on windows: CRPS of validation functions", width=1.4)
        for count, curve in zip(COUNTS, arrays["curve"].T, strict=True):
            panel.plot(arrays["curve_steps"], curve, label=f"{count} windows")
        panel.set(xlabel="steps", ylabel="CRPS", yscale="log")
        plots.legend_below(figure, panel)
        return {"validation": figure}

    def overview(self, cases: Sequence[QueryCase], records: pd.DataFrame) -> Mapping[str, Figure]:
        """CRPS and Brier score over the number of windows, a line per rival."""
        own = {case.key: case.laws for case in cases if case.rows is windows and not (case.error or case.empty)}
        means = records.set_index(["score", "method", "case"])["mean"].sort_index()
        if len(own) < 2:
            return {}
        present = {entry[:2] for entry in means.index}
        figure, axes = plots.panels(2, "Laws known only with the query", share_y=False, width=1.15)
        labels = {method.key: method for method in METHODS}
        for panel, score in zip(axes, ("CRPS", "Brier"), strict=True):
            for key in (key for key in DRAWN if (score, key) in present):
                values, method = means.xs((score, key)).reindex(list(own)), labels[key]
                thick = 2.4 if key == OURS else 1.2
                panel.plot(
                    list(own.values()), values, "o-", ms=4, lw=thick, color=method.style.colour, label=method.label
                )
            panel.set(xlabel="window masses known with the query", ylabel=score, xscale="log")
            panel.set_yscale("log" if (means[score] > 0).all() else "linear")
            panel.set_xticks(list(own.values()), [str(count) for count in own.values()])
            panel.set_yticks(TICKS[score], [f"{tick:g}" for tick in TICKS[score]])
            panel.minorticks_off()
        plots.legend_below(figure, *axes)
        return {"over-laws": figure}
