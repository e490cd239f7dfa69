"""Gaussian-process surrogate: an exact Gaussian process over time and space, fitted to the context.

Model, for every function of a batch: u(p) = f(p) + ε at p = (t, x), f ~ GP(c, s²·k(p, p′)), ε ~ N(0, τ²), with a
Matérn kernel k and one length scale per coordinate. Hyper-parameters maximise the marginal likelihood of the context
(Rasmussen & Williams 2006, sec. 5.4); the prediction is the posterior of the field f, without the noise ε.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from probconserv.errors import InvalidArgumentError
from probconserv.surrogates.surrogate import Context, Query, Surrogate, check_compatible


@dataclass(frozen=True, kw_only=True)
class GPConfig:
    """How the Gaussian process is built and fitted.

    Args:
        smoothness: ν of the Matérn kernel: 0.5 for fields with shocks, 2.5 for smooth fields, 1.5 in between.
        shared: Whether all functions of a batch share one set of hyper-parameters, or each has separate ones
            (which over-fits with few context points).
        steps: Steps of the Adam optimiser on the marginal likelihood.
        learning_rate: Step size of the optimiser, for standardised data.
        noise_floor: Smallest noise variance τ², relative to the variance of the context values.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    smoothness: float = 0.5
    shared: bool = True
    steps: int = 150
    learning_rate: float = 0.1
    noise_floor: float = 1e-6

    def __post_init__(self) -> None:
        if self.smoothness not in (0.5, 1.5, 2.5):
            raise InvalidArgumentError(f"smoothness must be 0.5, 1.5 or 2.5, got {self.smoothness}.")
        if self.steps < 1 or self.learning_rate <= 0 or self.noise_floor <= 0:
            raise InvalidArgumentError(
                "steps, learning_rate and noise_floor must be positive, "
                f"got {self.steps}, {self.learning_rate} and {self.noise_floor}."
            )


class GPSurrogate(Surrogate):
    """Exact Gaussian process over the coordinates of the context (time and space), fitted at every prediction.

    Cost O(steps · n³) time and O(n²) memory for n context points per function, batched over functions.

    Args:
        config: How the process is built and fitted.
    """

    def __init__(self, config: GPConfig | None = None) -> None:
        super().__init__()
        self.config = config or GPConfig()

    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        """Fits the process to the context and predicts the field.

        Args:
            context: Observations at ``(*batch, n, d)``, n ≥ 2.
            query: Points ``(*batch, q, d)``.

        Returns:
            Joint Gaussian over the q points of every function, dense covariance ``(*batch, q, q)``, in the dtype
            of the context values.

        Raises:
            IncompatibleQueryError: If context and query do not match.
            InvalidArgumentError: If there are fewer than two context points, or a factorisation fails.
        """
        check_compatible(context, query)
        if context.points.shape[-2] < 2:
            raise InvalidArgumentError("A Gaussian process needs at least two context points per function, got 1.")
        scale = _Standardisation.of(context)
        points, values = scale.points(context.points), scale.values(context.values)
        with _exact_linear_algebra(), _named_failure():
            model = _fit(points, values, self.config)
            with torch.no_grad():
                standard = cast(MultivariateNormal, model(scale.points(query.points)))
                covariance = standard.covariance_matrix * scale.spread.square()[..., None]
                mean = scale.offset + scale.spread * standard.mean
        dtype = context.values.dtype
        return MultivariateNormal(mean.to(dtype), to_linear_operator(covariance.to(dtype)))


@dataclass(frozen=True)
class _Standardisation:
    """Affine maps of points to the unit box and of values to mean 0 and standard deviation 1, per function."""

    low: Tensor  # (*batch, 1, d)
    extent: Tensor  # (*batch, 1, d)
    offset: Tensor  # (*batch, 1)
    spread: Tensor  # (*batch, 1)

    @staticmethod
    def of(context: Context) -> "_Standardisation":
        points, values = context.points.double(), context.values.double()
        low = points.amin(dim=-2, keepdim=True)
        extent = points.amax(dim=-2, keepdim=True) - low
        spread = values.std(dim=-1, keepdim=True)
        return _Standardisation(
            low=low,
            extent=torch.where(extent > 0, extent, 1.0),
            offset=values.mean(dim=-1, keepdim=True),
            spread=torch.where(spread > 0, spread, 1.0),
        )

    def points(self, points: Tensor) -> Tensor:
        return (points.double() - self.low) / self.extent

    def values(self, values: Tensor) -> Tensor:
        return (values.double() - self.offset) / self.spread


class _Process(gpytorch.models.ExactGP):
    """Constant mean and scaled Matérn kernel with one length scale per coordinate."""

    def __init__(self, points: Tensor, values: Tensor, config: GPConfig) -> None:
        batch = torch.Size() if config.shared else values.shape[:-1]
        likelihood = gpytorch.likelihoods.GaussianLikelihood(
            noise_constraint=gpytorch.constraints.GreaterThan(config.noise_floor), batch_shape=batch
        )
        super().__init__(points, values, likelihood)
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=batch)
        matern = gpytorch.kernels.MaternKernel(config.smoothness, ard_num_dims=points.shape[-1], batch_shape=batch)
        self.covar_module = gpytorch.kernels.ScaleKernel(matern, batch_shape=batch)
        likelihood.initialize(noise=100.0 * config.noise_floor)
        matern.initialize(lengthscale=0.5)

    def forward(self, points: Tensor) -> MultivariateNormal:
        return MultivariateNormal(cast(Tensor, self.mean_module(points)), self.covar_module(points))


def _fit(points: Tensor, values: Tensor, config: GPConfig) -> _Process:
    """Maximises the marginal likelihood of standardised data; functions of a batch are independent."""
    model = _Process(points, values, config).double().train()
    marginal_likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    with torch.enable_grad():
        for _ in range(config.steps):
            optimiser.zero_grad()
            log_likelihood = cast(Tensor, marginal_likelihood(model(points), values))
            loss = -log_likelihood.sum()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@contextmanager
def _named_failure() -> Iterator[None]:
    """Turns a failed factorisation of the context's covariance into an error that names remedies."""
    try:
        yield
    except (NotPSDError, NanError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise InvalidArgumentError(
            "The covariance of the context could not be factorised; look for outliers or repeated points in it, raise "
            "noise_floor, or lower smoothness."
        ) from error


@contextmanager
def _exact_linear_algebra() -> Iterator[None]:
    """Makes gpytorch use Cholesky at every size, instead of iterative solvers above 800 points.

    Its debug mode is off, since it warns when the query equals the context, which is allowed here.
    """
    off = gpytorch.settings.fast_computations(covar_root_decomposition=False, log_prob=False, solves=False)
    with off, gpytorch.settings.max_cholesky_size(1_000_000), gpytorch.settings.debug(False):
        yield
