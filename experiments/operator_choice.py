"""Which correction shall be the default: candidates of one family, trained alike and ranked by validation alone."""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import boon
from experiments.errors import TrainingDivergedError, UnknownNameError
from experiments.operator_config import OperatorCase
from experiments.operator_methods import Method, candidates
from experiments.train_operator import Place, trained_operator

Scores = Mapping[str, Sequence[float]]


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

    @property
    def finite(self) -> dict[str, list[float | None]]:
        """The scores as JSON can hold them: None where the training failed."""
        return {name: [v if math.isfinite(v) else None for v in values] for name, values in self.scores.items()}


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
    """Trains the candidates of every case and reads their validation scores; test samples are never made.

    Args:
        cases: The cases.
        place: Where trainings live and run.
        seeds: Trainings of every candidate.
        only: Names of the candidates to train; all by default.

    Raises:
        UnknownNameError: If a name in ``only`` is none of the candidates of any case.
    """
    known = dict.fromkeys(method.name for case in cases for method in candidates(case))
    unknown = [name for name in only if name not in known]
    if unknown:
        raise UnknownNameError(f"There is no candidate '{unknown[0]}'. Known: {'; '.join(known)}.")
    return [_choice(case, place, seeds, only) for case in cases]


def _choice(case: OperatorCase, place: Place, seeds: int, only: Sequence[str]) -> Choice:
    scores = {}
    for method in candidates(case):
        if not only or method.name in only:
            numbers = range(place.data_seed, place.data_seed + seeds)
            scores[method.name] = [_score(case, method, place, seed) for seed in numbers]
    return Choice(case=case.label, scores=scores)
