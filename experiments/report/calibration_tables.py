"""Tables of the studies of calibration: in the training range, below it and above it."""

import pandas as pd

from experiments.records.release import released_results
from experiments.records.scores import SCORES
from experiments.report.tables import markdown, results_of, table

STUDIED = {
    "stefan": ("Stefan", (0.55, 0.7)),
    "porous_medium": ("porous medium", (1.0, 6.0)),
    "advection": ("advection", (1.0, 5.0)),
    "burgers_shock": ("Burgers", (1.0, 4.0)),
    "diffusion": ("diffusion", (1.0, 5.0)),
}
"""Problems of the study in the order of the rows: what tables call them, and their training ranges."""
CALIBRATION = tuple(f"{name}-calibration" for name in STUDIED)


def methods_over_parameters(score: str) -> str:
    """One score of all methods in the training range and at the farthest parameters outside it."""
    entries = []
    for name in CALIBRATION:
        if score in results_of(name).numbers:
            frame, methods = results_of(name).numbers[score].dropna(), results_of(name).description.methods
            frame = frame[frame.index.get_level_values("case").isin(_ends(name))]
            entries += [(_heading(name, case), methods[key], mean, None) for (case, key), mean in frame.items()]  # type: ignore[misc]
    return table(entries, SCORES[score].title, SCORES[score].better)


def cost_of_averaging() -> str:
    """Change from ProbConserv to the average by evidence in the training range, paired by function."""
    rows = []
    for name in CALIBRATION:
        scores = released_results(name).scores.set_index(["case", "method"])
        for case in (case for case in results_of(name).description.cases if _inside(name, case)):
            before, after = (scores.xs((case, key)).set_index("function") for key in ("probconserv", "by-law"))
            rows.append(
                {"": _heading(name, case)}
                | {score: _change(before[score], after[score]) for score in ("MSE", "CRPS")}
                | {
                    "90 % at front: ProbConserv": _front_coverage(before),
                    "averaged": _front_coverage(after),
                    "mean z²": f"{before['squared_residual'].mean():.1f}",
                    "moved": f"{after['moved'].mean():.2f}",
                }
            )
    return markdown(pd.DataFrame(rows))


def bands() -> str:
    """Conformal bands of whole functions in the training range, without the law and with it: coverage and width."""
    rows = []
    for name in CALIBRATION:
        frame = results_of(name).numbers
        for case in (case for case in results_of(name).description.cases if _inside(name, case)):
            row = {"": _heading(name, case)}
            for score, heading, digits in (("band_coverage", "holds", 2), ("band_width", "mean width", 3)):
                for method, text in (("anp", "without law"), ("conformal", "with law")):
                    row[f"{heading}, {text}"] = f"{frame.loc[(case, method), score]:.{digits}f}"
            rows.append(row)
    return markdown(pd.DataFrame(rows))


def _ends(study: str) -> list[str]:
    """Cases inside the training range, and the farthest ones below it and above it."""
    cases = sorted(results_of(study).description.cases, key=lambda case: float(case.partition("=")[2]))
    return [case for case in cases if _inside(study, case) or case in (cases[0], cases[-1])]


def _inside(study: str, case: str) -> bool:
    low, high = STUDIED[study.removesuffix("-calibration")][1]
    return low <= float(case.partition("=")[2]) <= high


def _heading(study: str, case: str) -> str:
    """Problem and parameter; what lies outside the training range says so."""
    place = "" if _inside(study, case) else ", outside"
    return (
        f"{STUDIED[study.removesuffix('-calibration')][0]}, {results_of(study).description.cases[case]}{place}".replace(
            "*", "\\*"
        )
    )


def _front_coverage(scores: pd.DataFrame) -> str:
    """Coverage near the front; a dash for a problem without one."""
    return f"{scores['front_coverage90'].mean():.2f}" if "front_coverage90" in scores else "—"


def _change(before: pd.Series, after: pd.Series) -> str:
    """Mean change and its standard error, in per cent of the mean before."""
    change = 100 * (after - before) / before.mean()
    return f"{change.mean():+.1f} ({change.sem():.1f}) %"
