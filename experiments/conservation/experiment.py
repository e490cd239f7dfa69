"""The experiment of one conservation problem, of the library or a user's, and the library's five."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.conservation import figures
from experiments.conservation.cases import SIZES, Case, Sizes
from experiments.conservation.methods import Method, methods
from experiments.conservation.networks import STARTS, NetworkPlan, network_config, with_starts
from experiments.conservation.scoring import score_method, score_truth
from experiments.conservation.training import train_network
from experiments.experiment import Data, Preset, RunContext, Stored, Table, Training
from experiments.records.record import Arrays, Record, Source, published
from experiments.records.release import data_version
from experiments.records.table import PAPER
from experiments.records.weights import is_whole
from probconserv.surrogates.gp import GPConfig
from solvers.problems import Problem
from solvers.problems.conservation import ADVECTION, BURGERS, DIFFUSION, POROUS_MEDIUM, STEFAN

SOURCES = {
    "published": (Source.PUBLISHED, "Hansen et al. 2023"),
    "recomputed_as_released": (Source.RECOMPUTED, "weights released by Hansen et al."),
    "recomputed_dropout_off": (Source.RECOMPUTED, "weights released by Hansen et al., dropout off"),
}


@dataclass(frozen=True, kw_only=True)
class ConservationExperiment:
    """Gaussian process, neural processes and their ensemble on one problem, without and with its conservation law.

    Nothing looks the problem up by its name, so it need not be one of the library.

    Args:
        name: Name on the command line; that of the problem by default.
        gp: The Gaussian process that suits it.
        networks: How its neural processes are trained; None for none, which leaves the rows of the Gaussian process.
        data: Where training functions and context points come from, unless the user says otherwise.
        sizes: How much is predicted and scored, by preset.
        version: Version of the data, raised when the problem's functions change; that of the release by default.
    """

    problem: Problem
    name: str = ""
    gp: GPConfig
    networks: NetworkPlan | None = NetworkPlan()  # noqa: RUF009 - a frozen value
    data: Data = "exact"
    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)
    version: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.problem.name)

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=self.data_version,
            cases=self.cases,
            methods=self.methods,
            score=self.score,
            trainings=self.trainings,
            train=self.train,
            figures=self.figures,
            overview_leads=False,
            headline=self.headline,
            published=self.published,
            reference=lambda _: "anp" if self.networks else "gp",
            options=("data",),
        )

    @property
    def data_version(self) -> int:
        return data_version(self.name) if self.version is None else self.version

    def title(self, cases: Sequence[Case]) -> str:
        name, functions = self.name.replace("_", " ").capitalize(), cases[0].sizes.functions
        return f"{name}, t = {self.problem.test_time:g}, {functions} functions, context from {cases[0].data} data"

    def cases(self, context: RunContext) -> list[Case]:
        """One for every test parameter."""
        options = context.options
        return [
            Case(
                problem=self.problem,
                parameter=parameter,
                data=options.data or self.data,
                sizes=self.sizes[options.preset],
                seed=options.seed,
                gp=self.gp,
                data_version=self.data_version,
                data_folder=context.data_folder,
                device=options.device,
            )
            for parameter in self.problem.test_parameters
        ]

    def methods(self, case: Case) -> list[Method]:
        return methods(self.problem, case.data, self.networks.members if self.networks else 0)

    def trainings(self, case: Case, method: Method, seed: int, context: RunContext) -> list[Training]:
        return [self.training(name, seed, case.data, context) for name in with_starts(method.networks)]

    def training(self, name: str, seed: int, data: Data, context: RunContext) -> Training:
        """The training of one network; refuses names that the problem does not have with these data."""
        config = network_config(self.problem, self.networks or NetworkPlan(), name, context.options.preset, data, seed)
        return Training(
            key=name,
            label=f"{name} of {self.name}, {config.training.steps} steps",
            folder=f"{self.name}/networks",
            config=config,
            data_version=self.data_version,
            release=None if seed else f"{self.name}-{name}.safetensors",
        )

    def train(self, training: Training, context: RunContext) -> None:
        """Trains one network after the one that it starts from, see ``train_network``."""
        start, config, weights = STARTS.get(training.key), training.config, None
        if start is not None:
            before = self.training(start, config.training.seed, config.data, context)
            weights = before.weights(context.options.out)
            if not is_whole(weights):
                self.train(before, context)
        train_network(self.problem, training, weights, context)

    def score(self, case: Case, method: Method, _seed: int, weights: Sequence[Path], _context: RunContext) -> Arrays:
        if method.black_box is None:
            return score_truth(case)
        return score_method(case, method, dict(zip(with_starts(method.networks), weights, strict=True)))

    def published(self, case: Case) -> list[Record]:
        """The numbers of Hansen et al. 2023, and those of their released weights."""
        records = []
        for group, (source, note) in SOURCES.items():
            record = partial(Record, experiment=self.name, case=case.key, seed=None, source=source, note=note)
            for method, scores in published("probconserv")[group].get(self.name, {}).get(case.key, {}).items():
                for score, value in scores.items():
                    mean, error = value if isinstance(value, list) else (value, None)
                    records.append(record(method=method, score=score, mean=mean, standard_error=error))
        return records

    def headline(self, _case: Case, records: pd.DataFrame) -> tuple[list[str], list[str]]:
        """The paper's four methods, or those of the Gaussian process without networks; and what needs neither."""
        ours = set(records.loc[~records["source"].isin(PAPER), "method"])
        networks, gp, rivals = (
            [key for key in keys if key in ours] for keys in (figures.PAPER, figures.GP, figures.RIVALS)
        )
        return [*(networks or gp), *rivals], ["CE", "LL", "MSE"]

    def figures(self, case: Case, stored: Stored, context: RunContext) -> dict[str, Figure]:
        """Profiles, totals, scores over time, calibration, context and fronts."""
        seed = context.training_seed
        scored = [(row, stored[row.key, seed]) for row in self.methods(case) if (row.key, seed) in stored]
        return figures.draw_case(case, scored)


FRONTS: dict[str, Any] = {"networks": NetworkPlan(steps=8000, soft_penalty=1e-4), "data": "solver"}
ROUGH = GPConfig(smoothness=0.5, steps=150)  # as released records were made
"""Suits fields with fronts and shocks."""
EXPERIMENTS: dict[str, ConservationExperiment] = {
    entry.name: entry
    for entry in (
        ConservationExperiment(
            problem=DIFFUSION,
            gp=GPConfig(smoothness=2.5, steps=150),
            networks=NetworkPlan(steps=6000, end_weighted=True),
        ),
        ConservationExperiment(problem=POROUS_MEDIUM, gp=ROUGH, **FRONTS),
        ConservationExperiment(problem=STEFAN, gp=ROUGH, **FRONTS),
        ConservationExperiment(problem=ADVECTION, gp=ROUGH),
        ConservationExperiment(problem=BURGERS, gp=ROUGH, networks=NetworkPlan(soft_penalty=1e-4)),
    )
}
