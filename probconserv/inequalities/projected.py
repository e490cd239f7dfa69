"""Predictions whose draws meet a law and inequalities: the projection of a conditioned Gaussian."""

import warnings
from contextlib import nullcontext

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from probconserv._linalg.checks import contradictions_named
from probconserv._linalg.values import square_root
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities._feasible import FeasibleSet, common_batch, feasible_set, settle
from probconserv.inequalities._quadratic import project_general
from probconserv.inequalities._separable import project_separable
from probconserv.inequalities._structured import LARGE, StructuredSet, structured_set
from probconserv.inequalities.inequality import JoinedConstraint
from probconserv.sampling import draw
from solvers.recording import are_recorded

_CHUNK = 1 << 22  # numbers in memory at once when moments are computed without gradients


class Projected:
    """A Gaussian N(μ, Σ) given a law and inequalities; build it with ``condition``.

    ``mode`` is the most probable field, argmin (u − μ)ᵀ Σ⁻¹ (u − μ) + Σ_i (G u − b)_i²/σ_i² over the fields that meet
    exact rows, bounds and order. A draw is a draw from N(μ, Σ), projected in the same way; this is not
    conditioning on the inequalities. Projecting onto the law first (Matheron's rule) and then onto law and inequalities
    gives the same field, since both projections are in the metric Σ⁻¹. Mean and variance have no closed form; they are
    those of ``draws`` draws with seed ``seed``. There is no density, since draws lie on the boundary of the set with
    positive probability.

    For a diagonal Σ with at most one row the cost is O(n) per evaluation of the law. Otherwise, and for an order with
    bounds or weights that rule out pooling, each field is a dense quadratic programme: O(n³), milliseconds at n = 201,
    ten seconds at 2,048. A warning says how long several of more than 1,024 points may take. All results are
    differentiable in μ, Σ, G, b and the bounds wherever the set of active inequalities does not change.

    Args:
        prior: N(μ, Σ); results have its dtype; the work is done in float64.
        constraint: Law, bounds and order.
        draws: Number of draws for mean and variance, at least 2.
        seed: Seed of these draws.

    Raises:
        IncompatibleQueryError: If prior and constraint have different numbers of points or batches that do not
            broadcast.
        InfeasibleConstraintError: If no field meets them; the text names the feasible totals.
        InvalidArgumentError: If the prior is not finite, a variance is negative, there are fewer than 2 draws, or the
            numbers cannot be read, as in ``torch.export`` and ``torch.func``.
    """

    def __init__(
        self, prior: MultivariateNormal, constraint: JoinedConstraint, *, draws: int = 500, seed: int = 0
    ) -> None:
        if draws < 2:
            raise InvalidArgumentError(f"Mean and variance need at least 2 draws, got {draws}.")
        _require_numbers(prior, constraint)
        batch = common_batch(prior, constraint)
        self.prior = prior if prior.batch_shape == batch else prior.expand(batch)
        self.constraint = constraint
        self.draws = draws
        self.seed = seed
        self._feasible = structured_set(self.prior, constraint) or feasible_set(self.prior, constraint)
        self._mode: Tensor | None = None
        self._moments: tuple[Tensor, Tensor] | None = None

    @property
    def batch_shape(self) -> torch.Size:
        """Batch axes of prior and constraint, broadcast."""
        return self.prior.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        """Number of points ``(n,)``."""
        return self.prior.event_shape

    @property
    def feasible(self) -> FeasibleSet:
        """The set of fields that meet law and inequalities under the prior, with its rows as a matrix."""
        if not isinstance(self._feasible, StructuredSet):
            return self._feasible
        if self.event_shape[0] > LARGE:
            raise InvalidArgumentError(
                f"This needs a dense programme, for {LARGE} points at most, and got {self.event_shape[0]}; use the "
                "projection, condition(prior, constraint)."
            )
        return feasible_set(self.prior, self.constraint)

    @property
    def is_exact(self) -> bool:
        """Whether mean and variance are exact: never, they are those of draws."""
        return False

    @property
    def mode(self) -> Tensor:
        """Most probable field ``(*batch, n)``."""
        if self._mode is None or self._lacks_gradient(self._mode):
            mean = self.prior.mean.to(torch.float64)[None]
            self._mode = self._project(mean, self._feasible.target[None])[0]
        return self._mode.to(self.prior.mean.dtype)

    @property
    def mean(self) -> Tensor:
        """Mean of the draws ``(*batch, n)``; also meets exact rows, bounds and order."""
        return self._estimate()[0].to(self.prior.mean.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance of the draws ``(*batch, n)``, with denominator draws − 1."""
        return self._estimate()[1].to(self.prior.mean.dtype)

    @property
    def stddev(self) -> Tensor:
        """Square root of the variance ``(*batch, n)``."""
        return square_root(self.variance)

    def project(self, fields: Tensor) -> Tensor:
        """The nearest fields that meet law and inequalities, in the metric Σ⁻¹; the mean of the prior plays no part.

        Args:
            fields: ``(s, n)``, for the only batch entry or one for every entry.

        Returns:
            Projections ``(s, n)``, float64.
        """
        batched = bool(self.batch_shape) and self.batch_shape.numel() > 1
        stacked = fields.to(torch.float64).reshape(*([1] if batched else [len(fields)]), *self.prior.mean.shape)
        target = self._feasible.target.expand(len(stacked), *self._feasible.target.shape)
        return self._project(stacked, target).reshape(fields.shape)

    def with_draws(self, draws: int, seed: int = 0) -> "Projected":
        """The same prediction with mean and variance from another set of draws."""
        return Projected(self.prior, self.constraint, draws=draws, seed=seed)

    def rsample(
        self,
        sample_shape: torch.Size = torch.Size(),  # noqa: B008 - as in torch.distributions
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws of the Gaussian projected onto law and inequalities; differentiable.

        Args:
            sample_shape: Shape of the set of draws.
            generator: Source of random numbers.

        Returns:
            Draws ``(*sample_shape, *batch, n)``, each of which meets exact rows, bounds and order.
        """
        sample_shape = torch.Size(sample_shape)
        draws = self._draw(sample_shape.numel(), generator)
        return draws.reshape(*sample_shape, *self.batch_shape, *self.event_shape).to(self.prior.mean.dtype)

    def sample(
        self,
        sample_shape: torch.Size = torch.Size(),  # noqa: B008 - as in torch.distributions
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws as ``rsample`` does, without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def confidence_region(self) -> tuple[Tensor, Tensor]:
        """Two standard deviations below and above the mean, ``(*batch, n)`` each."""
        width = 2 * self.stddev
        return self.mean - width, self.mean + width

    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Draws ``(count, *batch, n)``, float64."""
        fields = draw(self.prior, (count,), generator).to(torch.float64)
        target = self._feasible.target.expand(count, *self._feasible.target.shape)
        if bool(self._feasible.noise.any()):
            normals = torch.randn(target.shape, dtype=torch.float64, device=target.device, generator=generator)
            target = target - normals * square_root(self._feasible.noise)
        return self._project(fields, target)

    def _project(self, fields: Tensor, target: Tensor) -> Tensor:
        if not fields.numel():
            return fields
        law = self.constraint.law
        with nullcontext() if law is None else contradictions_named(law.G, law.b, law.noise):
            if isinstance(self._feasible, StructuredSet):
                return self._feasible.project(fields, target)
            if self._feasible.is_separable:
                return project_separable(fields, target, self._feasible)
            _warn_if_long(fields)
            return project_general(fields, target, self._feasible)

    def _estimate(self) -> tuple[Tensor, Tensor]:
        if self._moments is None or self._lacks_gradient(self._moments[0]):
            self._moments = self._moments_of_draws()
        return self._moments

    def _moments_of_draws(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, chunk by chunk (Chan, Golub & LeVeque 1979)."""
        generator = torch.Generator(self.prior.mean.device).manual_seed(self.seed)
        chunk = _CHUNK // max(self.prior.mean.numel(), 1) or 1
        total, squares, count = torch.zeros(()), torch.zeros(()), 0
        while count < self.draws:
            fields = self._draw(min(chunk, self.draws - count), generator)
            size, part = fields.shape[0], fields.mean(dim=0)
            squares = squares + (fields - part).square().sum(dim=0)
            if count:
                squares = squares + (part - total / count).square() * (count * size / (count + size))
            total, count = total + fields.sum(dim=0), count + size
        mean, variance = total / count, squares / (count - 1)
        if isinstance(self._feasible, StructuredSet):
            return self._feasible.settled(mean), variance
        return settle(mean, self._feasible), variance

    def _lacks_gradient(self, cached: Tensor) -> bool:
        """Whether a cached result was computed without the gradients needed now."""
        feasible = self._feasible
        tensors = (self.prior.mean, feasible.variance, feasible.rows, feasible.target, feasible.lower, feasible.upper)
        tracked = any(tensor.requires_grad for tensor in tensors)
        return torch.is_grad_enabled() and tracked and not cached.requires_grad


def _warn_if_long(fields: Tensor) -> None:
    """Says how long dense programmes may take, where there are several large ones."""
    points = fields.shape[-1]
    programmes = fields.numel() // points
    if points <= LARGE or programmes == 1:
        return
    minutes = programmes * 10 * (points / 2048) ** 3 / 60
    warnings.warn(
        f"{programmes} fields of {points} points need a dense programme each, of the order of {minutes:.2g} minutes "
        "in all. The most probable field (mode) needs a single one; with_draws(2) or a coarser grid needs fewer or "
        "smaller ones, and bounds without an order, or an order with one row at most, none.",
        stacklevel=3,
    )


def _require_numbers(prior: MultivariateNormal, constraint: JoinedConstraint) -> None:
    """Raises InvalidArgumentError where compiled loops cannot have the numbers."""
    tensors = [prior.mean, constraint.lower, constraint.upper]
    if constraint.law is not None:
        tensors.append(constraint.law.b)
    if are_recorded(*tensors):
        raise InvalidArgumentError(
            "Inequalities are solved by compiled loops, which torch.export, torch.jit.trace and torch.func cannot "
            "record. Record the model under its linear law alone and condition its prediction on the inequalities "
            "outside; give a batch instead of vmap, and take derivatives by backward()."
        )
