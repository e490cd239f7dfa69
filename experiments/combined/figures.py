"""The figures of a case, from what was stored: errors of profiles, and scores against the tested interval."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from experiments.combined.cases import Case
from experiments.combined.methods import Method
from experiments.experiment import Stored
from experiments.plots import BAND, TRUTH, legend_below, panels


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
