"""Figures of random media: one field with its band and draws, and errors over the number of observations."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import plots
from experiments.experiment import Stored
from experiments.gpme.cases import Case
from experiments.gpme.methods import Method
from experiments.storage import Arrays

BOXES = ("anp", "empirical", "refined")
"""Black boxes whose fields are drawn: without the law in the upper row, with it and u ≥ 0 in the lower one."""
DRAWS = 6
REFERENCE, RATIOS = "bounded-anp", (1.0, 1.5, 2.0, 3.0)


def fields(case: Case, methods: Mapping[str, Method], stored: Stored) -> dict[str, Figure]:
    """One function in one axis: truth, mean, central 90 % and a few draws."""
    shown = [f"{treatment}{box}" for treatment in ("", "bounded-") for box in BOXES]
    if case.member.grid.dimension != 1 or any((key, 0) not in stored for key in shown):
        return {}
    figure, axes = plots.panels(len(shown), f"{case.label}: without and with the law", columns=len(BOXES))
    for panel, key in zip(axes, shown, strict=True):
        _field(panel, case, methods[key], stored[key, 0])
    plots.legend_below(figure, axes[0], grey=("mean", "90 % band", "draws"))
    return {"fields": figure}


def _field(panel: Axes, case: Case, method: Method, arrays: Arrays) -> None:
    x, draws = case.member.grid.axes[0], arrays["shown_draws"]
    lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
    panel.fill_between(x, lower, upper, color=method.style.colour, alpha=0.25, lw=0, label="90 % band")
    for number, draw in enumerate(draws[:DRAWS]):
        panel.plot(x, draw, color=method.style.colour, lw=0.5, alpha=0.6, label="" if number else "draws")
    panel.plot(x, draws.mean(axis=0), color=method.style.colour, lw=1.6, label="mean")
    panel.plot(x, arrays["shown_truth"], color=plots.TRUTH, lw=1.2, label="truth")
    panel.set(title=method.label, xlabel="x")
    panel.title.set_fontsize(9)


def over_counts(cases: Sequence[Case], methods: Sequence[Method], records: pd.DataFrame) -> dict[str, Figure]:
    """CRPS under the law and u ≥ 0 over that of the neural process, a panel for every kind of functions.

    Where that was not scored, over that of the first black box.
    """
    members = list(dict.fromkeys(case.member.name for case in cases))
    means = records[records["score"] == "CRPS"].set_index(["method", "case"])["mean"]
    treated = [method for method in methods if method.treatment == "bounded" and method.key in means]
    if len({case.count for case in cases}) < 2 or not treated:
        return {}
    reference = next((method for method in treated if method.key == REFERENCE), treated[0])
    title = f"CRPS over that of {reference.box.label}"
    figure, axes = plots.panels(len(members), title, share_y=False, columns=2)
    for panel, member in zip(axes, members, strict=True):
        own = {case.key: case.count for case in cases if case.member.name == member}
        for method in treated:
            ratio = (means[method.key] / means[reference.key]).reindex(own)
            panel.plot(list(own.values()), ratio, marker="o", ms=3, color=method.box.colour, label=method.box.label)
        panel.set(title=member, xlabel="observations", xscale="log", yscale="log")
        panel.set_xticks(sorted(own.values()), [str(count) for count in sorted(own.values())])
        panel.set_yticks(RATIOS, [str(ratio) for ratio in RATIOS])
        panel.minorticks_off()
    plots.legend_below(figure, *axes)
    return {"observations": figure}
