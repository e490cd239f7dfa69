"""The conditioned Gaussian: lazy covariance, Matheron sampling, density on the constraint."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.distributions.multivariate_normal import kl_mvn_mvn
from jaxtyping import Float
from linear_operator.operators import DenseLinearOperator, LinearOperator
from torch import Generator, Tensor
from torch.distributions import Distribution, register_kl
from torch.distributions import MultivariateNormal as TorchMultivariateNormal

from probconserv._linalg.checks import check_batch
from probconserv._linalg.covariance import definite_root
from probconserv._linalg.density import (
    divergence,
    entropy_given_noise,
    log_density_given_constraint,
    surface_tolerance,
)
from probconserv._linalg.gaussian import FieldGaussian, index_of_axes, structure_of
from probconserv._linalg.rank import contradictions_named
from probconserv._linalg.roots import Root, apply_roots
from probconserv._linalg.structured import AnyGain, gain_of
from probconserv._linalg.values import as_tensor, cached, square_root
from probconserv.constraints import LinearConstraint
from probconserv.errors import DependentConstraintsError, IncompatibleQueryError, InvalidArgumentError
from probconserv.nonlinear.found import NonlinearMode
from probconserv.prediction import SINGLE
from probconserv.redundancy import independents
from solvers.recording import are_readable


@dataclass(frozen=True, kw_only=True, eq=False)
class Stated:
    """What a conditioned Gaussian was stated to meet, where its rows do not say so.

    Args:
        law: With its redundant rows.
        independent: Mask ``(k,)`` of the rows that the update has; None for all.
        search: How the field was found at which a nonlinear law is linearised; None without one.
    """

    law: LinearConstraint
    independent: Tensor | None = None
    search: NonlinearMode | None = None


class Posterior(MultivariateNormal):
    """N(μ′, Σ′): the Gaussian N(μ, Σ) given G u = b + ε; build it with ``condition``.

        S  = G Σ Gᵀ + σ² I,   μ′ = μ − Σ Gᵀ S⁻¹ (G μ − b),   Σ′ = Σ − Σ Gᵀ S⁻¹ G Σ

    A gpytorch ``MultivariateNormal`` whose covariance stays lazy and whose variance, samples and density come from the
    update itself, since Σ′ is singular along exact rows. Batch axes are those of prior and constraint, broadcast.

    ``stated`` is the law as it was given, with its redundant rows, of which ``independent`` are those of the update,
    None for all. Rows of a nonlinear law are its tangent at the ``mode``, and ``search`` is how this was found.

    Args:
        prior: N(μ, Σ); results have its dtype; the work is done in float64.
        constraint: G, b and σ².
        stated: What was stated; by default the constraint.
        gain: The factorised update, where it is there already.
        validate: Whether values are checked; see ``condition``.

    Raises:
        DependentConstraintsError: If S is singular.
        InfeasibleConstraintError: If exact rows contradict each other.
    """

    def __init__(
        self,
        prior: MultivariateNormal,
        constraint: LinearConstraint,
        *,
        stated: Stated | None = None,
        gain: AnyGain | None = None,
        validate: bool = True,
    ) -> None:
        batch = _common_batch(prior, constraint)
        stated = stated or Stated(law=constraint)
        self.prior, self.constraint = prior, constraint
        self.stated, self.independent, self.search = stated.law, stated.independent, stated.search
        self._dtype = prior.mean.dtype
        self._precision = torch.finfo(self._dtype).eps
        self._prior_mean = _expanded(_as(prior.mean, torch.float64), batch)
        if gain is None:
            with contradictions_named(constraint.G, constraint.b, constraint.noise):
                gain = gain_of(structure_of(prior), constraint, self._precision, validate)
        self.gain = gain
        self._target = _expanded(constraint.b, batch)
        self._updated_mean = gain.correct(self._prior_mean.unsqueeze(-2), self._target.unsqueeze(-2)).squeeze(-2)
        # The parent's constructor needs the covariance at once; here it is computed on demand.
        self._islazy = True
        self.loc = _as(self._updated_mean, self._dtype)
        Distribution.__init__(self, batch, torch.Size([constraint.points]), validate_args=False)

    @property
    def variance(self) -> Tensor:
        """diag Σ′ ``(*batch, n)``: at least zero, at most the prior's."""
        return self._variance

    @property
    def stddev(self) -> Tensor:
        """√diag Σ′ ``(*batch, n)``."""
        return square_root(self.variance)

    @cached
    def lazy_covariance_matrix(self) -> LinearOperator:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Σ′ ``(*batch, n, n)``: Σ less k squares, or for structured rows a diagonal and a low rank; never formed."""
        return self.gain.conditioned(self.batch_shape, self._dtype)

    @cached
    def covariance_matrix(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Σ′ as a dense tensor ``(*batch, n, n)``."""
        return self.lazy_covariance_matrix.to_dense()

    @property
    def log_evidence(self) -> Tensor:
        """log N(b; G μ, S) ``(*batch,)``, float64: how well the prior predicted the right-hand sides."""
        return self.gain.log_evidence_peak() - 0.5 * self.misfit

    @property
    def misfit(self) -> Tensor:
        """χ² = (G μ − b)ᵀ S⁻¹ (G μ − b) ``(*batch,)``, float64: how far the right-hand sides were from the prior's."""
        residual = self.constraint.residual(self._prior_mean)
        weighed = self.gain.multipliers(residual[..., None, :])[..., 0, :]
        return (residual * weighed).sum(dim=-1)

    @property
    def base_sample_shape(self) -> torch.Size:
        """Number of standard normal numbers per draw."""
        noisy_rows = self._target.shape[-1] if self._is_noisy else 0
        return torch.Size([sum(root.shape[-1] for root in self._roots) + noisy_rows])

    def rsample(
        self,
        sample_shape: torch.Size = SINGLE,
        base_samples: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draws by Matheron's rule: u ~ N(μ, Σ), then u − Σ Gᵀ S⁻¹ (G u + ε − b); O(n k) a draw for a diagonal Σ.

        Each meets the exact rows. ``base_samples`` are standard normal numbers ``(*sample_shape, *batch,
        *base_sample_shape)`` to use; where they are not given, ``generator`` is the source of random numbers.
        """
        sample_shape = torch.Size(sample_shape)
        if base_samples is None:
            base_samples = torch.randn(
                self._extended_shape(sample_shape), dtype=torch.float64, device=self.loc.device, generator=generator
            )
        sample_shape = base_samples.shape[: base_samples.ndim - len(self.batch_shape) - 1]
        normals = base_samples.to(torch.float64).reshape(-1, *self.batch_shape, base_samples.shape[-1]).movedim(0, -2)
        field_normals, noise = normals, torch.zeros((), dtype=torch.float64, device=normals.device)
        if self._is_noisy:
            k = self._target.shape[-1]
            field_normals, row_normals = normals[..., :-k], normals[..., -k:]
            noise = row_normals * square_root(self.gain.noise)[..., None, :]
        draws = self._prior_mean[..., None, :] + apply_roots(self._roots, field_normals)
        corrected = self.gain.correct(draws, self._target[..., None, :] - noise)
        return corrected.movedim(-2, 0).reshape(*sample_shape, *self.loc.shape).to(self._dtype)

    def sample(
        self,
        sample_shape: torch.Size = SINGLE,
        base_samples: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draws as ``rsample`` does, without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape, base_samples, generator=generator)

    def log_prob(self, value: Float[Tensor, "*sample_and_batch n"]) -> Tensor:
        """Log-density; with exact rows it is the density on the surface {G u = b}, and −∞ off it.

        For σ² > 0 it is log N(u; μ, Σ) + log N(b; G u, σ² I) − log N(b; G μ, S); for σ = 0 log N(u; μ, Σ) −
        log N(b; G μ, S) − ½ log det G Gᵀ, with respect to the area of the surface. Neither depends on the scaling of
        rows. A field is on the surface if |G u − b| ≤ 1e-9 (|b| + Σ |G u|), 1e-5 for float32 fields. Nodes with
        zero prior variance must be at their mean.

        Args:
            value: Fields ``(*sample, *batch, n)``.

        Raises:
            InvalidArgumentError: If the prior covariance is singular (samples without noise), so that the prior has
                no density.
        """
        shape = _common_shape(value, self.loc)
        fields = value.to(torch.float64).expand(shape).reshape(-1, *self.loc.shape).movedim(0, -2)
        density = log_density_given_constraint(
            self.gain, self._updated_mean, self._target, fields, surface_tolerance(value.dtype)
        )
        return density.movedim(-1, 0).reshape(shape[:-1]).to(self._dtype)

    def entropy(self) -> Tensor:
        """Differential entropy ``(*batch,)`` under noisy rows.

        Raises:
            InvalidArgumentError: If a row is exact, or the prior covariance singular: there is no density.
        """
        self._require_density()
        return entropy_given_noise(self.gain).expand(self.batch_shape).to(self._dtype)

    def expand(self, batch_size: torch.Size) -> "Posterior":
        """The same distribution with larger batch axes ``batch_size``."""
        return self._under(self.prior.expand(torch.Size(batch_size)), lambda law: law)

    def unsqueeze(self, dim: int) -> "Posterior":
        """The same distribution with one more batch axis."""
        axis = range(len(self.batch_shape) + 1)[dim]
        return self._with_batch(lambda part: part.unsqueeze(axis))

    def add_jitter(self, noise: float = 1e-4) -> MultivariateNormal:
        """See gpytorch; the result is a plain ``MultivariateNormal`` that no longer meets the constraint exactly."""
        return self._plain().add_jitter(noise)

    def __getitem__(self, idx: Any) -> MultivariateNormal:
        """Selects batch entries, under their laws, or points; of points a plain ``MultivariateNormal`` (dense)."""
        index = index_of_axes(idx, self.loc.ndim)
        if index is None or not isinstance(index[1], slice) or index[1] != slice(None):
            return FieldGaussian(self.mean, DenseLinearOperator(self.covariance_matrix))[idx]
        return self._with_batch(lambda part: part[index[0]]) if index[0] else self

    def __add__(self, other: Any) -> MultivariateNormal:
        """Sum with a number, under the law shifted by it, or with an independent Gaussian, a plain Gaussian."""
        if not isinstance(other, int | float):
            return self._plain().__add__(other)
        prior: Any = self.prior
        shift = self._prior_mean.new_full((self._prior_mean.shape[-1],), other)
        return self._under(prior + other, lambda law: replace(law, b=law.b + (law.residual(shift) + law.b)))

    def __mul__(self, other: Any) -> MultivariateNormal:
        """Product with a number, under the law times it; a plain ``MultivariateNormal`` for 0."""
        if not isinstance(other, int | float) or other == 0:
            return self._plain().__mul__(other)  # pyright: ignore[reportArgumentType] - any number will do
        prior: Any = self.prior
        square = other**2

        def scaled(law: LinearConstraint) -> LinearConstraint:
            rule = None if law.rule_variance is None else law.rule_variance * square
            return replace(law, b=law.b * other, noise_variance=law.noise * square, rule_variance=rule)

        return self._under(prior * other, scaled)

    def _with_batch(self, change: Callable[[Any], Any]) -> "Posterior":
        """The same distribution with other batch axes, given what is done to them."""

        def of_law(law: LinearConstraint) -> LinearConstraint:
            batch, rows = self.batch_shape, law.G
            if rows.ndim > 2:
                rows = change(law.rows.expand(*batch, *law.rows.shape[-2:]))
            k = law.b.shape[-1]
            parts = {"b": law.b, "noise_variance": law.noise, "rule_variance": law.rule_variance}
            spread = {
                name: change(as_tensor(part).expand(*batch, k)) for name, part in parts.items() if part is not None
            }
            return replace(law, G=rows, **spread)

        return self._under(change(self.prior.expand(self.batch_shape)), of_law)

    def _under(self, prior: MultivariateNormal, of_law: Callable[[LinearConstraint], LinearConstraint]) -> "Posterior":
        """Another prior under the law, changed like it."""
        changed = of_law(self.stated)
        left_out = torch.zeros(changed.b.shape[-1], dtype=torch.bool, device=changed.b.device)
        law = of_law(self.constraint) if self.constraint.b.shape[-1] else changed.selected(left_out)
        search = None if self.search is None else replace(self.search, law=None)
        stated = Stated(law=changed, independent=self.independent, search=search)
        return Posterior(prior, law, stated=stated, validate=self.gain.checked)

    def _plain(self) -> MultivariateNormal:
        return FieldGaussian(self.mean, self.lazy_covariance_matrix)

    @property
    def _is_singular(self) -> bool:
        """Whether exact rows leave no variance along them, so that there is no density over all field values."""
        return bool((self.gain.noise == 0).any())

    def _require_density(self) -> None:
        if self._is_singular:
            raise InvalidArgumentError(
                "A conditioned covariance has no Cholesky factor, inverse or entropy, since exact rows leave no "
                "variance along them; use rsample, log_prob or lazy_covariance_matrix, or give the law a "
                "noise_variance."
            )

    @property
    def _unbroadcasted_scale_tril(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._require_density()
        return definite_root(self.gain.conditioned(self.batch_shape, torch.float64)).to(self._dtype)

    @cached
    def _variance(self) -> Tensor:
        return _as(_expanded(self.gain.reduced_variance(), self.batch_shape), self._dtype)

    @cached
    def _roots(self) -> list[Root]:
        return self.gain.covariance.roots(self._precision)

    @cached
    def _is_noisy(self) -> bool:
        return not are_readable(self.gain.noise) or bool(self.gain.noise.any())


def posterior_of(
    prior: MultivariateNormal, law: LinearConstraint, validate: bool, search: NonlinearMode | None = None
) -> Posterior:
    """The conditioned Gaussian without rows that depend on others; ``stated`` is the law with them.

    Raises:
        DependentConstraintsError: If what is left misses a row that depends on it, or which rows depend on others
            differs in the batch.
        InfeasibleConstraintError: If exact rows contradict each other.
    """
    _common_batch(prior, law)
    covariance, epsilon = structure_of(prior), torch.finfo(prior.mean.dtype).eps
    try:
        gain = gain_of(covariance, law, epsilon, validate)
    except DependentConstraintsError as error:
        chosen = independents(covariance, law, epsilon, error)
        if chosen is None:
            raise
        stated = Stated(law=law, independent=chosen.rows, search=search)
        posterior = Posterior(prior, chosen.law, stated=stated, gain=chosen.gain)
        chosen.check(posterior.mean)
        return posterior
    return Posterior(prior, law, stated=Stated(law=law, search=search), gain=gain)


def _common_shape(value: Tensor, mean: Tensor) -> torch.Size:
    if value.shape[-1:] != mean.shape[-1:]:
        raise IncompatibleQueryError(
            f"The posterior is over {mean.shape[-1]} points but the fields have shape {tuple(value.shape)}; give "
            "(*sample, *batch, n) on the query points."
        )
    try:
        return torch.broadcast_shapes(value.shape, mean.shape)
    except RuntimeError as error:
        raise IncompatibleQueryError(
            f"The fields {tuple(value.shape)} do not broadcast with the posterior's {tuple(mean.shape)}; give "
            "(*sample, *batch, n)."
        ) from error


def _as(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values of a precision, without asking torch where they have it already."""
    return values if values.dtype == dtype else values.to(dtype)


def _expanded(values: Tensor, batch: torch.Size) -> Tensor:
    """Values ``(*batch, m)``."""
    return values if values.shape[:-1] == batch else values.expand(*batch, values.shape[-1])


def _common_batch(prior: MultivariateNormal, constraint: LinearConstraint) -> torch.Size:
    if prior.event_shape != (constraint.points,):
        raise IncompatibleQueryError(
            f"The prediction has {prior.event_shape[0] if len(prior.event_shape) == 1 else tuple(prior.event_shape)} "
            f"points but the constraint acts on {constraint.points}; build the constraint on the query points."
        )
    return check_batch(prior.batch_shape, constraint.batch_shape)


def _divergence(first: TorchMultivariateNormal, second: TorchMultivariateNormal) -> Tensor:
    """KL(first ‖ second) ``(*batch,)``; ∞ if exact rows confine one of the two to a surface where the other has none.

    Raises:
        InvalidArgumentError: If both are confined by exact rows, or a covariance is singular.
    """
    confined = [isinstance(each, Posterior) and each._is_singular for each in (first, second)]
    batch = torch.broadcast_shapes(first.batch_shape, second.batch_shape)
    if all(confined):
        raise InvalidArgumentError(
            "The Kullback-Leibler divergence of two predictions under exact laws is not computed: it is finite only if "
            "both laws are the same. Give one of the laws a noise_variance, or compare the priors."
        )
    if any(confined):
        return first.mean.new_full(batch, torch.inf)
    means = [each.mean.to(torch.float64) for each in (first, second)]
    found = divergence(means[0] - means[1], *(_covariance_of(each) for each in (first, second)))
    return found.expand(batch).to(first.mean.dtype)


def _covariance_of(gaussian: TorchMultivariateNormal) -> LinearOperator:
    """Σ in float64."""
    if isinstance(gaussian, Posterior):
        return gaussian.gain.conditioned(gaussian.batch_shape, torch.float64)
    lazy = isinstance(gaussian, MultivariateNormal)
    return structure_of(gaussian if lazy else FieldGaussian(gaussian.loc, gaussian.covariance_matrix)).operator


def _divergence_of_fields(first: MultivariateNormal, second: MultivariateNormal) -> Tensor:
    """gpytorch's KL(first ‖ second), which adds jitter to singular covariances; these are refused here."""
    for each in (first, second):
        if isinstance(each, FieldGaussian):
            structure_of(each).require_density()
    return kl_mvn_mvn(first, second)


for _kind in (TorchMultivariateNormal, MultivariateNormal, FieldGaussian, Posterior):
    register_kl(Posterior, _kind)(_divergence)
    register_kl(_kind, Posterior)(_divergence)
for _kind in (MultivariateNormal, FieldGaussian):
    register_kl(FieldGaussian, _kind)(_divergence_of_fields)
    register_kl(_kind, FieldGaussian)(_divergence_of_fields)
