"""A Gaussian over a field with prescribed values, and variances as predictions state them."""

from collections.abc import Sequence

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor
from torch.distributions import Normal

from probconserv.errors import InvalidArgumentError
from probconserv.prediction import Prediction


class FieldGaussian(MultivariateNormal):
    """A gpytorch ``MultivariateNormal`` whose variance is the diagonal of its covariance.

    The parent class raises variances below 1e-10 (1e-6 in single precision) to that number and warns, whatever the
    units of the field. Here a prescribed value, such as a boundary value, keeps variance 0.
    """

    @property
    def variance(self) -> Tensor:
        """diag Σ ``(*batch, n)``, in the precision of the mean; 0 where rounding made it negative."""
        return _diagonal(self)

    def rsample(
        self,
        sample_shape: Sequence[int] = torch.Size(),
        base_samples: Tensor | None = None,
    ) -> Tensor:
        """Draws ``(*sample_shape, *batch, n)``; the parent class takes no tuple."""
        return super().rsample(torch.Size(sample_shape), base_samples)


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
    return variance_of(prediction).to(torch.float64).sqrt()


def _diagonal(gaussian: MultivariateNormal) -> Tensor:
    variance = gaussian.lazy_covariance_matrix.diagonal().clamp_min(0.0)
    return variance.expand(gaussian.batch_shape + gaussian.event_shape).to(gaussian.loc.dtype)
