"""The figures of a case, from what was stored: errors of profiles, and scores against the tested interval."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from experiments.combined.cases import Case
from experiments.combined.methods import Method
from experiments.experiment import Stored
from experiments.plots import BAND, TRUTH, legend_below, panels

_FAR = 5.0
"""Largest ratio of scores on a linear axis."""


def profiles(case: Case, methods: Sequence[Method], stored: Stored, parameter: Tensor) -> Figure:
    """Error of the mean over x and the 95 % band around it, at the middle time, a panel per method.

    ``parameter`` ``(1,)`` is the first test parameter; the truth is the line at 0.
    """
    problem = case.problem
    middle, (low, high) = problem.times // 2, problem.training_range
    trained = f"{problem.problem.symbol} = {float(parameter):.3g} (trained on {low:g} to {high:g})"
    title = f"{problem.label}, {trained}, t = {float(problem.output_times[middle]):g}"
    figure, axes = panels(len(methods), title, columns=2)
    x, truth = problem.grid.points.numpy(), problem.truth(parameter)[0, middle].numpy()
    for panel, method in zip(axes, methods, strict=True):
        arrays, colour = stored[method.key, 0], method.style.colour
        error, band = arrays["mean"] - truth, BAND * arrays["standard_deviation"]
        panel.fill_between(x, error - band, error + band, color=colour, alpha=0.3, lw=0, label="95 % band")
        panel.plot(x, error, color=colour, lw=1.4, label="mean − truth")
        panel.axhline(0.0, color=TRUTH, lw=0.9, ls="--", label="truth")
        panel.set_title(method.label, fontsize=10)
    for panel in axes[-2:]:
        panel.set_xlabel("x")
    for panel in axes[::2]:
        panel.set_ylabel("error of u")
    legend_below(figure, axes[0], grey=("95 % band", "mean − truth"))
    return figure


def against_shift(cases: Sequence[Case], methods: Sequence[Method], stored: Mapping[str, Stored]) -> Figure:
    """CRPS over that of the first method, and coverage of 90 % intervals, over the tested intervals of a problem.

    Means and standard errors are over groups; ``stored`` has what was scored by key of the case.
    """
    problem, first = cases[0].problem, methods[0]
    figure, (left, right) = panels(2, problem.label, share_y=False, width=1.15)
    coverage = [_means(stored[case.key], "coverage90") for case in cases]
    relative = [means / means.loc[first.key] for means in (_means(stored[case.key], "CRPS") for case in cases)]
    for number, method in enumerate(methods):
        x = np.arange(len(cases)) + 0.25 * (number / max(len(methods) - 1, 1) - 0.5)
        style = {"label": method.label, "color": method.style.colour, "ls": method.style.dashes, "lw": 1.5}
        for axes, tables in ((left, relative), (right, coverage)):
            groups = pd.DataFrame([table.loc[method.key] for table in tables])
            axes.errorbar(x, groups.mean(axis=1), groups.sem(axis=1).fillna(0.0), marker="o", ms=4, capsize=2, **style)
    right.axhline(0.9, color=TRUTH, lw=1.0, alpha=0.6)
    right.set(ylabel="truth inside 90 % intervals", ylim=(0, 1.02))
    left.set(ylabel=f"CRPS / CRPS of {first.label}", ylim=(0, None))
    if max(table.to_numpy().max() for table in relative) > _FAR:
        left.set(yscale="log", ylim=(None, None))
    low, high = problem.training_range
    for axes in (left, right):
        axes.set_xticks(range(len(cases)), ["{:g}…{:g}".format(*case.interval) for case in cases])
        axes.set(xlabel=f"tested {problem.problem.symbol} (trained on {low:g}…{high:g})")
    legend_below(figure, left)
    return figure


def _means(stored: Stored, score: str) -> pd.DataFrame:
    """Mean of a score, a row per method and a column per group."""
    return pd.Series({key: arrays[score].mean() for key, arrays in stored.items() if score in arrays}).unstack()
