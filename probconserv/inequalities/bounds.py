"""The nearest fields of given totals that meet inequalities, in one metric for many totals."""

from dataclasses import dataclass

from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from probconserv.constraints import LinearConstraint
from probconserv.inequalities._feasible import feasible_set
from probconserv.inequalities.inequality import JoinedConstraint


@dataclass(frozen=True, kw_only=True, eq=False)
class Bounds:
    """Inequalities that fields of given totals meet.

    Args:
        joined: The inequalities and the rows of the totals, whose right-hand sides every step replaces.
        variance: diag Σ, the metric of the projection ``(c·points,)``; values without variance stay.
    """

    joined: JoinedConstraint
    variance: Tensor

    @classmethod
    def of(cls, inequalities: JoinedConstraint, rows: Tensor, variance: Tensor) -> "Bounds":
        """The bounds of fields with the totals of these rows ``(k, c·points)``."""
        law = LinearConstraint(rows, rows.new_zeros(len(rows)))
        return cls(joined=law & inequalities, variance=variance)

    def nearest(self, field: Float[Tensor, "..."], totals: Float[Tensor, "*batch k"]) -> Tensor:
        """The nearest fields ``(*batch, c, *space)`` with these totals that meet the inequalities."""
        mean = field.reshape(*totals.shape[:-1], -1)
        prior = MultivariateNormal(mean, DiagLinearOperator(self.variance.expand_as(mean)))
        feasible = feasible_set(prior, self.joined, totals)
        return feasible.nearest(mean[None], feasible.target[None])[0].reshape(field.shape)
