"""The figure of a case: draws, mean, standard deviation and their errors, with the reference."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.generation.cases import Case
from experiments.generation.methods import Method
from experiments.records.record import Arrays

_DRAWS = 2


def draw_moments(case: Case, methods: Sequence[Method], shown: Mapping[str, Arrays]) -> Figure:
    """A row per method: two draws, mean, standard deviation, and both minus the exact ones."""
    mean, deviation = (moment.numpy() for moment in case.moments())
    headings = [f"draw {number + 1}" for number in range(_DRAWS)] + ["mean", "std", "mean − exact", "std − exact"]
    figure = Figure(figsize=(1.55 * len(headings) + 1.0, 1.4 * len(methods) + 0.7), layout="constrained")
    axes = figure.subplots(len(methods), len(headings), squeeze=False)
    largest = float(np.abs(shown[methods[0].key]["draws"]).max())
    fields = {method.key: _panels(shown[method.key], mean, deviation) for method in methods}
    missed = float(np.median([max(np.abs(panel).max() for panel in panels[-2:]) for panels in fields.values()]))
    spread = float(deviation.max()) or missed  # nothing is left open where a law fixes every parameter
    for row, method in zip(axes, methods, strict=True):
        scales = [(-largest, largest, "RdBu_r")] * (_DRAWS + 1) + [(0.0, spread, "viridis")]
        for panel, values, (low, high, colours) in zip(
            row, fields[method.key], [*scales, *[(-missed, missed, "PuOr")] * 2], strict=True
        ):
            image = panel.imshow(values.T, origin="lower", aspect="auto", vmin=low, vmax=high, cmap=colours)
            panel.set(xticks=[], yticks=[])
            if panel is row[-1]:
                figure.colorbar(image, ax=panel)
        row[0].set_ylabel(f"{method.label}\n{float(shown[method.key]['seconds']):.0f} s", fontsize=8)
    for panel, heading in zip(axes[0], headings, strict=True):
        panel.set_title(heading, fontsize=9)
    figure.suptitle(f"{case.problem.label}, {case.label}; t to the right, x up; {case.draws} draws", fontsize=10)
    return figure


def _panels(arrays: Arrays, mean: np.ndarray, deviation: np.ndarray) -> list[np.ndarray]:
    moments = [arrays["mean"], arrays["deviation"]]
    return [*arrays["draws"][:_DRAWS], *moments, moments[0] - mean, moments[1] - deviation]
