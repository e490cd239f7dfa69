"""One figure of a whole experiment from its records: a method per row for a few cases, a line per method for many.

Blue is better than the reference by more than both standard errors, red worse, grey neither; the reference is black.
The title says who is closest, and where.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.plots import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, open_box
from experiments.records.description import Description, title
from experiments.records.record import TRUTH, beyond_errors
from experiments.records.scores import SCORES, Better, Score
from experiments.records.table import numbers

FEW = 4
"""Cases up to which each has a panel."""
MANY = 6
"""Lines that a panel shows at most, the reference among them."""
WIDTH, TEXT = 8.0, 9.0
"""Of a figure in inches, 1,280 pixels at 160 per inch; points of its text, 10 pixels where the figure is 640 wide."""
COVERAGE = "coverage90"
_LINES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_LOGARITHMIC = 12.0  # ratio of the largest to the least value from which an axis is logarithmic


def draw_overview(described: Description, records: pd.DataFrame) -> Figure | None:
    """The main score of all methods from mean records; None where fewer than two were scored, or no reference."""
    frame = numbers(records, described)
    wanted = sorted((*described.scores, *SCORES), key=lambda name: name != "CRPS")
    scores = [name for name in wanted if name in frame and SCORES[name].better is Better.LOWER]
    if not scores:
        return None
    values = frame[scores[0]].dropna().drop(index=TRUTH, level="method", errors="ignore")
    if values.index.get_level_values("method").nunique() < 2:
        return None
    errors = frame.get(f"{scores[0]}_se", pd.Series(0.0, index=frame.index)).fillna(0.0)
    score, cases = SCORES[scores[0]], list(values.index.unique("case"))
    if len(cases) > FEW and not values.index.isin(list(described.references.items())).any():
        return None
    if len(cases) <= FEW:
        figure = _dots(described, values, errors)
        figure.supxlabel(score.heading, fontsize=TEXT)
    else:
        figure = _lines(described, values, frame.get(COVERAGE), score)
    figure.suptitle(conclusion(described, values, score), fontsize=11)
    return figure


def conclusion(described: Description, values: pd.Series, score: Score) -> str:
    """Which method is best in most cases, and in how many."""
    best = values.unstack("method").idxmin(axis=1)
    winner, count = best.value_counts().index[0], best.value_counts().iloc[0]
    where = "" if len(best) == 1 else " in every case" if count == len(best) else f" in {count} of {len(best)} cases"
    return f"{title(described.experiment)}: smallest {score.heading}{where} by {described.methods[winner]}"


def _dots(described: Description, values: pd.Series, errors: pd.Series) -> Figure:
    """A panel per case, a row per method, the best on top."""
    cases = list(values.index.unique("case"))
    ranks = values.groupby(level="case").rank().groupby(level="method").mean()
    rows = list(ranks.sort_values(ascending=False).index)
    figure = Figure(figsize=(WIDTH, 0.27 * len(rows) + 1.5), layout="constrained")
    panels = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    for panel, case in zip(panels, cases, strict=True):
        key = described.references.get(case)
        reference, its_error = values.get((case, key), np.nan), errors.get((case, key))
        for height, method in enumerate(rows):
            if (case, method) in values:
                value, error = values[case, method], errors[case, method]
                sign = beyond_errors(value - reference, error, its_error)
                colour = BLACK if method == key else (GREY, VERMILION, BLUE)[sign]
                panel.errorbar(value, height, xerr=error, fmt="o", ms=6, color=colour, capsize=2)
        panel.axvline(reference, color=BLACK, lw=0.8, alpha=0.5)
        _finish(panel, values[case], textwrap.fill(_unbroken(described.cases[case]), 66 // len(cases)))
        panel.set_yticks(range(len(rows)), [described.methods[key] for key in rows], fontsize=TEXT)
    return figure


def _unbroken(label: str) -> str:
    """A label whose equations stay on one line."""
    return re.sub(r" ([=≤]) ", "\u00a0\\1\u00a0", label)


def _finish(panel: Axes, values: pd.Series, title: str) -> None:
    open_box(panel)
    panel.set_title(title, fontsize=TEXT)
    panel.tick_params(labelsize=TEXT)
    positive = values[values > 0]
    if len(positive) == len(values) and positive.max() > _LOGARITHMIC * positive.min():
        panel.set_xscale("log")
    else:
        panel.set_xlim(left=0.0)
        panel.locator_params(axis="x", nbins=4)


def _lines(described: Description, values: pd.Series, coverage: pd.Series | None, score: Score) -> Figure:
    """The score over the reference's, and coverage where it was scored, over the cases."""
    table = values.unstack("method").reindex(_in_order(described, list(values.index.unique("case"))))
    references = pd.Series({case: values.get((case, described.references.get(case)), np.nan) for case in table.index})
    relative = table.div(references, axis=0).dropna(axis=1, how="all")
    kept = _kept(described, relative)
    count = 1 if coverage is None else 2
    figure = Figure(figsize=(WIDTH, 2.4 + 1.6 * count), layout="constrained")
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    colours = dict(zip([key for key in kept if key not in set(described.references.values())], _LINES, strict=False))
    _curves(panels[0], relative[kept], colours, described)
    shown = relative[kept].to_numpy()
    if np.nanmax(shown) > _LOGARITHMIC * np.nanmin(shown):
        panels[0].set(yscale="log")
    else:
        panels[0].set_ylim(bottom=0.0)
    panels[0].set_title(f"{score.heading} / that of the reference", fontsize=TEXT)
    if coverage is not None:
        _curves(panels[1], coverage.unstack("method").reindex(table.index)[kept], colours, described)
        panels[1].axhline(0.9, color=GREY, lw=1.0)
        panels[1].set(ylim=(0, 1.03))
        panels[1].set_title("truth inside the 90 % band", fontsize=TEXT)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return figure


def _in_order(described: Description, cases: list[str]) -> list[str]:
    """Cases that are values of one parameter, in its order; others as they stand."""
    parsed = [re.fullmatch(r"(.+)=([-\d.]+)", described.cases[case]) for case in cases]
    if None in parsed or len({match[1] for match in parsed if match}) > 1:
        return cases
    return sorted(cases, key=lambda case: float(described.cases[case].rpartition("=")[2]))


def _kept(described: Description, relative: pd.DataFrame) -> list[str]:
    """The methods that matter, and of the others the best, in the order of the table."""
    matter = {key for keys in described.headline.values() for key in keys} | set(described.references.values())
    ranked = sorted(relative, key=lambda key: (key not in matter, relative[key].rank().mean(), relative[key].mean()))
    return [key for key in described.methods if key in ranked[:MANY]]


def _curves(panel: Axes, table: pd.DataFrame, colours: Mapping[str, str], described: Description) -> None:
    for key in table:
        colour = colours.get(str(key), BLACK)
        panel.plot(range(len(table)), table[key], "o-", color=colour, ms=4, lw=1.6, label=described.methods[str(key)])
    labels: Sequence[str] = [described.cases[str(case)] for case in table.index]
    panel.set_xticks(range(len(table)), labels, rotation=35, ha="right", rotation_mode="anchor", fontsize=TEXT)
    panel.tick_params(labelsize=TEXT)
    open_box(panel)
