"""The figure of all open systems: what walls and balance change, for every base."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import plots

BASES = {"fno": plots.VERMILION, "increments": plots.PURPLE, "regression": plots.BLUE}
WAYS = ("-walls-response", "-uniform")
"""With the constraint: walls and balance where conditions are given, else the balance."""
LARGEST = 1.0
"""Errors from the size of the field on are drawn at the edge."""


def draw_dumbbells(records: pd.DataFrame, labels: Mapping[str, str]) -> dict[str, Figure]:
    """A row per case: the error of every base alone and, joined to it, with walls and balance; and the emulator's.

    ``labels`` has the names of cases by their keys. Without two errors of a base there is no figure.
    """
    errors = records[records["score"] == "open_error"].set_index(["case", "method"])["mean"].unstack("method")
    errors = errors.reindex([case for case in labels if case in errors.index])
    found = [(row, base, _pair(errors.loc[case], base)) for row, case in enumerate(errors.index) for base in BASES]
    pairs = [(row, base, pair) for row, base, pair in found if pair]
    if not pairs:
        return {}
    figure = Figure(figsize=(8.0, 0.5 * len(errors) + 1.5), layout="constrained")
    panel = figure.subplots()
    for row, base, (alone, under) in pairs:
        height, colour = row + 0.22 * (list(BASES).index(base) - 1), BASES[base]
        ends = np.minimum((alone, under), LARGEST)
        panel.plot(ends, (height, height), color=colour, lw=1.6)
        panel.plot(ends[0], height, "o", color=colour, mfc="white", ms=6)
        panel.plot(ends[1], height, "o", color=colour, ms=6, label="FNO" if base == "fno" else base)
    if "emulator" in errors:
        chosen = errors["emulator"].clip(upper=LARGEST)
        panel.plot(chosen, np.arange(len(errors)) + 0.38, "D", color=plots.BLACK, ms=5, label="Emulator")
    panel.plot([], [], "o", color=plots.GREY, mfc="white", ms=6, label="alone")
    panel.plot([], [], "o", color=plots.GREY, ms=6, label="with walls and balance")
    for edge in np.arange(len(errors) - 1) + 0.5:
        panel.axhline(edge, color=plots.GREY, lw=0.4, alpha=0.6)
    panel.axvline(LARGEST, color=plots.GREY, lw=1.0)
    panel.set_yticks(range(len(errors)), [labels[case] for case in errors.index])
    panel.set(xscale="log", ylim=(len(errors) - 0.5, -0.5), xlabel="relative error; at 1 and beyond at the edge")
    plots.open_box(panel)
    smaller = sum(under < alone for _, _, (alone, under) in pairs)
    figure.suptitle(f"Walls and balance lower the error in {smaller} of {len(pairs)} rollouts", fontsize=11)
    plots.legend_below(figure, panel)
    return {"overview": figure}


def _pair(errors: pd.Series, base: str) -> tuple[float, float] | None:
    """The error of a base alone and under the constraint; None unless both were scored."""
    scored = errors.dropna()
    under = next((f"{base}{way}" for way in WAYS if f"{base}{way}" in scored), None)
    return None if under is None or base not in scored else (scored[base], scored[under])
