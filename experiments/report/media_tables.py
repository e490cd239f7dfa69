"""Tables of random media: black boxes as rows, numbers of observations as columns."""

import pandas as pd

from experiments.records.record import TRUTH
from experiments.records.release import released_results
from experiments.records.scores import SCORES
from experiments.records.table import format_score
from experiments.report.tables import markdown, paired_ratio, results_of

NAME = "gpme"
REFERENCE = "anp"
TREATED = ("", "law-", "bounded-")
"""Without the law, under it, and under it and u ≥ 0."""
BOUNDS = ("law-empirical", "bounded-empirical", "alike-empirical", "jointly-empirical", "truncated-empirical")


def over_counts(member: str, score: str) -> str:
    """One score of every black box: without the law → under it → under it and u ≥ 0, means over functions and seeds."""
    means, methods, rows = results_of(NAME).numbers[score], results_of(NAME).description.methods, []
    stated = {key: float(mean) for key, mean in means.dropna().items()}
    for box in _boxes(member):
        row = {SCORES[score].title: methods[box]}
        for case in _cases(member):
            found = [stated.get((case, f"{treatment}{box}")) for treatment in TREATED]
            row[_column(case)] = " → ".join("—" if value is None else format_score(value, None) for value in found)
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def paired(member: str) -> str:
    """Mean CRPS under the law and u ≥ 0 over that of the neural process, and their difference in standard errors.

    The difference is that of a function by both, over all functions and seeds; below 1 and negative is better.
    """
    scores = released_results(NAME).scores.set_index(["case", "method", "seed", "function"])["CRPS"]
    methods, rows = results_of(NAME).description.methods, []
    for box in _boxes(member):
        row = {"CRPS over that of the ANP": methods[box]}
        for case in _cases(member):
            ours, theirs = (scores.loc[case].get(f"bounded-{key}", pd.Series(dtype=float)) for key in (box, REFERENCE))
            both = pd.concat([ours, theirs], axis="columns", join="inner").to_numpy()
            if box == REFERENCE or len(both) < 2:
                row[_column(case)] = "1" if len(both) else "—"
                continue
            row[_column(case)] = paired_ratio(both)
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def beside(name: str, score: str, ours: str) -> str:
    """One score of all methods, cases as rows, and how far each is from ours in paired standard errors.

    Differences are means over trainings of one function, and their errors those over the functions; positive is worse.
    True draws, and methods that were not scored on all functions, are left out.
    """
    described, rows = results_of(name).description, []
    scores = released_results(name).scores.groupby(["case", "method", "function"])[score].mean().unstack()
    for case, label in described.cases.items():
        found = pd.DataFrame(scores.loc[case]).dropna().T
        means, apart = found.mean(), found.sub(found[ours], axis="index")
        errors = apart.mean() / apart.sem()
        row = {SCORES[score].title: label}
        for method, heading in described.methods.items():
            if method not in means.index or method == TRUTH:
                continue
            text = format_score(float(means[method]), None)
            row[heading] = f"**{text}**" if means[method] == means.drop(TRUTH, errors="ignore").min() else text
            row[heading] += "" if method == ours else f" ({errors[method]:+.1f})"
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def bounds(case: str) -> str:
    """What ways of meeting a bound do to the EmpiricalGP under the law, on one kind and number of observations."""
    frame, methods, rows = results_of(NAME).numbers, results_of(NAME).description.methods, []
    shown = {"CRPS": "CRPS", "energy": "energy score", "MSE": "MSE", "coverage90_positive": "cover 90 % where u > 0"}
    for key in BOUNDS:
        row = {"EmpiricalGP": methods[key].removeprefix("EmpiricalGP + ")}
        row |= {heading: format_score(float(frame[score][case, key]), None) for score, heading in shown.items()}
        rows.append(row | {"ms a draw": f"{frame['draw_milliseconds'][case, key]:.2g}"})
    return markdown(pd.DataFrame(rows))


def _cases(member: str) -> list[str]:
    return [case for case in results_of(NAME).description.cases if case.rpartition("-")[0] == member]


def _boxes(member: str) -> list[str]:
    """Black boxes that were scored on a kind of functions."""
    methods, scored = results_of(NAME).description.methods, results_of(NAME).numbers.index
    return [key for key in methods if any((case, f"bounded-{key}") in scored for case in _cases(member))]


def _column(case: str) -> str:
    return f"M = {case.rpartition('-')[2]}"
