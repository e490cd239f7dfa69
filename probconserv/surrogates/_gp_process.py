"""The Gaussian process behind ``GPSurrogate``: standardised data, the model, its fit, and its linear algebra."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_dense
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from probconserv.errors import InvalidArgumentError
from probconserv.surrogates.surrogate import Context

NUGGET = 1e-6
"""Variance of the inducing values' noise, relative to that of the field, so that their covariance is never singular."""
_SMALL_NOISE = 100.0
"""The noise variance at which a fit starts, in units of its floor."""
_SETTLED: dict[str, Any] = {
    "max_iter": 60,
    "history_size": 10,
    "tolerance_grad": 1e-5,
    "tolerance_change": 1e-6,
    "line_search_fn": "strong_wolfe",
}
_VARIES = 1e-3  # standard deviation of standardised values, 1 unless all are equal
_ROUNDING = 8
"""Values that differ by at most this many units of rounding count as equal."""


@dataclass(frozen=True)
class Standardisation:
    """Affine maps of points to the unit box and of values to mean 0 and standard deviation 1, per function.

    Values that are all equal say nothing of how the field varies: their scale is their size, or 1 where they are 0.
    """

    low: Tensor  # (*batch, 1, d)
    extent: Tensor  # (*batch, 1, d)
    offset: Tensor  # (*batch, 1)
    spread: Tensor  # (*batch, 1)

    @staticmethod
    def of(context: Context) -> "Standardisation":
        points, values = context.points.double(), context.values.double()
        low = points.amin(dim=-2, keepdim=True)
        extent = points.amax(dim=-2, keepdim=True) - low
        spread, size = values.std(dim=-1, keepdim=True), values.abs().amax(dim=-1, keepdim=True)
        rounding = _ROUNDING * torch.finfo(context.values.dtype).eps * size
        return Standardisation(
            low=low,
            extent=torch.where(extent > 0, extent, 1.0),
            offset=values.mean(dim=-1, keepdim=True),
            spread=torch.where(spread > rounding, spread, torch.where(size > 0, size, 1.0)),
        )

    def points(self, points: Tensor) -> Tensor:
        return (points.double() - self.low) / self.extent

    def data(self, context: Context) -> "Data":
        noise = None if context.noise is None else context.noise.double() / self.spread.square()
        return Data(self.points(context.points), (context.values.double() - self.offset) / self.spread, noise)


class Data(NamedTuple):
    """Standardised points ``(*batch, n, d)``, values ``(*batch, n)`` and noise variances, if they are given."""

    points: Tensor
    values: Tensor
    noise_variance: Tensor | None


Likelihood = gpytorch.likelihoods.GaussianLikelihood | gpytorch.likelihoods.FixedNoiseGaussianLikelihood


class _Summary(NamedTuple):
    """Observations as a process with inducing points stores them."""

    weights: Tensor  # (*batch, m, 1)
    root: Tensor  # (*batch, m, m)
    chol: Tensor  # (*batch, m, m)


class Process(gpytorch.models.ExactGP):
    """Constant mean and scaled Matérn kernel with one length scale per coordinate, through inducing points or exact."""

    def __init__(
        self, data: Data, smoothness: float, noise_floor: float, batch: torch.Size, inducing: Tensor | None = None
    ) -> None:
        likelihood = _likelihood(data, noise_floor, batch)
        super().__init__(data.points, data.values, likelihood)
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=batch)
        self.matern = gpytorch.kernels.MaternKernel(smoothness, ard_num_dims=data.points.shape[-1], batch_shape=batch)
        self.covar_module = gpytorch.kernels.ScaleKernel(self.matern, batch_shape=batch)
        self.inducing = inducing
        self._summary: _Summary | None = None
        self.matern.initialize(lengthscale=0.5)
        self.double().train()

    def forward(self, points: Tensor) -> MultivariateNormal:
        return MultivariateNormal(cast(Tensor, self.mean_module(points)), self.covar_module(points))

    def posterior(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the field at standardised points, without gradients."""
        self.eval()
        with linear_algebra(), torch.no_grad():
            if self.inducing is None:
                result = cast(MultivariateNormal, self(points))
                return result.mean, result.covariance_matrix
            if self._summary is None:
                self._summary = self._summarised(self.inducing)
            weights, root, chol = self._summary
            seen = self._seen(points, self.inducing, root)
            left = torch.linalg.solve_triangular(chol, seen.mT, upper=False)
            covariance = to_dense(self.covar_module(points)) - seen @ seen.mT + left.mT @ left
            return cast(Tensor, self.mean_module(points)) + (seen @ weights)[..., 0], covariance

    def _seen(self, points: Tensor, inducing: Tensor, root: Tensor) -> Tensor:
        """R = K_pu L⁻ᵀ ``(*batch, n, m)``, L the root of K_uu: what the inducing points see of the kernel is R Rᵀ."""
        return torch.linalg.solve_triangular(root, to_dense(self.covar_module(inducing, points)), upper=False).mT

    def _summarised(self, inducing: Tensor) -> "_Summary":
        """All observations as m numbers and their covariance: B = I + Rᵀ D⁻¹ R, D the variances not seen and noise."""
        (points,), values = cast(tuple[Tensor], self.train_inputs), cast(Tensor, self.train_targets)
        variance = self.covar_module.outputscale[..., None]
        covariance = to_dense(self.covar_module(inducing))
        root = torch.linalg.cholesky(covariance + torch.diag_embed(NUGGET * variance.expand(covariance.shape[:-1])))
        seen = self._seen(points, inducing, root)
        rest = (variance - seen.square().sum(dim=-1)).clamp_min(0.0) + cast(Likelihood, self.likelihood).noise
        weighted = seen / rest[..., None]
        chol = torch.linalg.cholesky(torch.eye(seen.shape[-1]).to(seen) + seen.mT @ weighted)
        residual = (values - cast(Tensor, self.mean_module(points)))[..., None]
        return _Summary(torch.cholesky_solve(weighted.mT @ residual, chol), root, chol)

    @property
    def raw(self) -> dict[str, Tensor]:
        """The unconstrained hyper-parameters that a fit changes, by name."""
        noise = getattr(self.likelihood, "second_noise_covar", None) or cast(Likelihood, self.likelihood).noise_covar
        tensors = {
            "noise_variance": cast(Any, noise).raw_noise,
            "mean": self.mean_module.raw_constant,
            "variance": self.covar_module.raw_outputscale,
            "length_scales": self.matern.raw_lengthscale,
        }
        return cast(dict[str, Tensor], tensors)

    def set_raw(self, raw: dict[str, Tensor]) -> "Process":
        """The same process with these hyper-parameters, ready to predict."""
        with torch.no_grad():
            for name, parameter in self.raw.items():
                parameter.copy_(raw[name])
        self._summary = None
        return cast(Process, self.requires_grad_(False).eval())


def _likelihood(data: Data, noise_floor: float, batch: torch.Size) -> Likelihood:
    """Gaussian noise with a learnt variance, beside that of every point where it is given."""
    constraint = gpytorch.constraints.GreaterThan(noise_floor)
    start = _SMALL_NOISE * noise_floor
    if data.noise_variance is None:
        likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=constraint, batch_shape=batch)
        return likelihood.initialize(noise=start)
    with gpytorch.settings.min_fixed_noise(double_value=0.0):  # the learnt variance keeps the sum positive
        likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(
            data.noise_variance, learn_additional_noise=True, noise_constraint=constraint, batch_shape=batch
        )
    likelihood.second_noise = torch.tensor(start)
    return likelihood


def fit_process(process: Process, steps: int | None, learning_rate: float) -> Process:
    """Maximises the marginal likelihood of the data of an exact process; functions of a batch are independent.

    By L-BFGS until it settles (Nocedal & Wright 2006, sec. 7.2), or by a number of steps of Adam. Functions of equal
    values would have no field at all as the most likely one; L-BFGS, which would get there, leaves them out.
    """
    (points,), values = cast(tuple[Tensor], process.train_inputs), cast(Tensor, process.train_targets)
    marginal_likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(process.likelihood, process)

    counted = (values.std(dim=-1) > _VARIES) | (steps is not None)

    def slope() -> Tensor:
        process.zero_grad()
        likelihood = cast(Tensor, marginal_likelihood(process(points), values))
        loss = -torch.where(counted, likelihood, 0.0).sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        if steps is None:
            torch.optim.LBFGS(process.parameters(), **_SETTLED).step(cast(Any, slope))
        else:
            optimiser = torch.optim.Adam(process.parameters(), lr=learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
            for _ in range(steps):
                slope()
                optimiser.step()
                schedule.step()
    return cast(Process, process.requires_grad_(False).eval())


def spread_points(points: Tensor, count: int) -> Tensor:
    """At most ``count`` of the points ``(*batch, n, d)``, each the farthest from those before it; none twice."""
    chosen = [torch.zeros(points.shape[:-2], dtype=torch.long, device=points.device)]
    distance = torch.full(points.shape[:-1], torch.inf, dtype=points.dtype, device=points.device)
    while len(chosen) < count:
        last = points.gather(-2, chosen[-1][..., None, None].expand(*points.shape[:-2], 1, points.shape[-1]))
        distance = torch.minimum(distance, (points - last).square().sum(dim=-1))
        farthest = distance.max(dim=-1)
        if not bool((farthest.values > 0).all()):
            break
        chosen.append(farthest.indices)
    index = torch.stack(chosen, dim=-1)[..., None].expand(*points.shape[:-2], len(chosen), points.shape[-1])
    return points.gather(-2, index)


@contextmanager
def linear_algebra() -> Iterator[None]:
    """Makes gpytorch use Cholesky at every size, and names remedies if a factorisation of the covariance fails.

    Its debug mode is off, since it warns when the query equals the context, which is allowed here.
    """
    off = gpytorch.settings.fast_computations(covar_root_decomposition=False, log_prob=False, solves=False)
    with off, gpytorch.settings.max_cholesky_size(1_000_000), gpytorch.settings.debug(False):
        try:
            yield
        except (NotPSDError, NanError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
            raise InvalidArgumentError(
                "The covariance of the context could not be factorised; look for outliers or repeated points in it, "
                "raise noise_floor, or lower smoothness."
            ) from error
