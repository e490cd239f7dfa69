"""Compatibility of a prediction with a law before it is imposed: a standardised residual and the evidence."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.gaussian import structure_of
from probconserv._linalg.rows import SMALL, Rows
from probconserv._linalg.structured import variance_of_rows
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.mixture import Mixture, moments_of
from probconserv.posterior import Posterior, posterior_of
from probconserv.prior import Gaussian, Prior, as_multivariate_normal, as_prior
from probconserv.update import check_axes_of_law, check_mixture_batch


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """How well a prediction N(μ, Σ) foresaw the right-hand sides of a law G u = b + ε, ε ~ N(0, σ²).

    Redundant rows do not enter log evidence and χ².

    Args:
        standardised_residual: z = (G μ − b)/√(G Σ Gᵀ + σ²)_ii ``(*batch, k)``, float64; its mean square over many
            functions is 1 for a calibrated prediction, larger where the prediction is over-sure.
        log_evidence: log N(b; G μ, G Σ Gᵀ + σ² I) ``(*batch,)``, float64.
        chi_square: χ² = (G μ − b)ᵀ (G Σ Gᵀ + σ² I)⁻¹ (G μ − b) ``(*batch,)``, float64: all rows together, whose
            residuals may be small one by one and hang together as the prediction says they do not. Of a mixture, with
            the covariance of the mixture; NaN under structured rows of more than a million entries.
        degrees_of_freedom: Number of independent rows, the mean of χ² over many functions if the prediction is
            calibrated.
    """

    standardised_residual: Float[Tensor, "*batch k"]
    log_evidence: Float[Tensor, "*batch"]
    chi_square: Float[Tensor, "*batch"]
    degrees_of_freedom: int

    @property
    def probability(self) -> Float[Tensor, "*batch"]:
        """Probability of a larger χ² under the prediction ``(*batch,)``; tiny where it does not explain the law."""
        half = torch.tensor(self.degrees_of_freedom / 2, dtype=torch.float64, device=self.chi_square.device)
        return torch.special.gammaincc(half.expand(self.chi_square.shape), self.chi_square.detach() / 2)


def evidence(prior: Prior, law: LinearConstraint) -> Evidence:
    """The evidence of a law, one observation that costs nothing: it warns where a prediction is out of its range.

    Of a mixture, log Σ_c π_c N(b; G μ_c, S_c), and the residual in units of the mixture's standard deviation of
    G u. Of a conditioned prediction, the evidence of the further law given the first.

    Args:
        prior: The prediction, as for ``condition``, without inequalities.
        law: G, b and σ²; for a law by quadrature the variance of its error, without which a nearly exact prediction
            seems wrong.

    Raises:
        InvalidArgumentError: If prediction or law has inequalities.
        DependentConstraintsError: If the prediction already determines a row, so that there is no density of b.
    """
    if not isinstance(law, LinearConstraint):
        raise InvalidArgumentError(
            f"evidence takes a LinearConstraint, got {type(law).__name__}: inequalities do not enter it; give the rows."
        )
    prior = as_prior(prior)
    check_axes_of_law(prior, law)
    if isinstance(prior, Mixture):
        check_mixture_batch(prior, law)
        if not isinstance(prior.components, Gaussian):
            raise InvalidArgumentError(
                f"evidence takes mixtures of Gaussians, not of {type(prior.components).__name__}."
            )
        residual, variance, log_evidence, _, independent = of_gaussian(prior.components, law)
        weights = prior.field_weights.to(torch.float64)
        centre, variance = moments_of(weights[..., None], residual, variance)
        standardised = centre / variance.sqrt()
        return Evidence(
            standardised_residual=standardised,
            log_evidence=torch.logsumexp(weights.log() + log_evidence, dim=0),
            chi_square=_joint(prior.components, independent, weights, standardised),
            degrees_of_freedom=independent.b.shape[-1],
        )
    if not isinstance(prior, Gaussian):
        raise InvalidArgumentError(f"evidence takes a Gaussian or a mixture of Gaussians, got {type(prior).__name__}.")
    residual, variance, log_evidence, chi_square, independent = of_gaussian(prior, law)
    return Evidence(
        standardised_residual=residual / variance.sqrt(),
        log_evidence=log_evidence,
        chi_square=chi_square,
        degrees_of_freedom=independent.b.shape[-1],
    )


def _joint(components: Gaussian, law: LinearConstraint, weights: Tensor, standardised: Tensor) -> Tensor:
    """χ² of a mixture ``(*batch,)`` under independent rows."""
    if standardised.shape[-1] == 1:
        return standardised[..., 0].square()
    if isinstance(law.G, Rows) and law.G.shape.numel() > SMALL:
        return torch.full_like(standardised[..., 0], math.nan)
    residual = law.residual(components.mean.to(torch.float64))
    centre = (weights[..., None] * residual).sum(dim=0)
    covariance = structure_of(as_multivariate_normal(components))
    within = covariance.times(law.rows) @ law.rows.mT + torch.diag_embed(law.noise)
    apart = (residual - centre)[..., None]
    total = (weights[..., None, None] * (within + apart @ apart.mT)).sum(dim=0)
    return (centre * torch.linalg.solve(total, centre)).sum(dim=-1)


def of_gaussian(prior: Gaussian, law: LinearConstraint) -> tuple[Tensor, Tensor, Tensor, Tensor, LinearConstraint]:
    """G μ − b and its variance ``(*batch, k)``, log evidence and χ² ``(*batch,)``, and the law of independent rows."""
    if isinstance(prior, Posterior):
        joined, independent = Posterior(prior.prior, prior.constraint & law), law
        gained, misfit = joined.log_evidence - prior.log_evidence, joined.misfit - prior.misfit
    else:
        prior = as_multivariate_normal(prior)
        posterior = posterior_of(prior, law, True)
        gained, misfit, independent = posterior.log_evidence, posterior.misfit, posterior.constraint
    residual = law.residual(prior.mean.to(torch.float64))
    covariance = structure_of(prior)
    variance = variance_of_rows(covariance, law.G) + law.noise
    return residual, variance.expand(residual.shape), gained, misfit, independent
