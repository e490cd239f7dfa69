"""Ensembles: the spread of several models is a covariance of low rank."""

from collections.abc import Sequence
from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import Tensor, nn

from probconserv._gaussian import FieldGaussian
from probconserv.errors import InvalidArgumentError
from probconserv.prediction import Prediction
from probconserv.surrogates.surrogate import Context, Query, Surrogate, ask
from probconserv.update import from_samples


class Ensemble(Surrogate):
    """M models as one Gaussian: the mean of their means and the covariance of their means, of rank M − 1.

        Σ = R Rᵀ + diag(v),   R = (μ_m − μ̄)/√(M − 1)

    v is the noise variance plus, if asked for, the mean of the members' own variances (law of total variance); with
    v = 0 the covariance is singular, which ``condition`` accepts as long as the law is not among the directions that
    all members agree on.

    The covariance of few members correlates places that have nothing to do with each other, and what is conditioned
    moves along their M − 1 differences. ``correlated = False`` keeps its diagonal alone, the variances of the members'
    mixture at every place (Lakshminarayanan et al., NeurIPS 2017), so that an update moves every place by its own.

    Args:
        members: At least two models: surrogates; other modules that answer with a prediction ``(*batch, n)``, such as
            ``GaussianOperator``; or operators whose output is a field ``(batch, channels, *space)``, which counts as a
            vector of all channels and places in row-major order.
        own_variance: Whether the members' own variances count; members must then answer with predictions.
        noise_variance: Variance added at every point.
        correlated: Whether values at different places are correlated as they are among the members.

    Raises:
        InvalidArgumentError: If there are fewer than two members or the noise variance is negative.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        own_variance: bool = False,
        noise_variance: float = 0.0,
        correlated: bool = True,
    ) -> None:
        super().__init__()
        if len(members) < 2:
            raise InvalidArgumentError(f"An ensemble needs at least two members, got {len(members)}.")
        if not noise_variance >= 0:
            raise InvalidArgumentError(f"noise_variance must not be negative, got {noise_variance}.")
        self.members = nn.ModuleList(members)
        self.own_variance = own_variance
        self.noise_variance = noise_variance
        self.correlated = correlated

    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        """Asks every member; see ``Surrogate.predict``."""
        return self(context, query)

    def forward(self, *arguments: Any) -> MultivariateNormal:
        """Asks every member and joins the answers.

        Args:
            *arguments: What the members take: context and query for surrogates, the input field (and boundary values)
                for operators.

        Returns:
            Gaussian with lazy covariance over n points, low-rank plus diagonal or diagonal; what all members know and
            agree on has variance 0.

        Raises:
            InvalidArgumentError: If members' own variances are wanted from a member that gives none.
        """
        answers: list[Prediction | Tensor] = [ask(member, arguments) for member in self.members]
        means = torch.stack([answer.flatten(1) if isinstance(answer, Tensor) else answer.mean for answer in answers])
        noise = torch.as_tensor(self.noise_variance, dtype=means.dtype, device=means.device)
        if self.own_variance:
            noise = noise + torch.stack([_variance(answer) for answer in answers]).mean(dim=0)
        joined = from_samples(means, noise)
        return joined if self.correlated else FieldGaussian(joined.mean, DiagLinearOperator(joined.variance))


def _variance(answer: Prediction | Tensor) -> Tensor:
    if isinstance(answer, Tensor):
        raise InvalidArgumentError(
            "own_variance = True needs members that predict a variance; this one returns a field. Use noise_variance."
        )
    return answer.variance
