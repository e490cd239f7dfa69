"""What a law says of a prediction before it is imposed: a standardised residual and the evidence."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.covariance import as_double, rows_times
from probconserv._linalg.rows import Rows
from probconserv._linalg.structured import variance_of_rows
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.mixture import Mixture
from probconserv.posterior import Posterior
from probconserv.update import Gaussian, as_multivariate_normal, check_mixture_batch


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """How well a prediction N(μ, Σ) foresaw the right-hand sides of a law G u = b + ε, ε ~ N(0, σ²).

    Args:
        standardised_residual: z = (G μ − b)/√(G Σ Gᵀ + σ²)_ii ``(*batch, k)``, float64; its mean square over many
            functions is 1 for a calibrated prediction, larger where the prediction is over-sure.
        log_evidence: log N(b; G μ, G Σ Gᵀ + σ² I) ``(*batch,)``, float64.
    """

    standardised_residual: Float[Tensor, "*batch k"]
    log_evidence: Float[Tensor, "*batch"]


def evidence(prior: Gaussian | Mixture, law: LinearConstraint) -> Evidence:
    """The evidence of a law, one observation that costs nothing: it warns where a prediction is out of its range.

    Of a mixture, log Σ_c π_c N(b; G μ_c, S_c), and the residual in units of the mixture's own standard deviation of
    G u. Of a conditioned prediction, the evidence of the further law given the first.

    Args:
        prior: The prediction, as for ``condition``, without inequalities.
        law: G, b and σ²; for a law by quadrature the variance of its error, without which a nearly exact prediction
            seems wrong.

    Returns:
        Standardised residual and log evidence; differentiable.

    Raises:
        IncompatibleQueryError: If prediction and law do not fit.
        InvalidArgumentError: If the prediction has inequalities.
        DependentConstraintsError: If the prediction already determines a row, so that there is no density of b.
    """
    if isinstance(prior, Mixture):
        check_mixture_batch(prior, law)
        if not isinstance(prior.components, Gaussian):
            raise InvalidArgumentError(
                f"evidence takes mixtures of Gaussians, not of {type(prior.components).__name__}."
            )
        residual, variance, log_evidence = of_gaussian(prior.components, law)
        weights = prior.weights.to(torch.float64)
        weights = weights.reshape(-1, *[1] * (log_evidence.ndim - 1)) if weights.ndim == 1 else weights
        centre = (weights[..., None] * residual).sum(dim=0)
        variance = (weights[..., None] * (variance + (residual - centre).square())).sum(dim=0)
        return Evidence(
            standardised_residual=centre / variance.sqrt(),
            log_evidence=torch.logsumexp(weights.log() + log_evidence, dim=0),
        )
    if not isinstance(prior, Gaussian):
        raise InvalidArgumentError(f"evidence takes a Gaussian or a mixture of Gaussians, got {type(prior).__name__}.")
    residual, variance, log_evidence = of_gaussian(prior, law)
    return Evidence(standardised_residual=residual / variance.sqrt(), log_evidence=log_evidence)


def of_gaussian(prior: Gaussian, law: LinearConstraint) -> tuple[Tensor, Tensor, Tensor]:
    """G μ − b and its variance ``(*batch, k)``, and the log evidence ``(*batch,)``."""
    if isinstance(prior, Posterior):
        gained = Posterior(prior.prior, prior.constraint & law).log_evidence - prior.log_evidence
    else:
        prior = as_multivariate_normal(prior)
        gained = Posterior(prior, law).log_evidence
    residual = law.residual(prior.mean.to(torch.float64))
    covariance = as_double(prior.lazy_covariance_matrix)
    if isinstance(law.G, Rows):
        variance = variance_of_rows(covariance, law.G) + law.noise
    else:
        variance = (rows_times(covariance, law.rows) * law.rows).sum(dim=-1) + law.noise
    return residual, variance.expand(residual.shape), gained
