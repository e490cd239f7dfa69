"""Baselines: uniform projection (HardC) and a soft training penalty (SoftC)."""

from collections.abc import Callable
from typing import overload

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.mixture import Mixture
from probconserv.posterior import Posterior
from probconserv.prior import Gaussian, as_multivariate_normal
from solvers.finite_volume.laws.laws import ConvectiveLaw, DiffusiveLaw
from solvers.recording import are_readable


@overload
def project_uniformly(prior: Gaussian | Tensor, constraint: LinearConstraint) -> MultivariateNormal: ...
@overload
def project_uniformly(prior: Gaussian | Mixture | Tensor, constraint: LinearConstraint) -> Gaussian | Mixture: ...
def project_uniformly(prior: Gaussian | Mixture | Tensor, constraint: LinearConstraint) -> Gaussian | Mixture:
    """Projects the mean onto the constraint with Σ replaced by the unit matrix (HardC); of a mixture each component.

    μ′ = μ − Gᵀ (G Gᵀ)⁻¹ (G μ − b), variance unchanged (Hansen et al. 2023, sec. 4; after Négiar et al. 2023).

    Args:
        prior: The prediction; see ``condition``.
        constraint: G and b; its noise variance is not used.

    Raises:
        DependentConstraintsError: If the rows of G are dependent.
    """
    if isinstance(prior, Mixture):
        return Mixture(project_uniformly(prior.components, constraint), prior.weights)
    prior = as_multivariate_normal(prior)
    covariance = prior.lazy_covariance_matrix
    if are_readable(prior.mean):
        refuse_missing(covariance.diagonal(), "The covariance of the prior holds")
    unit = MultivariateNormal(prior.mean, DiagLinearOperator(torch.ones_like(prior.mean)))
    projected = Posterior(unit, LinearConstraint(constraint.G, constraint.b)).mean
    if covariance.dtype != projected.dtype:
        covariance = covariance.to(projected.dtype)
    if prior.batch_shape != projected.shape[:-1]:
        covariance = covariance.expand(*projected.shape, projected.shape[-1])
    return FieldGaussian(projected, covariance)


def soft_penalty(
    law: DiffusiveLaw | ConvectiveLaw,
    predict: Callable[[Tensor], Tensor],
    points: Float[Tensor, "*batch n d"],
) -> Float[Tensor, ""]:
    """Mean squared residual of the differential equation, mean((u_t + ∇·F(u))²), by automatic differentiation (SoftC).

    Args:
        law: Its ``flux(u, gradient)`` is F along an axis.
        predict: The mean prediction: points ``(*batch, n, d)`` to a field ``(*batch, n)``; each value may depend on the
            point it belongs to only.
        points: Points at which the residual is evaluated; columns are time, then the space axes.
    """
    if points.ndim < 2 or points.shape[-1] < 2:
        raise InvalidArgumentError(f"points must be (*batch, n, d) with columns t, x, …, got {tuple(points.shape)}.")
    with torch.enable_grad():
        points = points.detach().clone().requires_grad_(True)
        u = predict(points)
        if u.shape != points.shape[:-1]:
            raise InvalidArgumentError(
                f"predict must give one value per point, {tuple(points.shape[:-1])}, got {tuple(u.shape)}."
            )
        gradient = _gradient(u, points)
        residual = gradient[..., 0]
        for axis in range(1, points.shape[-1]):
            residual = residual + _gradient(law.flux(u, gradient[..., axis]), points)[..., axis]
        return residual.square().mean()


def _gradient(values: Tensor, points: Tensor) -> Tensor:
    return torch.autograd.grad(values.sum(), points, create_graph=True)[0]
