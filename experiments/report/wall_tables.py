"""Tables of operators with walls: open systems under their balance, corrections at sides."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from experiments.records.description import title
from experiments.records.release import released_results
from experiments.records.scores import SCORES
from experiments.records.table import format_score
from experiments.report.tables import markdown, paired_ratio, results_of, shown_cases

NAME = "open_rollouts"
BALANCES = ("uniform", "fitted")
AT_WALLS = ("relative_l2", "wall_error", "slope_error", "slope_error_finer", "near_wall_error", "total_drift")
_EQUAL, _DEFAULT = ("boundary-channels", "fno"), "boon-default"
"""The FNO of equal information, and BOON."""
BANDS = {"wall": "wall values", "near": "near walls", "total": "totals"}


def treated(score: str) -> str:
    """One score of every operator: alone → under the balance, uniform → fitted, means over functions and seeds."""
    results, rows = results_of(NAME), []
    stated = {key: float(mean) for key, mean in results.numbers[score].dropna().items()}
    for kind in _kinds():
        row = {SCORES[score].title: results.description.methods[kind]}
        for case, label in results.description.cases.items():
            found = [stated.get((case, key)) for key in (kind, *(f"{kind}-{how}" for how in BALANCES))]
            row[label] = (
                "—" if found[0] is None else " → ".join("—" if x is None else format_score(x, None) for x in found)
            )
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def gains() -> str:
    """How many times the uniform balance lowers the mean error, and the difference in paired standard errors."""
    scores = released_results(NAME).scores.set_index(["case", "method", "seed", "function"])["open_error"]
    results, rows = results_of(NAME), []
    for kind in _kinds():
        row = {"error alone over that under the balance": results.description.methods[kind]}
        for case, label in results.description.cases.items():
            alone, under = (scores.loc[case].get(key, pd.Series(dtype=float)) for key in (kind, f"{kind}-uniform"))
            both = pd.concat([alone, under], axis=1, join="inner").to_numpy()
            if len(both) < 2 or not np.isfinite(both).all():
                row[label] = "diverges" if len(both) else "—"
                continue
            row[label] = paired_ratio(both)
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def bands() -> str:
    """Parts of values at walls, near them and of totals that 90 % bands hold, after 20 steps → after the last."""
    results, rows = results_of(NAME), []
    for kind in _kinds():
        for case, label in results.description.cases.items():
            key = (case, f"{kind}-fitted")
            if key not in results.numbers.index or pd.isna(results.numbers["band_wall"][key]):
                continue
            row = {"": label, "operator": results.description.methods[kind]}
            for what, heading in BANDS.items():
                ends = (float(results.numbers[f"band_{what}{end}"][key]) for end in ("", "_end"))
                row[heading] = " → ".join(f"{value:.2f}" for value in ends)
            rows.append(row)
    return markdown(pd.DataFrame(rows))


def _kinds() -> list[str]:
    """Operators that were scored alone."""
    methods, scored = results_of(NAME).description.methods, results_of(NAME).numbers.index.get_level_values("method")
    return [key for key in methods if f"{key}-uniform" in methods and key in set(scored)]


def at_walls(names: Iterable[str]) -> str:
    """Errors of an FNO of equal information over those of the default, first seeds: problems as rows."""
    rows = []
    for results in map(results_of, names):
        stored = released_results(results.name).records
        means = stored[stored["seed"] == stored["seed"].min()].pivot_table("mean", ["case", "method"], "score")
        for case, label in shown_cases(results).items():
            found = means.loc[case]
            other = next((key for key in _EQUAL if key in found.index), None)
            if other is None or _DEFAULT not in found.index:
                continue
            ratios = found.loc[other] / found.loc[_DEFAULT]
            cells = {SCORES[name].heading: ratios.get(name) for name in AT_WALLS}
            rows.append(
                {f"over {results.description.methods[_DEFAULT]}": f"{title(results.name)}, {label}"}
                | {name: "—" if x is None or not 0 < x < np.inf else f"{x:.2g}" for name, x in cells.items()}
            )
    return markdown(pd.DataFrame(rows))
