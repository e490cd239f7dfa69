"""Figures of rollouts: what drifts, and where fixers changed the field."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.plots import legend_below, panels
from experiments.records.record import Arrays

ROUND_OFF = 1e-17
"""What stands for no drift at all on a logarithmic axis."""


def draw_curves(label: str, methods: Sequence[Any], shown: Mapping[str, Arrays]) -> Figure:
    """Drift of mass, error and energy over the steps, and the spectrum at the end; means over basins."""
    figure, axes = panels(4, f"Mean over basins; {label}", share_y=False, columns=2, width=1.1)
    mass, error, energy, power = axes
    for method in methods:
        arrays = shown[method.key]
        line = {"color": method.style.colour, "ls": method.style.dashes, "lw": 1.5, "label": method.label}
        power.loglog(np.arange(1, len(arrays["power"]) + 1), arrays["power"], **line)
        if method is methods[0]:
            continue
        steps = np.arange(len(arrays["drift_by_step"]))
        mass.semilogy(steps[1:], np.maximum(arrays["drift_by_step"][1:], ROUND_OFF), **line)
        error.plot(steps, arrays["error_by_step"], **line)
        energy.plot(steps, arrays["energy_by_step"], **line)
    energy.axhline(1.0, color="0.5", lw=0.8)
    mass.set(title="relative change of mass", xlabel="step")
    error.set(title="error of the depth / waves", xlabel="step")
    energy.set(title="energy of the waves / the truth's", xlabel="step")
    power.set(title="spectrum at the end", xlabel="wavenumber, half waves per side")
    for panel in axes:
        panel.title.set_fontsize(10)
    legend_below(figure, power)
    return figure


def draw_changes(label: str, methods: Sequence[Any], shown: Mapping[str, Arrays]) -> Figure:
    """Sum over the steps of |change of depth| by each fixer in the first basin, over the rms wave height.

    ``methods`` and ``shown`` are as for ``draw_curves``; the first panel has the true depth at the end.
    """
    fixing = [method for method in methods[1:] if shown[method.key]["map"].any()]
    figure, axes = panels(len(fixing) + 1, f"Where fixers changed the depth of a basin; {label}", columns=3, width=0.8)
    first = axes[0].imshow(shown[methods[0].key]["depth"].T, origin="lower", cmap="viridis")
    axes[0].set_title("true depth at the end", fontsize=10)
    figure.colorbar(first, ax=axes[0], pad=0.02)
    most = float(np.median([np.quantile(shown[method.key]["map"], 0.99) for method in fixing]))
    for panel, method in zip(axes[1:], fixing, strict=True):
        values = shown[method.key]["map"]
        image = panel.imshow(values.T, origin="lower", cmap="magma", vmin=0.0, vmax=most)
        panel.set_title(f"{method.label}, mean {values.mean():.2g}", fontsize=10)
        figure.colorbar(image, ax=panel, pad=0.02, extend="max")  # one scale for all
    for panel in axes:
        panel.set(xticks=[], yticks=[])
        panel.grid(False)
    figure.draw_without_rendering()  # the second layout, when it is saved, knows how wide the labels of the bars are
    return figure
