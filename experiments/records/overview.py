"""One figure of a whole experiment from its records: a method per row for a few cases, a case per row for many.

Methods per row: blue is better than the reference by paired differences, red worse, grey neither; the reference is
black. Cases that are values of one parameter are joined by lines. Others have a row each, in which the reference is the
line at 1; errors are those of paired differences, and hollow dots differ by no more than chance. The title says who is
closest, and where.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.plots import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, legend_below, open_box
from experiments.records.description import Description, title
from experiments.records.paired import EQUAL, LOSES, WINS, Difference, against, differences, verdicts
from experiments.records.record import TRUTH
from experiments.records.scores import SCORES, Better, Score
from experiments.records.table import numbers

FEW = 4
"""Cases up to which each has a panel."""
MANY = 6
"""Lines that a panel shows at most, the reference among them."""
DOTS = 4
"""Dots that a row shows at most, of methods other than the reference."""
LONG = 12
"""Rows that a column has at most, if nothing else is beside it."""
LIMIT = 4.0
"""Times the reference that a row shows; what is beyond stands at the margin with its number."""
WIDTH, TEXT = 8.0, 9.0
"""Of a figure in inches, 1,280 pixels at 160 per inch; points of its text, 10 pixels where the figure is 640 wide."""
COVERAGE, LEVEL = "coverage90", 0.9
INSIDE = "truth inside the 90 % band"
_COLOURS = {WINS: BLUE, LOSES: VERMILION}
_LINES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_SPREAD = 3.0  # the same for ratios to the reference in rows
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
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
    numbered = _by_parameter(described, cases)
    if len(cases) > FEW and not values.index.isin(list(described.references.items())).any():
        return None
    if len(cases) <= FEW:
        said = {case: against(described.references.get(case), paired, case, scores[0]) for case in cases}
        figure = _dots(described, values, errors, said)
        figure.supxlabel(score.heading, fontsize=TEXT)
    elif numbered:
        figure = _by_number(described, values.unstack("method").loc[numbered], frame.get(COVERAGE), score)
    else:
        apart = {case: differences(described.references.get(case), paired, case, scores[0]) for case in cases}
        figure = _by_case(described, values.unstack("method").loc[cases], apart, frame.get(COVERAGE), score)
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


def _relative(described: Description, table: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """The reference's score of every case, and that of all methods over it."""
    of_case = {case: table.loc[case].get(described.references.get(str(case)), np.nan) for case in table.index}
    references = pd.Series(of_case)
    return references, table.div(references, axis=0).dropna(axis=1, how="all")


def _by_number(described: Description, table: pd.DataFrame, coverage: pd.Series | None, score: Score) -> Figure:
    """The score over the reference's, and coverage where it was scored, over the values of a parameter."""
    _, relative = _relative(described, table)
    kept = _kept(described, relative)[:MANY]
    kept = [key for key in described.methods if key in kept]
    shown = {f"{score.heading} / that of the reference": relative[kept]}
    if coverage is not None:
        shown[INSIDE] = coverage.unstack("method").reindex(table.index)[kept]
    others = [key for key in kept if key not in set(described.references.values())]
    colours = dict(zip(others, _LINES, strict=False))
    figure = Figure(figsize=(WIDTH, 2.4 + 1.6 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), sharex=True, squeeze=False).ravel()
    for panel, (heading, entries) in zip(panels, shown.items(), strict=True):
        _curves(panel, entries, colours, described)
        panel.set_title(heading, fontsize=TEXT)
    if np.nanmax(relative[kept]) > _LOGARITHMIC * np.nanmin(relative[kept]):
        panels[0].set_yscale("log")
    else:
        panels[0].set_ylim(bottom=0.0)
    if coverage is not None:
        panels[1].axhline(LEVEL, color=GREY, lw=1.0)
        panels[1].set_ylim(_lowest(shown[INSIDE]), 1.03)
    legend_below(figure, panels[0])
    return figure


def _by_case(
    described: Description,
    table: pd.DataFrame,
    apart: Mapping[str, Mapping[str, Difference]],
    coverage: pd.Series | None,
    score: Score,
) -> Figure:
    """The score over the reference's, and coverage where it was scored, a row for every case."""
    references, relative = _relative(described, table)
    kept = [key for key in _kept(described, relative) if key not in set(described.references.values())][:DOTS]
    kept = [key for key in described.methods if key in kept]
    said = {case: dict(zip(each, verdicts([*each.values()]), strict=True)) for case, each in apart.items()}
    errors = pd.DataFrame({case: {key: one.error for key, one in each.items()} for case, each in apart.items()}).T
    errors = errors.reindex(index=table.index, columns=kept).div(references, axis=0)
    columns = 2 if coverage is not None or len(table) > LONG else 1
    rows = len(table) if coverage is not None else -(-len(table) // columns)
    figure = Figure(figsize=(WIDTH, (0.1 + 0.07 * len(kept)) * rows + 1.5), layout="constrained")
    panels = figure.subplots(1, columns, sharex=coverage is None, squeeze=False)[0]
    heading = f"{score.heading} / that of the reference"
    for panel, start in zip(panels, (0,) if coverage is not None else range(0, len(table), rows), strict=False):
        part = slice(start, start + rows)
        _rows(panel, relative[kept].iloc[part], errors.iloc[part], said, described)
        compared = dict.fromkeys(described.methods[key] for key in described.references.values())
        panel.axvline(1.0, color=BLACK, lw=1.0, label=f"reference: {', '.join(compared)}")
        panel.scatter([], [], color="white", edgecolors=GREY, label="no difference from it")
        panel.set_title(heading, fontsize=TEXT)
        _scale(panel, relative[kept])
    if coverage is not None:
        inside = coverage.unstack("method").reindex(table.index)[kept]
        _rows(panels[1], inside, 0.0 * inside, {}, described)
        panels[1].axvline(LEVEL, color=GREY, lw=1.0)
        panels[1].set_xlim(_lowest(inside), 1.03)
        panels[1].set_title(INSIDE, fontsize=TEXT)
        panels[1].tick_params(labelleft=False)
    legend_below(figure, panels[0])
    return figure


def _lowest(coverage: pd.DataFrame) -> float:
    """Where the axis of coverages begins."""
    return max(0.0, min(0.6, float(np.nanmin(coverage.to_numpy())) - 0.05))


def _scale(panel: Axes, relative: pd.DataFrame) -> None:
    """A logarithmic axis for ratios that differ by much, with numbers that are read at once."""
    low, high = float(np.nanmin(relative)), min(LIMIT, float(np.nanmax(relative)))
    if high > _SPREAD * low:
        panel.set_xscale("log")
        panel.set_xticks([each for each in _TICKS if low / 1.5 < each <= high])
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_locator(NullLocator())
    if high == LIMIT:
        panel.set_xlim(right=1.25 * LIMIT)


def _by_parameter(described: Description, cases: list[str]) -> list[str]:
    """Cases that are values of one parameter, in its order; an empty list for others."""
    parsed = [re.fullmatch(r"(.+)=([-\d.]+)", described.cases[case]) for case in cases]
    if None in parsed or len({match[1] for match in parsed if match}) > 1:
        return []
    return sorted(cases, key=lambda case: float(described.cases[case].rpartition("=")[2]))


def _kept(described: Description, relative: pd.DataFrame) -> list[str]:
    """All methods, first those that matter, each group from the best on."""
    matter = {key for keys in described.headline.values() for key in keys} | set(described.references.values())
    keys = [str(key) for key in relative]
    return sorted(keys, key=lambda key: (key not in matter, relative[key].rank().mean(), relative[key].mean()))


def _curves(panel: Axes, table: pd.DataFrame, colours: Mapping[str, str], described: Description) -> None:
    """A line per method over the values of a parameter."""
    for key in table:
        colour = colours.get(str(key), BLACK)
        panel.plot(range(len(table)), table[key], "o-", color=colour, ms=4, lw=1.6, label=described.methods[str(key)])
    labels: Sequence[str] = [described.cases[str(case)] for case in table.index]
    panel.set_xticks(range(len(table)), labels, rotation=35, ha="right", rotation_mode="anchor", fontsize=TEXT)
    panel.tick_params(labelsize=TEXT)
    open_box(panel)


def _rows(
    panel: Axes,
    table: pd.DataFrame,
    errors: pd.DataFrame,
    said: Mapping[str, Mapping[str, str]],
    described: Description,
) -> None:
    """A row per case, the methods a little above each other, with their errors; hollow dots where ``said`` is equal."""
    heights = np.arange(len(table))
    for height in heights[1:] - 0.5:
        panel.axhline(height, color=GREY, lw=0.4, alpha=0.6)
    for number, key in enumerate(map(str, table)):
        shift = 0.7 * ((number + 0.5) / len(table.columns) - 0.5)
        colour, beyond = _LINES[number], table[key] > LIMIT
        equal = [said.get(str(case), {}).get(key) == EQUAL for case in table.index]
        shown = table[key].clip(upper=LIMIT)
        panel.errorbar(shown, heights + shift, xerr=errors[key].where(~beyond), fmt="none", lw=1.2, color=colour)
        style = {"s": 26, "edgecolors": colour, "linewidths": 1.3, "zorder": 3}
        filled = ["white" if hollow else colour for hollow in equal]
        panel.scatter(shown, heights + shift, c=filled, **style)
        panel.scatter([], [], color=colour, label=described.methods[key])
        for height in heights[beyond]:
            panel.text(1.08 * LIMIT, height + shift, f"{table[key].iloc[height]:.0f}", va="center", fontsize=TEXT)
    labels = [textwrap.fill(_unbroken(described.cases[str(case)]), 26) for case in table.index]
    panel.set_yticks(heights, labels, fontsize=TEXT)
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.tick_params(labelsize=TEXT)
    open_box(panel)
