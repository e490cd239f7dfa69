"""Draws under a law with the right weights: a population of particles that the law guides.

Twisted sequential Monte Carlo. The law says o of the directions V of the coefficients, with variance R. For a particle
whose clean estimate ẑ₁ has the covariance C_t of Gaussian data its density is

    ψ_t(z) = N(o; Vᵀ ẑ₁, Vᵀ C_t V + R).

A step draws z₁ from N(ẑ₁, C_t) under the law and goes to z′ = α z₁ + κ z/(1 − t) + σ ε, which is exact for Gaussian
data at any length. From z′ the same Gaussian forecasts the law with the density f = N(o; Vᵀ m, Vᵀ M V + R), m and M
being the mean and covariance that z₁ has given z and z′. The weight of a particle grows by ψ_t′(z′)/f: by how much more
likely the flow makes the law than was forecast. Where few particles carry the weight, all are drawn anew from them.

Bounds multiply ψ by a power of the probability that they hold point by point. In the end it is divided out, and
particles beyond the bounds weigh nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from probconserv._linalg.gaussian import FieldGaussian
from probconserv.constraints import LinearConstraint
from probconserv.inequalities.inequality import Inequality
from probconserv.law_evidence import evidence
from probconserv.nonlinear.law import AnyLaw, linear_part
from probconserv.surrogates.flow.coefficients import INFORMED, Information, information_of
from probconserv.surrogates.flow.corrections import final_fields
from probconserv.surrogates.flow.discrepancy import allowing_for
from probconserv.surrogates.flow.latent import KarhunenLoeve, mean_of
from probconserv.surrogates.flow.steps import Flow, clean_estimate, nodes_of
from probconserv.surrogates.flow.tasks import SamplingOptions, SamplingTask
from solvers._former import warn_at_caller

_ENOUGH = 0.5  # of the particles: an effective number below it has them drawn anew
_CHANCE = 3e-5  # see ``Particles.in_range``
FEW = 5  # ancestors; none of 300 laws of fields in the range leaves fewer
_PART = 512  # fields in memory at a time
_LOWEST = 12.0  # −x down to which Φ(x) is a number in single precision
_SLACK = 3.0  # deviations of what the modes leave out, by which such a draw may miss a bound


@dataclass(frozen=True, kw_only=True, eq=False)
class Particles:
    """Diagnostics of a population, and its estimate for the law.

    Args:
        log_weights: Logarithms of the weights of the last particles, from which fields are drawn ``(particles,)``;
            weights sum to 1.
        effective_size: Smallest effective number 1/Σ w² of particles over the steps.
        ancestors: Starting points that have descendants among the last particles.
        log_evidence: log p(b) of the law's values under the flow, as ``evidence`` gives it for a Gaussian; that bounds
            hold is part of the law. Exact up to chance for Gaussian data; of others it has an error of first order in
            the steps, +0.24 at 50 steps for a law that only the tail of a mode meets, which ``FlowMatching.evidence``
            extrapolates to none.
        gaussian_log_evidence: The same of the Gaussian with the moments of the fields, without bounds.
        surprise: By how much ``log_evidence`` is below the largest that this Gaussian gives to any values of the rows.
        directions: Number k of directions that the law informs.
        within: Fraction of the particles that end within bounds.
        discrepancy: Whether no field that the flow knows has the exact values of the rows, see ``discrepancy``. Draws
            are then allowed an error, without which the estimates are: the particles' factor times the Gaussian.
    """

    log_weights: Float[Tensor, " particles"]
    effective_size: float
    ancestors: int
    log_evidence: float
    gaussian_log_evidence: float
    surprise: float
    directions: int
    within: float
    discrepancy: bool = False

    @property
    def probability(self) -> float:
        """That of a larger surprise under a Gaussian, where twice the surprise is χ² with k degrees of freedom."""
        half = torch.tensor([max(self.directions, 1) / 2, max(self.surprise, 0.0)], dtype=torch.float64)
        return float(torch.special.gammaincc(*half))

    @property
    def in_range(self) -> bool:
        """Whether fields that the flow knows may have the values of the law: a probability of 3e-5 or more.

        All of 300 laws of fields in the range have it (one to three values or a total, exact or with noise, four
        problems). Of 60 laws of parameters outside the range 16 have not (``run generate_ranges`` of release 0.3); most
        others have values that fields in range have, too.
        """
        return self.probability >= _CHANCE and not self.discrepancy

    @property
    def surprising(self) -> bool:
        """Whether the law is out of range, without a discrepancy, of which ``allowing_for`` warns."""
        return not (self.in_range or self.discrepancy)

    def extrapolated(self, coarse: "Particles", ratio: float) -> "Particles":
        """The same with the log evidence of infinitely many steps, from that of ``ratio`` times fewer steps.

        Without particles within the bounds in both there is none, nor with as many steps in both.
        """
        change = self.log_evidence - coarse.log_evidence
        if ratio == 1 or not math.isfinite(change):
            return self
        change /= ratio - 1
        return replace(self, log_evidence=self.log_evidence + change, surprise=self.surprise - change)

    def warn(self) -> None:
        """Says where draws are not to be trusted: a law out of range, and too few ancestors.

        That a law has a discrepancy was said where draws were allowed an error, by ``allowing_for``.
        """
        count, text = len(self.log_weights), None
        if not self.within:
            text = (
                f"None of {count} particles lies within the bounds, and draws are moved onto them: the law leaves "
                "little room, or the modes show what no field has. Take more particles or modes, or "
                "sampler=conditioned."
            )
        elif self.surprising:
            text = (
                f"The law is outside of what the flow knows: its log evidence is {self.surprise:.3g} below that of the "
                f"most usual values, which chance brings about with probability {self.probability:.1g}. Draws meet it "
                "all the same and cannot be trusted. Train the flow on a range that holds the field, or say how far "
                "off the values may be (LinearConstraint(..., noise_variance))."
            )
        elif self.ancestors < FEW:
            text = (
                f"All draws descend from {self.ancestors} of {count} particles, and vary too little. Take more "
                "particles, a tolerance such as 0.3, or sampler=conditioned with local=True (SamplingOptions)."
            )
        if text is not None:
            warn_at_caller(text)


@dataclass(frozen=True, eq=False)
class Draws:
    """Drawn fields, all equally likely.

    Args:
        fields: ``(count, *space)``, float64.
        sampler: Name of the sampler that ran, with its ``options``.
        particles: What the particles of ``twisted`` tell, also where too few were left and ``conditioned`` drew; None
            where there were none.
    """

    fields: Float[Tensor, "count ..."]
    sampler: str
    options: SamplingOptions
    particles: Particles | None = None


@dataclass(eq=False)
class Guide:
    """A law in coefficients: o of directions V with variance R, and bounds ``(n,)`` of the field beside its rows."""

    latent: KarhunenLoeve
    vectors: Float[Tensor, "r k"]
    goal: Float[Tensor, " k"]
    noise: Float[Tensor, " k"]
    rows: LinearConstraint | None
    bounds: tuple[Tensor, Tensor] | None
    left_out: Float[Tensor, " n"] = field(init=False)
    power: float = field(init=False)

    def __post_init__(self) -> None:
        # The power counts points that vary by themselves: n over the sum of squared correlations.
        self.left_out = self.latent.rest.square().sum(dim=0) + self.latent.noise_variance
        root = self.latent.root / (self.latent.root.square().sum(dim=0) + self.left_out).sqrt()
        self.power = self.latent.points / float((root @ root.mT).square().sum())

    def log_density(self, mean: Float[Tensor, "s r"], covariance: Float[Tensor, " r"]) -> Float[Tensor, " s"]:
        """log N(o; Vᵀ mean, Vᵀ C V + R) for a diagonal C."""
        _, root = self._gain(covariance)
        missed = torch.linalg.solve_triangular(root, (self.goal - mean @ self.vectors).mT, upper=False)
        return -0.5 * missed.square().sum(dim=0) - root.diagonal().log().sum() - len(root) * math.log(2 * math.pi) / 2

    def draw(self, mean: Tensor, covariance: Tensor, generator: Generator) -> Float[Tensor, "s r"]:
        """Draws of N(mean, C) given o, by Matheron's rule."""
        free = mean + covariance.sqrt() * _normal(mean.shape, generator)
        seen = self.goal + self.noise.sqrt() * _normal((len(mean), len(self.goal)), generator)
        return self._given(free, covariance, seen)

    def potential(self, mean: Tensor, covariance: Tensor) -> Float[Tensor, " s"]:
        """The power times log Π P(lower ≤ u_i) P(u_i ≤ upper) for N(mean, C) given o, and what the modes leave out."""
        if self.bounds is None:
            return mean.new_zeros(len(mean))
        along, root = self._gain(covariance)
        known = torch.linalg.solve_triangular(root, along.mT @ self.latent.basis, upper=False).square().sum(dim=0)
        variance = (covariance @ self.latent.basis.square() - known).clamp_min(0.0) + self.left_out
        deviation, given = variance.sqrt(), self._given(mean, covariance, self.goal).float()
        found = mean.new_zeros(len(mean))
        for bound, sign in zip(self.bounds, (1, -1), strict=True):
            if bool(bound.isfinite().any()):
                start = (sign * (self.latent.mean - bound) / deviation).float()
                apart = start + given @ (sign * self.latent.basis / deviation).float()
                found += _log_ndtr(apart).sum(dim=-1)
        return self.power * found

    def within(self, z: Float[Tensor, "s r"]) -> Tensor:
        """True for fields that meet the bounds, under the rows and up to what the modes leave out."""
        if self.bounds is None:
            return torch.ones(len(z), dtype=torch.bool)
        slack, found = _SLACK * self.left_out.sqrt(), []
        for part in z.split(_PART):
            fields = final_fields(self.latent.decode(part), self.latent.clean_covariance(0.0), self.rows)
            found.append(((fields >= self.bounds[0] - slack) & (fields <= self.bounds[1] + slack)).all(dim=-1))
        return torch.cat(found)

    def log_evidence_of_gaussian(self) -> float:
        """log p of the rows' values for the Gaussian with the moments of the fields."""
        if self.rows is None:
            return 0.0
        prior = FieldGaussian(mean_of(self.latent), self.latent.clean_covariance(0.0))
        return float(evidence(prior, self.rows).log_evidence)

    def log_evidence_of_goal(self) -> tuple[float, float]:
        """The same of o alone, and its maximum."""
        variances = 1 + self.noise  # of o, whose directions are independent
        largest = -0.5 * (2 * math.pi * variances).log().sum()
        return float(largest - 0.5 * (self.goal.square() / variances).sum()), float(largest)

    def _gain(self, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """C V ``(r, k)``, and the Cholesky factor of Vᵀ C V + R."""
        along = covariance[:, None] * self.vectors
        return along, torch.linalg.cholesky(self.vectors.mT @ along + torch.diag(self.noise))

    def _given(self, z: Tensor, covariance: Tensor, seen: Tensor) -> Tensor:
        """z + C V (Vᵀ C V + R)⁻¹ (seen − Vᵀ z)."""
        along, root = self._gain(covariance)
        return z + torch.cholesky_solve((seen - z @ self.vectors).mT, root).mT @ along.mT


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """Particles after their last step, from which fields are drawn."""

    guide: Guide
    law: AnyLaw | None
    clean: Float[Tensor, "particles r"]  # ẑ₁ before the last step
    covariance: Float[Tensor, " r"]  # of these, diagonal
    z: Float[Tensor, "particles r"]  # a draw z₁ of every particle
    chosen: Tensor  # the particles that draws come from ``(count,)``
    particles: Particles

    def fields(self, part: slice, generator: Generator) -> Float[Tensor, "s n"]:
        """Some of the draws, all equally likely, under the law to round-off.

        Every one is a last step of its own, unless that leaves the bounds and the particle's does not.
        """
        chosen, latent = self.chosen[part], self.guide.latent
        z = self.guide.draw(self.clean[chosen], self.covariance, generator)
        within = self.guide.within(z)
        fields = latent.decode(torch.where(within[:, None], z, self.z[chosen]))
        return final_fields(fields, latent.clean_covariance(0.0), self.law)


def guide_of(latent: KarhunenLoeve, law: AnyLaw | None, tolerance: float) -> Guide:
    """A law along the directions that it informs, with a tolerance in deviations of the fields."""
    linear = linear_part(law)
    nothing = Information(torch.empty(0), torch.empty(latent.state_shape[0], 0), torch.empty(0))
    information = nothing if linear is None else information_of(latent, linear)
    informed = information.values > INFORMED
    values = information.values[informed].double()
    bounds = None
    if isinstance(law, Inequality):
        joined = law.joined()
        bounds = (joined.lower, joined.upper)
    return Guide(
        latent=latent,
        vectors=information.vectors[:, informed].double(),
        goal=information.goal[informed].double() / values,
        noise=1 / values + tolerance**2,
        rows=linear,
        bounds=bounds,
    )


@dataclass(eq=False)
class _Cloud:
    """Particles at a time t, their clean estimates and the potentials of bounds that their weights hold."""

    z: Tensor
    clean: Tensor
    potential: Tensor
    log_weights: Tensor
    ancestors: Tensor
    log_evidence: float = 0.0
    effective_size: float = math.inf

    def anew(self, generator: Generator) -> "_Cloud":
        """The particles, drawn anew in proportion to their weights where few carry them."""
        count, size = len(self.z), _effective(self.log_weights)
        smallest = min(self.effective_size, size)
        if size >= _ENOUGH * count:
            return replace(self, effective_size=smallest)
        chosen = _systematic(self.log_weights, count, generator)
        return _Cloud(
            z=self.z[chosen],
            clean=self.clean[chosen],
            potential=self.potential[chosen],
            log_weights=torch.zeros_like(self.log_weights),
            ancestors=self.ancestors[chosen],
            log_evidence=self.log_evidence + _log_mean(self.log_weights),
            effective_size=smallest,
        )


def population_of(flow: Flow, task: SamplingTask) -> Population:
    """Particles under a law that all draws share, in coefficients; at least as many as there are draws."""
    [(_, latent)] = allowing_for(flow.latent, task.law)
    assert isinstance(latent, KarhunenLoeve)
    assert isinstance(flow.latent, KarhunenLoeve)
    guide = guide_of(latent, task.law, task.options.tolerance)
    without_error = guide if latent is flow.latent else guide_of(flow.latent, task.law, task.options.tolerance)
    cloud, t = _guided(flow, task, guide)
    variances, generator = latent.clean_variances(t), task.generator
    z = guide.draw(cloud.clean, variances, generator)
    log_weights = cloud.log_weights - cloud.potential
    within = guide.within(z)
    of_flow = cloud.log_evidence + _log_mean(log_weights.where(within, -math.inf))
    if bool(within.any()):  # if not, draws are moved onto the bounds
        log_weights = log_weights.where(within, -math.inf)
    over_gaussian = of_flow - guide.log_evidence_of_goal()[0]
    of_rows, (of_goal, largest) = without_error.log_evidence_of_gaussian(), without_error.log_evidence_of_goal()
    particles = Particles(
        log_weights=log_weights.log_softmax(dim=0),
        effective_size=min(cloud.effective_size, _effective(cloud.log_weights)),
        ancestors=len(cloud.ancestors[_systematic(log_weights, len(z), generator)].unique()),
        log_evidence=of_rows + over_gaussian,
        gaussian_log_evidence=of_rows,
        surprise=largest - of_goal - over_gaussian,
        directions=len(without_error.goal),
        within=float(within.double().mean()),
        discrepancy=latent is not flow.latent,
    )
    chosen = _systematic(log_weights, task.count, generator)[torch.randperm(task.count, generator=generator)]
    return Population(
        guide=guide, law=task.law, clean=cloud.clean, covariance=variances, z=z, chosen=chosen, particles=particles
    )


def _guided(flow: Flow, task: SamplingTask, guide: Guide) -> tuple[_Cloud, float]:
    """The particles at the last node before t = 1, and that node."""
    latent, generator, count = guide.latent, task.generator, max(task.options.particles, task.count)
    z = latent.noise(count, generator)
    clean, variances = clean_estimate(flow, z, 0.0), latent.clean_variances(0.0)
    potential = guide.potential(clean, variances)
    cloud = _Cloud(z, clean, potential, guide.log_density(clean, variances) + potential, torch.arange(count))
    nodes = nodes_of(task.options.steps)[:-1]
    for t, after in pairwise(nodes):
        cloud = cloud.anew(generator)
        z, forecast = _step(cloud, guide, t, after, generator)
        clean, variances = clean_estimate(flow, z, after), latent.clean_variances(after)
        potential = guide.potential(clean, variances)
        gained = guide.log_density(clean, variances) - forecast + potential - cloud.potential
        cloud = replace(cloud, z=z, clean=clean, potential=potential, log_weights=cloud.log_weights + gained)
    return cloud, nodes[-1]


def _step(cloud: _Cloud, guide: Guide, t: float, after: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """z′, and the logarithm of the density with which it forecasts the law."""
    variances = guide.latent.clean_variances(t)
    kept = t / (1 - t) * (1 - after) / after
    base = (1 - after) * kept / (1 - t) * cloud.z
    scale, fresh = after - (1 - after) * kept * t / (1 - t), (1 - after) ** 2 * (1 - kept**2)
    z = scale * guide.draw(cloud.clean, variances, generator) + base
    z = z + fresh**0.5 * _normal(z.shape, generator)
    total = scale**2 * variances + fresh
    forecast = cloud.clean + scale * variances / total * (z - scale * cloud.clean - base)
    return z, guide.log_density(forecast, variances * fresh / total)


def _normal(shape: Sequence[int], generator: Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _log_ndtr(x: Tensor) -> Tensor:
    """log Φ in single precision, a fifth of the time of torch's; below −12 it goes on as −x²/2."""
    usual, low = x.clamp_min(-_LOWEST), x.clamp_max(-_LOWEST)
    return (0.5 * torch.erfc(-(0.5**0.5) * usual)).log() - 0.5 * (low.square() - _LOWEST**2)


def _effective(log_weights: Tensor) -> float:
    return float(1 / log_weights.softmax(dim=0).square().sum())


def _log_mean(log_weights: Tensor) -> float:
    return float(log_weights.logsumexp(dim=0)) - math.log(len(log_weights))


def _systematic(log_weights: Tensor, count: int, generator: Generator) -> Tensor:
    """Positions of ``count`` particles in proportion to their weights, by systematic resampling."""
    edges = log_weights.softmax(dim=0).cumsum(dim=0)
    points = (torch.arange(count) + torch.rand(1, dtype=torch.float64, generator=generator)) / count
    return torch.searchsorted(edges / edges[-1], points).clamp_max(len(edges) - 1)
