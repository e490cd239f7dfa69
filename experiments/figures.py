"""Figures as PNG and PDF: one colour per kind of method everywhere, chosen to be told apart with any colour vision.

ProbConserv, HardC and SoftC have a colour each, whatever the black box; bare black boxes have one by kind. Variants of
one colour are told apart by dashes, in the reliability figure by markers as well.

Functions take plain arrays and return a matplotlib ``Figure``; ``save`` writes it. No global matplotlib state is used.
"""

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from experiments.storage import write_bytes

TRUTH = "#000000"
SKY, ORANGE, GREEN, BLUE, VERMILION, PURPLE = "#56B4E9", "#E69F00", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#7F7F7F"
LEGEND_ENTRY = 2.2  # inches, width of the longest entry of a legend
PANEL = (3.4, 2.8)  # inches
BAND = 1.96  # half-width of the central 95 % of a Gaussian, in standard deviations


@dataclass(frozen=True)
class Profile:
    """A prediction at one time for one function: mean and standard deviation ``(places,)``."""

    mean: np.ndarray
    deviation: np.ndarray


def colour_of(method: str) -> str:
    """The colour of a method: constrained ones blue, uniformly projected ones orange, bare black boxes by kind."""
    if method == "truth":
        return TRUTH
    prefixes = {"ProbConserv": BLUE, "HardC": ORANGE, "SoftC": PURPLE, "local": GREEN, "Ensemble": GREEN, "GP": SKY}
    return next((colour for prefix, colour in prefixes.items() if method.startswith(prefix)), VERMILION)


def profiles(
    places: np.ndarray,
    truth: np.ndarray | None,
    predictions: Mapping[str, Profile],
    title: str,
    context: tuple[np.ndarray, np.ndarray] | None = None,
    colour: Callable[[str], str] = colour_of,
) -> Figure:
    """One panel per method: mean, 95 % band and truth over x, all with the same axes.

    Args:
        places: x ``(places,)``.
        truth: True field ``(places,)``, where it is known.
        predictions: Profile by method, in the order of the panels.
        title: Says problem, parameter and time.
        context: Places and values of the observations nearest in time, marked in every panel.
        colour: From a method to its colour.

    Returns:
        The figure.
    """
    figure, panels = _panels(len(predictions), title)
    for axes, (method, profile) in zip(panels, predictions.items(), strict=True):
        own, band = colour(method), BAND * profile.deviation
        axes.fill_between(
            places, profile.mean - band, profile.mean + band, color=own, alpha=0.25, lw=0, label="95 % band"
        )
        axes.plot(places, profile.mean, color=own, lw=1.6, label="mean")
        if truth is not None:
            axes.plot(places, truth, color=TRUTH, lw=1.1, ls="--", label="truth")
        if context is not None:
            axes.plot(*context, "k.", ms=4, alpha=0.6, label="context near this time")
        axes.set(title=method, xlabel="x")
    panels[0].set_ylabel("u")
    _legend_below(figure, panels[0], grey=("95 % band", "mean"))
    return figure


def masses(
    times: np.ndarray, law: np.ndarray, totals: Mapping[str, np.ndarray], title: str, truth: np.ndarray
) -> Figure:
    """Total mass over time: the law's and that of every method's mean, and beside it the difference.

    Args:
        times: t ``(times,)``.
        law: Total that the law gives ``(times,)``.
        totals: Mean trapezoid total by method ``(functions, times)``.
        title: Says problem and parameter.
        truth: Trapezoid total of the true field ``(times,)``.

    Returns:
        The figure.
    """
    figure, (upper, lower) = _panels(2, title, share_y=False)
    upper.plot(times, law, color=TRUTH, lw=2.6, alpha=0.55, label="conservation law")
    lower.plot(times, np.abs(truth - law), color=TRUTH, lw=1.1, label="truth (trapezoid rule)")
    for method, total in totals.items():
        style = _line_style(method)
        upper.plot(times, total.mean(axis=0), label=method, **style)
        lower.plot(times, np.abs(total - law).mean(axis=0), label=method, **style)
    upper.set(xlabel="t", ylabel="total mass ∫ u dx", title="total")
    lower.set(xlabel="t", ylabel="mean |total − law|", title="conservation error", yscale="log")
    _legend_below(figure, lower, extra=upper)
    return figure


def scores_over_time(
    times: np.ndarray, errors: Mapping[str, np.ndarray], likelihoods: Mapping[str, np.ndarray], title: str
) -> Figure:
    """Mean squared error and log-likelihood of every method against time, with one standard error as a band.

    Args:
        times: t ``(times,)``.
        errors: MSE by method ``(functions, times)``.
        likelihoods: LL by method ``(functions, times)``.
        title: Says problem and parameter.

    Returns:
        The figure.
    """
    figure, (left, right) = _panels(2, title, share_y=False)
    for axes, series in ((left, errors), (right, likelihoods)):
        for method, values in series.items():
            mean, error = values.mean(axis=0), values.std(axis=0) / max(len(values) - 1, 1) ** 0.5
            style = _line_style(method)
            axes.plot(times, mean, label=method, **style)
            axes.fill_between(times, mean - error, mean + error, color=style["color"], alpha=0.15, lw=0)
    left.set(xlabel="t", ylabel="MSE", title="mean squared error", yscale="log")
    right.set(xlabel="t", ylabel="LL", title="log-likelihood per place")
    floor = min(float(np.median(values)) for values in likelihoods.values())
    right.set_ylim(bottom=min(floor - 1.0, -1.0))
    _legend_below(figure, left)
    return figure


def reliability(levels: np.ndarray, covered: Mapping[str, np.ndarray], title: str) -> Figure:
    """Share of the truth inside central intervals against their level; a calibrated method lies on the diagonal.

    Args:
        levels: Levels ``(levels,)``.
        covered: Share of true values inside, by method ``(levels,)``.
        title: Says problem, parameter and time.

    Returns:
        The figure.
    """
    figure, (axes,) = _panels(1, title, width=1.9)
    axes.plot([0, 1], [0, 1], color=TRUTH, lw=1.0, alpha=0.6, label="calibrated")
    for (method, shares), marker in zip(covered.items(), itertools.cycle("osD^vP"), strict=False):
        axes.plot(levels, shares, label=method, marker=marker, ms=4, markevery=2, **_line_style(method))
    axes.set(xlabel="level of the interval", ylabel="share of the truth inside", xlim=(0, 1), ylim=(0, 1.02))
    _legend_below(figure, axes)
    return figure


def observed_points(
    context: np.ndarray, extent: Sequence[float], time: float, title: str, front: tuple[np.ndarray, np.ndarray] | None
) -> Figure:
    """Context points of one function in the (x, t) plane, coloured by their value.

    Args:
        context: Rows (t, x, u) ``(n, 3)``.
        extent: Ends of the domain.
        time: The test time, marked by a line.
        title: Says problem and parameter.
        front: Times and true places of the front, where there is one.

    Returns:
        The figure.
    """
    figure, (axes,) = _panels(1, title, width=1.5)
    drawn = axes.scatter(context[:, 1], context[:, 0], c=context[:, 2], cmap="viridis", s=18, label="context")
    axes.axhline(time, color=BLUE, lw=1.2, label=f"test time t = {time:g}")
    if front is not None:
        axes.plot(front[1], front[0], color=TRUTH, lw=1.2, ls="--", label="true front")
    axes.set(xlabel="x", ylabel="t", xlim=(extent[0], extent[1]))
    figure.colorbar(drawn, ax=axes, label="u")
    _legend_below(figure, axes)
    return figure


def shock_histograms(
    positions: Mapping[str, np.ndarray], true_position: float, extent: Sequence[float], title: str
) -> Figure:
    """Histogram of sampled shock positions for every method, with the true position.

    Args:
        positions: Sampled positions by method, any shape; NaN where a sample has no shock.
        true_position: True position.
        extent: Ends of the domain.
        title: Says problem, parameter and time.

    Returns:
        The figure.
    """
    figure, panels = _panels(len(positions), title)
    bins = np.linspace(extent[0], extent[1], 51).tolist()
    for axes, (method, sampled) in zip(panels, positions.items(), strict=True):
        found = sampled[np.isfinite(sampled)]
        weights = np.full(found.shape, 1.0 / max(sampled.size, 1))
        axes.hist(found, bins=bins, weights=weights, color=colour_of(method), alpha=0.75, label="posterior samples")
        axes.axvline(true_position, color=TRUTH, lw=1.4, ls="--", label="true position")
        axes.set(title=method, xlabel="shock position")
    panels[0].set_ylabel("share of samples")
    _legend_below(figure, panels[0], grey=("posterior samples",))
    return figure


def traces(times: np.ndarray, series: Mapping[str, np.ndarray], title: str, place: float, truth: np.ndarray) -> Figure:
    """u at one place against time for several schemes, one panel each, beside the exact solution.

    Args:
        times: t ``(times,)``.
        series: u at the place ``(times,)`` by scheme.
        title: Says problem and grid.
        place: x of the place.
        truth: Exact u at the place ``(times,)``.

    Returns:
        The figure.
    """
    figure, panels = _panels(len(series), title)
    for axes, (scheme, values), colour in zip(panels, series.items(), (VERMILION, ORANGE, BLUE, GREEN), strict=False):
        axes.plot(times, values, color=colour, lw=1.3, label="finite volumes")
        axes.plot(times, truth, color=TRUTH, lw=1.0, ls="--", label="exact")
        axes.set(title=scheme, xlabel="t")
    panels[0].set_ylabel(f"u at x = {place:g}")
    _legend_below(figure, panels[0], grey=("finite volumes",))
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, atomically.

    Args:
        figure: The figure.
        path: File name without ending.

    Returns:
        The two files.
    """
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=160)
    FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None})
    files = [path.with_name(path.name + ending) for ending in (".png", ".pdf")]
    for file, buffer in zip(files, (png, pdf), strict=True):
        write_bytes(file, buffer.getvalue())
    return files


def bare(axes: Axes) -> None:
    """Leaves the box of a panel half open, with a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.5)


def _panels(count: int, title: str, share_y: bool = True, width: float = 1.0) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(PANEL[0] * count * width, PANEL[1] + 0.7), layout="constrained")
    panels = figure.subplots(1, count, sharey=share_y, sharex=True, squeeze=False)[0]
    for axes in panels:
        bare(axes)
    figure.suptitle(title, fontsize=11)
    return figure, list(panels)


def _line_style(method: str) -> dict[str, Any]:
    """Colour and dashes of a method's curve: variants of one colour are told apart by their dashes."""
    dashes = {
        "(non-negative)": ":",
        "(monotone)": "-.",
        "(displaced)": ":",
        "(tempered)": "-.",
        "(context": (0, (1, 3)),
    }
    dashes["ProbConserv-Ensemble"] = "--"
    style = next((dash for variant, dash in dashes.items() if variant in method), "-")
    return {"color": colour_of(method), "ls": style, "lw": 1.5}


def _legend_below(figure: Figure, axes: Axes, grey: Sequence[str] = (), extra: Axes | None = None) -> None:
    """One legend for all panels, four entries a line; what has another colour in every panel is shown grey."""
    handles, labels = axes.get_legend_handles_labels()
    if extra is not None:
        known = dict(zip(labels, handles, strict=True))
        known |= {label: handle for handle, label in zip(*extra.get_legend_handles_labels(), strict=True)}
        labels, handles = list(known), list(known.values())
    columns = min(len(labels), max(1, int(figure.get_figwidth() / LEGEND_ENTRY)))
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    for handle, label in zip(legend.legend_handles, labels, strict=True):
        if handle is not None and label in grey:
            handle.set(color=GREY)
