"""Tables of the studies of calibration and of prediction: in the training range, below it and above it."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from experiments.records.release import released_results
from experiments.records.scores import SCORES
from experiments.report.results import Results
from experiments.report.tables import entries_of, markdown, results_of, table

STUDIED = ("stefan", "porous_medium", "advection", "burgers_shock")
"""Problems of the study, in the order of the rows."""
CALIBRATION = tuple(f"{name}-calibration" for name in STUDIED)
PREDICTION = ("generate_stefan-prediction", "generate_porous_medium-prediction")


def methods_over_parameters(studies: Iterable[str], score: str) -> str:
    """One score of all methods of some studies at all parameters, without the standard errors."""
    entries = []
    for name in studies:
        results = results_of(name)
        headings = {case.label: _heading(case) for case in results.cases}
        entries += [(headings[case], method, mean, None) for case, method, mean, _ in entries_of(results, score)]
    return table(entries, SCORES[score].title, SCORES[score].better)


def cost_of_averaging() -> str:
    """Change from ProbConserv to the average by evidence in the training range, paired by function."""
    rows = []
    for name in STUDIED:
        scores = released_results(_study(name).experiment.name).scores.set_index(["case", "method"])
        for case in filter(_inside, _study(name).cases):
            before, after = (scores.loc[(case.key, key)].set_index("function") for key in ("probconserv", "by-law"))
            rows.append(
                {"": _heading(case)}
                | {score: _change(before[score], after[score]) for score in ("MSE", "CRPS")}
                | {
                    "90 % at front: ProbConserv": f"{before['front_coverage90'].mean():.2f}",
                    "averaged": f"{after['front_coverage90'].mean():.2f}",
                    "mean z²": f"{before['squared_residual'].mean():.1f}",
                    "moved": f"{after['moved'].mean():.2f}",
                }
            )
    return markdown(pd.DataFrame(rows))


def bands() -> str:
    """Conformal bands of whole functions, without the law and with it: how many hold, and their mean width."""
    rows = []
    for name in STUDIED:
        results = _study(name)
        means = results.records.set_index(["case", "method", "score"])["mean"]
        for case in results.cases:
            row = {"": _heading(case)}
            for score, heading, digits in (("band_coverage", "holds", 2), ("band_width", "mean width", 3)):
                for method, text in (("anp", "without law"), ("conformal", "with law")):
                    row[f"{heading}, {text}"] = f"{means[case.key, method, score]:.{digits}f}"
            rows.append(row)
    return markdown(pd.DataFrame(rows))


def _study(name: str) -> Results:
    return results_of(f"{name}-calibration")


def _inside(case: Any) -> bool:
    low, high = case.problem.training_range
    return low <= case.parameter <= high


def _heading(case: Any) -> str:
    """Problem and parameter; what lies outside the training range says so."""
    name = case.problem.name
    problem = {"stefan": "Stefan", "burgers_shock": "Burgers"}.get(name, name.replace("_", " "))
    place = "" if _inside(case) else ", outside"
    return f"{problem}, {case.label}{place}".replace("*", "\\*")


def _change(before: pd.Series, after: pd.Series) -> str:
    """Mean change and its standard error, in per cent of the mean before."""
    change = 100 * (after - before) / before.mean()
    return f"{change.mean():+.1f} ({change.sem():.1f}) %"
