"""Whether a prediction knows its total better than the rule of the law does."""

import warnings
from typing import Any

import torch
from linear_operator.operators import DiagLinearOperator
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from probconserv._linalg.covariance import covariance_of
from probconserv._linalg.structured import variance_of_rows
from probconserv._linalg.values import as_tensor
from probconserv.constraints import LinearConstraint
from probconserv.inequalities.inequality import Inequality
from probconserv.mixture import Mixture, moments_of
from probconserv.nonlinear.law import NonlinearLaw, linear_part
from probconserv.prediction import Prediction
from solvers.recording import are_readable


def warn_of_rule(prior: Prediction, constraint: LinearConstraint | Inequality | NonlinearLaw) -> None:
    """Warns where a law is imposed more strictly than its rule is right, on a prediction that knows its total better.

    An exact row moves the prediction by the error of its rule. That harms where G u is known better than the rule
    knows it, G Σ Gᵀ below the variance of the rule. Of a mixture that is the variance of G u under all components.
    Nothing is asked of samples, of predictions under inequalities, and of laws without ``rule_variance``.
    """
    law = linear_part(constraint)
    if law is None or law.rule_variance is None:
        return
    parts = prior.components if isinstance(prior, Mixture) else prior
    if not isinstance(parts, Normal | MultivariateNormal) or not are_readable(law.b, parts.mean):
        return
    with torch.no_grad():
        rule, variance = as_tensor(law.rule_variance), _variance_of(prior, law)
        harmed = (law.noise < rule) & (variance < rule)
    if not bool(harmed.any()):
        return
    ratio = float((variance / rule).expand(harmed.shape)[harmed].min().sqrt())
    warnings.warn(
        f"The prediction knows {int(harmed.sum())} of {harmed.numel()} totals better than the rule of the law (its "
        f"standard deviation is down to {ratio:.1g} of the rule's error), so that an exact law moves it by that error. "
        "Give law.softened(), which is as rough as its rule, or a finer grid.",
        stacklevel=3,
    )


def _variance_of(prior: Any, law: LinearConstraint) -> Tensor:
    """Variance of G u ``(*batch, k)``."""
    if isinstance(prior, Mixture):
        weights = prior.field_weights.to(torch.float64)[..., None]
        return moments_of(weights, law.residual(prior.components.mean), _variance_of(prior.components, law))[1]
    lazy = getattr(prior, "lazy_covariance_matrix", None)
    covariance = covariance_of(DiagLinearOperator(prior.variance) if lazy is None else lazy)
    return variance_of_rows(covariance, law.G)
