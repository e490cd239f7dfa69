"""Which correction shall be the default: candidates of one family, trained alike and ranked by validation alone."""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import boon
from experiments.errors import TrainingDivergedError, UnknownNameError
from experiments.operator_config import OperatorCase
from experiments.operator_methods import Method, candidates
from experiments.operator_run import training_identities
from experiments.runs import Run
from experiments.train_operator import Place, trained_operator

Scores = Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class ChoiceConfig:
    """Everything that decides a choice.

    Args:
        problem: Name of the experiment.
        seed: Seed of the samples, and of the first training.
        operators: Identity of every training by case, candidate and seed.
    """

    problem: str
    seed: int
    operators: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Validation scores of the candidates of one case.

    Args:
        case: Label of the case.
        scores: Relative L2 on the samples held out by candidate, one per seed; infinite where the training failed.
    """

    case: str
    scores: Scores

    @property
    def ranking(self) -> list[str]:
        """The candidates, the best first."""
        return rank(self.scores)

    def as_json(self) -> dict[str, Any]:
        """The case and its scores as JSON can hold them: None where the training failed."""
        finite = {name: [v if math.isfinite(v) else None for v in values] for name, values in self.scores.items()}
        return {"case": self.case, "validation": finite}

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Choice":
        """The inverse of ``as_json``."""
        scores = {
            name: [math.inf if v is None else float(v) for v in values]
            for name, values in content["validation"].items()
        }
        return Choice(case=content["case"], scores=scores)


def _score(case: OperatorCase, method: Method, place: Place, seed: int) -> float:
    """Validation score; a training that diverges is said on standard error and ranks last."""
    try:
        path = trained_operator(case, method, place, seed)
    except (TrainingDivergedError, boon.SingularKernelError) as error:
        print(f"Candidate '{method.name}' failed on {case.label}: {error}", file=sys.stderr)
        return math.inf
    return boon.read_notes(path)["history"][-1]["relative_l2"]


def rank(scores: Scores) -> list[str]:
    """Names in the order of their mean validation score, the lowest first; nothing else is looked at.

    Args:
        scores: Validation scores by name, one per seed.
    """
    return sorted(scores, key=lambda name: fmean(scores[name]))


def wins(choices: Sequence[Choice]) -> dict[str, int]:
    """How often each candidate comes first, channels and circle aside, the most frequent first; none that failed."""
    first = (choice.ranking[0] for choice in choices if math.isfinite(fmean(choice.scores[choice.ranking[0]])))
    counts = Counter(name.split(",")[0] for name in first)
    return dict(counts.most_common())


def choose(cases: Sequence[OperatorCase], place: Place, seeds: int = 1, only: Sequence[str] = ()) -> list[Choice]:
    """Trains the candidates of every case and stores their validation scores; test samples are never made.

    Args:
        cases: The cases.
        place: Where trainings live and run.
        seeds: Trainings of every candidate.
        only: Names of the candidates to train; all by default.

    Raises:
        UnknownNameError: If a name in ``only`` is none of the candidates of any case.
    """
    run = choice_run(cases, place, seeds, only)
    run.open()
    choices = [
        Choice(
            case=case.label,
            scores={
                method.name: [_score(case, method, place, seed) for seed in _numbers(place, seeds)]
                for method in _chosen(case, only)
            },
        )
        for case in cases
    ]
    run.finish({"experiment": run.name, "cases": [choice.as_json() for choice in choices]})
    return choices


def choice_run(cases: Sequence[OperatorCase], place: Place, seeds: int = 1, only: Sequence[str] = ()) -> Run:
    """The stored run of ``choose`` with the same arguments, whether it was made or not.

    Raises:
        UnknownNameError: As ``choose``.
    """
    known = dict.fromkeys(method.name for case in cases for method in candidates(case))
    unknown = [name for name in only if name not in known]
    if unknown:
        raise UnknownNameError(f"There is no candidate '{unknown[0]}'. Known: {'; '.join(known)}.")
    numbers = _numbers(place, seeds)
    jobs = ((case.name, case, method, n) for case in cases for method in _chosen(case, only) for n in numbers)
    operators = training_identities(jobs, place.data_seed)
    config = ChoiceConfig(problem=place.experiment, seed=place.data_seed, operators=operators)
    return Run(f"{place.experiment}-choice", config, place.out)


def _chosen(case: OperatorCase, only: Sequence[str]) -> list[Method]:
    return [method for method in candidates(case) if not only or method.name in only]


def _numbers(place: Place, seeds: int) -> range:
    return range(place.data_seed, place.data_seed + seeds)
