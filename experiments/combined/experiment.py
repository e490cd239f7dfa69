"""The experiments on operators under both constraints.

combined               boundary conditions and the law on one ensemble, beside each alone and neither
operator_uncertainty   four kinds of operator uncertainty, before and after the law (Mouli et al. 2024)
end_to_end             training through the update, against the update after training (Utkarsh et al. 2025)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments.combined.cases import SIZES, Case, Sizes, cases_of
from experiments.combined.fields import ADVECTION_FIELDS, DIFFUSION_FIELDS, POROUS_FIELDS, STEFAN_FIELDS, FieldProblem
from experiments.combined.figures import against_shift, profiles
from experiments.combined.methods import (
    AFTER,
    IN_TRAINING,
    Method,
    Methods,
    combined_methods,
    training_methods,
    uncertainty_methods,
)
from experiments.combined.scoring import score_method, score_truth
from experiments.combined.training import FieldTraining, train_operator
from experiments.errors import DataFileError, InvalidArgumentError
from experiments.experiment import Durations, Preset, RunContext, Stored, Training
from experiments.records.published import published
from experiments.records.record import Arrays, Over, Record, Source
from experiments.records.release import data_version
from experiments.records.store import scores_file
from experiments.storage import read_arrays

PROFILES = 2
"""Intervals of which profiles are drawn: the training range and the nearest shift."""


@dataclass(frozen=True, kw_only=True)
class CombinedExperiment:
    """Operators from a parameter to a field with a standard deviation, under boundary conditions, the law, or both.

    Args:
        name: Name on the command line.
        summary: One line for ``list``.
        heading: What its tables show.
        durations: How long each preset takes.
        problems: The problems.
        rows: From the number of members to the methods.
        main: Keys of the methods that the terminal shows and of which profiles are drawn.
        sizes: Sizes by preset.
    """

    name: str
    summary: str
    heading: str
    durations: Durations
    problems: tuple[FieldProblem, ...]
    rows: Methods
    main: tuple[str, ...]
    sizes: Mapping[Preset, Sizes]

    @property
    def over(self) -> Over:
        """Independent groups of trainings."""
        return Over.GROUPS

    @property
    def data_version(self) -> int:
        """The newest version among the problems'; a case's config has that of its problem."""
        return max(data_version(problem.name) for problem in self.problems)

    def title(self, cases: Sequence[Case]) -> str:
        """What is shown, and how many trainings it rests on."""
        sizes = cases[0].sizes
        groups = "one group" if sizes.groups == 1 else f"{sizes.groups} independent groups"
        joined = any(method.joined for method in self.methods(cases[0]))
        return f"{self.heading}; {groups}" + (f", ensembles of {sizes.members}" if joined else "")

    def cases(self, context: RunContext) -> list[Case]:
        """Every problem on every interval of its parameter.

        Raises:
            InvalidArgumentError: If the options choose where data come from.
        """
        if context.options.data is not None:
            raise InvalidArgumentError(
                f"--data means nothing for {self.name}, which trains on the solver; leave it out."
            )
        sizes = self.sizes[context.options.preset]
        return [case for problem in self.problems for case in cases_of(problem, sizes)]

    def methods(self, case: Case) -> tuple[Method, ...]:
        """The truth, and the rows."""
        return self.rows(case.sizes.members)

    def seeds(self, case: Case, context: RunContext) -> range:  # noqa: ARG002
        """Numbers of the groups."""
        return range(case.sizes.groups)

    def trainings(self, case: Case, method: Method, seed: int, context: RunContext) -> list[Training]:
        """The trainings of a group; they take consecutive seeds, those of other runs and groups none of them."""
        if method.network is None:
            return []
        sizes, name = case.sizes, method.network.name
        network = replace(method.network, width=sizes.width, modes=sizes.modes, depth=sizes.depth)
        first = (context.training_seed * sizes.groups + seed) * sizes.members
        trainings = []
        for number in range(first, first + (sizes.members if method.joined else 1)):
            config = FieldTraining(
                data=case.problem.description,
                samples=sizes.samples,
                validation=sizes.validation,
                network=network,
                training=replace(sizes.training, seed=number),
                batch=sizes.batch,
                problem=case.problem,
            )
            trainings.append(
                Training(
                    key=f"{name}-{number}",
                    label=f"{name}-{number}, {case.problem.label}",
                    folder=f"fields/{case.problem.name}",
                    config=config,
                    data_version=data_version(case.problem.name),
                    release=None if seed else f"fields/{case.problem.name}-{name}-{number}.safetensors",
                )
            )
        return trainings

    def train(self, training: Training, context: RunContext) -> None:
        """Trains an operator, or goes on from its checkpoint."""
        train_operator(training, context)

    def score(self, case: Case, method: Method, seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
        """Scores of one group, see ``scoring``."""
        if method.network is None:
            return score_truth(case, context.options.seed)
        return score_method(case, method, seed, weights, context.options.seed)

    def compare(self, case: Case, records: pd.DataFrame) -> list[Record]:
        """The CRPS of training through the update over that of the update after training, of equal seeds."""
        table = records[records["score"] == "CRPS"].pivot_table(index="seed", columns="method", values="mean")
        if not {AFTER, IN_TRAINING} <= set(table):
            return []
        both = table[[AFTER, IN_TRAINING]].dropna()
        ratios = (both[IN_TRAINING] / both[AFTER]).to_list()
        return [self._ratio(case, int(seed), ratio) for seed, ratio in zip(both.index, ratios, strict=True)]

    def published(self, case: Case) -> list[Record]:
        """The ratio of Utkarsh et al., on the training range of their problems."""
        paper = published("probharde2e").get(case.problem.name)
        if not paper or case.number or IN_TRAINING not in [method.key for method in self.methods(case)]:
            return []
        ratio = self._ratio(case, None, paper["in_training"] / paper["after"])
        return [replace(ratio, source=Source.PUBLISHED, note="Utkarsh et al. 2025, on their set-up")]

    def headline(self, case: Case, records: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:  # noqa: ARG002
        """The main methods with CRPS, MSE and coverage."""
        return self.main, ("CRPS", "MSE", "coverage90")

    def figures(self, case: Case, stored: Stored, context: RunContext, folder: Path) -> dict[str, Figure]:
        """With the first interval the scores over all of them; profiles in range and at the nearest shift."""
        drawn, scored = {}, {key for key, _ in stored}
        methods = [method for method in self.methods(case) if method.network is not None and method.key in scored]
        main = [method for method in methods if method.key in self.main and (method.key, 0) in stored]
        if case.number == 0 and methods:
            cases = [replace(case, number=number) for number in range(len(case.problem.intervals))]
            siblings = {one.key: _read_stored(one, stored, folder) for one in cases}
            cases = [one for one in cases if siblings[one.key]]
            drawn["shift"] = against_shift(cases, methods, siblings)
        if case.number < PROFILES and main:
            drawn["profile"] = profiles(case, main, stored, case.parameters(context.options.seed)[:1])
        return drawn

    def overview(self, cases: Sequence[Case], records: pd.DataFrame) -> dict[str, Figure]:  # noqa: ARG002
        """None."""
        return {}

    def _ratio(self, case: Case, seed: int | None, value: float) -> Record:
        return Record(
            experiment=self.name,
            case=case.key,
            method=IN_TRAINING,
            seed=seed,
            score="ratio",
            mean=value,
            standard_error=None,
        )


def _read_stored(case: Case, keys: Stored, folder: Path) -> Stored:
    """What the run stored of a case for these methods and seeds; empty if it left the case out."""
    try:
        return {key: read_arrays(scores_file(folder, case.key, *key)) for key in keys}
    except DataFileError:
        return {}


EXPERIMENTS: dict[str, CombinedExperiment] = {
    entry.name: entry
    for entry in (
        CombinedExperiment(
            name="combined",
            summary="both constraints on one ensemble of operators, beside each alone: porous medium and Stefan",
            heading="Boundary conditions and conservation on one prediction",
            durations={"smoke": "20 s", "laptop": "40 min", "paper": "9000 min", "reproduce": "18 s"},
            problems=(POROUS_FIELDS, STEFAN_FIELDS),
            rows=combined_methods,
            main=("fno", "boon", "probconserv-fno", "probconserv-boon"),
            sizes=SIZES,
        ),
        CombinedExperiment(
            name="operator_uncertainty",
            summary="ensembles, diverse heads and dropout of operators under the law, in range and shifted",
            heading="Uncertainty of operators before and after the conservation law",
            durations={"smoke": "25 s", "laptop": "55 min", "paper": "12000 min", "reproduce": "32 s"},
            problems=(DIFFUSION_FIELDS, POROUS_FIELDS, STEFAN_FIELDS),
            rows=uncertainty_methods,
            main=("ensemble", "probconserv-ensemble", "diverse-heads", "probconserv-diverse-heads"),
            sizes=SIZES,
        ),
        CombinedExperiment(
            name="end_to_end",
            summary="operators trained through the update, against the update after training",
            heading="Training through the update against the update after training",
            durations={"smoke": "25 s", "laptop": "25 min", "paper": "14000 min", "reproduce": "11 s"},
            problems=(DIFFUSION_FIELDS, POROUS_FIELDS, STEFAN_FIELDS, ADVECTION_FIELDS),
            rows=training_methods,
            main=("fno", AFTER, IN_TRAINING),
            sizes=SIZES,
        ),
    )
}
