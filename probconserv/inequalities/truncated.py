"""A Gaussian conditioned on a law and on inequalities: the truncated Gaussian."""

import math
from functools import cached_property

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from probconserv._linalg.gaussian import structure_of
from probconserv.errors import ConvergenceError, InfeasibleConstraintError, InvalidArgumentError
from probconserv.inequalities._feasible import feasible_set
from probconserv.inequalities._moments import moments_between, quantiles_between
from probconserv.inequalities.inequality import JoinedConstraint
from probconserv.inequalities.most_probable import Programme, most_probable, programmes_of
from probconserv.prediction import SINGLE, Drawable

LARGE = 1024  # points up to which dense programmes are solved
_LEFT_OUT = 50  # trajectories before the first draw
_MARGINS = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-6)  # of the start from the walls, in standard deviations


class Truncated(Drawable):
    """N(μ, Σ) given G u = b + ε and given that the field meets bounds and order; build it with ``truncate``.

    Its density is that of the Gaussian on the fields that meet all of them, and zero elsewhere (Bayes' theorem), so
    bounds have probability zero, whereas the draws of ``Projected`` lie on them with positive probability. Both have
    the same most probable field, ``mode``.

    Independent values with bounds alone are drawn and averaged exactly. Otherwise draws are a Markov chain of exact
    Hamiltonian trajectories of length π/2 (Pakman & Paninski, J. Comput. Graph. Stat. 2014), one chain a field, and
    mean and variance are those of ``draws`` draws with seed ``seed``. The chain has no step size and rejects nothing;
    consecutive draws are correlated the more, the more inequalities are active. A trajectory costs O(n) a bounce, after
    O(n³) once a field. Draws have no derivatives; ``Projected`` has.

    Args:
        thinning: Steps of the chain for a draw, at least 1; more make draws less alike. ``effective_size`` says how
            many independent draws those of mean and variance are worth. For the others see ``Projected``.

    Raises:
        InfeasibleConstraintError: If no field meets them, or only a set without interior in the surface of the law.
    """

    def __init__(
        self,
        prior: MultivariateNormal,
        constraint: JoinedConstraint,
        *,
        draws: int = 500,
        seed: int = 0,
        thinning: int = 1,
    ) -> None:
        if thinning < 1:
            raise InvalidArgumentError(f"thinning must be at least 1 step of the chain for a draw, got {thinning}.")
        if draws < 2:
            raise InvalidArgumentError(f"Mean and variance need at least 2 draws, got {draws}.")
        self._feasible = feasible_set(prior, constraint)
        self.prior, self.constraint = self._feasible.prior, constraint
        self.draws, self.seed, self.thinning = draws, seed, thinning
        if not self.is_exact and self.event_shape[0] > LARGE:
            raise InvalidArgumentError(
                f"A truncated Gaussian on {self.event_shape[0]} points needs dense programmes, for {LARGE} points at "
                "most; use the projection, condition(prior, constraint)."
            )

    @property
    def batch_shape(self) -> torch.Size:
        """Batch axes of prior and constraint."""
        return self.prior.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        """Number of points ``(n,)``."""
        return self.prior.event_shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)})"

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of the values, ±∞ where there is none; they broadcast to ``(*batch, n)``."""
        return self.constraint.lower, self.constraint.upper

    @property
    def mode(self) -> Tensor:
        """Most probable field ``(*batch, n)``, differentiable; that of ``Projected`` if Σ is diagonal."""
        return most_probable(self.prior, self.constraint).to(self.prior.mean.dtype)

    @property
    def mean(self) -> Tensor:
        """Mean ``(*batch, n)``; also meets exact rows, bounds and order."""
        return self._moments[0].to(self.prior.mean.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance ``(*batch, n)``."""
        return self._moments[1].to(self.prior.mean.dtype)

    @property
    def is_exact(self) -> bool:
        """Whether mean, variance and draws are exact: independent values with bounds alone."""
        diagonal = structure_of(self.prior).is_independent
        return diagonal and not self.constraint.order and not self.constraint.parts

    def with_draws(self, draws: int, seed: int = 0) -> "Truncated":
        """The same prediction with mean and variance from another set of draws."""
        return Truncated(self.prior, self.constraint, draws=draws, seed=seed, thinning=self.thinning)

    def rsample(self, sample_shape: torch.Size = SINGLE, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws fields; they have no derivatives, so this refuses a prior that requires them.

        Draws are correlated along ``sample_shape``; each meets exact rows, bounds and order.

        Raises:
            InvalidArgumentError: If gradients are required; ``sample`` leaves them out.
            ConvergenceError: If a trajectory does not end.
        """
        self._refuse_gradients()
        sample_shape = torch.Size(sample_shape)
        with torch.no_grad():
            draws = self._draw(sample_shape.numel(), generator)
        return draws.reshape(*sample_shape, *self.batch_shape, *self.event_shape).to(self.prior.mean.dtype)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        self._refuse_gradients()
        if self.is_exact:
            return self._exact_moments()
        with torch.no_grad():
            draws = self._own_draws
            return self._feasible.clamp_roundoff(draws.mean(dim=0)), draws.var(dim=0)

    @property
    def effective_size(self) -> Tensor:
        """How many independent draws the ``draws`` of mean and variance are worth, the mean over points ``(*batch,)``.

        The standard error of the mean is the standard deviation over its root, that of the variance about √2 of the
        variance over it. By the autocorrelation of the chain, summed while pairs of it are positive (Geyer 1992);
        infinite where both are exact.
        """
        if self.is_exact:
            return torch.full(self.batch_shape, math.inf, dtype=torch.float64, device=self.prior.mean.device)
        return _effective_size(self._own_draws)

    @cached_property
    def _own_draws(self) -> Tensor:
        """The draws of mean and variance."""
        with torch.no_grad():
            return self._draw(self.draws, torch.Generator(self.prior.mean.device).manual_seed(self.seed))

    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Draws ``(count, *batch, n)``, float64."""
        if self.is_exact:
            return self._exact_draws(count, generator)
        mean = self.prior.mean.to(torch.float64)
        if not self.batch_shape.numel():
            return mean.new_zeros(count, *mean.shape)
        programmes = programmes_of(self._feasible)
        seeds = torch.randint(2**31 - 1, (len(programmes),), generator=generator, device=mean.device).tolist()
        fields = [
            _run(programme, x, (count, seed, self.thinning))
            for programme, x, seed in zip(programmes, mean.reshape(-1, *self.event_shape), seeds, strict=True)
        ]
        draws = torch.stack(fields, dim=1) if fields else mean.new_zeros(count, 0)
        return self._feasible.clamp_roundoff(draws.reshape(count, *mean.shape))

    def _exact_draws(self, count: int, generator: torch.Generator | None) -> Tensor:
        mean, scale, (lower, upper) = self._independent()
        fixed = scale == 0
        divisor = torch.where(fixed, 1.0, scale)
        below = torch.where(fixed, -math.inf, (lower - mean) / divisor)
        above = torch.where(fixed, math.inf, (upper - mean) / divisor)
        uniform = torch.rand((count, *mean.shape), dtype=torch.float64, device=mean.device, generator=generator)
        values = quantiles_between(uniform.numpy(force=True), below.numpy(force=True), above.numpy(force=True))
        draws = mean + scale * torch.as_tensor(values, device=mean.device)
        return self._feasible.clamp_roundoff(torch.where(fixed, mean, draws))

    def _exact_moments(self) -> tuple[Tensor, Tensor]:
        mean, scale, (lower, upper) = self._independent()
        fixed = scale == 0
        divisor = torch.where(fixed, 1.0, scale)
        likeliest = torch.minimum(torch.maximum(mean, lower), upper)
        below, above, slope = (
            (value - start) / divisor for value, start in ((lower, likeliest), (upper, likeliest), (likeliest, mean))
        )
        offset, variance = moments_between(below, above, slope)
        centre = torch.where(fixed, mean, likeliest + scale * offset)
        return self._feasible.clamp_roundoff(centre), torch.where(fixed, 0.0, scale.square() * variance)

    def _independent(self) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of independent values, and bounds; fixed values have deviation 0."""
        mean = self.prior.mean.detach().to(torch.float64)
        lower, upper = (bound.detach().expand(mean.shape) for bound in (self._feasible.lower, self._feasible.upper))
        fixed = lower == upper
        scale = torch.where(fixed, 0.0, self._feasible.variance.detach().sqrt())
        return torch.where(fixed, lower, mean), scale, (lower, upper)

    def _refuse_gradients(self) -> None:
        if self._feasible.is_tracked:
            raise InvalidArgumentError(
                "Draws of a truncated Gaussian and their moments have no derivatives. Use torch.no_grad(), or the "
                "projection that condition(prior, constraint) gives, which is differentiable."
            )


def _run(programme: Programme, x: Tensor, chain: tuple[int, int, int]) -> Tensor:
    """Draws ``(count, n)`` of one field by one chain; ``chain`` is the count, a seed and the steps of a draw."""
    from probconserv.inequalities._hamiltonian import run_chain  # numba, slow to import

    count, seed, thinning = chain
    none = torch.zeros(len(programme.limits), dtype=torch.bool, device=x.device)
    centre = programme.solve(x, none)
    directions, length = programme.directions
    free = length > 0
    normals, offset = directions[free], (programme.inequalities @ centre - programme.limits)[free] / length[free]
    products = normals @ normals.mT
    walls = normals.numpy(force=True), products.numpy(force=True), offset.numpy(force=True)
    start = _interior_point(programme, x, centre)
    steps = (_LEFT_OUT, count * thinning)
    positions, ended = run_chain(walls, start.numpy(force=True), steps, np.random.default_rng(seed))
    positions = positions[thinning - 1 :: thinning]
    if not ended:
        raise ConvergenceError(
            "A trajectory of the truncated Gaussian bounced a million times: the inequalities leave a corner that is "
            "too narrow for it. Loosen them, or use the projection, condition(prior, constraint)."
        )
    return centre + torch.as_tensor(positions, device=x.device) @ programme.conditioned_root.mT


def _effective_size(draws: Tensor) -> Tensor:
    """Number of independent draws that a chain ``(count, *batch, n)`` is worth, the mean over points ``(*batch,)``."""
    count = len(draws)
    apart = draws - draws.mean(dim=0)
    moving = apart.square().sum(dim=0) > 0
    spectrum = torch.fft.rfft(apart, n=2 * count, dim=0)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * count, dim=0)[: count - count % 2]
    pairs = covariance.unflatten(0, (-1, 2)).sum(dim=1) / torch.where(moving, covariance[0], 1.0)
    summed = (pairs * (pairs > 0).cumprod(dim=0)).sum(dim=0)
    size = count / (2 * summed - 1).clamp_min(1 / count)
    return torch.where(moving, size.clamp_max(count), 0.0).sum(dim=-1) / moving.sum(dim=-1).clamp_min(1)


def _interior_point(programme: Programme, x: Tensor, centre: Tensor) -> Tensor:
    """Coordinates z of a field off all walls: the mode under inequalities tightened by a margin."""
    for margin in _MARGINS if len(programme.limits) else ():  # none: the law holds every bounded value at a bound
        try:
            tight = programme.tightened(margin)
            field = tight.solve(x, tight.find_active(x))
        except (InfeasibleConstraintError, ConvergenceError):
            continue
        return torch.linalg.lstsq(programme.conditioned_root, (field - centre)[:, None], driver="gelsd").solution[:, 0]
    raise InfeasibleConstraintError(
        "Law, bounds and order leave no field, or only fields on a bound, so that a truncated Gaussian does not exist; "
        "widen the bounds, or use the most probable field, condition(prior, constraint).mode."
    )
