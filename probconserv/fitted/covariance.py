"""Covariances fitted to residuals: variances as they are, correlations shrunk by a closed formula."""

from dataclasses import dataclass

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.gaussian import FieldGaussian
from probconserv._linalg.values import Array, as_tensor, floating
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fitted._student import warn_of_few, widening
from solvers.recording import are_readable


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FittedCovariance:
    """A covariance fitted to residuals.

    Args:
        covariance: Σ ``(*batch, n, n)``, low rank plus diagonal.
        shrinkage: λ ``(*batch,)``, from 0 (correlations of the residuals) to 1 (none).
        bias: Mean of the residuals ``(*batch, n)``, which Σ does not contain; correct predictions for it first.
        samples: Number M of residuals.
    """

    covariance: LinearOperator
    shrinkage: Float[Tensor, "*batch"]
    bias: Float[Tensor, "*batch n"]
    samples: int

    def __repr__(self) -> str:
        low, high = float(self.shrinkage.min()), float(self.shrinkage.max())
        shrinkage = f"{low:.3g}" if low == high else f"between {low:.3g} and {high:.3g}"
        shape = tuple(self.covariance.shape)
        return f"FittedCovariance(covariance={shape}, shrinkage={shrinkage}, samples={self.samples})"

    def around(self, mean: Float[Array, "*batch n"], *, level: float | None = None) -> MultivariateNormal:
        """The Gaussian with a mean ``(*batch, n)`` and this covariance, in the precision of the mean.

        Args:
            mean: Predictions, corrected for the bias.
            level: Level of intervals that shall hold new values as often as they say, which have Student's t
                distribution with M − 1 degrees of freedom, since variances and bias are estimates: Σ (1 + 1/M) (t/z)²,
                t and z the quantiles ½ (1 + level) of it and of the normal distribution. By default Σ as it is.

        Warns:
            UserWarning: Without a level, if intervals of 90 % are expected to hold less than 88 % of new values: for
                fewer than 25 samples.
        """
        mean = floating(as_tensor(mean, dtype=None))
        if mean.shape[-1:] != self.covariance.shape[-1:]:
            raise IncompatibleQueryError(
                f"The covariance was fitted to residuals at {self.covariance.shape[-1]} points, but the mean has the "
                f"shape {tuple(mean.shape)}; give (*batch, n) at the same points."
            )
        covariance = self.covariance.to(mean.dtype)
        if level is None:
            warn_of_few(self.samples, "Give around(mean, level=0.9), which widens them, or more samples.")
            return FieldGaussian(mean, covariance)
        freedom = torch.tensor(self.samples - 1.0, dtype=torch.float64)
        factor = (1.0 + 1.0 / self.samples) * float(widening(freedom, level))
        return FieldGaussian(mean, covariance * factor)


def fit_covariance(
    residuals: Float[Array, "samples *batch n"],
    *,
    shrinkage: float | None = None,
    rank: int | None = None,
) -> FittedCovariance:
    """The covariance of residuals, whose correlations few samples cannot support and which are shrunk therefore.

        Σ = (1 − λ) S + λ diag S,   λ = Σ_{i≠j} Var r_ij / Σ_{i≠j} r_ij²,

    S the covariance of the samples (divided by samples − 1), r_ij its correlations, Var r_ij their estimated variance
    (Ledoit & Wolf 2004; Schäfer & Strimmer 2005, Stat. Appl. Genet. Mol. Biol. 4, 32). Forecasters call an update with
    it reconciliation by a minimal trace with shrinkage (MinT, Wickramasuriya et al. 2019). The
    variances are those of the errors. Σ has rank samples − 1 plus a diagonal, O(n · samples) numbers, and λ costs
    O(n · samples²).

    Args:
        residuals: Errors ``(samples, *batch, n)`` of earlier predictions, or deviations of an ensemble; at least two
            samples. Their mean over the samples is taken off and returned as ``bias``.
        shrinkage: λ in [0, 1]; by the formula if None.
        rank: Number of leading components that keep their correlations; what is left of every variance becomes
            independent. All by default.

    Returns:
        Σ, λ and the bias; ``around(mean)`` makes a prediction of them.
    """
    residuals = floating(as_tensor(residuals, dtype=None))
    _check(residuals, shrinkage, rank)
    root = deviations(residuals) / (residuals.shape[0] - 1) ** 0.5
    if shrinkage is None:
        found = shrinkage_of(root)
    else:
        found = torch.full(residuals.shape[1:-1], shrinkage, dtype=torch.float64, device=residuals.device)
    weight = found.to(residuals.dtype)
    columns = root.movedim(0, -1)  # R with S = R Rᵀ
    variance = columns.square().sum(dim=-1)
    if rank is not None and rank < columns.shape[-1]:
        left, values, _ = torch.linalg.svd(columns, full_matrices=False)
        columns = left[..., :rank] * values[..., None, :rank]
    columns = (1 - weight).sqrt()[..., None, None] * columns
    independent = (variance - columns.square().sum(dim=-1)).clamp_min(0.0)
    covariance = PsdSumLinearOperator(RootLinearOperator(columns), DiagLinearOperator(independent))
    return FittedCovariance(covariance=covariance, shrinkage=found, bias=residuals.mean(dim=0), samples=len(residuals))


def deviations(samples: Float[Tensor, "samples *batch n"]) -> Float[Tensor, "samples *batch n"]:
    """Samples less their mean, 0 to the last bit where all agree."""
    shifted = samples - samples[0]
    return shifted - shifted.mean(dim=0)


def shrinkage_of(deviations: Float[Tensor, "samples *batch n"]) -> Float[Tensor, "*batch"]:
    """The λ that minimises the expected squared error of the correlations, in closed form.

        λ = 1 − Σ_{i≠j} (r_ij² − Var r_ij) / Σ_{i≠j} r_ij²,   Var r_ij = Σ_m (w_mij − r_ij)² / (M (M − 1))

    with w_mij the products of standardised deviations, whose mean is r_ij. The sums over pairs come from the M × M
    products between samples.

    λ in [0, 1], float64, held fixed in derivatives; 1 where no two points vary together.
    """
    x = deviations.detach().to(torch.float64).movedim(0, -2)
    members = x.shape[-2]
    scale = x.square().mean(dim=-2, keepdim=True).sqrt()
    x = torch.where(scale > 0, x / torch.where(scale > 0, scale, 1.0), 0.0)
    squares = (x @ x.mT / members).square().sum(dim=(-2, -1)) - (scale > 0).sum(dim=(-2, -1))
    products = (x.square().sum(dim=-1).square() - x.pow(4).sum(dim=-1)).sum(dim=-1)
    unbiased = squares - (products - members * squares) / (members * (members - 1))
    together = squares > 1e-12 * x.shape[-1]
    return 1.0 - torch.where(together, (unbiased / torch.where(together, squares, 1.0)).clamp(0.0, 1.0), 0.0)


def _check(residuals: Tensor, shrinkage: float | None, rank: int | None) -> None:
    if residuals.ndim < 2 or residuals.shape[0] < 2:
        raise InvalidArgumentError(
            f"residuals must be (samples, *batch, n) with samples ≥ 2, got {tuple(residuals.shape)}."
        )
    if are_readable(residuals):
        refuse_missing(residuals, "residuals hold")
    if shrinkage is not None and not 0.0 <= shrinkage <= 1.0:
        raise InvalidArgumentError(f"shrinkage must lie in [0, 1], or be None for the formula, got {shrinkage:g}.")
    if rank is not None and rank < 1:
        raise InvalidArgumentError(f"rank must be at least 1, or None for all components, got {rank}.")
