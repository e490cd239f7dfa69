"""Rows that depend on each other, or on what the prediction is certain of, left out of a law.

A redundant row says what the others say: zonal means and the global one, fields whose totals agree. It is left out, and
what is left meets it. A row that differs from the others by less than covariance or precision resolve is left out with
a warning.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from probconserv._linalg.covariance import Covariance
from probconserv._linalg.density import surface_tolerance
from probconserv._linalg.rank import (
    EPS,
    depend_on,
    exceed_rounding,
    independent_of_others,
    least_distance,
    require_consistent,
    resolution_of_entries,
)
from probconserv._linalg.structured import MANY, AnyGain, gain_of
from probconserv.constraints import LinearConstraint
from probconserv.errors import DependentConstraintsError
from solvers.recording import are_readable


@dataclass(frozen=True, kw_only=True, eq=False)
class Independents:
    """The independent rows of a law, with the update by them.

    Args:
        law: These rows.
        gain: The factorised update by them.
        stated: The law with all rows.
        rows: Mask of the rows ``(k,)``.
        nearly: Whether rows are left out that S alone hardly distinguishes.
        epsilon: Machine epsilon of the prior's dtype.
        error: What made the choice necessary.
    """

    law: LinearConstraint
    gain: AnyGain
    stated: LinearConstraint
    rows: Tensor
    nearly: bool
    epsilon: float
    error: DependentConstraintsError

    @torch.no_grad()
    def check(self, mean: Tensor) -> None:
        """Warns of rows left out that are no combination of the others, and refuses those that a mean misses."""
        law, covariance, k = self.stated, self.gain.covariance, self.stated.b.shape[-1]
        deviation = covariance.variance.clamp_min(0.0).sqrt()
        of_rows = (covariance.times(law.rows) * law.rows).sum(dim=-1) + law.noise
        varies = exceed_rounding(of_rows, covariance, covariance.variance, law.rows, self.epsilon)
        redundant = ~varies.reshape(-1, k).any(dim=0) | depend_on(law.rows * deviation[..., None, :], self.rows)
        by_root = covariance.is_factored
        distance = least_distance(law.rows, covariance, self.epsilon)
        resolution = distance if by_root else resolution_of_entries(k, self.nearly)
        certain = redundant | torch.tensor(by_root and self.epsilon <= EPS, device=redundant.device)
        unresolved = ~self.rows & ~certain
        slack = torch.where(unresolved, 10 * resolution, 0.0) * (law.rows.abs() @ deviation[..., None])[..., 0]
        missed = _missed(mean, law, slack) * ~self.rows
        if bool((missed > 0).any()):
            row = int(missed.reshape(-1, k).amax(dim=0).argmax())
            raise DependentConstraintsError(
                f"{self.error} The prediction is certain of row {row} once those before it are met, and misses it by "
                f"{float(missed.max()):.3g}."
            ) from self.error
        if bool(unresolved.any()):
            rows = ", ".join(str(row) for row in unresolved.nonzero()[:, 0].tolist())
            largest = float((law.residual(mean.detach()).abs() * unresolved).max())
            warnings.warn(
                f"Rows {rows} of the law are left out: what distinguishes them from the others is at most "
                f"{resolution:.0e} of their standard deviation under the prior, less than its covariance or precision "
                f"resolves. The prediction misses them by {largest:.3g} at most. Drop them, or give them a "
                "noise_variance.",
                stacklevel=7,
            )


def independents(
    covariance: Covariance, law: LinearConstraint, epsilon: float, error: DependentConstraintsError
) -> Independents | None:
    """The independent rows of a law of which an error says that some depend on others; None if there is no choice.

    Raises:
        InfeasibleConstraintError: If exact rows contradict each other.
    """
    require_consistent(law.G, law.b, law.noise)
    if law.b.shape[-1] > MANY or not are_readable(law.b, covariance.variance):
        return None
    for nearly in (False, True):
        with torch.no_grad():
            rows = independent_of_others(covariance.detached(), law.rows, law.noise, epsilon, nearly)
        if rows is None:
            continue
        part = law.selected(rows)
        try:
            gain = gain_of(covariance, part, epsilon, True)
        except DependentConstraintsError:
            continue
        return Independents(law=part, gain=gain, stated=law, rows=rows, nearly=nearly, epsilon=epsilon, error=error)
    return None


def _missed(mean: Tensor, law: LinearConstraint, slack: Tensor) -> Tensor:
    """How far a field misses rows ``(*batch, k)``, 0 within the rounding of its precision and a slack."""
    field = mean.detach().to(torch.float64)
    size = (law.rows.abs() @ field.abs()[..., None])[..., 0] + law.b.abs()
    missed = law.residual(field).abs()
    return torch.where(missed > surface_tolerance(mean.dtype) * size + slack, missed, 0.0)
