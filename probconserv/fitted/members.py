"""The Gaussian of the members of an ensemble, and whether they can explain a law.

Few members know few directions. A law with as many rows as members, or one whose right-hand sides lie far outside what
the members expect, moves the mean along correlations that are not there: every value takes part in correcting what the
members all miss, and the error grows.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Self

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator, LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.gaussian import FieldGaussian
from probconserv.constraints import LinearConstraint
from probconserv.posterior import Posterior, posterior_of
from solvers.recording import are_readable

_LEVEL = 1e-3  # probability with which members that do explain their laws are rejected, over all fields together
_REMEDY = 'shrinkage="auto" of from_samples or condition_fields leaves their correlations out where they do harm'


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """What the covariance of members is made of, Σ = (1 − λ) R Rᵀ + λ diag(R Rᵀ) + diag(noise)."""

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
        """Σ, never formed."""
        root, noise = self.root, self.noise
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
    """N(ū, Σ) of members, which remembers them so that ``condition`` can ask whether they explain a law.

    Without ``members`` (a part of the points, another batch) nothing is asked.
    """

    def __init__(self, mean: Tensor, covariance_matrix: LinearOperator, *, members: Members | None = None) -> None:
        super().__init__(mean, covariance_matrix)
        self.members = members

    @classmethod
    def of(cls, mean: Tensor, members: Members) -> Self:
        """The Gaussian of members around their mean."""
        return cls(mean, members.covariance(), members=members)


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
    if readable and many and not members.stated:
        warnings.warn(f"{_few(rows, members)} The update can do harm; {_REMEDY}.", stacklevel=4)
        return posterior
    if not readable:
        return posterior
    with torch.no_grad():
        probability = _probability(posterior.misfit, rows, members.count)
    rejected = probability < _LEVEL / max(probability.numel(), 1)
    if not bool(rejected.any()):
        return posterior
    chosen = _rejected(prior, members, rejected, float(probability.min()))
    return posterior if chosen is prior else posterior_of(chosen, law, validate)


def _without_rounding(prior: MultivariateNormal, members: Members, law: LinearConstraint) -> None:
    """Conditions members whose deviations add up to 0 in float64, where dependent rows are told from rounding."""
    root = members.root.detach().double()
    exact = replace(members, root=root - root.mean(dim=-1, keepdim=True))
    posterior_of(MemberGaussian.of(prior.mean.detach().double(), exact), law, True)


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
    shrinkage = torch.as_tensor(members.shrinkage, dtype=torch.float64, device=members.root.device)
    shrinkage = torch.ones_like(shrinkage) if where is None else torch.where(where, 1.0, shrinkage)
    changed = Members(root=members.root, noise=members.noise, shrinkage=shrinkage, stated=True, automatic=False)
    return MemberGaussian(prior.mean, changed.covariance())


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
