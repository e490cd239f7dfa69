"""What a prediction offers: the few members that Gaussians, their mixtures and projected fields share."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Prediction(Protocol):
    """A distribution over n points: ``(*batch, n)``.

    Gpytorch's ``MultivariateNormal`` is one, and so are the conditioned Gaussian and mixtures.
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
    """A distribution that draws from a generator of one's own."""

    def rsample(self, sample_shape: torch.Size = ..., *, generator: torch.Generator | None = None) -> Tensor:
        """Draws ``(*sample_shape, *batch, n)``."""
        ...
