"""Draws from any Gaussian prediction, by exact factorisations and with a generator as an argument.

Above 800 points ``gpytorch`` draws through a Lanczos approximation of the covariance; ``draw`` never does.
"""

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor
from torch.distributions import Normal

from probconserv._linalg.covariance import apply_roots, as_double
from probconserv._linalg.gaussian import roots_of
from probconserv.posterior import Posterior
from probconserv.prediction import Drawable


def draw(
    prediction: MultivariateNormal | Normal | Drawable,
    sample_shape: torch.Size | tuple[int, ...] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws fields from a Gaussian prediction; differentiable in its parameters.

    Args:
        prediction: Gaussian over n points; a ``Normal`` has independent values. If its ``rsample`` takes a
            generator, that method is used.
        sample_shape: Shape of the set of draws.
        generator: Source of random numbers.

    Raises:
        InvalidArgumentError: If the covariance is indefinite beyond round-off.
    """
    sample_shape = torch.Size(sample_shape)
    if isinstance(prediction, Normal):
        mean = prediction.mean
        normals = torch.randn(*sample_shape, *mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
        return mean + prediction.scale * normals
    if not isinstance(prediction, MultivariateNormal):
        return prediction.rsample(sample_shape, generator=generator)
    if isinstance(prediction, Posterior):
        return Posterior.rsample(prediction, sample_shape, generator=generator)
    mean = prediction.mean
    covariance = as_double(prediction.lazy_covariance_matrix)
    roots = roots_of(prediction, covariance)
    normals = torch.randn(
        *prediction.batch_shape,
        sample_shape.numel(),
        sum(root.shape[-1] for root in roots),
        dtype=torch.float64,
        device=mean.device,
        generator=generator,
    )
    deviations = apply_roots(roots, normals).movedim(-2, 0)
    return (mean + deviations.reshape(*sample_shape, *prediction.batch_shape, mean.shape[-1])).to(mean.dtype)
