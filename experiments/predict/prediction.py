"""A Gaussian process on (t, x, u), before and after it is conditioned on the law."""

from dataclasses import dataclass

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator

from experiments.errors import InvalidArgumentError
from experiments.predict.law import ConservedTotals
from experiments.predict.observations import Observations
from experiments.predict.options import PredictOptions
from probconserv import Context, GPConfig, GPSurrogate, NonNegative, Query, condition, integral
from solvers import NodeGrid

MOST_ROWS = 4000  # the covariance of so many points fills 128 MB, and its factorisation takes seconds


@dataclass(frozen=True)
class Marginals:
    """Mean and standard deviation ``(t, n)`` at n points of t times."""

    mean: np.ndarray
    standard_deviation: np.ndarray


@dataclass(frozen=True)
class ConstrainedPrediction:
    """A prediction before and after the update.

    Args:
        x: Points ``(n,)``.
        before: The Gaussian process.
        after: The same, conditioned on the law at each time.
    """

    x: np.ndarray
    before: Marginals
    after: Marginals

    @property
    def change(self) -> np.ndarray:
        """Mean after minus mean before ``(t, n)``."""
        return self.after.mean - self.before.mean

    def totals(self, marginals: Marginals) -> np.ndarray:
        """∫ u dx of the mean at every time ``(t,)``, by the trapezoid rule."""
        return np.trapezoid(marginals.mean, self.x, axis=-1)


def predict(observations: Observations, law: ConservedTotals, options: PredictOptions) -> ConstrainedPrediction:
    """Fits a Gaussian process to the observations and conditions its field at each time on the total there.

    Args:
        observations: The data of the fit.
        law: Times, totals and domain.
        options: Points of the prediction, sign and smoothness.

    Returns:
        The prediction before and after.

    Raises:
        InvalidArgumentError: If there are too many rows, times or points for an exact Gaussian process.
    """
    for count, what, remedy in (
        (len(observations.points), "rows", "thin the file, for instance to times near the prediction's"),
        (len(law.times) * options.points, "times × points of the prediction", "give fewer --times or --points"),
    ):
        if count > MOST_ROWS:
            raise InvalidArgumentError(
                f"An exact Gaussian process takes at most {MOST_ROWS} {what}, got {count}; {remedy}."
            )
    grid = NodeGrid(law.low, law.high, options.points)
    before = _fields(observations, torch.from_numpy(law.times), grid, options.smoothness)
    constraint = integral(grid, torch.from_numpy(law.totals))
    after = condition(before, constraint & NonNegative() if options.non_negative else constraint)
    marginals = [Marginals(field.mean.numpy(), field.variance.sqrt().numpy()) for field in (before, after)]
    return ConstrainedPrediction(grid.points.numpy(), *marginals)


def _fields(observations: Observations, times: torch.Tensor, grid: NodeGrid, smoothness: float) -> MultivariateNormal:
    """The Gaussian process at each time, batch ``(t,)``: one fit, then the blocks of the joint covariance."""
    context = Context(torch.from_numpy(observations.points), torch.from_numpy(observations.columns["u"]))
    query = Query(torch.cartesian_prod(times, grid.points))
    joint = GPSurrogate(GPConfig(smoothness=smoothness)).predict(context, query)
    shape = (len(times), len(grid.points))
    blocks = joint.covariance_matrix.reshape(*shape, *shape).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    return MultivariateNormal(joint.mean.reshape(shape), to_linear_operator(blocks))
