"""The conditioned Gaussian under rows that depend on each other, or on what the prediction is certain of.

A redundant row says what the others say: zonal means and the global one, fields whose totals agree. It is left out, and
what is left meets it. A row that differs from the others by less than covariance or precision resolve is left out with
a warning.
"""

import warnings

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import as_double, is_factored, rows_times
from probconserv._linalg.density import surface_tolerance
from probconserv._linalg.rank import (
    EPS,
    depend_on,
    exceed_rounding,
    independent_given,
    independent_of_others,
    least_distance,
    resolution_of_entries,
)
from probconserv.constraints import LinearConstraint
from probconserv.errors import DependentConstraintsError
from probconserv.posterior import MANY, Posterior
from solvers.recording import are_readable


def posterior_of(prior: MultivariateNormal, law: LinearConstraint, validate: bool) -> Posterior:
    """The conditioned Gaussian without rows that depend on others; ``stated`` is the law with them.

    Raises:
        DependentConstraintsError: If what is left misses a row that depends on it, or which rows depend on others
            differs in the batch.
    """
    try:
        return Posterior(prior, law, validate=validate)
    except DependentConstraintsError as error:
        if law.b.shape[-1] > MANY or not are_readable(law.b, prior.mean):
            raise
        covariance = as_double(prior.lazy_covariance_matrix.detach())
        for nearly in (False, True):
            posterior, independent = _of_independent_rows(prior, covariance, law, nearly)
            if posterior is not None:
                with torch.no_grad():
                    _check_left_out(posterior, covariance, law, (independent, nearly), error)
                return posterior
        raise


def rows_of_values(posterior: Posterior) -> tuple[LinearConstraint | None, Tensor | None]:
    """The rows of the stated law that are independent for values whose correlations do not count.

    A prediction under inequalities leaves what the covariance is certain of, such as a total that all members have, so
    that rows are stated again that only say this.

    Returns:
        The law, None if no row is left, and a mask of its rows that ``posterior.constraint`` has, None for all.
    """
    law, independent = posterior.stated, posterior.independent
    if independent is None:
        return law, None
    deviation = as_double(posterior.prior.lazy_covariance_matrix.detach()).diagonal().clamp_min(0.0).sqrt()
    chosen = independent_given(law.rows.detach() * deviation[..., None, :], independent)
    if not bool(chosen.any()):
        return None, None
    return (law if bool(chosen.all()) else law.selected(chosen)), independent[chosen]


def _of_independent_rows(
    prior: MultivariateNormal, covariance: LinearOperator, law: LinearConstraint, nearly: bool
) -> tuple[Posterior | None, Tensor]:
    """The conditioned Gaussian under the rows that are independent, None if there is no such choice; and these rows."""
    epsilon = torch.finfo(prior.mean.dtype).eps
    with torch.no_grad():
        independent = independent_of_others(covariance, law.rows, law.noise, epsilon, nearly)
    if independent is None:
        return None, torch.ones(law.b.shape[-1], dtype=torch.bool)
    try:
        return Posterior(prior, law.selected(independent), stated=law, independent=independent), independent
    except DependentConstraintsError:
        return None, independent


def _check_left_out(
    posterior: Posterior,
    covariance: LinearOperator,
    law: LinearConstraint,
    choice: tuple[Tensor, bool],
    error: DependentConstraintsError,
) -> None:
    """Warns of rows left out that are no combination of the others, and refuses those that are missed."""
    independent, nearly = choice
    epsilon, k = torch.finfo(posterior.mean.dtype).eps, law.b.shape[-1]
    deviation = covariance.diagonal().clamp_min(0.0).sqrt()
    of_rows = (rows_times(covariance, law.rows) * law.rows).sum(dim=-1) + law.noise
    varies = exceed_rounding(of_rows, covariance, covariance.diagonal(), law.rows, epsilon).reshape(-1, k).any(dim=0)
    redundant = ~varies | depend_on(law.rows * deviation[..., None, :], independent)
    by_root = is_factored(covariance)
    resolution = least_distance(law.rows, covariance, epsilon) if by_root else resolution_of_entries(k, nearly)
    certain = redundant | torch.tensor(by_root and epsilon <= EPS, device=redundant.device)
    unresolved = ~independent & ~certain
    slack = torch.where(unresolved, 10 * resolution, 0.0) * (law.rows.abs() @ deviation[..., None])[..., 0]
    missed = _missed(posterior.mean, law, slack) * ~independent
    if bool((missed > 0).any()):
        row = int(missed.reshape(-1, k).amax(dim=0).argmax())
        raise DependentConstraintsError(
            f"{error} The prediction is certain of row {row} once those before it are met, and misses it by "
            f"{float(missed.max()):.3g}."
        ) from error
    if bool(unresolved.any()):
        rows = ", ".join(str(row) for row in unresolved.nonzero()[:, 0].tolist())
        largest = float((law.residual(posterior.mean.detach()).abs() * unresolved).max())
        warnings.warn(
            f"Rows {rows} of the law are left out: what distinguishes them from the others is at most "
            f"{resolution:.0e} of their standard deviation under the prior, less than its covariance or precision "
            f"resolves. The prediction misses them by {largest:.3g} at most. Drop them, or give them a noise_variance.",
            stacklevel=5,
        )


def _missed(mean: Tensor, law: LinearConstraint, slack: Tensor) -> Tensor:
    """How far a field misses rows ``(*batch, k)``, 0 within the rounding of its precision and a slack."""
    field = mean.detach().to(torch.float64)
    size = (law.rows.abs() @ field.abs()[..., None])[..., 0] + law.b.abs()
    missed = law.residual(field).abs()
    return torch.where(missed > surface_tolerance(mean.dtype) * size + slack, missed, 0.0)
