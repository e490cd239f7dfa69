"""The Gaussian of the members of an ensemble, and whether they can explain a law.

Few members know few directions. A law with as many rows as members, or one whose right-hand sides lie far outside what
the members expect, moves the mean along correlations that are not there: every value takes part in correcting what the
members all miss, and the error grows.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.gaussian import FieldGaussian, index_of_axes
from probconserv._linalg.values import Array, as_tensor, floating
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.fitted.covariance import shrinkage_of
from probconserv.posterior import Posterior, posterior_of
from solvers.recording import are_readable, check_recording

_LEVEL = 1e-3  # probability with which members that do explain their laws are rejected, over all fields together
_REMEDY = 'shrinkage="auto" of from_samples, Ensemble or condition_fields drops their correlations where they do harm'


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """Factors of the covariance of members, Σ = (1 − λ) R Rᵀ + λ diag(R Rᵀ) + diag(noise)."""

    root: Tensor  # R ``(*batch, n, members)``
    noise: Tensor | None  # a number or ``(*batch, n)``
    shrinkage: float | Tensor  # λ, a number or ``(*batch,)``
    stated: bool  # by the caller
    automatic: bool  # stated as "auto"

    @property
    def count(self) -> int:
        """Number of members."""
        return self.root.shape[-1]

    @property
    def are_correlated(self) -> bool:
        """Whether values are correlated, λ ≠ 1; an automatic λ counts as such."""
        return isinstance(self.shrinkage, Tensor) or self.shrinkage != 1

    def covariance(self) -> LinearOperator:
        """Σ, never formed; diagonal if values are not correlated."""
        root, noise = self.root, self.noise
        if not self.are_correlated:
            variance = root.square().sum(dim=-1)
            return DiagLinearOperator(variance if noise is None else variance + noise)
        if isinstance(self.shrinkage, Tensor):
            weight = self.shrinkage.to(root.dtype)[..., None]
            added = weight * root.square().sum(dim=-1)
            noise = added if noise is None else noise + added
            root = (1.0 - weight).sqrt()[..., None] * root
        elif self.shrinkage:
            added = self.shrinkage * root.square().sum(dim=-1)
            noise = added if noise is None else noise + added
            root = (1.0 - self.shrinkage) ** 0.5 * root
        low_rank = RootLinearOperator(root)
        if noise is None:
            return low_rank
        return PsdSumLinearOperator(low_rank, DiagLinearOperator(noise.expand(root.shape[:-1])))


class MemberGaussian(FieldGaussian):
    """N(ū, Σ) of members, which remembers them so that ``condition`` can check whether they explain a law.

    They stay in another batch, at part of the points, and when the Gaussian is scaled or shifted by numbers or gains
    independent noise. A sum with a correlated Gaussian, or the values at one point, are a Gaussian without members.
    """

    def __init__(self, mean: Tensor, members: Members) -> None:
        super().__init__(mean, members.covariance())
        self.members = members

    def expand(self, batch_size: torch.Size) -> FieldGaussian:
        """The same distribution with larger batch axes ``batch_size``."""
        return self._changed(lambda part, axes: part.expand(*batch_size, *part.shape[part.ndim - axes :]))

    def unsqueeze(self, dim: int) -> MultivariateNormal:
        """The same distribution with one more batch axis."""
        axis = range(len(self.batch_shape) + 1)[dim]
        return self._changed(lambda part, _: part.unsqueeze(axis))

    def __getitem__(self, idx: Any) -> MultivariateNormal:
        """Selects batch entries or points."""
        index = index_of_axes(idx, self.mean.ndim)
        if index is None:
            return self._plain()[idx]
        batch, points = index
        return self._changed(
            lambda part, axes: part[batch] if not axes else part[batch][(..., points, *[slice(None)] * (axes - 1))]
        )

    def __mul__(self, other: Any) -> MultivariateNormal:
        """Product with a number."""
        if not isinstance(other, int | float):
            return self._plain() * other
        return MemberGaussian(self.mean * other, _scaled(self.members, self.mean.new_tensor(other)))

    def __add__(self, other: Any) -> MultivariateNormal:
        """Sum with a number or an independent Gaussian."""
        if isinstance(other, int | float):
            return MemberGaussian(self.mean + other, self.members)
        covariance = getattr(other, "lazy_covariance_matrix", None)
        if not isinstance(covariance, DiagLinearOperator) or other.mean.shape != self.mean.shape:
            return self._plain() + other
        return self._with_noise(covariance.diagonal(), other.mean)

    def add_jitter(self, noise: float = 1e-4) -> MultivariateNormal:
        """The same distribution with more variance at every point."""
        return self._with_noise(torch.full_like(self.mean, noise), 0.0)

    def scaled(self, mean: Tensor, factor: Tensor) -> MultivariateNormal:
        """The distribution with another mean, and with Σ times a factor ``(*batch,)``."""
        members = _scaled(self.members, factor.sqrt())
        return MemberGaussian(mean.expand(members.root.shape[:-1]), members)

    def _with_noise(self, variance: Tensor, shift: Tensor | float) -> "MemberGaussian":
        noise = variance if self.members.noise is None else self.members.noise + variance
        return MemberGaussian(self.mean + shift, replace(self.members, noise=noise))

    def _changed(self, change: Callable[[Tensor, int], Tensor]) -> "MemberGaussian":
        """The Gaussian of tensors ``(*batch, *axes)`` that are changed alike, given each and its number of axes."""
        shape, members = self.mean.shape, self.members
        noise = None if members.noise is None else change(members.noise.expand(shape), 1)
        shrinkage = members.shrinkage
        if isinstance(shrinkage, Tensor):
            shrinkage = change(shrinkage.expand(shape[:-1]), 0)
        members = replace(members, root=change(members.root, 2), noise=noise, shrinkage=shrinkage)
        return MemberGaussian(change(self.mean, 1), members)

    def _plain(self) -> FieldGaussian:
        return FieldGaussian(self.mean, self.lazy_covariance_matrix)


def _scaled(members: Members, factor: Tensor) -> Members:
    """Members whose deviations are multiplied by a factor ``(*batch,)``, and the noise by its square."""
    noise = None if members.noise is None else members.noise * factor.square()[..., None]
    return replace(members, root=members.root * factor[..., None, None], noise=noise)


def from_samples(
    samples: Float[Array, "members *batch n"],
    noise_variance: float | Float[Array, "*batch n"] = 0.0,
    *,
    shrinkage: float | Literal["auto"] | None = None,
) -> MultivariateNormal:
    """The Gaussian with the mean and the covariance of samples, plus optional independent noise.

    Σ = R Rᵀ + diag(noise) with R = (u_m − ū)/√(M − 1), n × M, of rank M − 1; never formed. With shrinkage λ the first
    term is (1 − λ) R Rᵀ + λ diag(R Rᵀ), which keeps every variance and lets correlations that few members cannot
    support fade (Ledoit & Wolf 2004).

    Args:
        samples: Fields ``(members, *batch, n)``, at least two members: a tensor, an array, a frame or a list; whole
            numbers become float64.
        noise_variance: Variance added at every point, a number or ``(*batch, n)``; without it the covariance is
            singular and the distribution has no density.
        shrinkage: λ in [0, 1], 0 by default; "auto" takes that of ``fit_covariance``, and 1 where ``condition`` gives a
            law that the members cannot explain: one of as many rows as members or more, or one whose joint χ² is beyond
            what a further member would have. It says so by a warning. Without "auto" the warning comes alone, from
            half as many rows as members on; a number says that so many are meant.

    Returns:
        Gaussian with lazy covariance; where all members agree, the mean equals their value to the last bit.

    Raises:
        InvalidArgumentError: If samples are no array, there are fewer than two members, a noise variance is negative,
            or λ is neither in [0, 1] nor "auto".
    """
    check_recording()
    samples = as_tensor(samples, None, "samples")
    if samples.ndim < 2 or samples.shape[0] < 2:
        raise InvalidArgumentError(
            f"samples must be (members, *batch, n) with members ≥ 2, got {tuple(samples.shape)}."
        )
    check_shrinkage(shrinkage)
    samples = floating(samples)
    noise = torch.as_tensor(noise_variance, dtype=samples.dtype, device=samples.device)
    smallest, noisy = 0.0, True  # where the numbers cannot be read
    if isinstance(noise_variance, int | float):
        smallest, noisy = noise_variance, noise_variance != 0
    elif are_readable(samples, noise) and noise.numel():
        smallest, noisy = float(noise.detach().min()), bool(noise.any())
    if not smallest >= 0:
        raise InvalidArgumentError(
            f"noise_variance must not be negative or NaN, got {smallest:g}; that of an Ensemble with "
            "own_variance holds the variances that its members predict."
        )
    mean = samples[0] + (samples - samples[0]).mean(dim=0)
    root = ((samples - mean) / (samples.shape[0] - 1) ** 0.5).movedim(0, -1)
    members = Members(
        root=root,
        noise=noise if noisy else None,
        shrinkage=shrinkage_of(root.movedim(-1, 0)) if shrinkage == "auto" else shrinkage or 0.0,
        stated=shrinkage is not None,
        automatic=shrinkage == "auto",
    )
    return MemberGaussian(mean, members)


def check_shrinkage(shrinkage: Any) -> None:
    """Refuses what is neither a number in [0, 1], "auto" nor None."""
    if shrinkage is None or shrinkage == "auto" or (not isinstance(shrinkage, str) and 0.0 <= shrinkage <= 1.0):
        return
    raise InvalidArgumentError(f'shrinkage must lie in [0, 1] or be "auto", got {shrinkage!r}.')


def condition_members(prior: MultivariateNormal, law: LinearConstraint, validate: bool) -> Posterior:
    """The conditioned Gaussian, with λ = 1 where λ is automatic and the members cannot explain the law.

    They cannot if it has at least as many rows as there are members, or if the joint χ² of its rows is larger than that
    of a further member would be with probability 0.001 (over all fields). A warning says so.

    Of a prior that is not of members nothing is asked. The result's ``prior`` is the one that was conditioned.
    """
    members = prior.members if isinstance(prior, MemberGaussian) else None
    if members is None or not members.are_correlated:
        return posterior_of(prior, law, validate)
    rows, readable = law.b.shape[-1], validate and are_readable(prior.loc, law.b)
    many = rows >= members.count
    if many and members.automatic:
        if readable:
            warnings.warn(f"{_few(rows, members)} Values are taken as independent (shrinkage 1).", stacklevel=4)
        return posterior_of(_independent(prior, members, None), law, validate)
    if readable and many and members.root.dtype != torch.float64:
        _without_rounding(prior, members, law)
    posterior = posterior_of(prior, law, validate)
    independent = posterior.constraint.b.shape[-1]
    if readable and not members.stated and (many or 2 * independent > members.count):
        warnings.warn(f"{_few(rows, members)} The update can do harm; {_REMEDY}.", stacklevel=4)
        return posterior
    if not readable:
        return posterior
    with torch.no_grad():
        probability = _probability(posterior.misfit, independent, members.count)
    rejected = probability < _LEVEL / max(probability.numel(), 1)
    if isinstance(members.shrinkage, Tensor):  # values that are independent already stay so
        rejected = rejected & (members.shrinkage != 1)
    if not bool(rejected.any()):
        return posterior
    chosen = _rejected(prior, members, rejected, float(probability.min()))
    return posterior if chosen is prior else posterior_of(chosen, law, validate)


def _without_rounding(prior: MultivariateNormal, members: Members, law: LinearConstraint) -> None:
    """Conditions members whose deviations add up to 0 in float64, where dependent rows differ from rounding."""
    root = members.root.detach().double()
    exact = replace(members, root=root - root.mean(dim=-1, keepdim=True))
    posterior_of(MemberGaussian(prior.mean.detach().double(), exact), law, True)


def _few(rows: int, members: Members) -> str:
    return f"The law has {rows} rows and the ensemble {members.count} members, too few to know their correlations."


def _rejected(prior: MultivariateNormal, members: Members, rejected: Tensor, least: float) -> MultivariateNormal:
    said = (
        f"The members cannot explain the law in {int(rejected.sum())} of {rejected.numel()} fields: its right-hand "
        f"sides would be so far from theirs with a probability of {least:.0e}."
    )
    if members.automatic:
        warnings.warn(f"{said} Values there are taken as independent (shrinkage 1).", stacklevel=5)
        return _independent(prior, members, rejected)
    warnings.warn(f"{said} They have an error in common, and the update can do harm; {_REMEDY}.", stacklevel=5)
    return prior


def _independent(prior: MultivariateNormal, members: Members, where: Tensor | None) -> MultivariateNormal:
    """λ = 1, for all fields or some of them ``(*batch,)``."""
    if where is None:
        return MemberGaussian(prior.mean, replace(members, shrinkage=1.0))
    return MemberGaussian(prior.mean, replace(members, shrinkage=torch.where(where, 1.0, members.shrinkage)))


def _probability(misfit: Tensor, rows: int, members: int) -> Tensor:
    """Probability of a larger χ² ``(*batch,)``.

    That of Hotelling's T² for a further member of an ensemble with more members than rows; beyond that of χ² over a
    variance estimated from the members.
    """
    from scipy.special import fdtrc  # slow to import, rarely needed

    scaled, freedom = misfit / (rows * (1 + 1 / members)), members - 1
    if rows < members:
        freedom = members - rows
        scaled = scaled * freedom / (members - 1)
    return torch.as_tensor(fdtrc(rows, freedom, scaled.clamp_min(0).cpu().numpy()))
