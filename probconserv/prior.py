"""The one form in which a prediction enters an update: a Gaussian of gpytorch, a mixture, or draws under bounds."""

import warnings
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator.operators import (
    DenseLinearOperator,
    DiagLinearOperator,
    LinearOperator,
    PsdSumLinearOperator,
    RootLinearOperator,
)
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MixtureSameFamily, Normal
from torch.distributions import MultivariateNormal as TorchMultivariateNormal

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.gaussian import FieldGaussian
from probconserv._linalg.values import Array, as_tensor, floating
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.fitted.members import from_samples
from probconserv.inequalities.inequality import JoinedConstraint
from probconserv.inequalities.projected import Projected
from probconserv.mixture import Mixture
from probconserv.nonlinear.found import NonlinearMode
from probconserv.posterior import Posterior
from solvers.recording import are_readable

Gaussian = TorchMultivariateNormal | Normal
Statement = LinearConstraint | JoinedConstraint
Prior = Gaussian | Mixture | Projected | Independent | LowRankMultivariateNormal | MixtureSameFamily | Array
"""Priors that ``condition`` takes."""


def gaussian(mean: Any, std: Any) -> MultivariateNormal:
    """A Gaussian with independent values, from numbers as people have them; 0 as standard deviation is certain.

        u ~ N(μ, diag s²)

    Args:
        mean: μ ``(*batch, n)``: a tensor, an array of NumPy or JAX, a series or frame of pandas, or a list. The result
            has its precision and device; whole numbers are read as float64.
        std: Standard deviations s, in the unit of the mean: one number, or values that broadcast to the mean.

    Returns:
        The prediction, for ``condition`` and every other function that takes one.

    Raises:
        InvalidArgumentError: If they hold no numbers, are not finite or do not fit, or an s is negative.
    """
    centre, deviation = floating(as_tensor(mean, None, "mean")), as_tensor(std, None, "std")
    try:
        deviation = deviation.to(centre.device, torch.float64).expand(centre.shape)
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"std must be one number or broadcast to the mean {tuple(centre.shape)}, got {tuple(deviation.shape)}."
        ) from error
    if not centre.ndim:
        raise InvalidArgumentError("mean must be (*batch, n), got one number; give a list of it for one point.")
    if are_readable(centre, deviation):
        refuse_missing(centre, "mean holds")
        refuse_missing(deviation, "std holds")
    return _of_normal(Normal(centre, deviation, validate_args=False), validate=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """A prediction apart from what it meets, so that this can be joined with further statements.

    Args:
        gaussian: N(μ, Σ) before it was conditioned.
        stated: What it meets; None for nothing.
        search: How the field was found at which a nonlinear law among that is linearised; None without one.
        options: Those of its draws under inequalities.
    """

    gaussian: MultivariateNormal
    stated: Statement | None = None
    search: NonlinearMode | None = None
    options: dict[str, int] = field(default_factory=dict)

    @property
    def law(self) -> LinearConstraint | None:
        """The linear rows that it meets."""
        return self.stated.law if isinstance(self.stated, JoinedConstraint) else self.stated

    @property
    def inequalities(self) -> JoinedConstraint | None:
        """The inequalities that it meets."""
        return replace(self.stated, law=None) if isinstance(self.stated, JoinedConstraint) else None


def parts_of(prediction: MultivariateNormal | Projected) -> Parts:
    """The Gaussian of a prediction, and what it meets."""
    if isinstance(prediction, Projected):
        options = {"draws": prediction.draws, "seed": prediction.seed}
        return Parts(gaussian=prediction.prior, stated=prediction.constraint, search=prediction.search, options=options)
    if isinstance(prediction, Posterior):
        return Parts(gaussian=prediction.prior, stated=prediction.stated, search=prediction.search)
    return Parts(gaussian=prediction)


def as_prior(prior: Any, validate: bool = True) -> MultivariateNormal | Mixture | Projected:
    """The same prediction as a ``MultivariateNormal`` with lazy covariance, a ``Mixture`` of them or a ``Projected``.

    * ``Normal``: independent values ``(*batch, n)``, their covariance in float64, since σ² may underflow in the
      precision of σ; ``Independent(Normal, r)``: the last r axes one after the other.
    * ``LowRankMultivariateNormal``: low rank plus diagonal, never formed.
    * ``MixtureSameFamily`` of these: a ``Mixture``.
    * gpytorch's ``MultitaskMultivariateNormal`` (n, tasks): values task by task, as channels are.
    * Samples ``(members, *batch, n)``, a tensor or array: their mean and covariance, of low rank, with a warning.

    Args:
        prior: The prediction.
        validate: Whether standard deviations are checked.

    Raises:
        InvalidArgumentError: If the prior is none of these, or has negative standard deviations.
    """
    if isinstance(prior, Mixture | Projected):
        return prior
    if isinstance(prior, MultitaskMultivariateNormal):
        return _by_task(prior)
    if isinstance(prior, MultivariateNormal):
        return prior if prior.islazy else _of_matrix(prior)
    if isinstance(prior, Normal):
        return _of_normal(prior, validate)
    if isinstance(prior, Independent):
        return _of_normal(_independent(prior), validate)
    if isinstance(prior, LowRankMultivariateNormal):
        root = RootLinearOperator(prior.cov_factor)
        return FieldGaussian(prior.loc, PsdSumLinearOperator(root, DiagLinearOperator(prior.cov_diag)))
    if isinstance(prior, TorchMultivariateNormal):
        return _of_matrix(prior)
    if isinstance(prior, MixtureSameFamily):
        return _mixture(prior)
    if isinstance(prior, Tensor) or hasattr(prior, "__array__"):
        samples = as_tensor(prior, None, "samples")
        if not torch.compiler.is_compiling():
            warnings.warn(
                f"A tensor or array {tuple(samples.shape)} is read as samples (members, *batch, n), its first axis "
                "being the members of an ensemble. If that is meant, say so by from_samples(...); if the first axis is "
                "a batch, or there is none, give gaussian(mean, std).",
                stacklevel=3,
            )
        return from_samples(samples)
    raise _refused(prior)


def as_multivariate_normal(prior: Any) -> MultivariateNormal:
    """The same for one Gaussian.

    Raises:
        InvalidArgumentError: If the prediction is a mixture or under inequalities.
    """
    gaussian = as_prior(prior)
    if isinstance(gaussian, Mixture | Projected):
        raise _refused(prior)
    return gaussian


def _refused(prior: object) -> InvalidArgumentError:
    return InvalidArgumentError(
        "The prior must be a MultivariateNormal, a torch.distributions.Normal, a Mixture or samples "
        f"(members, *batch, n), got {type(prior).__name__}; gaussian(mean, std) makes a prior of two arrays or lists."
    )


def _of_matrix(prior: TorchMultivariateNormal) -> FieldGaussian:
    """A Gaussian with its covariance as a matrix; gpytorch would factorise it, and torch.compile cannot read it."""
    return FieldGaussian(prior.loc, DenseLinearOperator(prior.covariance_matrix))


def _of_normal(prior: Normal, validate: bool) -> FieldGaussian:
    """Independent values; negative standard deviations, whose square hides the sign, are refused."""
    deviation = prior.scale.to(torch.float64)
    if validate and are_readable(deviation) and deviation.numel() and float(deviation.detach().min()) < 0:
        raise InvalidArgumentError(
            "The standard deviations of the prior must not be negative, got a smallest entry of "
            f"{float(deviation.detach().min()):g}."
        )
    return FieldGaussian(floating(prior.loc), DiagLinearOperator(deviation.square()), deviation=deviation)


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
    parts = _independent(parts) if isinstance(parts, Independent) else parts
    if isinstance(parts, LowRankMultivariateNormal):
        parts = as_prior(parts)
    if isinstance(parts, Normal):
        first = Normal(parts.loc.movedim(-2, 0), parts.scale.movedim(-2, 0), validate_args=False)
    elif isinstance(parts, FieldGaussian):
        axes = range(parts.loc.ndim - 1)
        covariance = parts.lazy_covariance_matrix.permute(axes[-1], *axes[:-1], -2, -1)
        first = FieldGaussian(parts.loc.movedim(-2, 0), covariance)
    elif isinstance(parts, TorchMultivariateNormal):
        covariance = DenseLinearOperator(parts.covariance_matrix.movedim(-3, 0))
        first = FieldGaussian(parts.mean.movedim(-2, 0), covariance)
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
    return FieldGaussian(mean, DenseLinearOperator(dense))
