"""A figure of observations: what every row does to the error, beside none."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.experiment import Stored
from experiments.observations.methods import Method
from experiments.plots import panels


def compared(label: str, methods: Sequence[Method], stored: Stored) -> Mapping[str, Figure]:
    """CRPS of every row relative to that without a law, with the standard error of the paired difference."""
    arrays = {key: values for (key, _), values in stored.items()}
    if "none" not in arrays:
        return {}
    bare = arrays["none"]["CRPS"]
    shown = [method for method in methods if method.key in arrays and method.key != "none"]
    figure, axes = panels(1, label)
    for place, method in enumerate(shown):
        apart = (arrays[method.key]["CRPS"] - bare) / bare.mean()
        error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else 0.0
        axes[0].errorbar(1 + apart.mean(), -place, xerr=error, fmt="o", color=method.style.colour, capsize=3)
    axes[0].axvline(1.0, color="0.6", lw=1)
    axes[0].set_yticks([-place for place in range(len(shown))], [method.label for method in shown])
    axes[0].set_xlabel("CRPS relative to no law")
    return {"crps": figure}
