"""Corrected variances: by a fixed factor, by cross-validation on the context, or from noisy contexts."""

import math
from dataclasses import replace

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from probconserv._linalg.checks import joint_shape
from probconserv._linalg.gaussian import FieldGaussian, deviation_of, variance_of
from probconserv.calibration.marginals import require_gaussian
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.fitted.members import MemberGaussian
from probconserv.mixture import Mixture
from probconserv.posterior import Posterior
from probconserv.prediction import Prediction
from probconserv.prior import as_multivariate_normal
from probconserv.surrogates.surrogate import Context, Query, Surrogate


def scaled(prediction: Prediction, factor: float | Float[Tensor, "*batch"]) -> MultivariateNormal | Mixture:
    """The prediction scaled about its mean: u = m + √f (ũ − m), with mean m and variance f·v.

    Args:
        prediction: A Gaussian ``(*batch, n)`` or a mixture of Gaussians (the distances of its means scale as well).
        factor: f ≥ 0 that multiplies the variance, one number or ``(*batch,)``.

    Returns:
        A prediction of the same type. Of a conditioned Gaussian, draws keep meeting its law to round-off: it is the
        scaled prior under the same law, with f σ² for the noise of rows.
    """
    factor = torch.as_tensor(factor, dtype=prediction.mean.dtype, device=prediction.mean.device)
    if not bool(((factor >= 0) & torch.isfinite(factor)).all()):
        raise InvalidArgumentError(f"factor must be finite and not negative, got {float(factor.min()):g}.")
    if isinstance(prediction, Mixture):
        components = prediction.components
        if not isinstance(components, MultivariateNormal):
            raise InvalidArgumentError(f"Only mixtures of Gaussians can be scaled, not of {type(components).__name__}.")
        centre = prediction.mean
        means = centre + factor.sqrt()[..., None] * (components.mean - centre)
        return Mixture(_scaled_about(means, components, factor), prediction.weights)
    if not isinstance(prediction, MultivariateNormal):
        raise InvalidArgumentError(f"Only Gaussians and their mixtures can be scaled, not {type(prediction).__name__}.")
    if isinstance(prediction, Posterior) and bool((factor > 0).all()):  # meets its law by its update, as draws then do
        law = prediction.constraint
        law = LinearConstraint(law.G, law.b, noise_variance=law.noise * factor[..., None], shape=law.shape)
        return Posterior(scaled(prediction.prior, factor), law)
    prior = as_multivariate_normal(prediction)
    return _scaled_about(prior.mean, prior, factor)


def _scaled_about(mean: Tensor, gaussian: MultivariateNormal, factor: Tensor) -> MultivariateNormal:
    """A Gaussian with this mean and the covariance of another times a factor; of members if that one is."""
    if isinstance(gaussian, MemberGaussian):
        return gaussian.scaled(mean, factor)
    return FieldGaussian(mean, gaussian.lazy_covariance_matrix * factor[..., None, None])


class Tempered(Surrogate):
    """A surrogate whose variance is multiplied by a factor ≥ 0, such as ``variance_factor`` of validation functions."""

    def __init__(self, surrogate: Surrogate, factor: float) -> None:
        super().__init__()
        if not 0 <= factor < math.inf:
            raise InvalidArgumentError(f"factor must be finite and not negative, got {factor}.")
        self.surrogate = surrogate
        self.factor = factor

    def predict(self, context: Context, query: Query) -> MultivariateNormal | Mixture:
        """Predicts and scales; see ``Surrogate.predict``."""
        return scaled(self.surrogate.predict(context, query), self.factor)


class ContextCalibrated(Surrogate):
    """A surrogate whose variance is scaled, for every function, by cross-validation on the context.

    The context is split into folds; each is predicted from the others. The factor is the mean squared standardised
    residual of all observations, but at least 1: f = max(1, mean_i (u_i − μ_i)²/v_i). Only the
    context is used, so the factor also reacts to functions unlike any in training.

    Args:
        surrogate: The surrogate.
        folds: Number of folds, at least 2; every fold costs one prediction.
        seed: Seed of the random split into folds.
    """

    def __init__(self, surrogate: Surrogate, folds: int = 5, seed: int = 0) -> None:
        super().__init__()
        if folds < 2:
            raise InvalidArgumentError(f"folds must be at least 2, got {folds}.")
        self.surrogate = surrogate
        self.folds = folds
        self.seed = seed

    def predict(self, context: Context, query: Query) -> MultivariateNormal | Mixture:
        """Predicts and scales; see ``Surrogate.predict``."""
        return scaled(self.surrogate.predict(context, query), self.factor(context))

    def factor(self, context: Context) -> Float[Tensor, "*batch"]:
        """The variance factor of every function."""
        count = context.points.shape[-2]
        if count < self.folds:
            raise InvalidArgumentError(f"The context has {count} points, fewer than the {self.folds} folds.")
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        fold = order.to(context.points.device) % self.folds
        squares = []
        for number in range(self.folds):
            seen, left_out = fold != number, fold == number
            prediction = self.surrogate.predict(
                context.part(seen), Query(context.points[..., left_out, :], context.problem)
            )
            squares.append(standardised_squares(prediction, context.values[..., left_out]))
        return torch.cat(squares, dim=-1).mean(dim=-1).clamp_min(1.0)


class NoisyContext(Surrogate):
    """The mixture of a surrogate's predictions from copies of the context, with noise in the units of the field."""

    def __init__(self, surrogate: Surrogate, standard_deviation: float, draws: int = 10, seed: int = 0) -> None:
        super().__init__()
        if draws < 1 or not standard_deviation >= 0:
            raise InvalidArgumentError(
                f"draws must be at least 1 and standard_deviation not negative, got {draws} and {standard_deviation}."
            )
        self.surrogate = surrogate
        self.standard_deviation = standard_deviation
        self.draws = draws
        self.seed = seed

    def predict(self, context: Context, query: Query) -> Mixture:
        """Predicts from every noisy context; see ``Surrogate.predict``."""
        generator = torch.Generator(context.values.device).manual_seed(self.seed)
        predictions = []
        for _ in range(self.draws):
            noise = torch.randn(context.values.shape, generator=generator, device=context.values.device)
            noisy = replace(context, values=context.values + self.standard_deviation * noise)
            predictions.append(self.surrogate.predict(noisy, query))
        means = torch.stack([prediction.mean for prediction in predictions])
        variances = torch.stack([variance_of(prediction) for prediction in predictions])
        return Mixture(FieldGaussian(means, DiagLinearOperator(variances)))


def standardised_squares(prediction: Prediction, values: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """(u − μ)²/v at every point; 0 where a value is predicted without variance and met, NaN where one is NaN.

    True fields have the shape of the prediction or one that broadcasts with it.
    """
    joint_shape(truth=values.shape, prediction=prediction.mean.shape)
    residual = values - prediction.mean
    deviation = torch.where(residual == 0, 1.0, deviation_of(prediction))
    return (residual / deviation).square().to(residual.dtype)


def variance_factor(prediction: Prediction, values: Float[Tensor, "*batch n"]) -> float:
    """The factor that maximises the likelihood of validation data: the mean of ``standardised_squares``."""
    require_gaussian(prediction)
    return float(standardised_squares(prediction, values).mean())
