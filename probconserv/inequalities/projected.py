"""Predictions whose draws meet a law and inequalities: a conditioned Gaussian, projected onto the inequalities."""

from copy import copy
from dataclasses import replace

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from probconserv._linalg.gaussian import structure_of
from probconserv._linalg.rank import independent_given
from probconserv._linalg.values import square_root
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities._feasible import feasible_set
from probconserv.inequalities.inequality import JoinedConstraint
from probconserv.nonlinear.found import NonlinearMode
from probconserv.posterior import Posterior, posterior_of
from probconserv.prediction import SINGLE, Drawable
from probconserv.sampling import Normals, drawn, normals_from, normals_of_seed
from solvers.recording import are_readable

_CHUNK = 1 << 22  # numbers in memory at once when moments are computed without gradients
_ROUNDING = 64 * torch.finfo(torch.float64).eps  # relative spread of draws that all have one value


class Projected(Drawable):
    """A Gaussian N(μ, Σ) given a law and inequalities; build it with ``condition``.

    A draw is a draw from N(μ, Σ) conditioned on the law, in the metric of Σ, then projected onto law and inequalities
    together, in the metric of the marginal variances v = diag Σ:

        u = argmin Σ_i (u_i − y_i)²/v_i + Σ_j (g_jᵀ(u − y))²/σ_j²   over fields that meet exact rows and inequalities

    with y the conditioned draw and the second sum over noisy rows. ``mode`` is the projection of the conditioned mean
    in the same metric, and under a nonlinear law the most probable field, which ``search`` found. For a diagonal Σ both
    steps have one metric, and ``mode`` is always this field. For a correlated Σ it is not: in the metric of Σ a value
    that is pulled to its bound would drag its neighbours along, which makes predictions worse than no bounds, while
    variances alone make them better and cost a fraction. This is not conditioning on the inequalities, which
    ``truncate`` does. Mean and variance have no closed form; they are those of ``draws`` draws with seed ``seed``.
    There is no density, since draws lie on the boundary of the set with positive probability.

    The solver works on the multipliers of the rows, with O(n) a step for rows that share no point, whether given as
    such or found, and O(n k²) for k others. Exact rows hold to round-off, bounds and order exactly. All results are
    differentiable in μ, Σ, G, b, A, c and the bounds wherever the set of active inequalities does not change.
    ``torch.compile`` and ``torch.export`` record ``mode``, ``mean`` and ``variance``; values are not checked there.

    Args:
        prior: N(μ, Σ), or what the law makes of it; results have its dtype; the work is done in float64.
        constraint: Law and inequalities; of a nonlinear law the tangent.
        draws: Number of draws for mean and variance, at least 2.
        seed: Seed of these draws.
        search: How the field was found at which a nonlinear law is linearised; None without one.

    Raises:
        InfeasibleConstraintError: If no field meets them; the text names the feasible totals.
        DependentConstraintsError: If rows of the law are redundant under the prior.
    """

    def __init__(
        self,
        prior: MultivariateNormal,
        constraint: JoinedConstraint,
        *,
        draws: int = 500,
        seed: int = 0,
        search: NonlinearMode | None = None,
    ) -> None:
        check_draws(draws)
        if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            raise InvalidArgumentError(
                "torch.jit.trace cannot record inequalities; torch.export and torch.compile can, or trace the model "
                "under its linear law alone and condition its prediction on the inequalities outside."
            )
        self._given, constraint, self._shared = _under_law(prior, constraint)
        self.search = search
        prior = self._given.prior if isinstance(self._given, Posterior) else prior
        self._feasible = feasible_set(prior, constraint)
        self.prior, self.constraint, self.draws, self.seed = self._feasible.prior, constraint, draws, seed
        gain = self._given.gain if isinstance(self._given, Posterior) else None
        self._gain = None if gain is None or gain.covariance.is_independent else gain
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
    def is_exact(self) -> bool:
        """Whether mean and variance are exact: never, they are those of draws."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)})"

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of the values, ±∞ where there is none; they broadcast to ``(*batch, n)``."""
        return self.constraint.lower, self.constraint.upper

    @property
    def mode(self) -> Tensor:
        """The conditioned mean, projected, or the field of ``search`` ``(*batch, n)``."""
        if self.search is not None:
            return self.search.field.to(self.prior.mean.dtype)
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

    def project(self, fields: Tensor) -> Tensor:
        """Projects draws of the prior: fields ``(s, n)`` on law and inequalities, float64.

        They are for the only batch entry, or one for every entry; the mean of the prior has no effect.
        """
        batched = bool(self.batch_shape) and self.batch_shape.numel() > 1
        stacked = fields.to(torch.float64).reshape(*([1] if batched else [len(fields)]), *self.prior.mean.shape)
        target = self._feasible.target.expand(len(stacked), *self._feasible.target.shape)
        return self._project(stacked, target).reshape(fields.shape)

    def with_draws(self, draws: int, seed: int = 0) -> "Projected":
        """The same prediction with mean and variance from another set of draws."""
        check_draws(draws)
        other = copy(self)
        other.draws, other.seed, other._moments = draws, seed, None
        return other

    def rsample(self, sample_shape: torch.Size = SINGLE, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws of the Gaussian, projected; each meets exact rows, bounds and order."""
        sample_shape = torch.Size(sample_shape)
        draws = self._draw(sample_shape.numel(), normals_from(generator, self.prior.mean.device))
        return draws.reshape(*sample_shape, *self.batch_shape, *self.event_shape).to(self.prior.mean.dtype)

    def _draw(self, count: int, normals: Normals) -> Tensor:
        """Draws ``(count, *batch, n)``, float64."""
        fields = drawn(self.prior, torch.Size([count]), normals).to(torch.float64)
        target, noise = self._feasible.target.expand(count, *self._feasible.target.shape), self._feasible.noise
        if not are_readable(noise) or bool(noise.any()):
            target = target - normals(target.shape) * square_root(noise)
        return self._project(fields, target)

    def _project(self, fields: Tensor, target: Tensor) -> Tensor:
        """Fields ``(s, *batch, n)`` on the law and then on all statements, with right-hand sides ``(s, *batch, k)``."""
        if not fields.numel():
            return fields
        if self._gain is not None and self.constraint.law is not None:
            law = self.constraint.law
            k = law.b.shape[-1]
            stated = target[..., :k] if self._shared is None else target[..., :k][..., self._shared]
            fields = self._gain.correct(fields.movedim(0, -2), stated.movedim(0, -2)).movedim(-2, 0)
            if not are_readable(law.noise) or bool(law.noise.any()):
                met = torch.where(law.noise > 0, law.residual(fields) + law.b, target[..., :k])
                target = torch.cat([met, target[..., k:]], dim=-1)
        return self._feasible.nearest(fields, target)

    def _estimate(self) -> tuple[Tensor, Tensor]:
        if self._moments is None or self._lacks_gradient(self._moments[0]):
            self._moments = self._moments_of_draws()
        return self._moments

    def _moments_of_draws(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, chunk by chunk (Chan, Golub & LeVeque 1979); of all draws at once in a graph."""
        normals = normals_of_seed(self.seed, self.prior.mean)
        chunk = _CHUNK // max(self.prior.mean.numel(), 1) or 1 if are_readable(self.prior.mean) else self.draws
        total, squares, count = torch.zeros(()), torch.zeros(()), 0
        while count < self.draws:
            fields = self._draw(min(chunk, self.draws - count), normals)
            size, part = fields.shape[0], fields.mean(dim=0)
            squares = squares + (fields - part).square().sum(dim=0)
            if count:
                squares = squares + (part - total / count).square() * (count * size / (count + size))
            total, count = total + fields.sum(dim=0), count + size
        mean, variance = total / count, squares / (count - 1)
        variance = variance.masked_fill(variance <= (_ROUNDING * mean).square(), 0.0)
        return self._feasible.clamp_roundoff(mean), variance

    def _lacks_gradient(self, cached: Tensor) -> bool:
        """Whether a cached result was computed without the gradients needed now."""
        return self._feasible.is_tracked and not cached.requires_grad


def check_draws(draws: int) -> None:
    """Raises InvalidArgumentError for fewer draws than mean and variance need."""
    if draws < 2:
        raise InvalidArgumentError(f"Mean and variance need at least 2 draws, got {draws}.")


def _under_law(
    prior: MultivariateNormal, joined: JoinedConstraint
) -> tuple[MultivariateNormal, JoinedConstraint, Tensor | None]:
    """The conditioned Gaussian, or the prior where the projection alone meets the law; statements without redundant
    rows; and which rows of their law the update has, None for all."""
    law = joined.law
    if law is None:
        return prior, joined, None
    if not isinstance(prior, Posterior):
        apart = law.G.shape[-2] == 1 or joined.division.apart == len(joined.division.places)
        if structure_of(prior).is_independent and (apart or not are_readable(prior.mean)):
            return prior, joined, None
        prior = posterior_of(prior, law, True)
    law, shared = _rows_of_values(prior)
    return prior, joined if law is joined.law else replace(joined, law=law), shared


def _rows_of_values(posterior: Posterior) -> tuple[LinearConstraint | None, Tensor | None]:
    """The rows of the stated law that are independent for values whose correlations do not count.

    A prediction under inequalities leaves what the covariance is certain of, such as a total that all members have, so
    that rows are stated again that only say this.

    Returns:
        The law, None if no row is left, and a mask of its rows that ``posterior.constraint`` has, None for all.
    """
    law, independent = posterior.stated, posterior.independent
    if independent is None:
        return law, None
    deviation = posterior.gain.covariance.variance.detach().clamp_min(0.0).sqrt()
    chosen = independent_given(law.rows.detach() * deviation[..., None, :], independent)
    if not bool(chosen.any()):
        return None, None
    return (law if bool(chosen.all()) else law.selected(chosen)), independent[chosen]
