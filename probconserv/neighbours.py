"""Predictions of torch and gpytorch that are Gaussians or mixtures under another name, read as ours."""

from typing import Any, cast

import torch
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator.operators import DiagLinearOperator, LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch.distributions import Independent, LowRankMultivariateNormal, MixtureSameFamily, Normal
from torch.distributions import MultivariateNormal as TorchMultivariateNormal

from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import InvalidArgumentError
from probconserv.mixture import Mixture

Neighbour = Independent | LowRankMultivariateNormal | MixtureSameFamily
NEIGHBOURS = (Independent, LowRankMultivariateNormal, MixtureSameFamily, MultitaskMultivariateNormal)


def as_known(prior: Any) -> Any:
    """The same prediction as a ``Normal``, a ``MultivariateNormal`` or a ``Mixture``; others stay as they are.

    * ``Independent(Normal, r)``: independent values, the last r axes one after the other.
    * ``LowRankMultivariateNormal``: low rank plus diagonal, never formed.
    * ``MixtureSameFamily`` of these: a ``Mixture``.
    * gpytorch's ``MultitaskMultivariateNormal`` (n, tasks): values task by task, as channels are.
    """
    if isinstance(prior, MultitaskMultivariateNormal):
        return _by_task(prior)
    if isinstance(prior, Independent):
        return _independent(prior)
    if isinstance(prior, LowRankMultivariateNormal):
        root = RootLinearOperator(prior.cov_factor)
        return FieldGaussian(prior.loc, PsdSumLinearOperator(root, DiagLinearOperator(prior.cov_diag)))
    if isinstance(prior, MixtureSameFamily):
        return _mixture(prior)
    return prior


def _independent(prior: Independent) -> Normal:
    base, axes = prior.base_dist, prior.reinterpreted_batch_ndims
    if not isinstance(base, Normal):
        raise InvalidArgumentError(
            f"Independent is read over a torch.distributions.Normal, got one over {type(base).__name__}; give the "
            "distribution inside it."
        )
    if axes < 2:
        return base
    return Normal(base.loc.flatten(-axes), base.scale.flatten(-axes), validate_args=False)


def _mixture(prior: MixtureSameFamily) -> Mixture:
    parts = prior.component_distribution
    if not parts.event_shape:
        raise InvalidArgumentError(
            "A MixtureSameFamily over single values has components of its own at every point; wrap its components, "
            "Independent(Normal(loc, scale), 1) with loc (*batch, components, n), so that whole fields are mixed."
        )
    weights = prior.mixture_distribution.probs.movedim(-1, 0)
    parts = as_known(parts)
    if isinstance(parts, Normal):
        first = Normal(parts.loc.movedim(-2, 0), parts.scale.movedim(-2, 0), validate_args=False)
    elif isinstance(parts, FieldGaussian):
        axes = range(parts.loc.ndim - 1)
        covariance = parts.lazy_covariance_matrix.permute(axes[-1], *axes[:-1], -2, -1)
        first = FieldGaussian(parts.loc.movedim(-2, 0), covariance)
    elif isinstance(parts, TorchMultivariateNormal):
        covariance = parts.covariance_matrix.movedim(-3, 0)
        first = MultivariateNormal(parts.mean.movedim(-2, 0), covariance)
    else:
        raise InvalidArgumentError(f"A MixtureSameFamily is read over Gaussians, got {type(parts).__name__}.")
    return Mixture(first, weights)


def _by_task(prior: MultitaskMultivariateNormal) -> MultivariateNormal:
    n, tasks = prior.event_shape
    mean, covariance = prior.mean.mT.flatten(-2), cast(LinearOperator, prior.lazy_covariance_matrix)
    if not prior._interleaved:
        return FieldGaussian(mean, covariance)
    order = torch.arange(n * tasks, device=mean.device).reshape(n, tasks).mT.flatten()
    dense = covariance.to_dense()[..., order, :][..., order]
    return MultivariateNormal(mean, dense)
