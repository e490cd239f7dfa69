"""What an experiment on operators under both constraints consists of: cases, rows, groups of trainings."""

from collections.abc import Callable
from dataclasses import dataclass

from boon import Correction
from experiments.field_cases import FieldCase
from experiments.field_config import FieldSizes
from experiments.field_models import Network
from experiments.tables import Row
from experiments.train_field import FieldTraining
from experiments.train_operator import slug

Found = dict[str, list[dict[str, float]]]
"""By method one entry per group: one number per score."""
Compare = Callable[[FieldCase, str, list[Row], Found], list[Row]]


@dataclass(frozen=True, kw_only=True)
class FieldMethod:
    """One row.

    Args:
        name: Name in tables.
        network: What is trained.
        joined: Whether a group is an ensemble of trainings, else a single one.
        bounded: The correction of a BOON that is put around the operators after training; None for none.
        conserved: Whether the prediction is conditioned on the law.
        correlated: Whether what is joined has the covariance of its members, else their variances alone.
    """

    name: str
    network: Network
    joined: bool = False
    bounded: Correction | None = None
    conserved: bool = False
    correlated: bool = False


def as_they_are(case: FieldCase, label: str, rows: list[Row], found: Found) -> list[Row]:  # noqa: ARG001
    """Rows with nothing to compare."""
    return rows


@dataclass(frozen=True, kw_only=True)
class FieldStudy:
    """An experiment.

    Args:
        name: Name on the command line.
        title: What its tables show.
        cases: The problems.
        methods: From the sizes to the rows.
        compare: From case, name of the interval, its rows, and the scores of all groups to rows that compare them.
        drawn: Methods whose profiles are drawn; all if empty.
    """

    name: str
    title: str
    cases: tuple[FieldCase, ...]
    methods: Callable[[FieldSizes], tuple[FieldMethod, ...]]
    compare: Compare = as_they_are
    drawn: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Group:
    """The trainings of one method in one of several independent repetitions.

    Args:
        case: The case.
        method: The method.
        number: Number of the repetition, from 0.
        trainings: Its trainings.
    """

    case: FieldCase
    method: FieldMethod
    number: int
    trainings: tuple[FieldTraining, ...]

    @property
    def key(self) -> str:
        """Name in files."""
        return f"{self.case.name}-{slug(self.method.name)}-{self.number}"


def groups(study: FieldStudy, sizes: FieldSizes, seed: int) -> list[Group]:
    """All groups of a study, case by case and method by method.

    Args:
        study: The study.
        sizes: Its sizes.
        seed: Seed of the run. Its trainings take consecutive seeds, those of other runs none of them.
    """
    found = []
    for case in map(sizes.sized, study.cases):
        for method in study.methods(sizes):
            for number in range(sizes.groups):
                first = (seed * sizes.groups + number) * sizes.members
                seeds = range(first, first + (sizes.members if method.joined else 1))
                trainings = tuple(sizes.field_training(case, method.network, own) for own in seeds)
                found.append(Group(case=case, method=method, number=number, trainings=trainings))
    return found
