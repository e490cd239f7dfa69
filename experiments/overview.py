"""One figure of a whole experiment from its records: a method per row for a few cases, a case per row for many.

Methods per row: blue is better than the reference by paired differences, red worse, grey neither; the reference is
black. Cases that are values of one parameter are joined by lines, others are not. The title says who is closest, and
where.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.plots import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, legend_below, open_box
from experiments.records.description import Description, title
from experiments.records.paired import LOSES, WINS, against
from experiments.records.record import TRUTH
from experiments.records.scores import SCORES, Better, Score
from experiments.records.table import numbers

FEW = 4
"""Cases up to which each has a panel."""
MANY = 6
"""Lines that a panel shows at most, the reference among them."""
WIDTH, TEXT = 8.0, 9.0
"""Of a figure in inches, 1,280 pixels at 160 per inch; points of its text, 10 pixels where the figure is 640 wide."""
COVERAGE = "coverage90"
_COLOURS = {WINS: BLUE, LOSES: VERMILION}
_LINES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_LOGARITHMIC = 12.0  # ratio of the largest to the least value from which an axis is logarithmic


def draw_overview(described: Description, records: pd.DataFrame, paired: pd.DataFrame) -> Figure | None:
    """The main score of all methods; None where fewer than two were scored, or no reference.

    Args:
        described: Names of cases and methods.
        records: Mean records.
        paired: Scores per function.
    """
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
        said = {case: against(described.references.get(case), paired, case, scores[0]) for case in cases}
        figure = _dots(described, values, errors, said)
        figure.supxlabel(score.heading, fontsize=TEXT)
    else:
        figure = _many(described, values, errors, frame.get(COVERAGE), score)
    figure.suptitle(conclusion(described, values, score), fontsize=11)
    return figure


def conclusion(described: Description, values: pd.Series, score: Score) -> str:
    """The method that is best in most cases, and their number."""
    best = values.unstack("method").idxmin(axis=1)
    winner, count = best.value_counts().index[0], best.value_counts().iloc[0]
    where = "" if len(best) == 1 else " in every case" if count == len(best) else f" in {count} of {len(best)} cases"
    return f"{title(described.experiment)}: smallest {score.heading}{where} by {described.methods[winner]}"


def _dots(
    described: Description, values: pd.Series, errors: pd.Series, said: Mapping[str, Mapping[str, str]]
) -> Figure:
    """A panel per case, a row per method, the best on top; ``said`` of each is what ``against`` finds."""
    cases = list(values.index.unique("case"))
    ranks = values.groupby(level="case").rank().groupby(level="method").mean()
    rows = list(ranks.sort_values(ascending=False).index)
    figure = Figure(figsize=(WIDTH, 0.27 * len(rows) + 1.5), layout="constrained")
    panels = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    for panel, case in zip(panels, cases, strict=True):
        key = described.references.get(case)
        reference = values.get((case, key), np.nan)
        for height, method in enumerate(rows):
            if (case, method) in values:
                value, error = values[case, method], errors[case, method]
                colour = BLACK if method == key else _COLOURS.get(said[case].get(method, ""), GREY)
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
        panel.set_xlim(0.0, 1.05 * panel.get_xlim()[1])
        panel.locator_params(axis="x", nbins=2)
        panel.ticklabel_format(axis="x", scilimits=(-2, 3))
        panel.locator_params(axis="x", nbins=4)


def _many(
    described: Description, values: pd.Series, errors: pd.Series, coverage: pd.Series | None, score: Score
) -> Figure:
    """The score over the reference's, and coverage where it was scored, of every case."""
    cases = list(values.index.unique("case"))
    numbered = _by_parameter(described, cases)
    table = values.unstack("method").reindex(numbered or cases)
    references = pd.Series({case: values.get((case, described.references.get(case)), np.nan) for case in table.index})
    relative = table.div(references, axis=0).dropna(axis=1, how="all")
    kept = _kept(described, relative)
    shown = {f"{score.heading} / that of the reference": relative[kept]}
    deviations = [errors.unstack("method").reindex(table.index).div(references, axis=0).reindex(columns=kept)]
    if coverage is not None:
        shown["truth inside the 90 % band"] = coverage.unstack("method").reindex(table.index)[kept]
        deviations.append(0.0 * deviations[0])
    others = [key for key in kept if key not in set(described.references.values())]
    colours = dict(zip(others, _LINES, strict=False))
    size = (WIDTH, 2.4 + 1.6 * len(shown)) if numbered else (WIDTH, (0.1 + 0.06 * len(kept)) * len(cases) + 1.7)
    figure = Figure(figsize=size, layout="constrained")
    grid = {"nrows": len(shown), "sharex": True} if numbered else {"ncols": len(shown), "sharey": True}
    panels = figure.subplots(**grid, squeeze=False).ravel()
    for panel, (heading, entries), deviation in zip(panels, shown.items(), deviations, strict=True):
        draw = _curves if numbered else _rows
        draw(panel, entries, deviation, colours, described)
        panel.set_title(heading, fontsize=TEXT)
    axis = "y" if numbered else "x"
    _scale(panels[0], axis, relative[kept].to_numpy())
    if coverage is not None:
        (panels[1].axhline if numbered else panels[1].axvline)(0.9, color=GREY, lw=1.0)
        lowest = float(np.nanmin(shown["truth inside the 90 % band"].to_numpy()))
        panels[1].set(**{f"{axis}lim": (max(0.0, min(0.6, lowest - 0.05)), 1.03)})
    legend_below(figure, panels[0])
    return figure


def _scale(panel: Axes, axis: str, shown: np.ndarray) -> None:
    """A logarithmic axis for ratios that differ by an order of magnitude; a linear one of lines starts at 0."""
    if np.nanmax(shown) > _LOGARITHMIC * np.nanmin(shown):
        panel.set(**{f"{axis}scale": "log"})
    elif axis == "y":
        panel.set_ylim(bottom=0.0)


def _by_parameter(described: Description, cases: list[str]) -> list[str]:
    """Cases that are values of one parameter, in its order; an empty list for others."""
    parsed = [re.fullmatch(r"(.+)=([-\d.]+)", described.cases[case]) for case in cases]
    if None in parsed or len({match[1] for match in parsed if match}) > 1:
        return []
    return sorted(cases, key=lambda case: float(described.cases[case].rpartition("=")[2]))


def _kept(described: Description, relative: pd.DataFrame) -> list[str]:
    """The methods that matter, and of the others the best, in the order of the table."""
    matter = {key for keys in described.headline.values() for key in keys} | set(described.references.values())
    ranked = sorted(relative, key=lambda key: (key not in matter, relative[key].rank().mean(), relative[key].mean()))
    return [key for key in described.methods if key in ranked[:MANY]]


def _curves(
    panel: Axes, table: pd.DataFrame, _: pd.DataFrame, colours: Mapping[str, str], described: Description
) -> None:
    """A line per method over the values of a parameter."""
    for key in table:
        colour = colours.get(str(key), BLACK)
        panel.plot(range(len(table)), table[key], "o-", color=colour, ms=4, lw=1.6, label=described.methods[str(key)])
    labels: Sequence[str] = [described.cases[str(case)] for case in table.index]
    panel.set_xticks(range(len(table)), labels, rotation=35, ha="right", rotation_mode="anchor", fontsize=TEXT)
    panel.tick_params(labelsize=TEXT)
    open_box(panel)


def _rows(
    panel: Axes, table: pd.DataFrame, errors: pd.DataFrame, colours: Mapping[str, str], described: Description
) -> None:
    """A row per case, the methods a little above each other, with their errors."""
    heights = np.arange(len(table))
    for height in heights[1:] - 0.5:
        panel.axhline(height, color=GREY, lw=0.4, alpha=0.6)
    for number, key in enumerate(table):
        shift = 0.7 * ((number + 0.5) / len(table.columns) - 0.5)
        style = {"fmt": "o", "ms": 4.5, "lw": 1.0, "color": colours.get(str(key), BLACK)}
        panel.errorbar(table[key], heights + shift, xerr=errors[key], label=described.methods[str(key)], **style)
    labels = [textwrap.fill(_unbroken(described.cases[str(case)]), 26) for case in table.index]
    panel.set_yticks(heights, labels, fontsize=TEXT)
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.tick_params(labelsize=TEXT)
    open_box(panel)
