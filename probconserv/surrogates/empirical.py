"""A Gaussian process whose covariance is that of functions of the problem, and mixtures between it and a search."""

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
from probconserv._linalg.values import Array, as_tensor, floating
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.inequalities.inequality import Inequality, JoinedConstraint
from probconserv.inequalities.projected import Projected
from probconserv.mixture import Mixture
from probconserv.nonlinear.law import NonlinearLaw
from probconserv.surrogates._empirical_posterior import (
    Points,
    Posterior,
    Seen,
    conditioned,
    deviations,
    factors,
    localised,
)
from probconserv.surrogates._interpolation import check_axes, corners_of, interpolated
from probconserv.surrogates.surrogate import Context, Query, Surrogate, check_compatible, check_problem
from probconserv.surrogates.weights import Weights, read_weights, stored_config, write_weights
from probconserv.update import as_statement, condition

_BANDWIDTHS = tuple(round(0.1 * step, 1) for step in range(1, 11))
_EFFECTIVE = (None, 60, 200, 600)


class Task(NamedTuple):
    """One function: where it is seen and where it is wanted, what is seen of it, and the split of ``factors``."""

    observed: Points
    wanted: Points
    seen: Seen
    split: tuple[Tensor, Tensor] | None


class EmpiricalGP(Surrogate):
    """Predicts a function from a few observations by the mean and the covariance of many functions of its kind.

    No training: the functions are kept. Between their points, in time and space, they are interpolated linearly, and
    half a spacing beyond the ends of an axis, as those of cell centres, they continue as constants.

    Args:
        functions: Values ``(functions, *shape)``, at least two functions that differ; stored in their precision.
        axes: Where they are known: increasing coordinates, one tensor for each axis of ``shape``, time first.
        bandwidth: h in (0, 1]: 1 for a Gaussian, towards 0 for a search among the functions; ``fit`` chooses it.
        effective: N: how many functions, near to what is observed, make up the local mean and covariance; None for all
            functions, alike. ``fit`` chooses it.
        rank: Number of leading components of C; what is left of every variance counts as independent. All by default,
            which costs O(functions · (points asked + observations)²) a prediction; with a rank r it is
            O(functions · points asked), and a first pass O(functions · points · r).
        mixture: Whether ``predict`` returns the mixture, or one Gaussian with its mean and covariance.
        problem: Name of the problem the functions come from; empty matches any.
    """

    functions: Tensor

    def __init__(
        self,
        functions: Float[Array, "functions ..."],
        axes: Sequence[Float[Array, " n"]],
        bandwidth: float = 0.6,
        *,
        effective: float | None = None,
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
        _check_numbers(bandwidth, effective, rank)
        self.bandwidth, self.effective, self.rank = bandwidth, effective, rank
        self.mixture, self.problem = mixture, problem
        self.register_buffer("functions", functions.flatten(1).mT.contiguous())  # (points, functions)
        self._basis = None if rank is None else leading(self.functions, rank)

    def fit(
        self,
        *,
        validation: tuple[Context, Query, Float[Tensor, "*batch q"]],
        bandwidths: Sequence[float] = _BANDWIDTHS,
        effective: Sequence[float | None] | None = None,
        law: LinearConstraint | Inequality | None = None,
    ) -> Self:
        """Chooses both numbers, by the CRPS of mean and variance, on functions that are not among the stored ones.

        Args:
            validation: Observations of such functions, points of the same functions, and their true values there.
            bandwidths: Candidates.
            effective: Candidates; by default all functions alike, 60, 200 and 600, and with a ``rank`` the first alone.
            law: A law of the validation functions; it takes part in the weights, and what is scored is ``weighted``.
        """
        context, query, values = validation
        values = as_tensor(values).double()
        if effective is None:
            effective = (None,) if self.rank is not None else _EFFECTIVE
        if values.shape != query.points.shape[:-1] or not bool(torch.isfinite(values).all()):
            raise InvalidArgumentError(
                f"values must be finite and one per query point, {tuple(query.points.shape[:-1])}, got "
                f"{tuple(values.shape)}."
            )
        if not bandwidths or not effective:
            raise InvalidArgumentError("bandwidths and effective need at least one candidate each.")
        pairs = [(number, bandwidth) for number in effective for bandwidth in bandwidths]
        for number, bandwidth in pairs:
            _check_numbers(bandwidth, number, self.rank)
        errors = [0.0] * len(pairs)
        tasks = self._tasks(context, query, law, alike=None in effective)
        for task, truth in zip(tasks, values.reshape(-1, values.shape[-1]), strict=True):
            found = (each for number in effective for each in _posteriors(task, bandwidths, number))
            for place, posterior in enumerate(found):
                mean, variance = posterior.mean, posterior.variance
                errors[place] += float(scores.crps(truth.to(mean.device), mean, variance))
        self.effective, self.bandwidth = pairs[min(range(len(errors)), key=errors.__getitem__)]
        return self

    def predict(
        self, context: Context | None, query: Query, law: LinearConstraint | Inequality | None = None
    ) -> Mixture | MultivariateNormal | Projected:
        """Predicts the field at the query points; see ``Surrogate.predict``.

        Args:
            context: Observations ``(*batch, n)``, with variances of their errors where these are known; without them
                observations are exact, and there must be fewer of them than functions. None for the prior.
            query: Points ``(*batch, q, d)`` of the same functions.
            law: A linear law at the query points, inequalities, or both, on which the prediction is conditioned; do not
                ``condition`` it again: rows with a noise_variance would count twice. Where ``effective`` is given,
                linear rows take part in the weights of the functions, like the observations.

        Returns:
            A mixture, heaviest components first, whose components share one covariance ``(*batch, q, q)``, low rank
            plus diagonal; or the Gaussian with its mean and covariance. In the precision of the context's values.

        Raises:
            InvalidArgumentError: If the observations determine each other, so that they need a noise_variance, or the
                law is nonlinear.
            DependentConstraintsError: If a row is the same for all functions that are near, and not met.
        """
        prediction = self.weighted(context, query, law)
        return prediction if law is None else condition(prediction, law)

    def weighted(
        self, context: Context | None, query: Query, law: LinearConstraint | Inequality | None = None
    ) -> Mixture | MultivariateNormal:
        """The prediction before the law is imposed: it takes part in the weights of the functions alone.

        For ``condition`` with further options; ``predict`` has the arguments.
        """
        tasks = self._tasks(context, query, law, alike=self.effective is None)
        posteriors = [next(_posteriors(task, (self.bandwidth,), self.effective)) for task in tasks]
        combine = _mixture if self.mixture else _gaussian
        given = self.functions if context is None else context.values
        return combine(posteriors, query.points.shape[:-2], floating(given).dtype)

    def extra_repr(self) -> str:
        """The functions and the settings, in the line that a module prints."""
        shape = tuple(map(len, self.axes))
        rest = "".join(
            f", {name}={getattr(self, name)}" for name in ("effective", "rank") if getattr(self, name) is not None
        )
        return f"{self.functions.shape[1]} functions on {shape}, bandwidth={self.bandwidth}{rest}"

    def save(self, path: str | Path, **notes: Any) -> None:
        """Writes functions, points and settings as one safetensors file, with notes; see ``ANP.save``."""
        config = {name: getattr(self, name) for name in ("bandwidth", "effective", "rank", "mixture", "problem")}
        tensors = {f"axis_{number}": axis for number, axis in enumerate(self.axes)}
        tensors["functions"] = self.functions.mT.contiguous()
        write_weights(path, Weights("EmpiricalGP", config, tensors, notes))

    @classmethod
    def load(cls, path: str | Path) -> "EmpiricalGP":
        """Reads what ``save`` wrote; raises DataFileError as ``ANP.load`` does."""
        weights = read_weights(path, kind="EmpiricalGP")
        with stored_config(path, "an EmpiricalGP"):
            functions = weights.tensors["functions"]
            axes = tuple(weights.tensors[f"axis_{number}"] for number in range(len(weights.tensors) - 1))
            return cls(functions.reshape(len(functions), *map(len, axes)), axes, **weights.config)

    def _tasks(
        self, context: Context | None, query: Query, law: LinearConstraint | Inequality | None, alike: bool
    ) -> Iterator[Task]:
        """Every function of a flattened batch; those at shared points split once where all may count ``alike``."""
        batch = query.points.shape[:-2]
        if context is not None:
            check_compatible(context, query)
            check_problem("The set of functions", self.problem, context)
        wanted = query.points.reshape(-1, *query.points.shape[-2:])
        observed = wanted[:, :0] if context is None else context.points.reshape(-1, *context.points.shape[-2:])
        y = wanted[..., 0, :0] if context is None else context.values
        noise = torch.zeros_like(y) if context is None or context.noise is None else context.noise
        y, noise = (
            part.reshape(len(wanted), observed.shape[-2]).to(self.functions.device, torch.float64)
            for part in (y, noise)
        )
        rows, totals, law_noise = _law_of(law, batch, wanted, self.functions.device)
        shared = self.at(wanted[0], self._basis) if bool((wanted == wanted[:1]).all()) else None
        split = None
        if alike and shared is not None and shared.factor is None:
            split = torch.linalg.qr(deviations(shared).mT)
        for entry in range(len(observed)):
            at, target = self.at(observed[entry], self._basis), shared or self.at(wanted[entry], self._basis)
            yield Task(at, target, Seen(y[entry], noise[entry], rows[entry], totals[entry], law_noise[entry]), split)

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


def _posteriors(task: Task, bandwidths: Sequence[float], effective: float | None) -> Iterator[Posterior]:
    """The posterior of one function for every bandwidth."""
    observed, wanted, seen, split = task
    if effective is not None:
        observed, wanted = localised(observed, wanted, seen, effective)
    pair = factors(observed, wanted, split if observed.weights is None else None)
    for bandwidth in bandwidths:
        yield conditioned(observed, wanted, pair, seen, bandwidth)


def _law_of(
    law: LinearConstraint | Inequality | None, batch: torch.Size, wanted: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``(functions, k, q)``, b and σ² ``(functions, k)`` of every function; k = 0 without a law."""
    law = _linear_part(law)
    count, points = wanted.shape[:2]
    if law is None:
        empty = torch.zeros(count, 0, points, dtype=torch.float64, device=device)
        return empty, empty[..., 0], empty[..., 0]
    if law.points != points:
        raise IncompatibleQueryError(f"law acts on {law.points} points, but the query has {points}; give one at those.")
    try:
        rows = law.rows.expand(*batch, *law.rows.shape[-2:])
        totals, noise = (part.expand(*batch, part.shape[-1]) for part in (law.b, law.noise))
    except RuntimeError as error:
        raise IncompatibleQueryError(
            f"The batch of the law, {tuple(law.batch_shape)}, is not that of the query, {tuple(batch)}."
        ) from error
    rows = rows.reshape(count, -1, points).to(device)
    totals, noise = (part.reshape(count, -1).to(device) for part in (totals, noise))
    return rows, totals, noise


def _linear_part(law: LinearConstraint | Inequality | None) -> LinearConstraint | None:
    """The linear rows of a law; a nonlinear one has no weights."""
    if law is None:
        return None
    stated = as_statement(law, None)
    if isinstance(stated, NonlinearLaw):
        raise InvalidArgumentError(
            "law of an EmpiricalGP is linear, an inequality or both, got a NonlinearLaw; predict without it, with "
            "mixture=False, and condition the prediction on it."
        )
    return stated.law if isinstance(stated, JoinedConstraint) else stated


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
    covariance = _covariance(roots, posteriors, batch)
    mean = torch.stack([each.mean for each in posteriors]).reshape(*batch, -1)
    return FieldGaussian(mean.to(dtype), covariance.to(dtype))


def _covariance(roots: list[Tensor], posteriors: list[Posterior], batch: Sequence[int]) -> LinearOperator:
    """Root Rootᵀ + D ``(*batch, q, q)``; of functions with fewer columns the missing ones are zero."""
    width = max(root.shape[1] for root in roots)
    root = torch.stack([pad(root, (0, width - root.shape[1])) for root in roots])
    independent = torch.stack([each.independent for each in posteriors])
    low_rank = RootLinearOperator(root.reshape(*batch, *root.shape[1:]))
    return PsdSumLinearOperator(low_rank, DiagLinearOperator(independent.reshape(*batch, independent.shape[-1])))


def leading(functions: Tensor, rank: int) -> Tensor:
    """√eigenvalues times the leading eigenvectors of C ``(points, r)``, by a randomised search with two more passes."""
    functions = functions.to(torch.promote_types(functions.dtype, torch.float32))  # torch decomposes no halves
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


def _check_numbers(bandwidth: float, effective: float | None, rank: int | None) -> None:
    if not (math.isfinite(bandwidth) and 0 < bandwidth <= 1):
        raise InvalidArgumentError(f"bandwidth must lie above 0 and not above 1, got {bandwidth}.")
    if effective is not None and not effective >= 2:
        raise InvalidArgumentError(f"effective must be at least 2 functions, or None for all, got {effective}.")
    if rank is not None and rank < 1:
        raise InvalidArgumentError(f"rank must be at least 1, or None for all components, got {rank}.")
    if rank is not None and effective is not None:
        raise InvalidArgumentError("rank is for the covariance of all functions; give rank or effective, not both.")
