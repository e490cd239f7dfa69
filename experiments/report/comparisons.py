"""A problem without its constraint, the strongest rival, and ours: tables of README and of the summary, from records.

A family declares once what is *ours*, before it is scored, and what says that a method imposes the constraint, on
whatever base. Then

* *without* is the same base without the constraint, given the same data where such a row was scored;
* the *strongest rival* is the method of another kind with the least error among all that were scored, given the same
  data or less: all but the truth and those that impose the constraint;
* the *other base* is the best of the methods that impose the same constraint on another base;
* the verdict is that of the paired difference between ours and the rival, corrected for the rows of the table. Where it
  is no difference and one of a factor ``VISIBLE`` could not have been seen, the case is undecided.

Means are over the seeds that both methods have.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.records.paired import EQUAL, LEVEL, LOSES, WINS, Difference, paired_difference, verdicts
from experiments.records.record import TRUTH, mean_and_error
from experiments.records.release import released_names, released_results
from experiments.report.families import DECISIVE, FAMILIES, LAWS, OF_THE_PAPERS, OPERATORS, PAPERS, Family, Row
from experiments.report.results import Results
from experiments.report.tables import markdown, results_of, score_of

WINDOWS = tuple(f"windows-{count}" for count in (2, 4, 8, 16))
DECIDED_AT = "windows-8"
VISIBLE = 1.5
"""Ratio of errors that a case must be able to show, else it is undecided."""
UNDECIDED = "undecided"


class Standing(NamedTuple):
    """A method beside ours, over the seeds that both have: its mean error, and the ratio to that of ours."""

    key: str
    mean: float
    ratio: float


class Compared(NamedTuple):
    """A case as it is compared.

    Args:
        without: The base without the constraint.
        rival: The strongest rival, of those given the same data and of those given less.
        informed: The strongest that was given the same data, if there is one.
        other: The best other base under the constraint, if there is one.
        apart: Ours less the rival's.
    """

    without: Standing
    rival: Standing
    informed: Standing | None
    other: Standing | None
    apart: Difference

    def said(self, verdict: str, rows: int) -> str:
        """The verdict, or that a difference could not have been seen in a table of so many rows."""
        ours = self.rival.mean / self.rival.ratio
        blind = self.apart.smallest_seen(LEVEL / rows) > (VISIBLE - 1.0) * ours
        return UNDECIDED if verdict == EQUAL and blind else verdict


def compared(
    family: Family, scores: pd.DataFrame, means: pd.Series, information: Mapping[str, str] | None = None
) -> Compared:
    """Compares our method of one case with its base and its rivals.

    Args:
        family: What is ours, and what imposes the constraint.
        scores: The error by seed and function, a column per method, with gaps where a seed was not scored.
        means: Mean errors by method, for those without errors per function.
        information: What methods see, by key.
    """
    ours = scores.get(family.ours, pd.Series(np.nan, index=scores.index))

    def standing(key: str) -> Standing:
        both = pd.DataFrame({"one": scores.get(key, np.nan * ours), "ours": ours}).dropna()
        one, our = (means[key], means[family.ours]) if both.empty else both.mean()
        return Standing(key, float(one), float(one / our))

    keys = [key for key in means.dropna().index if key != TRUTH and not re.fullmatch(family.constrained, key)]
    rivals = sorted(map(standing, keys), key=lambda each: each.ratio)
    same = [each for each in rivals if _is_informed(family, each.key, information or {})]
    others = [standing(key) for key in means.dropna().index if key != family.ours and re.fullmatch(family.others, key)]
    bases = [standing(key) for key in family.without if key in keys]
    without = min(bases, key=lambda each: each.ratio) if family.chooses else bases[0]
    return Compared(
        without,
        rivals[0],
        same[0] if same else None,
        min(others, key=lambda each: each.ratio) if others else None,
        paired_difference(ours, scores.get(rivals[0].key, np.nan * ours)),
    )


def _is_informed(family: Family, key: str, information: Mapping[str, str]) -> bool:
    """Whether a method sees the constraint's data if ours does."""
    its, ours = (re.search(family.informed, information.get(each, "")) is not None for each in (key, family.ours))
    return its >= ours


@cache
def _compared(experiment: str, case: str, score: str) -> Compared:
    results = results_of(experiment)
    means = pd.Series({key: score_of(results, case, key, score)[0] for key in results.description.methods})
    return compared(FAMILIES[experiment], _by_function(experiment, case, score), means, results.description.information)


def _by_function(experiment: str, case: str, score: str) -> pd.DataFrame:
    """A score by seed and function, a column per method."""
    stored = released_results(experiment).scores
    every = stored[stored["case"] == case].set_index(["seed", "function", "method"])
    return every[score].unstack("method").dropna(axis=1, how="all") if score in every else pd.DataFrame()


def laws() -> pd.DataFrame:
    """Continuous ranked probability score, coverage of the 90 % band and residual of the law."""
    rows = []
    for row, line in zip(LAWS, _lines(LAWS), strict=True):
        covered = "coverage90_positive" if row.experiment == "gpme" else "coverage90"
        before, after = (_percent(value) for value in _pair(row, covered))
        rows.append(line | {"90 % band": f"{before} → {after}"} | _missed(row))
    return pd.DataFrame(rows)


def operators() -> pd.DataFrame:
    """Relative L2 of rollouts under a balance and of operators with boundary conditions, and what they miss it by."""
    lines = zip(OPERATORS, _lines(OPERATORS), strict=True)
    return pd.DataFrame([line | _missed(row) for row, line in lines])


def decisive() -> str:
    """README's rows: one or two of every way to use the library."""
    rows = []
    for row, line in zip(DECISIVE, _lines(DECISIVE), strict=True):
        rows.append(line | {"problem": f"{row.label}: {_heading(_score_of(row))}"})
    return markdown(pd.DataFrame(rows))


def papers() -> str:
    """The papers' problems with the papers' numbers, printed or recomputed: mean squared error, relative L2."""
    rows = []
    for row, line in zip(PAPERS, _lines(PAPERS, "MSE"), strict=True):
        family, score = FAMILIES[row.experiment], _score_of(row, "MSE")
        del line["without"]
        rows.append(line | {"problem": f"{row.label}: {_heading(score)}", "paper": _of_paper(row, family, score)})
    return markdown(pd.DataFrame(rows))


def _of_paper(row: Row, family: Family, score: str) -> str:
    """The paper's number of a method that imposes the constraint, and where it is from."""
    papers = results_of(row.experiment).description.published
    named = papers[(papers["case"] == row.case) & (papers["score"] == score)]
    found = named[[re.fullmatch(family.constrained, key) is not None for key in named["method"]]]
    return f"{_digits(found['mean'].iloc[0])}, {found['source'].iloc[0].value}"


RATIOS = {"without": "without", "rival": "rival", "informed": "informed rival", "other": "other base"}
"""Columns of medians of errors over ours."""


def counts() -> str:
    """A sentence with the numbers of wins and losses over all cases, and how many of them the papers' problems have."""
    said = [(row.experiment in OF_THE_PAPERS, verdict) for rows in _families().values() for row, _, verdict in rows]
    every, papers = (
        {kind: sum(verdict == kind for _, verdict in part) for kind in (WINS, LOSES, EQUAL, UNDECIDED)}
        for part in (said, [each for each in said if each[0]])
    )
    return textwrap.fill(
        f"In {len(said)} cases against the strongest method of another kind, ours wins {every[WINS]} and loses "
        f"{every[LOSES]}; {every[EQUAL]} show no difference, and {every[UNDECIDED]} have too few functions to tell. On "
        f"the two papers' own problems, which have a few random numbers, it wins {papers[WINS]} and loses "
        f"{papers[LOSES]} of {sum(papers.values())}.",
        width=124,
    )


def _families() -> dict[str, list[tuple[Row, Compared, str]]]:
    """All cases with their comparisons and verdicts, by the label of their family."""
    grouped: dict[str, list[Row]] = {}
    for name, family in FAMILIES.items():
        if name in released_names():
            grouped.setdefault(family.label, []).extend(Row("", name, case) for case in _cases(name))
    judged = {}
    for label, rows in grouped.items():
        found = [_compared(row.experiment, row.case, _score_of(row)) for row in rows]
        plain = verdicts([each.apart for each in found])
        said = [each.said(verdict, len(found)) for each, verdict in zip(found, plain, strict=True)]
        judged[label] = list(zip(rows, found, said, strict=True))
    return judged


def every_case() -> pd.DataFrame:
    """All cases of every family: verdicts against the strongest rival, and medians of errors over ours."""
    lines = []
    for label, judged in _families().items():
        rows, found, said = zip(*judged, strict=True)
        line = {"problems": label, "ours": _short(results_of(rows[0].experiment), FAMILIES[rows[0].experiment].ours)}
        line |= {"cases": str(len(rows)), **{kind: str(said.count(kind)) for kind in (WINS, LOSES, EQUAL, UNDECIDED)}}
        for kind, heading in RATIOS.items():
            ratios = [standing.ratio for each in found if (standing := getattr(each, kind)) is not None]
            line[heading] = _times(float(np.median(ratios))) if ratios else "—"
        lines.append(line)
    return pd.DataFrame(lines)


def query_laws() -> str:
    """CRPS over the number of windows, and at ``DECIDED_AT`` the score of a decision."""
    name, lines = "query_laws", list[dict[str, str]]()
    results, ours = results_of(name), FAMILIES[name].ours
    cases = {case: case.removeprefix("windows-") for case in results.description.cases if case in WINDOWS}
    crps = {case: _by_function(name, case, "CRPS") for case in cases}
    brier = _by_function(name, DECIDED_AT, "Brier")
    for key, label in results.description.methods.items():
        if key.startswith("bounded-"):
            continue
        line = {"CRPS": f"**{label}**" if key == ours else label}
        line |= {
            f"K = {cases[case]}": _digits(crps[case][key].mean(), 3) if key in crps[case] else "—" for case in cases
        }
        lines.append(line | {f"Brier, {cases[DECIDED_AT]}": _digits(brier[key].mean())})
    return markdown(pd.DataFrame(lines))


def _cases(experiment: str) -> list[str]:
    """The cases in which our method was scored, with a base without the constraint."""
    family, results = FAMILIES[experiment], results_of(experiment)
    scored = results.numbers[family.score].dropna()
    return [
        case
        for case in results.description.cases
        if (case, family.ours) in scored and any((case, key) in scored for key in family.without)
    ]


def _heading(score: str) -> str:
    return {"MSE": "MSE", "CRPS": "CRPS"}.get(score, "L2")


def _score_of(row: Row, of_predictions: str = "CRPS") -> str:
    score = FAMILIES[row.experiment].score
    return of_predictions if score == "CRPS" else score


def _lines(rows: Sequence[Row], of_predictions: str = "CRPS") -> list[dict[str, str]]:
    """Errors without, of the strongest rival and of ours, and the verdict."""
    found = [_compared(row.experiment, row.case, _score_of(row, of_predictions)) for row in rows]
    lines = []
    for row, each, verdict in zip(rows, found, verdicts([each.apart for each in found]), strict=True):
        said = each.said(verdict, len(rows))
        said += f" ({each.apart.functions} functions)" if said == UNDECIDED else ""
        results, family = results_of(row.experiment), FAMILIES[row.experiment]
        ours = _by_function(row.experiment, row.case, _score_of(row, of_predictions)).get(family.ours)
        mean, error = (
            score_of(results, row.case, family.ours, _score_of(row, of_predictions))
            if ours is None
            else _over_seeds(ours)
        )
        lines.append(
            {
                "problem": row.label,
                "without": f"{_digits(each.without.mean, 3)} ({_short(results, each.without.key)})",
                "strongest rival": f"{_digits(each.rival.mean, 3)} ({_short(results, each.rival.key)})",
                "other base, same law": "—"
                if each.other is None
                else f"{_digits(each.other.mean, 3)} ({_short(results, each.other.key)})",
                "ours": _with_error(mean, error),
                "gain": f"{_times(each.rival.ratio)}, {said}",
            }
        )
    return lines


def _over_seeds(ours: pd.Series) -> tuple[float, float]:
    """Mean and standard error: over seeds where there are several, else over functions."""
    by_seed = ours.groupby("seed").mean()
    mean, error = mean_and_error((by_seed if len(by_seed) > 1 else ours).to_numpy())
    return mean, error or 0.0


def _pair(row: Row, score: str) -> tuple[float, float]:
    """A score without the constraint and with it."""
    results, without = results_of(row.experiment), _compared(row.experiment, row.case, _score_of(row)).without.key
    before, after = (score_of(results, row.case, key, score)[0] for key in (without, FAMILIES[row.experiment].ours))
    return before, after


def _missed(row: Row) -> dict[str, str]:
    before, after = _pair(row, FAMILIES[row.experiment].residual)
    if np.isnan(before):
        return {"misses it by": "—"}
    return {"misses it by": f"{_digits(before)} → {_digits(after) if after > 1e-7 else '0'}"}


def _short(results: Results, key: str) -> str:
    """Name of a method, and whether it lacks information that ours has."""
    described = results.description
    informed = _is_informed(FAMILIES[results.name], key, described.information)
    return described.methods[key].replace(" (", ", ").replace(")", "") + ("" if informed else ", uninformed")


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _times(gain: float) -> str:
    return f"{gain:.2f} ×" if gain >= 0.005 else "< 0.01 ×"


def _with_error(mean: float, error: float) -> str:
    return f"{_digits(mean, 3)} ± {_digits(error)}" if error > 0 else _digits(mean, 3)


def _digits(value: float, count: int = 2) -> str:
    """``count`` significant digits."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.{count - 1}e}".replace("e-0", "e-")
    return f"{value:.{count}g}"
