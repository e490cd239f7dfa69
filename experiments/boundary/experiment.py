"""The boundary-condition experiments as the driver runs them, and the operators that are released."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.boundary import methods as rows
from experiments.boundary.baselines.architectures import EXTRA
from experiments.boundary.cases import BoundaryCase, Versions
from experiments.boundary.data import load_fields
from experiments.boundary.figures import draw_case
from experiments.boundary.methods import Method, methods
from experiments.boundary.operator import ConditionedOperator, load
from experiments.boundary.problems import PROBLEMS
from experiments.boundary.scoring import score_operator, score_truth
from experiments.boundary.training import operator_training, store_of, train_operator
from experiments.errors import NotReleasedError
from experiments.experiment import RunContext, Stored, Table, Training
from experiments.records.record import Arrays, Over, Record, Source, published
from experiments.records.release import data_version, manifest, released_weights

SHOWN = (
    "relative_l2",
    "wall_error",
    "slope_error",
    "slope_error_finer",
    "near_wall_error",
    "total_drift",
    "boundary_relative",
)
"""Scores of tables."""
FINER = 4
"""How many times closer the nodes are on which slopes are scored as well, in one dimension."""
_FILES = {rows.PRESCRIPTION: "fno-output-prescription"}
"""Names of methods in the files of released weights, where they differ from the keys."""


@dataclass(frozen=True, kw_only=True)
class BoundaryExperiment:
    """Operators with and without boundary corrections on the versions of one problem.

    Args:
        problem: Name of the problem; experiments of one problem use each other's trainings.
    """

    name: str
    problem: str
    versions: Versions

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=self.data_version,
            cases=self.cases,
            methods=methods,
            score=self.score,
            seeds=self.seeds,
            trainings=self.trainings,
            train=train_operator,
            figures=self.figures,
            headline=self.headline,
            published=self.published,
            over=Over.SEEDS,
            options=("workers",),
        )

    @property
    def data_version(self) -> int:
        return data_version(self.problem)

    def title(self, cases: Sequence[BoundaryCase]) -> str:
        """The problem, its samples, and what of the set-up is reconstructed."""
        problem, sizes = self.problem.replace("_", " ").capitalize(), cases[0].sizes
        equations = ", ".join(dict.fromkeys(case.source.equation for case in cases))
        parts = ", ".join(dict.fromkeys(case.source.reconstructed for case in cases if case.source.reconstructed))
        note = f"; set-up reconstructed: {parts}" if parts else ""
        seeds = "1 seed" if sizes.seeds == 1 else f"{sizes.seeds} seeds"
        return f"{problem}: {equations}; {sizes.samples} training samples on {sizes.nodes} nodes an axis, {seeds}{note}"

    def cases(self, context: RunContext) -> Sequence[BoundaryCase]:
        return self.versions(context.options.preset)

    def seeds(self, case: BoundaryCase, context: RunContext) -> Sequence[int]:
        return range(context.training_seed, context.training_seed + case.sizes.seeds)

    def trainings(self, case: BoundaryCase, method: Method, seed: int, context: RunContext) -> Sequence[Training]:
        """The one training of an operator; none for the truth."""
        if method.treatment is None:
            return ()
        first = context.training_seed
        seed = seed if method.random else first
        released = method.key in rows.RELEASED and seed == first and self._is_of_problem(case, context)
        training = Training(
            key=f"{case.key}-{seed}",
            label=f"{method.label}, {case.label}, seed {seed}",
            folder=f"{self.problem}/operators",
            config=operator_training(case, method.treatment, first, seed, method.rate),
            data_version=self.data_version,
            release=_released_file(self.problem, case.key, method.key) if released else None,
            missing="" if method.available else EXTRA,
        )
        return (training,)

    def _is_of_problem(self, case: BoundaryCase, context: RunContext) -> bool:
        """Whether a case is one of the problem itself, whose operators are released."""

        def samples(case: BoundaryCase) -> Any:
            return case.key, case.sizes, case.source.describe(case.training_data(context.training_seed))

        versions = PROBLEMS[self.problem].cases if self.problem in PROBLEMS else self.versions
        return samples(case) in map(samples, versions(context.options.preset))

    def score(
        self, case: BoundaryCase, method: Method, _seed: int, weights: Sequence[Path], context: RunContext
    ) -> Arrays:
        store, treatment = store_of(context, self.data_version), method.treatment
        config = case.test_data(context.options.seed)
        test = load_fields(case, config, store)
        if treatment is None:
            return score_truth(case, test)
        fine = None
        if case.axes == 1 and not all(case.periodic):
            fine = load_fields(case, replace(config, nodes=FINER * (config.nodes - 1) + 1), store)
        return score_operator(weights[0], treatment, case, test, fine)

    def published(self, case: BoundaryCase) -> Sequence[Record]:
        """Numbers of Saad et al. for their form of BOON, next to the row of elimination, which lacks its Schur term."""
        entries = [entry for entry in published("boon").get(self.name, []) if case.key in entry["cases"]]
        names = {"experiment": self.name, "case": case.key, "method": rows.WITHOUT_SCHUR, "seed": None}
        quoted = ((entry["relative_l2"], f"{entry['source']}: {entry['setup']}") for entry in entries)
        source = {"score": "relative_l2", "standard_error": None, "source": Source.PUBLISHED}
        return [Record(**names, mean=mean, note=note, **source) for mean, note in quoted]

    def headline(self, _case: BoundaryCase, records: pd.DataFrame) -> tuple[Sequence[str], Sequence[str]]:
        """FNO, the best but BOON on the validation set if such a row was run, forms of elimination, the default."""
        baselines = records[(records["score"] == "validation") & records["method"].isin(rows.BASELINES)]
        best = baselines.sort_values("mean")["method"].head(1)
        published = [rows.ELIMINATION] if (records["method"] == rows.ELIMINATION).any() else []
        with_channels = (records["method"] == rows.WITHOUT_SCHUR_CHANNELS).any()
        eliminated = rows.WITHOUT_SCHUR_CHANNELS if with_channels else rows.WITHOUT_SCHUR
        return list(dict.fromkeys((rows.FNO, *best, *published, eliminated, rows.DEFAULT))), SHOWN

    def figures(self, case: BoundaryCase, stored: Stored, _context: RunContext) -> Mapping[str, Figure]:
        return draw_case(self.problem, case, methods(case), stored)


def load_operator(experiment: str, case: str, method: str = rows.DEFAULT) -> ConditionedOperator:
    """A trained operator that is released: ``load_operator("heat_independent", "single-values")``.

    It is called with input fields and boundary values, whatever its method does with these.

    Args:
        experiment: Name of a boundary-condition experiment.
        case: Key of one of its cases.
        method: Key of a method: ``fno``, ``boon-default``, or a baseline.

    Returns:
        The operator in evaluation mode; without its treatment it is ``.operator``. ``boon.read_notes`` of its
        file says how it was trained.

    Raises:
        NotReleasedError: If it is not released; names the operators that are.
        DataFileError: If the file is damaged.
    """
    weights = manifest()["weights"]
    released = {
        (version.key, entry.key): (name, entry.treatment, version)
        for version in (PROBLEMS[experiment].cases("laptop") if experiment in PROBLEMS else ())
        for entry in methods(version)
        if entry.treatment is not None and (name := _released_file(experiment, version.key, entry.key)) in weights
    }
    if (case, method) not in released:
        raise NotReleasedError(
            f"The operator {experiment}, {case}, {method} is not released. Released: "
            f"{'; '.join(map(' '.join, released)) or 'operators of ' + ', '.join(PROBLEMS)}."
        )
    name, treatment, version = released[case, method]
    return load(released_weights(name), treatment, version)


def _released_file(problem: str, case: str, method: str) -> str:
    """Path of released weights below ``experiments/weights``."""
    return f"operators/{problem}-{case}-{_FILES.get(method, method)}.safetensors"


EXPERIMENTS: dict[str, BoundaryExperiment] = {
    name: BoundaryExperiment(name=name, problem=name, versions=row.cases) for name, row in PROBLEMS.items()
}
