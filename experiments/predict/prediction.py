"""A Gaussian process on (t, x, u) before and after it is conditioned on the law, and the figure of both."""

import warnings
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.errors import InvalidArgumentError
from experiments.plots import BAND, BLUE, VERMILION, open_box
from experiments.predict.law import ConservedTotals, PredictOptions
from experiments.predict.observations import Observations
from probconserv import Context, GPSurrogate, NonNegative, Query, condition, integral
from probconserv.law_evidence import evidence
from probconserv.surrogates.gp import GPConfig
from solvers import NodeGrid

MOST_ROWS = 50_000  # their covariances with 400 inducing points fill 160 MB each
MOST_POINTS = 4000  # the covariance of 4,000 points fills 128 MB, and its factorisation takes seconds
CONTRADICTION = 5.0
"""Standardised residual above which a note says that the law contradicts the fit.

On samples of the five problems of this library the total was within 5 wherever the observations saw the whole field; a
Gaussian process with fitted parameters is over-sure, so that 3 is common.
"""
_LEAST_MOVE = 0.01, 1e-6
"""Part of the spread and of the size of the observed u: a total so near that of the fit does not contradict it.

A fit that is nearly exact is many standard deviations from a total with few digits.
"""
_WIDTH = 6.4  # inches; readable at 640 pixels
_COLUMNS = 3  # pairs of panels side by side, at most


class Marginals(NamedTuple):
    """Mean and standard deviation ``(t, n)`` at n points of t times."""

    mean: np.ndarray
    standard_deviation: np.ndarray


class ConstrainedPrediction(NamedTuple):
    """The Gaussian process at the points x ``(n,)``, before and after it is conditioned on the law at each time.

    The standardised residual ``(t,)`` is the total before minus that of the law, in standard deviations of the former.
    """

    x: np.ndarray
    before: Marginals
    after: Marginals
    standardised_residual: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """Mean after minus mean before ``(t, n)``."""
        return self.after.mean - self.before.mean

    def totals(self, marginals: Marginals) -> np.ndarray:
        """∫ u dx of the mean at every time ``(t,)``, by the trapezoid rule."""
        return np.trapezoid(marginals.mean, self.x, axis=-1)


def predict(observations: Observations, law: ConservedTotals, options: PredictOptions) -> ConstrainedPrediction:
    """Fits a Gaussian process to the observations and conditions its field at each time on the total there.

    Raises:
        InvalidArgumentError: If there are too many rows, times or points.
    """
    for count, most, what, remedy in (
        (len(observations.points), MOST_ROWS, "rows", "thin the file, for instance to times near the prediction's"),
        (len(law.times) * options.points, MOST_POINTS, "times × points", "give fewer --times or --points"),
    ):
        if count > most:
            raise InvalidArgumentError(f"A prediction takes at most {most} {what}, got {count}; {remedy}.")
    grid = NodeGrid(law.low, law.high, options.points)
    before = _fields(observations, torch.from_numpy(law.times), grid, options.smoothness)
    constraint = integral(grid, torch.from_numpy(law.totals))
    after = condition(before, constraint & NonNegative() if options.non_negative else constraint)
    first, second = (Marginals(field.mean.numpy(), field.variance.sqrt().numpy()) for field in (before, after))
    residual = evidence(before, constraint).standardised_residual[..., 0].numpy()
    return ConstrainedPrediction(grid.points.numpy(), first, second, residual)


def contradiction(
    prediction: ConstrainedPrediction, law: ConservedTotals, observations: Observations, options: PredictOptions
) -> str:
    """Warning for the user where the total is more than ``CONTRADICTION`` standard deviations from that of the fit.

    It speaks of the worst time, and is empty if there is none.
    """
    before = prediction.totals(prediction.before)
    u = observations.columns["u"]
    least = (law.high - law.low) * max(_LEAST_MOVE[0] * u.std(), _LEAST_MOVE[1] * np.abs(u).max())
    deviations = np.where(np.abs(law.totals - before) > least, np.abs(prediction.standardised_residual), 0.0)
    worst = deviations.argmax()
    if deviations[worst] <= CONTRADICTION:
        return ""
    given = "--initial-total, the fluxes and their signs, and the ends of the domain"
    check = given if options.law == "fluxes" else "--law and --parameter"
    return (
        f"At t = {law.times[worst]:g} the total by the law, {law.totals[worst]:.4g}, is {deviations[worst]:,.0f} "
        f"standard deviations from that of the Gaussian process, {before[worst]:.4g}: they contradict each other. "
        f"Check {check}, or whether the observations miss a part of the field."
    )


def _fields(observations: Observations, times: torch.Tensor, grid: NodeGrid, smoothness: float) -> MultivariateNormal:
    """The Gaussian process at each time, batch ``(t,)``: one fit, then the blocks of the joint covariance."""
    context = Context(torch.from_numpy(observations.points), torch.from_numpy(observations.columns["u"]))
    query = Query(torch.cartesian_prod(times, grid.points))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GPSurrogate sees")  # a note says it
        joint = GPSurrogate(GPConfig(smoothness=smoothness, steps=150)).predict(context, query)
    shape = (len(times), len(grid.points))
    blocks = joint.covariance_matrix.reshape(*shape, *shape).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    return MultivariateNormal(joint.mean.reshape(shape), to_linear_operator(blocks))


def before_and_after(
    prediction: ConstrainedPrediction, law: ConservedTotals, observations: Observations, title: str
) -> Figure:
    """Means and 95 % bands before and after, the nearest observations, and the change of the mean.

    Observations are those made nearest in time. A pair of panels per time, at most three side by side.
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
    for axes in np.ravel(pairs[count:]):
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
    styles = (("before", VERMILION, "--", prediction.before), ("after the law", BLUE, "-", prediction.after))
    for label, colour, dashes, field in styles:
        mean, band = field.mean[index], BAND * field.standard_deviation[index]
        axes.fill_between(prediction.x, mean - band, mean + band, color=colour, alpha=0.18, lw=0)
        axes.plot(prediction.x, mean, color=colour, ls=dashes, lw=1.6, label=label)
    t, x, u = (observations.columns[name] for name in ("t", "x", "u"))
    shown = t[np.abs(t - time).argmin()]
    axes.plot(x[t == shown], u[t == shown], "k.", ms=6, label="observed nearest in time")
    other = "" if shown == time else f", points of t = {shown:g}"
    before, after = (prediction.totals(field)[index] for field in (prediction.before, prediction.after))
    axes.set_title(f"t = {time:g}{other}\ntotal {before:.4g} → {after:.4g}", fontsize=9)
    open_box(axes)
