"""The figures of a conservation experiment from what was stored; the same axes and colours for every problem."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import plots
from experiments.conservation.cases import Case
from experiments.conservation.methods import Method
from experiments.conservation.scoring import LEVELS, typical
from experiments.records.storage import Arrays

PAIRS = (("anp", "probconserv-anp"), ("gp", "probconserv-gp"))
GP = ("gp", "hardc-gp", "probconserv-gp")
PAPER = ("anp", "softc-anp", "hardc-anp", "probconserv-anp")
RIVALS = ("search", "total-inverted")
INEQUALITIES = ("probconserv-anp-non-negative", "probconserv-anp-monotone")
ENSEMBLES = ("ensemble", "probconserv-ensemble")
DISPLACED = "probconserv-anp-displaced"
ASSUMED = ("probconserv-anp-diffusion", "probconserv-anp-quadrature-variance", *INEQUALITIES, DISPLACED)
CALIBRATION = ("anp", *(f"probconserv-anp{name}" for name in ("", "-displaced", "-tempered", "-context-calibrated")))
SMALL = 0.05
"""Differences from the truth below this fraction of its range are drawn by themselves."""
NARROW, COLUMNS = 0.72, 3
"""Width of a panel where there are many, and how many are in a row."""


@dataclass(frozen=True)
class Scored:
    """Stored arrays of one method."""

    method: Method
    arrays: Arrays

    @property
    def line(self) -> dict[str, Any]:
        style = self.method.style
        return {"color": style.colour, "ls": style.dashes, "lw": 1.5, "label": self.method.label}


class Profile(NamedTuple):
    """Mean and standard deviation ``(points,)`` of one function, and a bound that no value is below."""

    mean: np.ndarray
    deviation: np.ndarray
    label: str
    colour: str
    least: float = -np.inf


@dataclass(frozen=True)
class Drawing:
    """A case with all that was scored on it, in the order of the table, and the arrays of the truth."""

    case: Case
    scored: Mapping[str, Scored]
    truth: Arrays

    @property
    def title(self) -> str:
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

    def covered(self, scored: Scored, window: tuple[float, float]) -> float:
        """The part of the truth inside the band, over all functions and the points of a window."""
        mean, deviation = scored.arrays["mean"], scored.arrays["standard_deviation"]
        inside = np.abs(self.truth["field"] - mean) <= plots.BAND * deviation
        points = self.truth["points"]
        return float(inside[:, (points >= window[0]) & (points <= window[1])].mean())

    def profile(self, scored: Scored, label: str = "") -> Profile:
        """The shown function."""
        mean, deviation = (scored.arrays[name][self.shown] for name in ("mean", "standard_deviation"))
        least = 0.0 if scored.method.key in INEQUALITIES else -np.inf
        return Profile(mean, deviation, label or scored.method.label, scored.method.style.colour, least)


def drawing_of(case: Case, stored: Iterable[tuple[Method, Arrays]]) -> Drawing | None:
    """Data of the figures of a case; None without the truth or any other method."""
    scored = {method.key: Scored(method, part) for method, part in stored}
    truth = scored.pop("truth", None)
    return None if truth is None or not scored else Drawing(case, scored, truth.arrays)


def draw_case(case: Case, stored: Iterable[tuple[Method, Arrays]]) -> dict[str, Figure]:
    """All figures of a case, by name, for which enough methods were scored; the first stands for the experiment."""
    drawing = drawing_of(case, stored)
    if drawing is None:
        return {}
    figures = dict[str, Figure]()
    pairs = [pair for keys in PAIRS if len(pair := drawing.several(*keys)) == 2]
    if pairs:
        figures |= {"profile": draw_profile(drawing, *pairs[0]), **_local(drawing, *pairs[0])}
    figures |= {"context": _context(drawing), "calibration": _calibration(drawing)}
    for name, keys in (("variants", ("probconserv-anp", *ASSUMED)), ("gp", GP)):
        profiles = [drawing.profile(scored) for scored in drawing.several(*keys)]
        if len(profiles) > 1:
            figures[name] = _profiles(drawing, drawing.title, profiles)
    keys = (*PAPER, INEQUALITIES[0], DISPLACED)
    fronts = drawing.several(*keys, having="fronts") or drawing.several(*GP, having="fronts")
    if drawing.front is not None and fronts:
        figures["front"] = _fronts(drawing, fronts, drawing.front)
    return figures | _over_time(drawing)


def draw_profile(drawing: Drawing, bare: Scored, conserved: Scored) -> Figure:
    """A typical function without and with the law, where the law moves it."""
    problem, points, pair = drawing.case.problem, drawing.truth["points"], (bare, conserved)
    law = float(problem.total(problem.test_time, drawing.case.parameter))
    totals = [law + float(part.arrays["signed_CE"][drawing.shown]) for part in pair]
    labels = [f"{part.method.label}: ∫ u dx = {total:z.4f}" for part, total in zip(pair, totals, strict=True)]
    profiles = [drawing.profile(part, label) for part, label in zip(pair, labels, strict=True)]
    figure, axes = plots.panels(2, f"{drawing.title}: the law says ∫ u dx = {law:.4f}")
    origin = _draw_profiles(drawing, axes, profiles, size=10)
    for panel, part in zip(axes, pair, strict=True):
        covered = drawing.covered(part, panel.get_xlim())
        panel.set_title(f"{panel.get_title()}\nin all functions its band holds {covered:.0%} here", fontsize=10)
    before, after = (profile.mean - origin for profile in profiles)
    axes[1].fill_between(points, before, after, color=plots.YELLOW, lw=0, label="moved by the law", zorder=1.5)
    axes[1].plot(points, before, color=profiles[0].colour, lw=0.9, label="mean before")
    plots.legend_below(figure, *axes, grey=("95 % band", "mean"))
    return figure


def _local(drawing: Drawing, bare: Scored, conserved: Scored) -> dict[str, Figure]:
    """The global law and the laws of control volumes."""
    arrays, one = conserved.arrays, drawing.profile(conserved, f"{conserved.method.label}, one law")
    if "local_mean" not in arrays:
        return {}
    local = arrays["local_mean"], arrays["local_standard_deviation"], "the law of every control volume", one.colour
    title = f"{drawing.title}: global and local conservation"
    return {"local": _profiles(drawing, title, [drawing.profile(bare), one, Profile(*local)])}


def _profiles(drawing: Drawing, title: str, profiles: Sequence[Profile]) -> Figure:
    """One panel per prediction."""
    figure, axes = plots.panels(len(profiles), title, width=NARROW, columns=COLUMNS)
    _draw_profiles(drawing, axes, profiles, size=9)
    plots.legend_below(figure, axes[0], grey=("95 % band", "mean"))
    return figure


def _draw_profiles(drawing: Drawing, axes: Sequence[Axes], profiles: Sequence[Profile], size: int) -> np.ndarray:
    """Mean and band in the colour of the method, the truth, and the observations nearest in time.

    Panels show the front, and where differences from the truth are at least a tenth of the largest. Where nobody would
    see them the truth is subtracted. Returns what is subtracted, ``(points,)``.
    """
    points, field = drawing.truth["points"], drawing.truth["field"]
    differences = np.array([profile.mean - field for profile in profiles])
    small = bool(np.abs(differences).max() < SMALL * np.ptp(field))
    origin = field if small else np.zeros_like(field)
    furthest, (start, end) = np.abs(differences).max(axis=0), drawing.case.problem.domain
    shown = [*points[furthest >= 0.1 * furthest.max()], *([] if drawing.front is None else [drawing.front])]
    window = max(start, min(shown) - 0.04 * (end - start)), min(end, max(shown) + 0.04 * (end - start))
    inside = (np.vstack((differences, 0 * field)) + field - origin)[:, (points >= window[0]) & (points <= window[1])]
    margin = 0.25 * np.ptp(inside)
    context = drawing.truth["context"][drawing.shown]
    distance = np.abs(context[:, 0] - drawing.case.problem.test_time)
    _, x, u = context[distance == distance.min()].T
    for panel, (mean, deviation, label, colour, least) in zip(axes, profiles, strict=True):
        low, high = np.maximum(mean - plots.BAND * deviation, least), mean + plots.BAND * deviation
        panel.fill_between(points, low - origin, high - origin, color=colour, alpha=0.22, lw=0, label="95 % band")
        panel.plot(points, mean - origin, color=colour, lw=1.7, label="mean")
        panel.plot(points, field - origin, color=plots.TRUTH, lw=1.1, ls="--", label="truth")
        if not small:
            panel.plot(x, u, "k.", ms=5, alpha=0.6, label="context near this time")
        panel.set(xlim=window, ylim=(inside.min() - margin, inside.max() + margin), xlabel="x")
        panel.set_title(label.replace(" (", "\n("), fontsize=size)
    for panel in axes[::COLUMNS]:
        panel.set_ylabel("u − truth" if small else "u")
    return origin


def _over_time(drawing: Drawing) -> dict[str, Figure]:
    """Totals, squared errors and likelihoods over time."""
    scores = drawing.several(*PAPER, *INEQUALITIES, *ENSEMBLES, having="curve_total")
    totals = drawing.several(*(("gp", *PAPER, *ENSEMBLES) if scores else GP), having="curve_total")
    return {"mass": _masses(drawing, totals), "scores": _scores_over_time(drawing, scores or totals)} if totals else {}


def _masses(drawing: Drawing, methods: Sequence[Scored]) -> Figure:
    """Total mass over time, and how far it is from the law's."""
    figure, (left, right) = plots.panels(2, drawing.case.heading, share_y=False)
    times, law = drawing.truth["times"], drawing.truth["law"]
    left.plot(times, law, color=plots.TRUTH, lw=3.5, alpha=0.35, label="conservation law")
    right.plot(times, np.abs(drawing.truth["total"] - law), color=plots.TRUTH, lw=1.1, label="truth (trapezoid rule)")
    for scored in methods:
        total = scored.arrays["curve_total"]
        left.plot(times, total.mean(axis=0), **scored.line)
        right.plot(times, np.abs(total - law).mean(axis=0), **scored.line)
    left.set(xlabel="t", ylabel="total ∫ u dx")
    right.set(xlabel="t", ylabel="mean |total − law|", yscale="log")
    plots.legend_below(figure, left, right)
    return figure


def _scores_over_time(drawing: Drawing, methods: Sequence[Scored]) -> Figure:
    """Mean squared error and log-likelihood over time, with one standard error as a band."""
    figure, (left, right) = plots.panels(2, drawing.case.heading, share_y=False)
    times = drawing.truth["times"]
    for panel, name in ((left, "curve_MSE"), (right, "curve_LL")):
        for scored in methods:
            values = scored.arrays[name]
            mean, error = values.mean(axis=0), values.std(axis=0) / max(len(values) - 1, 1) ** 0.5
            panel.plot(times, mean, **scored.line)
            panel.fill_between(times, mean - error, mean + error, color=scored.method.style.colour, alpha=0.15, lw=0)
    floor = min(0.0, *(float(np.median(scored.arrays["curve_LL"])) for scored in methods)) - 1.0
    left.set(xlabel="t", ylabel="mean squared error", yscale="log")
    right.set(xlabel="t", ylabel="log-likelihood per point", ylim=(floor, None))
    plots.legend_below(figure, left)
    return figure


def _calibration(drawing: Drawing) -> Figure:
    """How much of the truth lies inside central intervals; a calibrated method lies on the diagonal."""
    figure, (axes,) = plots.panels(1, drawing.title, width=1.6)
    axes.plot([0, 1], [0, 1], color=plots.TRUTH, lw=1.0, alpha=0.6, label="calibrated")
    methods = drawing.several(*CALIBRATION, "ensemble") or drawing.several(*GP)
    for scored, marker in zip(methods, "osD^vP", strict=False):
        covered = scored.arrays["reliability"].mean(axis=-1)
        axes.plot(LEVELS, covered, marker=marker, ms=4, markevery=2, **scored.line)
    axes.set(xlabel="level of the interval", ylabel="fraction of the truth inside", xlim=(0, 1), ylim=(0, 1.02))
    plots.legend_below(figure, axes)
    return figure


def _context(drawing: Drawing) -> Figure:
    """Places where the shown function was observed, coloured by its value."""
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


def _fronts(drawing: Drawing, methods: Sequence[Scored], true_front: float) -> Figure:
    """Histograms of sampled fronts, in an interval with the true one and all but 4 % of every method's samples."""
    positions = [scored.arrays["fronts"][np.isfinite(scored.arrays["fronts"])] for scored in methods]
    ends = [true_front, *(end for sampled in positions if len(sampled) for end in np.quantile(sampled, (0.02, 0.98)))]
    points, spacing = drawing.truth["points"], drawing.truth["points"][1] - drawing.truth["points"][0]
    width = spacing * max(1, round((max(ends) - min(ends)) / spacing / 30))
    bins = np.arange(points[0] - spacing / 2, points[-1] + width, width).tolist()  # centred at points
    window = max(points[0], min(ends) - 4 * width), min(points[-1], max(ends) + 4 * width)
    figure, axes = plots.panels(len(methods), drawing.title, width=NARROW, columns=COLUMNS)
    for panel, scored, sampled in zip(axes, methods, positions, strict=True):
        weights = np.full(sampled.shape, 1.0 / max(scored.arrays["fronts"].size, 1))
        panel.hist(sampled, bins, weights=weights, color=scored.method.style.colour, alpha=0.8, label="samples")
        panel.axvline(true_front, color=plots.TRUTH, lw=1.4, ls="--", label="true front")
        panel.set_title(scored.method.label.replace(" (", "\n("), fontsize=9)
        panel.set(xlim=window, xlabel="front position")
    for panel in axes[::COLUMNS]:
        panel.set_ylabel("fraction of samples")
    plots.legend_below(figure, axes[0], grey=("samples",))
    return figure
