"""The maps of one year of the downscaling."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.observations.downscaling import BARE_KEY, BEST, FIXER
from experiments.records.record import Arrays


def draw_maps(label: str, shown: Mapping[str, Arrays]) -> Figure:
    """Fields above, errors below; every row has one colour bar.

    ``label`` says what is known of the field; ``shown`` has the arrays by key of the method, see ``score``.
    """
    truth, update = shown["truth"]["mean"], shown[BEST]
    fields = {"truth": truth, "given: block means": shown["truth"]["means"], "update, shrunk": update["mean"]}
    errors = {
        "error: bilinear + mean error": shown[BARE_KEY]["mean"] - truth,
        "error: additive layer": shown[FIXER]["mean"] - truth,
        "error: update, shrunk": update["mean"] - truth,
    }
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    figure.suptitle(f"Mean temperature of 2099 from {label}", fontsize=11)
    axes = figure.subplots(2, 3)
    bound = float(np.quantile(np.abs(errors["error: bilinear + mean error"]), 0.995))
    _draw_row(figure, list(axes[0]), fields, ("viridis", float(truth.min()), float(truth.max()), "K"))
    sizes = {f"{name} ({np.sqrt(np.mean(error**2)):.2f} K)": error for name, error in errors.items()}
    _draw_row(figure, list(axes[1]), sizes, ("RdBu_r", -bound, bound, "error, K"))
    return figure


def _draw_row(
    figure: Figure, axes: Sequence[Axes], maps: Mapping[str, np.ndarray], colours: tuple[str, float, float, str]
) -> None:
    """Maps by their titles with one colour bar; colours are a map, its ends and the label of the bar."""
    name, low, high, label = colours
    for panel, (title, values) in zip(axes, maps.items(), strict=True):
        panel.imshow(values, origin="lower", cmap=name, vmin=low, vmax=high, aspect="auto")
        panel.set_title(title, fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.colorbar(axes[0].images[0], ax=list(axes), label=label, pad=0.01)
