"""Features of the update: every prior under every law, and what else takes a prediction and a law."""

from collections.abc import Callable
from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from torch import Generator, Tensor
from torch.distributions import Normal

from probconserv import (
    Bounded,
    Ensemble,
    LinearConstraint,
    LinearInequality,
    Mixture,
    Monotone,
    NonlinearLaw,
    NonNegative,
    ProbConserv,
    boundary_value,
    condition,
    from_samples,
    integral,
    truncate,
)
from probconserv.balance import conservation, local_conservation
from probconserv.baselines import project_uniformly
from probconserv.constraints import boundary_gradient, second_difference_variance, smoothness
from probconserv.fields import FieldLayout, block_means, condition_fields, region_totals
from probconserv.inequalities.projected import Projected
from probconserv.law_evidence import evidence
from probconserv.mixture import is_bounded
from probconserv.posterior import Posterior
from probconserv.sampling import draw
from solvers import NodeGrid
from tests.probconserv.pairs.changes import Answer, Given, Quantity
from tests.probconserv.pairs.kinds import Feature
from tests.probconserv.pairs.priors import Answering

N = 6
PRIOR = {"group": "prior", "says": r"[Pp]rior( mean| covariance)? (holds|must be finite)|of the prior.* holds"}
B = "b of the constraint"


def normal(given: Given) -> Normal:
    return Normal(
        given.uniform("mean", N, **PRIOR),
        given.uniform("deviation", N, low=0.3, high=0.6, **PRIOR),
        validate_args=False,
    )


def root(given: Given) -> Tensor:
    """A well-conditioned root of a covariance."""
    return 0.4 * given.scale() * torch.eye(N).to(given.change.dtype) + given.normal("covariance", N, N, **PRIOR) / 10


def dense(given: Given) -> MultivariateNormal:
    R = root(given)
    return MultivariateNormal(given.uniform("mean", N, **PRIOR), to_linear_operator(R @ R.mT))


def mixture(given: Given) -> Mixture:
    means = given.uniform("mean", N, lead=(3,), **PRIOR)
    deviation = given.uniform("deviation", N, low=0.3, high=0.6, lead=(3,), **PRIOR)
    return Mixture(
        Normal(means, deviation.expand(torch.broadcast_shapes(means.shape, deviation.shape)), validate_args=False)
    )


def members(given: Given) -> MultivariateNormal:
    return from_samples(given.uniform("samples", N, lead=(given.cases,), **PRIOR))


def ensemble(given: Given) -> MultivariateNormal:
    means = given.uniform("mean", N, lead=(given.cases,), **PRIOR)
    deviation = given.uniform("deviation", N, low=0.3, high=0.6, group="prior", says="Ensemble with own_variance")
    parts = [Answering(Normal(*torch.broadcast_tensors(mean, deviation), validate_args=False)) for mean in means]
    return Ensemble(parts, own_variance=True)()


def conditioned(given: Given) -> MultivariateNormal:
    """A prediction under a boundary value already."""
    return condition(
        dense(given), LinearConstraint(torch.eye(N)[:1], given.uniform("b of the first", says=B)[..., None])
    )


def bounded(given: Given) -> Projected:
    return condition(normal(given), NonNegative())


PRIORS: dict[str, Callable[[Given], Any]] = {
    "normal": normal,
    "dense": dense,
    "mixture": mixture,
    "members": members,
    "ensemble": ensemble,
    "conditioned": conditioned,
    "under bounds": bounded,
}


def total(given: Given, noise: bool = False) -> LinearConstraint:
    variance = (0.1 * given.scale(1, 1)) ** 2 if noise else 0.0
    return integral(given.points("points", N), 0.7 * given.uniform("total", length=1, says=B), variance)


def halves(given: Given) -> LinearConstraint:
    """Two sums and their own sum."""
    rows = torch.eye(2, dtype=torch.float64).repeat_interleave(N // 2, dim=1)
    sums = given.uniform("b of the constraint", 2, low=1.5, high=3.0, says=B)
    return LinearConstraint(
        torch.cat([rows, rows.sum(0, keepdim=True)]), torch.cat([sums, sums.sum(-1, keepdim=True)], -1)
    )


def between(given: Given) -> Any:
    least, most = given.number("lower", 0.1, unit=1), 2.0 * given.scale()
    return total(given) & Bounded(least, most)


def ordered(given: Given) -> Any:
    return total(given) & Monotone(decreasing=True)


def at_most(given: Given) -> Any:
    rows = torch.eye(N, dtype=torch.float64)[:2] - torch.eye(N, dtype=torch.float64)[2:4]
    return total(given) & LinearInequality(
        rows, given.uniform("c", 2, low=0.05, high=0.2, says="c of a LinearInequality")
    )


def energy(given: Given) -> NonlinearLaw:
    level, unit = given.number("level", 0.8, unit=2), given.scale(2)
    return NonlinearLaw(residual_function=lambda u: (u.square().mean(-1, keepdim=True) - level) / unit, points=N)


def rough(given: Given) -> LinearConstraint:
    return smoothness(second_difference_variance(given.uniform("variance", N, unit=2, says="noise_variance")))


def slope(given: Given) -> LinearConstraint:
    """Value at one side and gradient at the other."""
    grid = NodeGrid(0.0, given.scale(0, 1), N)
    value = boundary_value(grid, given.uniform("value", says=B), side="first")
    return value & boundary_gradient(grid, given.normal("gradient", length=-1, says=B), side="last")


LAWS: dict[str, Callable[[Given], Any]] = {
    "total": total,
    "noisy total": lambda given: total(given, noise=True),
    "redundant rows": halves,
    "bounds": between,
    "order": ordered,
    "inequalities": at_most,
    "nonlinear law": energy,
    "smoothness": rough,
    "slopes": slope,
}


def moments(prediction: Any) -> Answer:
    """Mean, variance, draws of a seed and, where there is one, evidence."""
    drawn = is_bounded(prediction)
    found = {
        "mean": Quantity(prediction.mean, random=drawn),
        "variance": Quantity(prediction.variance, 2, random=drawn),
        "draws": Quantity(draw(prediction, (7,), Generator().manual_seed(1)), lead=1, random=True),
    }
    if isinstance(prediction, Projected):
        found["mode"] = Quantity(prediction.mode)
    if isinstance(prediction, Mixture):
        found["weights"] = Quantity(prediction.field_weights.expand(-1, *prediction.batch_shape), 0, lead=1)
    return found


def from_members(samples: Tensor, noise: Tensor | float = 0.0) -> MultivariateNormal:
    """The Gaussian of few members by the covariance of the sample."""
    covariance = torch.cov(samples.mT) + torch.as_tensor(noise).expand(N).diag_embed()
    return MultivariateNormal(samples.mean(dim=0), to_linear_operator(covariance))


def few_members(given: Given) -> MultivariateNormal:
    return from_members(given.uniform("samples", N, lead=(given.cases,)))


def few_networks(given: Given) -> MultivariateNormal:
    variance = given.uniform("deviation", N, low=0.3, high=0.6).square()
    return from_members(given.uniform("mean", N, lead=(given.cases,)), variance)


def without_draws(prediction: Any) -> Answer:
    return {"mean": Quantity(prediction.mean), "variance": Quantity(prediction.variance, 2)}


FEW = {"members": few_members, "ensemble": few_networks}
LINEAR = ("total", "noisy total", "smoothness", "slopes")


def under(prior: str, law: str) -> Feature:
    """A prior under a law; of members in closed form where the law is linear."""
    expected = None
    if prior in FEW and law in LINEAR:
        expected = lambda given: without_draws(condition(FEW[prior](given), LAWS[law](given)))  # noqa: E731
    return Feature(
        make=PRIORS[prior],
        ask=lambda made, given: moments(condition(made, LAWS[law](given))),
        expected=expected,
        long=(list(PRIORS).index(prior) + list(LAWS).index(law)) % 4 != 0,  # all laws and all priors in the default
    )


def of_layer(given: Given) -> ProbConserv:
    deviation = given.uniform("deviation", N, low=0.3, high=0.6, group="prior", says="Ensemble with own_variance")
    member = Answering(Normal(given.uniform("mean", N, **PRIOR), deviation, validate_args=False))
    return ProbConserv(Ensemble([member] * 2, own_variance=True), between(given))


def truncated(made: Any, given: Given) -> Answer:
    found = truncate(made, between(given))
    return {"mean": Quantity(found.mean), "variance": Quantity(found.variance, 2)}


def asked_evidence(made: Any, given: Given) -> Answer:
    found = evidence(made, total(given))
    return {
        "residual": Quantity(found.standardised_residual, 0),
        "evidence": Quantity(found.log_evidence, 0, log=-1.0, log_length=-1.0),
        "χ²": Quantity(found.chi_square, 0),
        "probability": Quantity(found.probability, 0),
    }


def asked_density(made: Any, given: Given) -> Answer:
    posterior = condition(made, total(given, noise=True))
    assert isinstance(posterior, Posterior)
    return {
        "log_prob": Quantity(posterior.log_prob(given.uniform("value", N)), 0, log=-N),
        "evidence": Quantity(posterior.log_evidence, 0, log=-1.0, log_length=-1.0),
        "entropy": Quantity(posterior.entropy(), 0, log=N),
    }


def of_maps(given: Given) -> Any:
    """Members of maps under means of blocks and a bound."""
    layout = FieldLayout(channels=1, shape=(4, 4))
    maps = given.uniform("samples", 1, 4, 4, lead=(given.cases,), **PRIOR)
    law = block_means(given.uniform("means", 1, 2, 2, says=B), (1, 2, 2))
    return condition_fields(maps, law & NonNegative(), layout)


def of_regions(given: Given) -> Any:
    layout = FieldLayout(channels=1, shape=(4, 4))
    labels = torch.arange(4).repeat_interleave(4).reshape(4, 4)
    prior = Normal(
        given.uniform("mean", 1, 4, 4, **PRIOR),
        given.uniform("deviation", 1, 4, 4, low=0.3, high=0.6, **PRIOR),
        validate_args=False,
    )
    return condition_fields(prior, region_totals(given.uniform("totals", 4, low=1.0, high=3.0, says=B), labels), layout)


def of_times(made: Any, given: Given) -> Answer:
    """A prediction at four times under the balance of fluxes that are values."""
    grid, times = NodeGrid(0.0, given.scale(0, 1), N), torch.tensor([0.0, 0.1, 0.3, 0.4], dtype=torch.float64)
    fluxes = [given.normal(name, 4, length=1, batch=False, says="flux") for name in ("flux_first", "flux_last")]
    law = conservation(
        grid, times, 0.7 * given.uniform("initial_total", length=1, batch=False, says="initial_total"), *fluxes
    )
    return moments(condition(made, law))


def prior_at_times(given: Given) -> Normal:
    return Normal(
        given.uniform("mean", 4, N, **PRIOR),
        given.uniform("deviation", 4, N, low=0.3, high=0.6, **PRIOR),
        validate_args=False,
    )


def of_volumes(made: Any, given: Given) -> Answer:
    grid = NodeGrid(0.0, given.scale(0, 1), N)
    faces = torch.tensor([0.0, 0.3, 0.6, 1.0], dtype=torch.float64) * given.scale(0, 1)
    contents = given.uniform("initial_contents", 3, length=1, low=0.1, high=0.3, says=B)
    law = local_conservation(grid, faces, contents, given.normal("passed", 4, length=1, says=B) / 20)
    return moments(condition(made, law))


def twice(made: Any, given: Given) -> Answer:
    """One law after another."""
    return moments(condition(condition(made, slope(given)), total(given)))


FEATURES = {
    f"{prior}, {law}": under(prior, law)
    for prior in PRIORS
    for law in LAWS
    # A mixture under a nonlinear law is refused; a second value at the first point contradicts the first one.
    if (prior, law) not in (("mixture", "nonlinear law"), ("conditioned", "slopes"))
} | {
    "layer": Feature(make=of_layer, ask=lambda made, _: moments(made())),
    "truncate": Feature(make=normal, ask=truncated),
    "evidence": Feature(make=dense, ask=asked_evidence),
    "evidence of a mixture": Feature(make=mixture, ask=asked_evidence),
    "density": Feature(make=dense, ask=asked_density),
    "project_uniformly": Feature(make=dense, ask=lambda made, given: moments(project_uniformly(made, total(given)))),
    "maps": Feature(ask=lambda _, given: moments(of_maps(given))),
    "regions": Feature(ask=lambda _, given: moments(of_regions(given))),
    "balance at times": Feature(make=prior_at_times, ask=of_times),
    "control volumes": Feature(make=dense, ask=of_volumes),
    "one law after another": Feature(make=dense, ask=twice),
}
