"""A Gaussian process whose covariance is that of functions of the problem, and mixtures between it and a search.

Prior: (1/F) Σ_i N(x_i, h² C), x_i = μ + √(1 − h²) (u_i − μ), with μ and C the mean and covariance of F functions u_i.
It has mean μ and covariance C for every bandwidth h; h = 1 is the Gaussian process (gappy POD), h → 0 a search among
the functions. Given y = H u + ε, ε ~ N(0, R), with S = h² H C Hᵀ + R,

    w_i ∝ exp(−½ r_iᵀ S⁻¹ r_i),  r_i = y − H x_i,   c_i = x_i + h² C Hᵀ S⁻¹ r_i,   P = h² C − h² C Hᵀ S⁻¹ H C h²

is the posterior Σ_i w_i N(c_i, P). All of it is made of factors of C at the observed and the wanted points,
C = BᵀB + D, never of C over the functions' own points.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor
from torch.nn.functional import pad

from probconserv import scores
from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.gaussian import FieldGaussian
from probconserv._linalg.values import as_tensor, floating
from probconserv.errors import DataFileError, InvalidArgumentError
from probconserv.mixture import Mixture
from probconserv.surrogates._interpolation import check_axes, corners_of, interpolated
from probconserv.surrogates.surrogate import Context, Query, Surrogate, check_compatible, check_problem
from probconserv.surrogates.weights import Weights, read_weights, write_weights

_BANDWIDTHS = tuple(round(0.1 * step, 1) for step in range(1, 11))
_DROPPED = 1e-9  # total weight of the components that are left out


class Points(NamedTuple):
    """The functions at some points: values ``(q, functions)``, B ``(r, q)`` or None, and the independent variance.

    Their mean is ``(q, 1)``.
    """

    values: Tensor
    mean: Tensor
    factor: Tensor | None
    independent: Tensor


class Task(NamedTuple):
    """One function: where it is seen and wanted, B there with the fewest rows, and what is seen with its variances."""

    observed: Points
    wanted: Points
    seen: Tensor
    asked: Tensor
    y: Tensor
    noise: Tensor


class Posterior(NamedTuple):
    """w ``(components,)``, falling, c ``(components, q)``, a root of P ``(q, r)`` and its independent part."""

    weights: Tensor
    centres: Tensor
    root: Tensor
    independent: Tensor

    @property
    def mean(self) -> Tensor:
        return self.weights @ self.centres

    @property
    def variance(self) -> Tensor:
        apart = self.weights @ (self.centres - self.mean).square()
        return self.root.square().sum(dim=1) + apart + self.independent


class EmpiricalGP(Surrogate):
    """Predicts a function from a few observations by the mean and the covariance of many functions of its kind.

    No training: the functions are kept. Between their points, in time and space, they are interpolated linearly, and
    half a spacing beyond the ends of an axis, as those of cell centres, they continue as constants.

    Args:
        functions: Values ``(functions, *shape)``, at least two functions that differ; stored in their precision.
        axes: Where they are known: increasing coordinates, one tensor for each axis of ``shape``, time first.
        bandwidth: h in (0, 1]; ``fit`` chooses it.
        rank: Number of leading components of C; what is left of every variance counts as independent. All by default,
            which costs O(functions · (points asked + observations)²) a prediction; with a rank r it is
            O(functions · points asked), and a first pass O(functions · points · r).
        mixture: Whether ``predict`` returns the mixture, or one Gaussian with its mean and covariance.
        problem: Name of the problem the functions come from; empty matches any.
    """

    functions: Tensor

    def __init__(
        self,
        functions: Float[Tensor, "functions ..."],
        axes: Sequence[Float[Tensor, " n"]],
        bandwidth: float = 0.6,
        *,
        rank: int | None = None,
        mixture: bool = True,
        problem: str = "",
    ) -> None:
        super().__init__()
        functions = floating(as_tensor(functions, dtype=None))
        if functions.ndim < 2 or len(functions) < 2:
            raise InvalidArgumentError(
                f"An EmpiricalGP needs at least two functions (functions, *axes), got {tuple(functions.shape)}."
            )
        self.axes = check_axes(axes, functions.shape[1:])
        refuse_missing(functions, "functions hold")
        if bool((functions == functions[:1]).all()):
            raise InvalidArgumentError("All functions are the same, so that they say nothing about another one.")
        _check_numbers(bandwidth, rank)
        self.bandwidth, self.rank, self.mixture, self.problem = bandwidth, rank, mixture, problem
        self.register_buffer("functions", functions.flatten(1).mT.contiguous())  # (points, functions)
        self._basis = None if rank is None else leading(self.functions, rank)

    def fit(
        self,
        context: Context,
        query: Query,
        values: Float[Tensor, "*batch q"],
        bandwidths: Sequence[float] = _BANDWIDTHS,
    ) -> Self:
        """Chooses the bandwidth, by the CRPS of mean and variance, on functions that are not among the stored ones.

        Args:
            context: Observations of validation functions.
            query: Points of the same functions.
            values: Their true values ``(*batch, q)``.
            bandwidths: Candidates.
        """
        values = as_tensor(values).double()
        if values.shape != query.points.shape[:-1] or not bool(torch.isfinite(values).all()) or not bandwidths:
            raise InvalidArgumentError(
                f"values must be finite and one per query point, {tuple(query.points.shape[:-1])}, got "
                f"{tuple(values.shape)}, and bandwidths not empty."
            )
        for bandwidth in bandwidths:
            _check_numbers(bandwidth, None)
        errors = [0.0] * len(bandwidths)
        for task, truth in zip(self._tasks(context, query), values.reshape(-1, values.shape[-1]), strict=True):
            for number, bandwidth in enumerate(bandwidths):
                found = conditioned(task, bandwidth)
                errors[number] += float(scores.crps(truth.to(found.mean.device), found.mean, found.variance))
        self.bandwidth = float(bandwidths[min(range(len(errors)), key=errors.__getitem__)])
        return self

    def predict(self, context: Context, query: Query) -> Mixture | MultivariateNormal:
        """Predicts the field at the query points; see ``Surrogate.predict``.

        Args:
            context: Observations ``(*batch, n)``, with variances of their errors where these are known; without them
                observations are exact, and there must be fewer of them than functions.
            query: Points ``(*batch, q, d)`` of the same functions.

        Returns:
            A mixture, heaviest components first, whose components share one covariance ``(*batch, q, q)``, low rank
            plus diagonal; or the Gaussian with its mean and covariance. In the precision of the context's values.

        Raises:
            InvalidArgumentError: If the observations determine each other, so that they need a noise_variance.
        """
        posteriors = [conditioned(task, self.bandwidth) for task in self._tasks(context, query)]
        combine = _mixture if self.mixture else _gaussian
        return combine(posteriors, query.points.shape[:-2], floating(context.values).dtype)

    def save(self, path: str | Path, **notes: Any) -> None:
        """Writes functions, points and settings as one safetensors file, with notes; see ``ANP.save``."""
        config = {name: getattr(self, name) for name in ("bandwidth", "rank", "mixture", "problem")}
        tensors = {f"axis_{number}": axis for number, axis in enumerate(self.axes)}
        tensors["functions"] = self.functions.mT.contiguous()
        write_weights(path, Weights("EmpiricalGP", config, tensors, notes))

    @classmethod
    def load(cls, path: str | Path) -> "EmpiricalGP":
        """Reads what ``save`` wrote; raises DataFileError as ``ANP.load`` does."""
        weights = read_weights(path, kind="EmpiricalGP")
        try:
            functions = weights.tensors["functions"]
            axes = tuple(weights.tensors[f"axis_{number}"] for number in range(len(weights.tensors) - 1))
            return cls(functions.reshape(len(functions), *map(len, axes)), axes, **weights.config)
        except (InvalidArgumentError, KeyError, TypeError, RuntimeError) as error:
            raise DataFileError(f"'{path}' is not a stored EmpiricalGP ({error}); build it again.") from error

    def _tasks(self, context: Context, query: Query) -> Iterator[Task]:
        """Every function of a flattened batch."""
        check_compatible(context, query)
        check_problem("The set of functions", self.problem, context)
        noise = torch.zeros_like(context.values) if context.noise is None else context.noise
        observed, wanted = (
            part.points.flatten(0, -3) if part.points.ndim > 2 else part.points[None] for part in (context, query)
        )
        y, noise = (
            part.to(self.functions.device, torch.float64).reshape(-1, part.shape[-1])
            for part in (context.values, noise)
        )
        shared = self.at(wanted[0], self._basis) if bool((wanted == wanted[:1]).all()) else None
        gram = None
        if shared is not None and shared.factor is None:
            deviation = _deviations(shared.values)
            gram = deviation @ deviation.mT
        for entry in range(len(observed)):
            at, target = self.at(observed[entry], self._basis), shared or self.at(wanted[entry], self._basis)
            yield Task(at, target, *_factors(at, target, gram), y[entry], noise[entry])

    def at(self, points: Tensor, basis: Tensor | None) -> Points:
        """The functions at points ``(q, d)``, and what a basis of leading components is there."""
        found = corners_of(self.axes, points.to("cpu", torch.float64), beyond=0.5)
        index, weights = (part.to(self.functions.device) for part in found)
        values = interpolated(self.functions, index, weights)
        mean = values.mean(dim=1, keepdim=True)
        if basis is None:
            return Points(values, mean, None, values.new_zeros(len(values)))
        factor = interpolated(basis.to(values.device), index, weights).mT
        left = values.var(dim=1) - factor.square().sum(dim=0)
        return Points(values, mean, factor, left.clamp_min(0.0))


def _deviations(values: Tensor) -> Tensor:
    """B of all functions ``(q, functions)``: Bᵀ B = C."""
    return (values - values.mean(dim=1, keepdim=True)) / (values.shape[1] - 1) ** 0.5


def _factors(observed: Points, wanted: Points, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    """B at the observed ``(r, n)`` and at the wanted points ``(r, q)``; with the fewest rows r that C has there."""
    if observed.factor is not None and wanted.factor is not None:
        return observed.factor, wanted.factor
    seen, asked = _deviations(observed.values), _deviations(wanted.values)
    count = len(seen) + len(asked)
    if seen.shape[1] <= count:
        return seen.mT, asked.mT
    cross = seen @ asked.mT
    upper = torch.cat([seen @ seen.mT, cross], dim=1)
    joint = torch.cat([upper, torch.cat([cross.mT, asked @ asked.mT if gram is None else gram], dim=1)])
    values, vectors = torch.linalg.eigh(joint)
    factor = values.clamp_min(0.0).sqrt()[:, None] * vectors.mT
    return factor[:, : len(seen)], factor[:, len(seen) :]


def conditioned(task: Task, bandwidth: float, without: int | None = None) -> Posterior:
    """The posterior of one function, without one of the functions if its number is given."""
    observed, wanted, seen, asked, y, noise = task
    factor = bandwidth * seen
    noise = noise + bandwidth**2 * observed.independent
    matrix = factor.mT @ factor + noise.diag()
    scale = matrix.diagonal().rsqrt()
    chol, info = torch.linalg.cholesky_ex(scale[:, None] * matrix * scale)
    if bool(info) or not bool((chol.diagonal().square() > 1e-13 * len(y)).all()):
        raise InvalidArgumentError(
            f"The {len(y)} observations of a function determine each other among the {observed.values.shape[1]} "
            "functions (there are as many of them as functions, two at one point, or one where no function varies); "
            "give the variance of their errors as noise_variance of the context."
        )
    white = torch.linalg.solve_triangular(chol, scale[:, None] * factor.mT, upper=False)  # (n, r)
    _, values, right = torch.linalg.svd(white, full_matrices=False)
    shrink = (1 - (1 - values.square()).clamp_min(0.0).sqrt())[:, None] * right
    root = bandwidth * (asked - right.mT @ (shrink @ asked)).mT
    spread = (1 - bandwidth**2) ** 0.5
    at_seen = observed.mean + spread * (observed.values - observed.mean)  # x_i
    apart = torch.linalg.solve_triangular(chol, scale[:, None] * (y[:, None] - at_seen), upper=False)  # (n, functions)
    density = -0.5 * apart.square().sum(dim=0)
    if without is not None:
        density[without] = -math.inf
    weights = torch.softmax(density, dim=0)
    gain = bandwidth * asked.mT @ white.mT  # (q, n)
    ordered, order = weights.sort(descending=True)
    count = 1 if spread == 0 else int((1 - ordered.cumsum(dim=0) > _DROPPED).sum()) + 1
    kept, order = ordered[:count] / ordered[:count].sum(), order[:count]
    at_asked = wanted.mean + spread * (wanted.values[:, order] - wanted.mean)
    centres = (at_asked + gain @ apart[:, order]).mT
    return Posterior(kept, centres, root, bandwidth**2 * wanted.independent)


def _mixture(posteriors: list[Posterior], batch: torch.Size, dtype: torch.dtype) -> Mixture:
    """The mixture; of functions with fewer components the missing ones weigh nothing."""
    count = max(len(each.weights) for each in posteriors)
    weights = [pad(each.weights, (0, count - len(each.weights))) for each in posteriors]
    centres = [torch.cat([each.centres, each.centres[:1].expand(count - len(each.weights), -1)]) for each in posteriors]
    covariance = _covariance([each.root for each in posteriors], posteriors, (1, *batch))
    means = torch.stack(centres, dim=1).reshape(count, *batch, -1)
    weight = torch.stack(weights, dim=1).reshape(count, *batch)
    return Mixture(FieldGaussian(means.to(dtype), covariance.to(dtype)), weight.to(dtype))


def _gaussian(posteriors: list[Posterior], batch: torch.Size, dtype: torch.dtype) -> MultivariateNormal:
    """The Gaussian with mean and covariance of the mixture."""
    roots = []
    for each in posteriors:
        apart = ((each.centres - each.mean) * each.weights.sqrt()[:, None]).mT
        root = torch.cat([each.root, apart], dim=1)  # and one with no more columns than rows
        roots.append(root if root.shape[1] <= root.shape[0] else torch.linalg.qr(root.mT, mode="r")[1].mT)
    width = max(root.shape[1] for root in roots)
    covariance = _covariance([pad(root, (0, width - root.shape[1])) for root in roots], posteriors, batch)
    mean = torch.stack([each.mean for each in posteriors]).reshape(*batch, -1)
    return FieldGaussian(mean.to(dtype), covariance.to(dtype))


def _covariance(roots: list[Tensor], posteriors: list[Posterior], batch: Sequence[int]) -> LinearOperator:
    """Root Rootᵀ + D ``(*batch, q, q)``."""
    root, independent = torch.stack(roots), torch.stack([each.independent for each in posteriors])
    low_rank = RootLinearOperator(root.reshape(*batch, *root.shape[1:]))
    return PsdSumLinearOperator(low_rank, DiagLinearOperator(independent.reshape(*batch, independent.shape[-1])))


def leading(functions: Tensor, rank: int) -> Tensor:
    """√eigenvalues times the leading eigenvectors of C ``(points, r)``, by a randomised search with two more passes."""
    count, width = functions.shape[1], min(rank + 10, *functions.shape)
    mean = functions.mean(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(count, width, generator=generator, dtype=torch.float64).to(functions)
    image = functions
    for _ in range(3):  # (A Aᵀ)² A of random vectors, A the deviations
        image = torch.linalg.qr(functions @ basis - mean * basis.sum(dim=0))[0]
        basis = functions.mT @ image - (mean.mT @ image)
    triangle = torch.linalg.qr(basis)[1].to(torch.float64)  # A ≈ image basisᵀ
    left, values, _ = torch.linalg.svd(triangle.mT)
    scaled = left[:, :rank] * (values[:rank] / (count - 1) ** 0.5)
    return image.to(torch.float64) @ scaled


def _check_numbers(bandwidth: float, rank: int | None) -> None:
    if not (math.isfinite(bandwidth) and 0 < bandwidth <= 1):
        raise InvalidArgumentError(f"bandwidth must lie above 0 and not above 1, got {bandwidth}.")
    if rank is not None and rank < 1:
        raise InvalidArgumentError(f"rank must be at least 1, or None for all components, got {rank}.")
