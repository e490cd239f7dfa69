"""ProbConserv as a layer: a surrogate whose prediction is conditioned on a constraint."""

from collections.abc import Callable
from typing import Any

from torch import nn

from probconserv.constraints import LinearConstraint
from probconserv.inequalities.inequality import Inequality
from probconserv.prediction import Prediction
from probconserv.surrogates.surrogate import Context, Query, Surrogate, ask
from probconserv.update import condition

Constraint = LinearConstraint | Inequality


class ProbConserv(Surrogate):
    """A surrogate whose predictions meet a linear law, inequalities or both; itself a surrogate, so wrappers nest.

    Args:
        surrogate: A ``Surrogate``, or any module whose ``forward`` returns a ``Normal``, a ``MultivariateNormal``, a
            ``Mixture`` or samples ``(members, *batch, n)``.
        constraint: The constraint, or a function that builds it from the surrogate's arguments:
            ``(context, query)`` for a ``Surrogate``, the arguments of ``forward`` for another module or for an
            ``Ensemble`` of operators.
    """

    surrogate: nn.Module
    constraint: Constraint | Callable[..., Constraint]

    def __init__(self, surrogate: nn.Module, constraint: Constraint | Callable[..., Constraint]) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.constraint = constraint

    def predict(self, context: Context, query: Query) -> Prediction:
        """Predicts with the surrogate and conditions the result; see ``Surrogate.predict`` and ``condition``."""
        return self(context, query)

    def forward(self, *arguments: Any) -> Prediction:
        """Calls the surrogate and conditions its prediction.

        Args:
            *arguments: Arguments of the surrogate; context and query for a ``Surrogate``.

        Returns:
            The conditioned prediction over n points.
        """
        constraint, prior = self.constraint, ask(self.surrogate, arguments)
        return condition(prior, constraint if isinstance(constraint, Constraint) else constraint(*arguments))
