"""Ensembles: the spread of several models as a low-rank covariance."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor, nn

from probconserv._linalg.gaussian import variance_of
from probconserv.errors import InvalidArgumentError
from probconserv.fitted.members import check_shrinkage, from_samples
from probconserv.prediction import Prediction
from probconserv.surrogates.surrogate import Context, Query, Surrogate, ask


class Ensemble(Surrogate):
    """M models as one Gaussian: the mean of their means and the covariance of their means, of rank M − 1.

        Σ = R Rᵀ + diag(v),   R = (μ_m − μ̄)/√(M − 1)

    v is the noise variance plus, with ``own_variance``, the mean of the members' predicted variances (law of total
    variance). With v = 0 the covariance is singular; ``condition`` accepts it unless all members agree on the total.

    The covariance of few members has spurious correlations between distant points, and an update moves along the M − 1
    differences of the members. ``condition`` warns where they cannot explain a law; ``shrinkage`` lets the correlations
    fade. With 1 the diagonal is left, the variances of the members' mixture (Lakshminarayanan et al., NeurIPS 2017), so
    that an update moves every point according to the variance there.

    Args:
        members: At least two models: surrogates; other modules that return a prediction ``(*batch, n)``, such as
            ``GaussianOperator``; or operators whose output is a field ``(batch, channels, *space)``, which is read as a
            vector of all channels and points in row-major order.
        own_variance: Whether the variances that the members predict are added; members must then return predictions.
        noise_variance: Variance added at every point.
        shrinkage: How far the correlations are shrunk, λ in [0, 1] or "auto"; see ``from_samples``.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        own_variance: bool = False,
        noise_variance: float = 0.0,
        *,
        shrinkage: float | Literal["auto"] | None = None,
    ) -> None:
        super().__init__()
        if len(members) < 2:
            raise InvalidArgumentError(f"An ensemble needs at least two members, got {len(members)}.")
        if not noise_variance >= 0:
            raise InvalidArgumentError(f"noise_variance must not be negative, got {noise_variance}.")
        check_shrinkage(shrinkage)
        self.members = nn.ModuleList(members)
        self.own_variance = own_variance
        self.noise_variance = noise_variance
        self.shrinkage: float | Literal["auto"] | None = shrinkage

    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        """Calls every member and combines the predictions; see ``Surrogate.predict``."""
        return self(context, query)

    def forward(self, *arguments: Any) -> MultivariateNormal:
        """Calls every member and combines the predictions by ``from_samples``.

        Returns:
            Gaussian with lazy covariance over n points, low-rank plus diagonal or diagonal; values that all members
            predict with certainty and agree on have variance 0.
        """
        predictions: list[Prediction | Tensor] = [ask(member, arguments) for member in self.members]
        means = torch.stack([p.flatten(1) if isinstance(p, Tensor) else p.mean for p in predictions])
        noise = torch.as_tensor(self.noise_variance, dtype=means.dtype, device=means.device)
        if self.own_variance:
            noise = noise + torch.stack([_variance(prediction) for prediction in predictions]).mean(dim=0)
        return from_samples(means, noise, shrinkage=self.shrinkage)


def _variance(prediction: Prediction | Tensor) -> Tensor:
    if isinstance(prediction, Tensor):
        raise InvalidArgumentError(
            "own_variance = True needs members that predict a variance; this one returns a field. Use noise_variance."
        )
    return variance_of(prediction)
