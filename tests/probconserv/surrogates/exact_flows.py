"""Flows with the exact velocities of Gaussians and of their mixtures."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from probconserv import FlowMatching, LinearConstraint
from probconserv.surrogates.flow import KarhunenLoeve

UNIT, TWENTY = (torch.eye(count, dtype=torch.float64) for count in (12, 20))


def coordinates(size: int, spread: Tensor | None = None) -> KarhunenLoeve:
    """Coefficients that are the values of the field."""
    mean, noise = torch.zeros(size).double(), torch.full((size,), 1e-8).double()
    return KarhunenLoeve(mean, TWENTY[:size, :size], noise, (size,), spread=spread)


class Mixed(nn.Module):
    """A mixture of Gaussians N(m, C), what a law makes of it, and the velocity that transports noise to it."""

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        self.weights, self.means, self.covariances = weights, means, covariances

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """(E[z₁ | z_t] − z)/(1 − t)."""
        z, moment = z.double(), float(t[0])
        spread = (1 - moment) ** 2 * TWENTY[: z.shape[-1], : z.shape[-1]] + moment**2 * self.covariances
        missed = z - moment * self.means[:, None]
        solved = torch.linalg.solve(spread, missed.mT)
        clean = self.means[:, None] + moment * (self.covariances @ solved).mT
        density = -0.5 * (missed * solved.mT).sum(dim=-1) - 0.5 * torch.logdet(spread)[:, None]
        shares = (self.weights.log()[:, None] + density).softmax(dim=0)
        return ((shares[..., None] * clean).sum(dim=0) - z) / (1 - moment)

    def given(self, law: LinearConstraint, more: float) -> tuple["Mixed", float]:
        """The mixture under a law with ``more`` variance, and the logarithm of its evidence."""
        G, seen = law.rows, law.rows @ self.covariances @ law.rows.mT + torch.diag(law.noise + more)
        gain = self.covariances @ G.mT @ torch.linalg.inv(seen)
        missed = law.b - self.means @ G.mT
        density = -0.5 * (missed[:, None] @ torch.linalg.solve(seen, missed[..., None]))[:, 0, 0]
        log_weights = self.weights.log() + density - 0.5 * torch.logdet(2 * torch.pi * seen)
        means = self.means + (gain @ missed[..., None])[..., 0]
        covariances = self.covariances - gain @ G @ self.covariances
        return Mixed(log_weights.softmax(dim=0), means, covariances), float(log_weights.logsumexp(dim=0))

    def shares(self, z: Tensor) -> Tensor:
        """Mean probability of each component over draws."""
        parts = torch.distributions.MultivariateNormal(self.means, self.covariances)
        return (self.weights.log() + parts.log_prob(z[:, None])).softmax(dim=-1).mean(dim=0)

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        kinds = self.weights.multinomial(count, replacement=True, generator=generator)
        normals = torch.randn(count, self.means.shape[-1], 1, dtype=torch.float64, generator=generator)
        return self.means[kinds] + (torch.linalg.cholesky(self.covariances)[kinds] @ normals)[..., 0]

    def moments(self) -> tuple[Tensor, Tensor]:
        mean = self.weights @ self.means
        apart = self.means - mean
        within = self.covariances + apart[:, :, None] * apart[:, None]
        return mean, (self.weights[:, None, None] * within).sum(dim=0)


def two_bumps() -> Mixed:
    means = torch.tensor([[-0.6, 0.4], [1.4, -0.9]], dtype=torch.float64)
    covariances = torch.tensor([0.09, 0.04], dtype=torch.float64)[:, None, None] * UNIT[:2, :2]
    return Mixed(torch.tensor([0.7, 0.3], dtype=torch.float64), means, covariances)


class GaussianVelocity(nn.Module):
    """The exact velocity of the Gaussian whose coefficients have these standard deviations."""

    def __init__(self, spread: Tensor) -> None:
        super().__init__()
        self.spread = nn.Parameter(spread.double())

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        t, variance = t[:, None], self.spread.square()
        return (t * variance - (1 - t)) / (t**2 * variance + (1 - t) ** 2) * z


def of_gaussian(latent: KarhunenLoeve, **arguments: Any) -> FlowMatching:
    """The exact velocity of the Gaussian with the moments of the coefficients."""
    return FlowMatching(latent, GaussianVelocity(latent.spread), **arguments)


def smooth(spread: float = 1.0) -> FlowMatching:
    """Twelve values of a smooth Gaussian process with mean 0.3; ``spread`` is that of its last mode."""
    x = torch.linspace(0, 1, 12, dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((x[:, None] - x) / 0.15).square()) + 1e-3 * UNIT
    values, vectors = torch.linalg.eigh(kernel)
    deviations = torch.logspace(0, math.log10(spread), 12, dtype=torch.float64)
    basis = (vectors * values.sqrt()).mT.flip(0) / deviations[:, None]
    mean, noise = torch.full((12,), 0.3).double(), torch.full((12,), 1e-9).double()
    return of_gaussian(KarhunenLoeve(mean, basis, noise, (12,), spread=deviations))


SEEN = LinearConstraint(UNIT[[2, 7]], torch.tensor([1.0, -0.4]), noise_variance=torch.tensor([0.0, 0.04]))
