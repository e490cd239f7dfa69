"""The methods of a conservation table: which black box, and what is done to its prediction.

    bare            the prediction as it is
    HardC           projected onto the law, uniformly
    ProbConserv     conditioned on the law, and its variants with smoothness, a quadrature variance or inequalities

A mixture is treated component by component, as Hansen et al. 2023 do with their latent samples.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from gpytorch.distributions import MultivariateNormal
from torch.distributions import Normal

from probconserv import LinearConstraint, Mixture, Monotone, NonNegative, condition, smoothness
from probconserv.baselines import project_uniformly
from probconserv.calibration import displaced
from probconserv.constraints import second_difference_variance
from probconserv.inequalities.inequality import Inequality
from probconserv.inequalities.projected import Projected
from solvers.problems import Problem

DRAWS_PER_COMPONENT = 10
"""Draws of every component that mean and variance of a mixture under inequalities are taken from: 1,000 of 100."""


@dataclass(frozen=True)
class Laws:
    """What the variants condition on, at one or more times.

    Args:
        exact: The trapezoid total is the law's total.
        loose: The same with the variance of the truth's own quadrature error over the training parameters.
        problem: Says which inequalities the field meets.
        places: Where the field is predicted ``(places,)``.
        displacement: Standard deviation by which fronts may be displaced outside the training range, if it is known.
    """

    exact: LinearConstraint
    loose: LinearConstraint
    problem: Problem
    places: torch.Tensor
    displacement: float = 0.0


Distribution = MultivariateNormal | Mixture | Projected
Transform = Callable[[Distribution, Laws], Distribution]


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Args:
        surrogate: Name of the black box: ``gp``, ``ensemble`` or a network's.
        transform: What is done to its prediction.
    """

    surrogate: str
    transform: Transform


def bare(prior: Distribution, laws: Laws) -> Distribution:  # noqa: ARG001 - one signature for all transforms
    """The prediction itself."""
    return prior


def hard(prior: Distribution, laws: Laws) -> Distribution:
    """HardC: the mean projected with the identity for the covariance."""
    if isinstance(prior, Mixture):
        return Mixture(project_uniformly(prior.components, laws.exact), prior.weights)
    return project_uniformly(prior, laws.exact)


def conserved(prior: Distribution, laws: Laws) -> Distribution:
    """ProbConserv: conditioned on the law."""
    return condition(prior, laws.exact)


def smoothed(prior: Distribution, laws: Laws) -> Distribution:
    """ProbConserv (diffusion): conditioned on small second differences, then on the law.

    Of a mixture the Gaussian with its moments is taken, since n − 2 rows for each of 100 components cost minutes.
    """
    gaussian = Normal(prior.mean, prior.variance.sqrt()) if isinstance(prior, Mixture) else prior
    return condition(condition(gaussian, smoothness(second_difference_variance(prior.variance))), laws.exact)


def loosely_conserved(prior: Distribution, laws: Laws) -> Distribution:
    """ProbConserv (quadrature variance): conditioned on the law up to the error of the trapezoid rule."""
    return condition(prior, laws.loose)


def moved(prior: Distribution, laws: Laws) -> Distribution:
    """The prediction with its place uncertain."""
    return displaced(prior, laws.places, laws.displacement)


def moved_and_conserved(prior: Distribution, laws: Laws) -> Distribution:
    """ProbConserv (displaced): conditioned on the law after its place was made uncertain."""
    return condition(moved(prior, laws), laws.exact)


def bounded_by(inequality: Inequality) -> Transform:
    """ProbConserv under the law and inequalities together."""

    def transform(prior: Distribution, laws: Laws) -> Distribution:
        posterior = condition(prior, laws.exact & inequality)
        if isinstance(posterior, Mixture) and isinstance(posterior.components, Projected):
            return Mixture(posterior.components.with_draws(DRAWS_PER_COMPONENT), posterior.weights)
        return posterior

    return transform


def methods(problem: Problem, surrogates: set[str]) -> dict[str, Method]:
    """The rows of a problem's table in their order, as far as there are black boxes for them.

    Args:
        problem: Its bounds and monotonicity say which inequalities have a row.
        surrogates: Names of the black boxes that there are.

    Returns:
        Methods by the name that tables and figures show.
    """
    rows = {
        "GP": Method("gp", bare),
        "HardC-GP": Method("gp", hard),
        "ProbConserv-GP": Method("gp", conserved),
        "ANP": Method("anp", bare),
        "SoftC-ANP": Method("softc", bare),
        "HardC-ANP": Method("anp", hard),
        "ProbConserv-ANP": Method("anp", conserved),
        "ProbConserv-ANP (diffusion)": Method("anp", smoothed),
        "ProbConserv-ANP (quadrature variance)": Method("anp", loosely_conserved),
        "ProbConserv-ANP (non-negative)": Method("anp", bounded_by(NonNegative())),
        "ProbConserv-ANP (monotone)": Method("anp", bounded_by(Monotone(decreasing=True) & NonNegative())),
        "ANP (displaced)": Method("anp", moved),
        "ProbConserv-ANP (displaced)": Method("anp", moved_and_conserved),
        "ProbConserv-ANP (tempered)": Method("tempered", conserved),
        "ProbConserv-ANP (context-calibrated)": Method("context-calibrated", conserved),
        "ProbConserv-ANP (noisy context)": Method("noisy-context", conserved),
        "ANP, closed-form data": Method("anp-exact", bare),
        "ProbConserv-ANP, closed-form data": Method("anp-exact", conserved),
        "Ensemble": Method("ensemble", bare),
        "ProbConserv-Ensemble": Method("ensemble", conserved),
    }
    if problem.bounds is None or float(torch.as_tensor(problem.bounds(problem.training_range[0])[0]).min()) < 0:
        del rows["ProbConserv-ANP (non-negative)"]
    if "edge" not in surrogates:
        del rows["ANP (displaced)"], rows["ProbConserv-ANP (displaced)"]
    if not problem.monotone:
        del rows["ProbConserv-ANP (monotone)"]
    return {name: method for name, method in rows.items() if method.surrogate in surrogates}


def with_variance(law: LinearConstraint, variance: torch.Tensor) -> LinearConstraint:
    """The law up to an error of the given variance ``(*batch, 1)``."""
    return replace(law, noise_variance=variance)
