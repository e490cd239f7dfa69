"""Hypothesis strategies shared by the tests: they draw sizes and a seed, never single numbers."""

import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import strategies as st
from linear_operator.operators import (
    DenseLinearOperator,
    DiagLinearOperator,
    KroneckerProductLinearOperator,
    PsdSumLinearOperator,
    RootLinearOperator,
)
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, Mixture, Monotone, NonNegative

COVARIANCES = ("diagonal", "low_rank", "low_rank_and_noise", "kronecker", "dense")

seeds = st.integers(0, 2**32 - 1)

INEQUALITIES = (
    NonNegative(),
    Bounded(0.0, 1.0),
    Bounded(-0.5),
    Monotone(),
    Monotone(decreasing=True) & Bounded(0.0, 1.0),
    Monotone() & NonNegative(),
)


def mixture(seed: int, components: int = 3, batch: int = 2) -> Mixture:
    """A random mixture of independent values at 101 points, weighted."""
    generator = torch.Generator().manual_seed(seed)
    loc, scale = torch.rand(2, components, batch, 101, dtype=torch.float64, generator=generator)
    weights = torch.rand(components, batch, dtype=torch.float64, generator=generator)
    return Mixture(Normal(loc, 0.1 + scale), weights / weights.sum(dim=0))


def normal(*shape, seed=0):
    """Standard normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def positive_definite(n, generator, batch=()):
    """Well-conditioned symmetric positive definite matrices ``(*batch, n, n)``."""
    root = torch.randn(*batch, n, 2 * n, dtype=torch.float64, generator=generator)
    return root @ root.mT / (2 * n) + 0.05 * torch.eye(n, dtype=torch.float64)


def make_covariance(kind, n, generator, batch=()):
    """A lazy covariance ``(*batch, n, n)`` of a kind, float64; n must be even and at least 8."""

    def uniform(*shape):
        return torch.rand(*batch, *shape, dtype=torch.float64, generator=generator)

    if kind == "diagonal":
        return DiagLinearOperator(uniform(n) + 0.01)
    if kind == "low_rank":
        return RootLinearOperator(uniform(n, 6) - 0.5)
    if kind == "low_rank_and_noise":
        return PsdSumLinearOperator(RootLinearOperator(uniform(n, 3) - 0.5), DiagLinearOperator(uniform(n) + 0.01))
    if kind == "kronecker":
        factors = (positive_definite(2, generator, batch), positive_definite(n // 2, generator, batch))
        return KroneckerProductLinearOperator(*(DenseLinearOperator(factor) for factor in factors))
    return DenseLinearOperator(positive_definite(n, generator, batch))


@st.composite
def conditioning_problems(draw, kinds=COVARIANCES, dtype=torch.float64, noise_variance=0.0, batches=((), (3,), (2, 1))):
    """A prior of a kind and a constraint on it; batches of both sides broadcast."""
    kind = draw(st.sampled_from(kinds))
    n, k = 2 * draw(st.integers(4, 12)), draw(st.integers(1, 3))
    batch, shared = draw(st.sampled_from(batches)), draw(st.booleans())
    generator = torch.Generator().manual_seed(draw(seeds))
    magnitude = 10.0 ** draw(st.integers(-4, 4))

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    prior = MultivariateNormal(
        (magnitude * normal(*batch, n)).to(dtype), make_covariance(kind, n, generator, batch).to(dtype)
    )
    rows = normal(*(() if shared else batch), k, n)
    rows[..., 0, :] = rows[..., 0, :].abs()
    return prior, LinearConstraint(rows, magnitude * normal(*batch, k), noise_variance=noise_variance)


def projection_problem(seed, n, batch=(), spread=0):
    """Means, standard deviations over ``spread`` decades, and weights of a law."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(*batch, n, dtype=torch.float64, generator=generator)
    scale = 10.0 ** (spread * (torch.rand(*batch, n, dtype=torch.float64, generator=generator) - 0.5))
    weights = torch.rand(n, dtype=torch.float64, generator=generator) + 0.1
    fraction = 0.05 + 0.9 * torch.rand(batch, dtype=torch.float64, generator=generator)
    return mean, scale, weights, fraction * weights.sum()
