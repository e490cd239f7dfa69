"""Draws from any Gaussian prediction, by exact factorisations and with a generator as an argument.

Above 800 points ``gpytorch`` draws through a Lanczos approximation of the covariance; ``draw`` never does.
"""

from collections.abc import Callable, Sequence

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor
from torch.distributions import Normal

from probconserv._linalg.gaussian import structure_of
from probconserv._linalg.roots import apply_roots
from probconserv.posterior import Posterior
from probconserv.prediction import Drawable
from solvers.recording import are_readable

Normals = Callable[[Sequence[int]], Tensor]
"""From a shape to standard normal numbers, float64."""


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
    return drawn(prediction, sample_shape, normals_from(generator, prediction.mean.device))


def drawn(prediction: MultivariateNormal, sample_shape: torch.Size, normals: Normals) -> Tensor:
    """Draws of a Gaussian that has no law, from standard normal numbers."""
    mean = prediction.mean
    roots = structure_of(prediction).roots(torch.finfo(mean.dtype).eps)
    size = sum(root.shape[-1] for root in roots)
    deviations = apply_roots(roots, normals((*prediction.batch_shape, sample_shape.numel(), size))).movedim(-2, 0)
    return (mean + deviations.reshape(*sample_shape, *prediction.batch_shape, mean.shape[-1])).to(mean.dtype)


def normals_from(generator: torch.Generator | None, device: torch.device) -> Normals:
    """Standard normal numbers of a generator."""
    return lambda shape: torch.randn(shape, dtype=torch.float64, device=device, generator=generator)


def normals_of_seed(seed: int, like: Tensor) -> Normals:
    """Those of a new generator with a seed, call after call; an operation where a graph is recorded, or in vmap."""
    if are_readable(like):
        return normals_from(torch.Generator(like.device).manual_seed(seed), like.device)
    before: list[int] = []

    def normals(shape: Sequence[int]) -> Tensor:
        result = seeded_normals(shape, before, seed, like.device)
        before.append(result.numel())
        return result

    return normals


def _seeded_normals(shape: Sequence[int], before: Sequence[int], seed: int, device: torch.device) -> Tensor:
    """The numbers ``shape`` of a generator that gave ``before``, sizes of earlier calls, since it was seeded."""
    normals = normals_from(torch.Generator(device).manual_seed(seed), device)
    for size in before:
        normals((size,))
    return normals(shape)


seeded_normals = torch.library.custom_op(
    "probconserv::seeded_normals",
    _seeded_normals,
    mutates_args=(),
    schema="(SymInt[] shape, SymInt[] before, int seed, Device device) -> Tensor",
)


@seeded_normals.register_fake
def _(shape: Sequence[int], _before: Sequence[int], _seed: int, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device=device)
