"""The figures of a case, from what was stored: errors of profiles, and scores against the tested interval."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from experiments.combined.cases import Case
from experiments.combined.methods import Method
from experiments.experiment import Stored
from experiments.records.record import mean_and_error
from experiments.report.plots import BAND, TRUTH, legend_below, panels


def profiles(case: Case, methods: Sequence[Method], stored: Stored, parameter: Tensor) -> Figure:
    """Error of the mean over x and the 95 % band around it, at the middle time; the truth is the line at 0.

    Args:
        case: The case.
        methods: What is drawn, a panel each.
        stored: What was scored of the case.
        parameter: The first test parameter ``(1,)``.
    """
    problem = case.problem
    middle, symbol = problem.times // 2, problem.problem.symbol
    low, high = problem.training_range
    title = (
        f"{problem.label}, {symbol} = {float(parameter):.3g} (trained on {low:g} to {high:g}), "
        f"t = {float(problem.output_times[middle]):g}"
    )
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
    """CRPS over that of the first method, and coverage of 90 % intervals, over the tested intervals.

    Args:
        cases: The cases of a problem.
        methods: What is drawn: means and standard errors over groups.
        stored: What was scored, by key of the case.
    """
    problem, first = cases[0].problem, methods[0]
    figure, (left, right) = panels(2, problem.label, share_y=False, width=1.15)
    positions = np.arange(len(cases))
    for number, method in enumerate(methods):
        offset = 0.25 * (number / max(len(methods) - 1, 1) - 0.5)
        for axes, score, reference in ((left, "CRPS", first), (right, "coverage90", None)):
            pairs = [_over_groups(stored[case.key], score, method, reference) for case in cases]
            means, errors = zip(*pairs, strict=True)
            axes.errorbar(
                positions + offset,
                means,
                errors,
                label=method.label,
                color=method.style.colour,
                ls=method.style.dashes,
                lw=1.5,
                marker="o",
                ms=4,
                capsize=2,
            )
    right.axhline(0.9, color=TRUTH, lw=1.0, alpha=0.6)
    left.set(ylabel=f"CRPS / CRPS of {first.label}")
    left.set_ylim(bottom=0)
    right.set(ylabel="truth inside 90 % intervals", ylim=(0, 1.02))
    low, high = problem.training_range
    for axes in (left, right):
        axes.set_xticks(positions, ["{:g}…{:g}".format(*case.interval) for case in cases])
        axes.set(xlabel=f"tested {problem.problem.symbol} (trained on {low:g}…{high:g})")
    legend_below(figure, left)
    return figure


def _over_groups(stored: Stored, score: str, method: Method, reference: Method | None) -> tuple[float, float]:
    """Mean and standard error of the groups' mean scores, over those of a reference; no error of one group."""
    values = []
    for (key, group), arrays in stored.items():
        if key == method.key and (reference is None or (reference.key, group) in stored):
            value = arrays[score].mean()
            values.append(value if reference is None else value / stored[reference.key, group][score].mean())
    mean, error = mean_and_error(values)
    return mean, error or 0.0
