"""A Gaussian over a field with prescribed values, and variances as predictions state them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import LinearOperator
from torch import Tensor
from torch.distributions import Distribution, Normal

from probconserv._linalg.covariance import Covariance, covariance_of
from probconserv._linalg.values import square_root
from probconserv.errors import InvalidArgumentError
from probconserv.prediction import Prediction

_PART_OF_TRUTH = 1e-6  # of the variance of a true field over its points: the smallest variance of a log-likelihood


class FieldGaussian(MultivariateNormal):
    """A gpytorch ``MultivariateNormal`` whose variance is the diagonal of its covariance.

    The parent class raises variances below 1e-10 (1e-6 in single precision) to that number and warns, whatever the
    units of the field. Here a prescribed value, such as a boundary value, keeps variance 0.

    Args:
        mean: μ ``(*batch, n)``.
        covariance_matrix: Σ ``(*batch, n, n)``.
        validate_args: See the parent class.
        deviation: Standard deviations of independent values ``(*batch, n)``, float64, where these are given: draws are
            differentiable in them at 0, where the root of a variance is not.
    """

    def __init__(
        self,
        mean: Tensor,
        covariance_matrix: Tensor | LinearOperator,
        validate_args: bool = False,
        *,
        deviation: Tensor | None = None,
    ) -> None:
        self.deviation = deviation
        if deviation is None or deviation.shape != mean.shape:
            super().__init__(mean, covariance_matrix, validate_args)
            return
        # What the parent's constructor does, without its search for a common batch, slower than an update.
        self._islazy, self.loc, self._covar = True, mean, covariance_matrix
        self._MultivariateNormal__unbroadcasted_scale_tril = None
        Distribution.__init__(self, mean.shape[:-1], mean.shape[-1:], validate_args=False)

    def expand(self, batch_size: torch.Size) -> "FieldGaussian":
        """The same distribution with larger batch axes ``batch_size``."""
        deviation = None if self.deviation is None else self.deviation.expand(*batch_size, self.loc.shape[-1])
        larger = super().expand(batch_size)
        return FieldGaussian(larger.loc, larger.lazy_covariance_matrix, deviation=deviation)

    @property
    def variance(self) -> Tensor:
        """diag Σ ``(*batch, n)``, in the precision of the mean; 0 where rounding made it negative."""
        return _diagonal(self)

    @property
    def stddev(self) -> Tensor:
        """√diag Σ ``(*batch, n)``."""
        return square_root(self.variance)

    def rsample(
        self,
        sample_shape: Sequence[int] = torch.Size(),
        base_samples: Tensor | None = None,
    ) -> Tensor:
        """Draws ``(*sample_shape, *batch, n)``; the parent class takes no tuple."""
        return super().rsample(torch.Size(sample_shape), base_samples)


def index_of_axes(idx: Any, axes: int) -> tuple[tuple[Any, ...], Any] | None:
    """The index of the batch axes and that of the points; None where the points are not selected as an axis."""
    given: tuple[Any, ...] = idx if isinstance(idx, tuple) else (idx,)
    dots = [number for number, part in enumerate(given) if part is Ellipsis]
    if len(dots) > 1 or any(part is None or np.ndim(part) > 1 for part in given):
        return None
    first = dots[0] if dots else len(given)
    filled: list[Any] = [slice(None)] * (axes - len(given) + len(dots))
    *batch, points = (*given[:first], *filled, *given[first + len(dots) :])
    if len(batch) != axes - 1 or isinstance(points, int) or (np.ndim(points) and any(np.ndim(part) for part in batch)):
        return None
    return tuple(batch), points


def structure_of(gaussian: MultivariateNormal) -> Covariance:
    """The covariance of a Gaussian in float64, in the form of its structure, with standard deviations as stated."""
    deviation = gaussian.deviation if isinstance(gaussian, FieldGaussian) else None
    return covariance_of(gaussian.lazy_covariance_matrix, deviation)


def variance_of(prediction: Prediction) -> Tensor:
    """The pointwise variance ``(*batch, n)`` of a prediction; that of any ``MultivariateNormal`` without a floor.

    Raises:
        InvalidArgumentError: If the prediction is one of fields, whose rows would be taken for functions.
    """
    if isinstance(getattr(prediction, "points", None), Prediction):
        raise InvalidArgumentError(
            "A prediction of fields is scored over its points: give prediction.points, and true fields as "
            "layout.flatten(fields)."
        )
    if isinstance(prediction, MultivariateNormal) and type(prediction).variance is MultivariateNormal.variance:
        return _diagonal(prediction)
    return prediction.variance


def deviation_of(prediction: Prediction) -> Tensor:
    """The pointwise standard deviation ``(*batch, n)``, float64; that of a ``Normal`` is not squared on the way."""
    if isinstance(prediction, Normal):
        return prediction.scale.to(torch.float64)
    return square_root(variance_of(prediction).to(torch.float64))


def floored(variance: Tensor, truth: Tensor, floor: float | Tensor | None) -> Tensor:
    """Variances ``(*batch, n)`` of a log-likelihood, float64, none below a floor.

    By default the floor is a millionth of the variance of the true field over its points, so that it has the unit of
    the field and is the same for all predictions; where all its values are equal, the square of their rounding.
    """
    variance, truth = variance.to(torch.float64), truth.detach().to(torch.float64)
    if floor is None:
        floor = _PART_OF_TRUTH * truth.var(dim=-1, correction=0, keepdim=True)
        floor = torch.maximum(floor, rounding_of(truth).square()).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.maximum(variance, torch.as_tensor(floor, dtype=torch.float64, device=variance.device))


def rounding_of(values: Tensor) -> Tensor:
    """By how much sums of such values may be off in float64."""
    return 4 * torch.finfo(torch.float64).eps * values.abs()


def _diagonal(gaussian: MultivariateNormal) -> Tensor:
    variance = gaussian.lazy_covariance_matrix.diagonal().clamp_min(0.0)
    return variance.expand(gaussian.batch_shape + gaussian.event_shape).to(gaussian.loc.dtype)
