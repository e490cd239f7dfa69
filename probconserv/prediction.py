"""The interface of a prediction: what Gaussians, their mixtures and projected fields have in common."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from probconserv._linalg.values import square_root


@runtime_checkable
class Prediction(Protocol):
    """A distribution over n points: ``(*batch, n)``.

    Examples are gpytorch's ``MultivariateNormal``, ``Posterior``, ``Mixture`` and ``Projected``.
    """

    @property
    def mean(self) -> Tensor:
        """Mean ``(*batch, n)``."""
        ...

    @property
    def variance(self) -> Tensor:
        """Pointwise variance ``(*batch, n)``."""
        ...

    def rsample(self, sample_shape: torch.Size = ...) -> Tensor:
        """Draws ``(*sample_shape, *batch, n)``."""
        ...


SINGLE = torch.Size()
"""Shape of a set of draws that is a single one."""


class Drawable(ABC):
    """A prediction of its own kind, whose draws take a random generator; what follows from mean, variance and draws."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Mean ``(*batch, n)``."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Pointwise variance ``(*batch, n)``."""

    @abstractmethod
    def rsample(self, sample_shape: torch.Size = SINGLE, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws ``(*sample_shape, *batch, n)``, differentiable."""

    @property
    def stddev(self) -> Tensor:
        """Square root of the variance ``(*batch, n)``."""
        return square_root(self.variance)

    def sample(self, sample_shape: torch.Size = SINGLE, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws as ``rsample`` does, without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    @property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Lower and upper bounds that all draws meet, which broadcast to the mean; None without bounds."""
        return None

    def confidence_region(self) -> tuple[Tensor, Tensor]:
        """Two standard deviations below and above the mean, ``(*batch, n)`` each, within the bounds of the fields."""
        width = 2 * self.stddev
        return within_bounds(self, self.mean - width, self.mean + width)


def within_bounds(prediction: object, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of a band, ``(*batch, n)`` each, no lower and no higher than the bounds of the prediction."""
    bounds = prediction.bounds if isinstance(prediction, Drawable) else None
    if bounds is None:
        return lower, upper
    least, most = (bound.to(lower) for bound in bounds)
    return torch.maximum(lower, least), torch.minimum(upper, most)
