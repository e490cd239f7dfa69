"""The picture of a prediction: before and after on one axis, and below it where the law moved the mean."""

from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.predict.law import ConservedTotals
from experiments.predict.observations import Observations
from experiments.predict.prediction import ConstrainedPrediction
from experiments.report.plots import BAND, BLUE, VERMILION, open_box

_WIDTH = 6.4  # inches; readable at 640 pixels
_COLUMNS = 3  # pairs of panels side by side, at most


def before_and_after(
    prediction: ConstrainedPrediction, law: ConservedTotals, observations: Observations, title: str
) -> Figure:
    """Means and 95 % bands before and after, the nearest observations, and the change of the mean.

    Args:
        prediction: Before and after, at all times.
        law: The times.
        observations: Drawn where they were made nearest in time.
        title: Names the data.

    Returns:
        One pair of panels per time, at most three pairs side by side.
    """
    count = len(law.times)
    rows = ceil(count / _COLUMNS)
    columns = ceil(count / rows)
    figure = Figure(figsize=(_WIDTH, 0.7 + (3.6 if columns == 1 else 2.7) * rows), layout="constrained")
    ratios = [3, 1] * rows
    panels = figure.subplots(2 * rows, columns, sharex=True, sharey="row", height_ratios=ratios, squeeze=False)
    pairs = list(zip(panels[::2].ravel(), panels[1::2].ravel(), strict=True))
    for index, (upper, lower) in enumerate(pairs[:count]):
        _draw_field(upper, prediction, observations, float(law.times[index]), index)
        lower.fill_between(prediction.x, prediction.change[index], color=BLUE, alpha=0.45, lw=0)
        lower.axhline(0.0, color="black", lw=0.8)
        lower.set_xlabel("x")
        lower.tick_params(labelbottom=True)
        open_box(lower)
    for unused in pairs[count:]:
        for axes in unused:
            axes.remove()
    for upper, lower in pairs[::columns]:
        upper.set_ylabel("u")
        lower.set_ylabel("change")
    handles, labels = pairs[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(f"{title}: mean and 95 % band", fontsize=10)
    return figure


def _draw_field(
    axes: Axes, prediction: ConstrainedPrediction, observations: Observations, time: float, index: int
) -> None:
    totals = []
    for label, colour, dashes, field in (
        ("before", VERMILION, "--", prediction.before),
        ("after the law", BLUE, "-", prediction.after),
    ):
        mean, band = field.mean[index], BAND * field.standard_deviation[index]
        axes.fill_between(prediction.x, mean - band, mean + band, color=colour, alpha=0.18, lw=0)
        axes.plot(prediction.x, mean, color=colour, ls=dashes, lw=1.6, label=label)
        totals.append(f"{prediction.totals(field)[index]:.4g}")
    t, x, u = (observations.columns[name] for name in ("t", "x", "u"))
    nearest = t == t[np.abs(t - time).argmin()]
    axes.plot(x[nearest], u[nearest], "k.", ms=6, label="observed nearest in time")
    axes.set_title(f"t = {time:g}\ntotal {totals[0]} → {totals[1]}", fontsize=9)
    open_box(axes)
