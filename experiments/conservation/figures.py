"""The figures of a conservation experiment from what was stored; the same axes and colours for every problem."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.conservation.cases import ConservationCase
from experiments.conservation.methods import ConservationMethod
from experiments.conservation.scoring import LEVELS, typical
from experiments.report import plots
from experiments.storage import Arrays

PAIRS = (("anp", "probconserv-anp"), ("gp", "probconserv-gp"))
GP = ("gp", "hardc-gp", "probconserv-gp")
PAPER = ("anp", "softc-anp", "hardc-anp", "probconserv-anp")
INEQUALITIES = ("probconserv-anp-non-negative", "probconserv-anp-monotone")
ENSEMBLES = ("ensemble", "probconserv-ensemble")
DISPLACED = "probconserv-anp-displaced"
VARIANTS = (
    *("probconserv-anp", "probconserv-anp-diffusion", "probconserv-anp-quadrature-variance"),
    *(*INEQUALITIES, DISPLACED),
)
CALIBRATION = (
    *("anp", "probconserv-anp", DISPLACED),
    *("probconserv-anp-tempered", "probconserv-anp-context-calibrated", "ensemble"),
)
SMALL = 0.05
"""Differences from the truth below this fraction of its range are drawn by themselves."""
NARROW = 0.72
"""Width of one of three panels in a row."""


@dataclass(frozen=True)
class Scored:
    """What was stored of one method.

    Args:
        method: The method.
        arrays: Its arrays.
    """

    method: ConservationMethod
    arrays: Arrays

    @property
    def line(self) -> dict[str, Any]:
        """Colour, dashes and label of its curve."""
        style = self.method.style
        return {"color": style.colour, "ls": style.dashes, "lw": 1.5, "label": self.method.label}


@dataclass(frozen=True)
class Drawing:
    """A case with all that was scored on it.

    Args:
        case: The case.
        scored: Methods with a prediction, by key, in the order of the table.
        truth: Arrays of the truth.
    """

    case: ConservationCase
    scored: Mapping[str, Scored]
    truth: Arrays

    @property
    def title(self) -> str:
        """Problem, parameter and test time."""
        return f"{self.case.heading}, t = {self.case.problem.test_time:g}"

    @property
    def shown(self) -> int:
        """A typical function: the median error of the network, or of the first method without it."""
        return typical(self.scored.get("anp", next(iter(self.scored.values()))).arrays["MSE"])

    @property
    def front(self) -> float | None:
        """The true front at the test time."""
        problem = self.case.problem
        return None if problem.front is None else float(problem.front(problem.test_time, self.case.parameter))

    def several(self, *keys: str, having: str = "mean") -> list[Scored]:
        """Those of the methods that were scored and have an array of this name."""
        return [self.scored[key] for key in keys if key in self.scored and having in self.scored[key].arrays]

    def profile(self, scored: Scored) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``(points,)`` of the shown function."""
        return scored.arrays["mean"][self.shown], scored.arrays["standard_deviation"][self.shown]


Profile = tuple[Scored, np.ndarray, np.ndarray]
"""Method, mean and standard deviation ``(points,)``."""


def drawing_of(case: ConservationCase, stored: Iterable[tuple[ConservationMethod, Arrays]]) -> Drawing | None:
    """What the figures of a case are drawn from; None without the truth or any other method."""
    scored = {method.key: Scored(method, part) for method, part in stored}
    truth = scored.pop("truth", None)
    return None if truth is None or not scored else Drawing(case, scored, truth.arrays)


def draw_case(case: ConservationCase, stored: Iterable[tuple[ConservationMethod, Arrays]]) -> dict[str, Figure]:
    """All figures of a case for which enough methods were scored.

    Args:
        case: The case.
        stored: Methods in the order of the table with their arrays, the truth among them.

    Returns:
        Figures by name; none without the truth or any other method.
    """
    drawing = drawing_of(case, stored)
    if drawing is None:
        return {}
    figures = {"context": _context(drawing), "calibration": _calibration(drawing)}
    for pair in (drawing.several(*pair) for pair in PAIRS):
        if len(pair) == 2 and "profile" not in figures:
            figures |= {"profile": draw_profile(drawing, *pair), **_local(drawing, *pair)}
    for name, keys in (("variants", VARIANTS), ("gp", GP)):
        profiles = [(scored, *drawing.profile(scored)) for scored in drawing.several(*keys)]
        if len(profiles) > 1:
            figures[name] = _profiles(drawing, drawing.title, profiles, [_in_two_lines(part[0]) for part in profiles])
    if drawing.front is not None:
        figures["front"] = _fronts(drawing, drawing.front)
    return figures | _over_time(drawing)


def draw_profile(drawing: Drawing, bare: Scored, conserved: Scored) -> Figure:
    """A typical function without and with the law, where the law moves it.

    Args:
        drawing: The case.
        bare: The prediction as it is.
        conserved: The same under the law.
    """
    problem, points = drawing.case.problem, drawing.truth["points"]
    law = float(problem.total(problem.test_time, drawing.case.parameter))
    figure, axes = plots.panels(2, f"{drawing.title}: the law says ∫ u dx = {law:.4f}")
    before, after = drawing.profile(bare)[0], drawing.profile(conserved)[0]
    origin = _draw_profiles(drawing, axes, [(part, *drawing.profile(part)) for part in (bare, conserved)])
    for panel, scored in zip(axes, (bare, conserved), strict=True):
        total = round(law + float(scored.arrays["signed_CE"][drawing.shown]), 4) + 0.0  # no −0
        panel.set_title(f"{scored.method.label}: ∫ u dx = {total:.4f}", fontsize=10)
    shaded = {"color": plots.YELLOW, "lw": 0, "label": "moved by the law", "zorder": 1.5}
    axes[1].fill_between(points, before - origin, after - origin, **shaded)
    axes[1].plot(points, before - origin, color=bare.method.style.colour, lw=0.9, label="mean before")
    plots.legend_below(figure, *axes, grey=("95 % band", "mean"))
    return figure


def _profiles(drawing: Drawing, title: str, profiles: Sequence[Profile], labels: Sequence[str]) -> Figure:
    """One panel per prediction."""
    figure, axes = plots.panels(len(profiles), title, width=NARROW, columns=3)
    _draw_profiles(drawing, axes, profiles)
    for panel, label in zip(axes, labels, strict=True):
        panel.set_title(label, fontsize=9)
    plots.legend_below(figure, axes[0], grey=("95 % band", "mean"))
    return figure


def _draw_profiles(drawing: Drawing, axes: Sequence[Axes], profiles: Sequence[Profile]) -> np.ndarray:
    """Mean and band in the colour of the method, the truth, and the observations nearest in time.

    Panels show the interval in which means and truth differ. Where nobody would see that they do, the truth is
    subtracted. Returns what is subtracted, ``(points,)``.
    """
    points, field = drawing.truth["points"], drawing.truth["field"]
    differences = np.array([mean - field for _, mean, _ in profiles])
    small = bool(np.abs(differences).max() < SMALL * np.ptp(field))
    origin = field if small else np.zeros_like(field)
    window = _window(drawing, np.abs(differences).max(axis=0))
    inside = (np.vstack((differences, 0 * field)) + field - origin)[:, (points >= window[0]) & (points <= window[1])]
    margin = 0.25 * np.ptp(inside)
    context = drawing.truth["context"][drawing.shown]
    distance = np.abs(context[:, 0] - drawing.case.problem.test_time)
    _, x, u = context[distance == distance.min()].T
    for panel, (scored, mean, deviation) in zip(axes, profiles, strict=True):
        low, high, colour = mean - plots.BAND * deviation, mean + plots.BAND * deviation, scored.method.style.colour
        panel.fill_between(points, low - origin, high - origin, color=colour, alpha=0.22, lw=0, label="95 % band")
        panel.plot(points, mean - origin, color=colour, lw=1.7, label="mean")
        panel.plot(points, field - origin, color=plots.TRUTH, lw=1.1, ls="--", label="truth")
        if not small:
            panel.plot(x, u, "k.", ms=5, alpha=0.6, label="context near this time")
        panel.set(xlim=window, ylim=(inside.min() - margin, inside.max() + margin))
        _label(panel, "x", "u − truth" if small else "u")
    return origin


def _label(panel: Axes, x: str, y: str) -> None:
    """Labels of the axes, that of the vertical one in the first column only."""
    panel.set_xlabel(x)
    spec = panel.get_subplotspec()
    if spec is not None and spec.is_first_col():
        panel.set_ylabel(y)


def _window(drawing: Drawing, difference: np.ndarray) -> tuple[float, float]:
    """The interval in which the difference is a tenth of its largest, and the front, with some margin."""
    points, domain = drawing.truth["points"], drawing.case.problem.domain
    inside = points[difference >= 0.1 * difference.max()].tolist() + ([] if drawing.front is None else [drawing.front])
    margin = 0.04 * (domain[1] - domain[0])
    return max(domain[0], min(inside) - margin), min(domain[1], max(inside) + margin)


def _local(drawing: Drawing, bare: Scored, conserved: Scored) -> dict[str, Figure]:
    """The global law beside the laws of control volumes."""
    local = conserved.arrays
    if "local_mean" not in local:
        return {}
    shown = int(local["local_function"][0])
    profiles: list[Profile] = [
        (scored, scored.arrays["mean"][shown], scored.arrays["standard_deviation"][shown])
        for scored in (bare, conserved)
    ]
    profiles.append((conserved, local["local_mean"], local["local_standard_deviation"]))
    labels = (bare.method.label, f"{conserved.method.label}, one law", "the law of every control volume")
    return {"local": _profiles(drawing, f"{drawing.title}: global and local conservation", profiles, labels)}


def _over_time(drawing: Drawing) -> dict[str, Figure]:
    """Totals, squared errors and likelihoods over time."""
    paper = drawing.several(*PAPER, having="curve_total")
    totals = ("gp", *PAPER, *ENSEMBLES) if paper else GP
    scores = (*PAPER, *INEQUALITIES, *ENSEMBLES) if paper else GP
    if not drawing.several(*scores, having="curve_total"):
        return {}
    return {"mass": _masses(drawing, totals), "scores": _scores_over_time(drawing, scores)}


def _masses(drawing: Drawing, keys: Sequence[str]) -> Figure:
    """Total mass over time, and how far it is from the law's."""
    figure, (left, right) = plots.panels(2, drawing.case.heading, share_y=False)
    times, law = drawing.truth["times"], drawing.truth["law"]
    left.plot(times, law, color=plots.TRUTH, lw=3.5, alpha=0.35, label="conservation law")
    right.plot(times, np.abs(drawing.truth["total"] - law), color=plots.TRUTH, lw=1.1, label="truth (trapezoid rule)")
    for scored in drawing.several(*keys, having="curve_total"):
        total = scored.arrays["curve_total"]
        left.plot(times, total.mean(axis=0), **scored.line)
        right.plot(times, np.abs(total - law).mean(axis=0), **scored.line)
    left.set(xlabel="t", ylabel="total ∫ u dx")
    right.set(xlabel="t", ylabel="mean |total − law|", yscale="log")
    plots.legend_below(figure, left, right)
    return figure


def _scores_over_time(drawing: Drawing, keys: Sequence[str]) -> Figure:
    """Mean squared error and log-likelihood over time, with one standard error as a band."""
    figure, (left, right) = plots.panels(2, drawing.case.heading, share_y=False)
    methods, times = drawing.several(*keys, having="curve_LL"), drawing.truth["times"]
    for panel, name in ((left, "curve_MSE"), (right, "curve_LL")):
        for scored in methods:
            values = scored.arrays[name]
            mean, error = values.mean(axis=0), values.std(axis=0) / max(len(values) - 1, 1) ** 0.5
            panel.plot(times, mean, **scored.line)
            panel.fill_between(times, mean - error, mean + error, color=scored.method.style.colour, alpha=0.15, lw=0)
    floor = min(float(np.median(scored.arrays["curve_LL"])) for scored in methods)
    left.set(xlabel="t", ylabel="mean squared error", yscale="log")
    right.set(xlabel="t", ylabel="log-likelihood per point")
    right.set_ylim(bottom=min(floor - 1.0, -1.0))
    plots.legend_below(figure, left)
    return figure


def _calibration(drawing: Drawing) -> Figure:
    """How much of the truth lies inside central intervals; a calibrated method lies on the diagonal."""
    figure, (axes,) = plots.panels(1, drawing.title, width=1.6)
    axes.plot([0, 1], [0, 1], color=plots.TRUTH, lw=1.0, alpha=0.6, label="calibrated")
    methods = drawing.several(*(CALIBRATION if "anp" in drawing.scored else GP), having="reliability")
    for scored, marker in zip(methods, itertools.cycle("osD^vP"), strict=False):
        covered = scored.arrays["reliability"].mean(axis=-1)
        axes.plot(LEVELS, covered, marker=marker, ms=4, markevery=2, **scored.line)
    axes.set(xlabel="level of the interval", ylabel="fraction of the truth inside", xlim=(0, 1), ylim=(0, 1.02))
    plots.legend_below(figure, axes)
    return figure


def _context(drawing: Drawing) -> Figure:
    """Where the shown function was observed, coloured by its value."""
    problem, context = drawing.case.problem, drawing.truth["context"][drawing.shown]
    figure, (axes,) = plots.panels(1, drawing.case.heading, width=1.6)
    drawn = axes.scatter(context[:, 1], context[:, 0], c=context[:, 2], cmap="viridis", s=18, label="context")
    axes.axhline(problem.test_time, color=plots.GREY, lw=1.2, label=f"test time t = {problem.test_time:g}")
    if problem.front is not None:
        times = torch.linspace(0.0, problem.final_time, 201, dtype=torch.float64)[1:]
        front = problem.front(times, drawing.case.parameter)
        axes.plot(front.numpy(), times.numpy(), color=plots.TRUTH, lw=1.2, ls="--", label="true front")
    axes.set(xlabel="x", ylabel="t", xlim=problem.domain)
    figure.colorbar(drawn, ax=axes, label="u")
    plots.legend_below(figure, axes)
    return figure


def _fronts(drawing: Drawing, true_front: float) -> Figure:
    """Histograms of sampled front positions, where they lie."""
    keys = (*PAPER, INEQUALITIES[0], DISPLACED) if "anp" in drawing.scored else GP
    methods = drawing.several(*keys, having="fronts")
    positions = [scored.arrays["fronts"][np.isfinite(scored.arrays["fronts"])] for scored in methods]
    window, bins = _bins(positions, true_front, drawing.truth["points"])
    figure, axes = plots.panels(len(methods), drawing.title, width=NARROW, columns=3)
    for panel, scored, sampled in zip(axes, methods, positions, strict=True):
        weights = np.full(sampled.shape, 1.0 / max(scored.arrays["fronts"].size, 1))
        panel.hist(sampled, bins, weights=weights, color=scored.method.style.colour, alpha=0.8, label="samples")
        panel.axvline(true_front, color=plots.TRUTH, lw=1.4, ls="--", label="true front")
        panel.set_title(_in_two_lines(scored), fontsize=9)
        panel.set_xlim(window)
        _label(panel, "front position", "fraction of samples")
    plots.legend_below(figure, axes[0], grey=("samples",))
    return figure


def _bins(
    positions: Sequence[np.ndarray], true_front: float, points: np.ndarray
) -> tuple[tuple[float, float], list[float]]:
    """An interval with the true front and all but 4 % of every method's samples, and bins centred at the points."""
    ends = [true_front, *(end for sampled in positions if len(sampled) for end in np.quantile(sampled, (0.02, 0.98)))]
    spacing = points[1] - points[0]
    width = spacing * max(1, round((max(ends) - min(ends)) / spacing / 30))
    window = max(points[0], min(ends) - 4 * width), min(points[-1], max(ends) + 4 * width)
    return window, np.arange(points[0] - spacing / 2, points[-1] + width, width).tolist()


def _in_two_lines(scored: Scored) -> str:
    return scored.method.label.replace(" (", "\n(")
