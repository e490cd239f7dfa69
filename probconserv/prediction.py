"""The interface of a prediction: what Gaussians, their mixtures and projected fields have in common."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


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


class Samplable(Protocol):
    """A distribution whose draws take a random generator."""

    def rsample(self, sample_shape: torch.Size = ..., *, generator: torch.Generator | None = None) -> Tensor:
        """Draws ``(*sample_shape, *batch, n)``."""
        ...
