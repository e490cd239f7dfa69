"""Figures of open systems: error and drift over the steps."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments import plots
from experiments.boundary.open_rollouts.methods import Case, Method
from experiments.experiment import Stored

SHOWN = ("", "uniform")
PANELS = {"error_by_step": "error relative to the field", "drift_by_step": "error of the total, in spreads of u"}


def over_time(case: Case, methods: Sequence[Method], stored: Stored) -> dict[str, Figure]:
    """Mean error of a field, and root mean square of the total's, after every step of the first seed."""
    shown = [method for method in methods if method.treatment in SHOWN and (method.key, 0) in stored]
    if not shown:
        return {}
    figure, axes = plots.panels(len(PANELS), case.label, share_y=False, width=1.2)
    for panel, (name, title) in zip(axes, PANELS.items(), strict=True):
        for method in shown:
            values = stored[method.key, 0][name]
            panel.plot(values, color=method.style.colour, ls=method.style.dashes, lw=1.4, label=method.label)
        panel.set(title=title, xlabel="step", yscale="log")
    plots.legend_below(figure, *axes)
    return {"steps": figure}
