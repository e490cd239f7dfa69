"""The law from soft to hard: scores of a conditioned prediction against the standard deviation σ of the law's error.

σ = 0 is the exact law; a large σ leaves the prediction as it is. Hansen et al. 2023, sec. 3, eq. 8: σ_G.
"""

from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import plots
from experiments.conservation.cases import Laws
from experiments.conservation.methods import Distribution
from experiments.storage import Arrays
from probconserv import condition, scores

DEVIATIONS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 0.0)
"""σ in units of the law's total."""
PANELS = {"MSE": "mean squared error", "LL": "log-likelihood per point", "CE": "mean |total − law|"}


def sweep(prior: Distribution, laws: Laws, truth: Tensor) -> dict[str, Tensor]:
    """Means over the functions: ``soft_CE``, ``soft_LL`` and ``soft_MSE`` ``(deviations,)``."""
    rows = []
    for deviation in DEVIATIONS:
        law = replace(laws.exact, noise_variance=deviation**2)
        posterior = condition(prior, law, keep_weights=True)
        mean, variance = posterior.mean[0], posterior.variance[0]
        error = scores.conservation_error(posterior.mean, laws.exact).abs()
        parts = error, scores.log_likelihood(truth, mean, variance), scores.mse(truth, mean)
        rows.append(torch.stack([part.mean() for part in parts]))
    return dict(zip(("soft_CE", "soft_LL", "soft_MSE"), torch.stack(rows, dim=-1), strict=True))


def draw(arrays: Arrays, title: str) -> Figure:
    """A panel per score against σ, the exact law at the left end."""
    figure, axes = plots.panels(len(PANELS), title, share_y=False)
    hard = DEVIATIONS[-2] / 3
    places = np.array([*DEVIATIONS[:-1], hard])
    for panel, (name, label) in zip(axes, PANELS.items(), strict=True):
        values = arrays[f"soft_{name}"]
        panel.plot(places[:-1], values[:-1], color=plots.CONSERVED, marker="o", ms=4, lw=1.4, label="law with error σ")
        if name != "CE":  # round-off has no place on the axis of the others
            panel.plot(hard, values[-1], color=plots.CONSERVED, marker="s", ms=6, ls="", label="exact law, σ = 0")
        panel.set(xscale="log", yscale="linear" if name == "LL" else "log", xlabel="σ", ylabel=label)
    plots.legend_below(figure, axes[0])
    return figure
