"""Predictions whose position along x is uncertain."""

import math

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from probconserv._linalg.gaussian import FieldGaussian, variance_of
from probconserv._linalg.values import floating
from probconserv.errors import InvalidArgumentError
from probconserv.prediction import Prediction

_COUNTED = 5.0  # largest shift of ``displaced``, in standardised deviations


def displaced(
    prediction: Prediction, points: Float[Tensor, " n"], deviation: float, shifts: int = 101
) -> MultivariateNormal:
    """The prediction with a random displacement along x: u(x) = ũ(x − δ), δ ~ N(0, s²), by its moments.

        mean      E_δ μ(x − δ)
        variance  E_δ [v(x − δ) + μ(x − δ)²] − mean²

    Where the field is flat nothing changes; at a front the variance accounts for the uncertain position of the front.
    The expectation is a sum over equally spaced shifts up to 5 s, weighted by their density; the prediction is
    interpolated linearly between points and extended by a constant beyond the ends.

    Args:
        prediction: Any prediction ``(*batch, n)``; its mean and variance are used.
        points: Equally spaced, increasing positions.
        deviation: Standard deviation s of the displacement, in the units of the points.
        shifts: Number of shifts.
    """
    mean, variance = prediction.mean, variance_of(prediction)
    spacing = spacing_of(points, mean.shape[-1])
    if not 0 <= deviation < math.inf or shifts < 3:
        raise InvalidArgumentError(
            f"deviation must be finite and not negative and shifts at least 3, got {deviation} and {shifts}."
        )
    standardised = torch.linspace(-_COUNTED, _COUNTED, shifts, dtype=mean.dtype, device=mean.device)
    probability = torch.softmax(-standardised.square() / 2, dim=0)[:, None]
    shift = deviation * standardised
    means = shifted(mean, shift / spacing)
    centre = (probability * means).sum(dim=-2)
    spread = (probability * (shifted(variance, shift / spacing) + (means - centre[..., None, :]).square())).sum(dim=-2)
    return FieldGaussian(centre, DiagLinearOperator(spread))


def shifted(values: Tensor, cells: Tensor) -> Tensor:
    """Values ``(*batch, n)`` moved by numbers of cells ``(shifts,)`` towards the end: ``(*batch, shifts, n)``."""
    left, weight = neighbours_of(values, cells)
    return values[..., left] * (1 - weight) + values[..., left + 1] * weight


def neighbours_of(values: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the left neighbour of every moved point, and the weight of the right one, ``(shifts, n)``."""
    last = values.shape[-1] - 1
    position = torch.arange(last + 1, dtype=values.dtype, device=values.device) - cells[:, None]
    position = position.clamp(0, last)
    left = position.floor().long().clamp_max(last - 1)
    return left, position - left


def spacing_of(points: Tensor, count: int) -> float:
    """The spacing, if the points are equally spaced up to rounding in their dtype."""
    points = floating(points)
    if points.shape == (count,) and count > 1:
        spacing = float(points[-1] - points[0]) / (count - 1)
        rounding = 4 * torch.finfo(points.dtype).eps * float(points.abs().max())
        if spacing > 0 and float((points.diff() - spacing).abs().max()) <= rounding:
            return spacing
    raise InvalidArgumentError(
        f"points must be {count} increasing, equally spaced numbers, at least 2, got shape {tuple(points.shape)}."
    )
