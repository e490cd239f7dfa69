"""Rows of a law that a prediction, or the other rows, meet already: they ask for nothing and are no error."""

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from probconserv._linalg.covariance import as_double, rounding, rows_times
from probconserv._linalg.density import surface_tolerance
from probconserv.constraints import LinearConstraint
from probconserv.errors import DependentConstraintsError
from probconserv.posterior import Posterior
from solvers.recording import are_readable

_MANY = 512  # rows above which dependent ones are an error at once
_EPS = torch.finfo(torch.float64).eps


def posterior_of(prior: MultivariateNormal, law: LinearConstraint, validate: bool) -> Posterior:
    """The conditioned Gaussian; exact rows that are certain, and met, are left out.

    Such a row has no variance under the prior, or none once the rows before it are met: fields whose totals agree, or
    zonal means and the global one. It takes part with a variance of its own, which changes nothing since there is
    nothing to correct.

    Args:
        prior: N(μ, Σ).
        law: G, b and σ².
        validate: Whether values are checked.

    Raises:
        DependentConstraintsError: If rows are certain and missed.
    """
    try:
        return Posterior(prior, law, validate=validate)
    except DependentConstraintsError as error:
        loosened = _loosened(prior, law)
        if loosened is None:
            raise
        changed, certain = loosened
        posterior = Posterior(prior, changed, validate=validate)
        missed = _missed(posterior.mean, law) * certain
        if bool((missed == 0).all()):
            return posterior
        row = int(missed.reshape(-1, missed.shape[-1]).amax(dim=0).argmax())
        raise DependentConstraintsError(
            f"{error} The prediction is certain of row {row} once those before it are met, and misses it by "
            f"{float(missed.max()):.3g}."
        ) from error


def _loosened(prior: MultivariateNormal, law: LinearConstraint) -> tuple[LinearConstraint, Tensor] | None:
    """The law with a variance for certain rows, and which those are ``(k,)``; None if that differs in the batch."""
    k = law.b.shape[-1]
    if k > _MANY or not are_readable(law.b, prior.mean):
        return None
    with torch.no_grad():
        covariance = as_double(prior.lazy_covariance_matrix.detach())
        innovation = rows_times(covariance, law.rows) @ law.rows.mT + torch.diag_embed(law.noise)
        diagonal = innovation.diagonal(dim1=-2, dim2=-1)
        relative = min(100 * torch.finfo(prior.mean.dtype).eps, 0.1)
        fixed = diagonal <= rounding(covariance, law.rows, relative)
        scale = torch.where(fixed, 1.0, diagonal).rsqrt()
        found = _certain(scale[..., None] * innovation * scale[..., None, :], fixed)
        if found is None:
            return None
        largest = (law.rows.abs() @ covariance.diagonal().clamp_min(0).sqrt()[..., None])[..., 0].square()
        largest = largest.reshape(-1, k).amax(dim=0)
        noise = torch.where(found, torch.where(largest > 0, largest, 1.0), law.noise)
    return LinearConstraint(law.G, law.b, noise, law.shape, law.rule_variance), found


def _certain(matrix: Tensor, fixed: Tensor) -> Tensor | None:
    """Which rows have no pivot of their own in S with unit diagonal ``(k,)``, in all of the batch; None if in some."""
    k = matrix.shape[-1]
    matrix = matrix.reshape(-1, k, k)
    fixed = fixed.expand(*matrix.shape[:-1]).reshape(-1, k) if fixed.ndim > 1 else fixed.expand(len(matrix), k)
    chosen: list[int] = []
    certain = torch.zeros(k, dtype=torch.bool, device=matrix.device)
    lower = matrix.new_zeros(len(matrix), 0, 0)
    for row in range(k):
        cross = matrix[:, row, chosen]
        white = torch.linalg.solve_triangular(lower, cross[..., None], upper=False)[..., 0]
        pivot = matrix[:, row, row] - white.square().sum(dim=-1)
        none = fixed[:, row] | (pivot <= 1e3 * k * _EPS)
        if bool(none.all()):
            certain[row] = True
        elif bool(none.any()):
            return None
        else:
            side = torch.cat([white, pivot.sqrt()[:, None]], dim=1)
            lower = torch.cat([torch.nn.functional.pad(lower, (0, 1)), side[:, None]], dim=1)
            chosen.append(row)
    return certain


def _missed(mean: Tensor, law: LinearConstraint) -> Tensor:
    """How far a field misses rows ``(*batch, k)``, 0 within the rounding of its precision."""
    field = mean.detach().to(torch.float64)
    size = (law.rows.abs() @ field.abs()[..., None])[..., 0] + law.b.abs()
    missed = law.residual(field).abs()
    return torch.where(missed > surface_tolerance(mean.dtype) * size, missed, 0.0)
