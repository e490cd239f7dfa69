"""Gaussian-process surrogate: a Gaussian process over time and space, fitted to the context.

Model, for every function of a batch: u(p) = f(p) + ε at p = (t, x), f ~ GP(c, s²·k(p, p′)), ε ~ N(0, τ² + v), with a
Matérn kernel k, one length scale per coordinate, and the variances v of the observations where they are given.
Hyper-parameters maximise the marginal likelihood of the context (Rasmussen & Williams 2006, sec. 5.4); the prediction
is the posterior of the field f, without the noise ε. Of a large context a random part gives the hyper-parameters, and
all observations enter through inducing points: k between two of them is k_u (K_uu + 1e-6 s²)⁻¹ k_uᵀ (Snelson &
Ghahramani, NIPS 2005).
"""

import math
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import DataFileError, IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates._gp_process import Process, Standardisation, fit_process, linear_algebra, spread_points
from probconserv.surrogates.surrogate import Context, Query, Surrogate, check_compatible, check_problem
from probconserv.surrogates.weights import Weights, check_tensors, read_weights, stored_config, write_weights


@dataclass(frozen=True, kw_only=True)
class GPConfig:
    """How the Gaussian process is built and fitted.

    Args:
        smoothness: ν of the Matérn kernel: 0.5 for fields with shocks, 2.5 for smooth fields, 1.5 in between.
        shared: Whether all functions of a batch share one set of hyper-parameters, or each has separate ones
            (which over-fits with few context points).
        steps: Steps of the Adam optimiser on the marginal likelihood, as in 0.2, whose default was 150; by default
            L-BFGS maximises it until it settles, which takes a third of the time and ends higher.
        learning_rate: Step size of Adam, for standardised data.
        noise_floor: Smallest noise variance τ², relative to the variance of the context values.
        exact_up_to: Largest number n of context points per function for which the process is exact: O(n³) a step of the
            fit and the first prediction. Above the default a warning says that it is not.
        inducing_points: Number m of inducing points above it, spread over the context, and of the context points that
            the fit then sees: O(m³) a step and O(n·m²) the first prediction.
    """

    smoothness: float = 0.5
    shared: bool = True
    steps: int | None = None
    learning_rate: float = 0.1
    noise_floor: float = 1e-6
    exact_up_to: int = 1000
    inducing_points: int = 400

    def __post_init__(self) -> None:
        if self.smoothness not in (0.5, 1.5, 2.5):
            raise InvalidArgumentError(f"smoothness must be 0.5, 1.5 or 2.5, got {self.smoothness}.")
        for name in ("steps", "learning_rate", "noise_floor", "inducing_points"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidArgumentError(f"{name} must be positive and finite, got {value}.")
        if self.exact_up_to < self.inducing_points:
            raise InvalidArgumentError(
                f"inducing_points must not exceed exact_up_to = {self.exact_up_to}, got {self.inducing_points}: fewer "
                "points than the context has make the process cheaper."
            )


class GPSurrogate(Surrogate):
    """Gaussian process over the coordinates of the context (time and space).

    ``predict`` fits it to the context of every call. After ``fit`` it keeps its hyper-parameters: ``predict`` only
    conditions on the context it is given, which is quicker where that is the context of the fit. A fitted
    process is saved and loaded, follows ``.to(device)``, and stays in float64.
    """

    process: Process | None

    def __init__(self, config: GPConfig | None = None) -> None:
        super().__init__()
        self.config = config or GPConfig()
        self.process = None
        self._context: Context | None = None

    def extra_repr(self) -> str:
        """The kernel, and the context of the fit, in the line that a module prints."""
        fitted = "not fitted" if self._context is None else f"fitted to {tuple(self._context.values.shape)} values"
        return f"smoothness={self.config.smoothness}, {fitted}"

    @property
    def context(self) -> Context:
        """The context of the fit."""
        if self._context is None:
            raise InvalidArgumentError("This Gaussian process is not fitted; call fit(context) before.")
        return self._context

    def fit(self, training: Context) -> Self:
        """Fits the process to observations ``(*batch, n, d)`` with n ≥ 2, once; a second call starts again.

        Raises:
            InvalidArgumentError: If a factorisation fails.
        """
        self.process, self._context = _fitted(training, self.config), training
        return self

    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        """Predicts the field; fits the process to the context first, unless ``fit`` was called.

        Args:
            context: Observations at ``(*batch, n, d)``, n ≥ 2. After a fit, the batch must be that of the fit, unless
                this had none: hyper-parameters and units are those of the functions of the fit.
            query: Points ``(*batch, q, d)``.

        Returns:
            Joint Gaussian over the q points of every function, dense covariance ``(*batch, q, q)``, in the dtype
            of the context values.

        Raises:
            InvalidArgumentError: If there are fewer than two context points, or a factorisation fails.
        """
        check_compatible(context, query)
        if self.process is None:
            return _predicted(_fitted(context, self.config), Standardisation.of(context), context, query)
        self._check_fit(context)
        same = _same(context, self.context)
        process = self.process if same else _with_data(self.process, self.config, self.context, context)
        return _predicted(process, Standardisation.of(self.context), context, query)

    def save(self, path: str | Path, **notes: Any) -> None:
        """Writes the fitted process with context and config as one safetensors file, with notes; see ``ANP.save``."""
        context, process = self.context, self.process
        assert process is not None
        tensors = process.raw | {"context_points": context.points, "context_values": context.values}
        optional = {"context_noise_variance": context.noise, "inducing_points": process.inducing}
        tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
        write_weights(path, Weights("GPSurrogate", asdict(self.config), tensors, {"problem": context.problem, **notes}))

    @classmethod
    def load(cls, path: str | Path) -> "GPSurrogate":
        """Reads a process that ``save`` wrote, with its context; raises DataFileError as ``ANP.load`` does."""
        weights = read_weights(path, kind="GPSurrogate")
        tensors = dict(weights.tensors)
        if set(weights.config) != {field.name for field in fields(GPConfig)}:
            raise DataFileError(f"The config in '{path}' does not fit this version of GPSurrogate; fit again.")
        with stored_config(path, "a fitted Gaussian process"):
            surrogate = cls(GPConfig(**weights.config))
            parts = (tensors.pop(f"context_{name}") for name in ("points", "values"))
            noise = tensors.pop("context_noise_variance", None)
            context = Context(*parts, problem=weights.notes.get("problem", ""), noise_variance=noise)
            process = _process(
                context, Standardisation.of(context), surrogate.config, tensors.pop("inducing_points", None)
            )
        check_tensors(path, tensors, process.raw)
        surrogate.process, surrogate._context = process.set_raw(tensors), context
        return surrogate

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves a fitted process and its context to another device, in float64 as they are."""

        def applied(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor).device)

        super()._apply(applied, recurse)
        if self.process is not None:
            context = self.context
            noise = None if context.noise is None else applied(context.noise)
            self._context = Context(applied(context.points), applied(context.values), context.problem, noise)
            self.process = _with_data(self.process, self.config, self._context, self._context)
        return self

    def _check_fit(self, context: Context) -> None:
        """Raises unless a context belongs to functions of the fit."""
        mine, theirs = self.context.points.shape, context.points.shape
        if mine[-1] != theirs[-1] or (mine[:-2] and mine[:-2] != theirs[:-2]):
            raise IncompatibleQueryError(
                f"This process is fitted to functions (*batch, d) = {(*mine[:-2], mine[-1])}, the context holds "
                f"{(*theirs[:-2], theirs[-1])}; fit another process to them."
            )
        check_problem("The process", self.context.problem, context)
        _check_count(context)


def _check_count(context: Context) -> None:
    if context.points.shape[-2] < 2:
        raise InvalidArgumentError("A Gaussian process needs at least two context points per function, got 1.")


def _same(first: Context, second: Context) -> bool:
    """Whether two contexts hold the same observations."""
    pairs = [(getattr(first, name), getattr(second, name)) for name in ("points", "values", "noise")]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def _process(context: Context, scale: Standardisation, config: GPConfig, inducing: Tensor | None) -> Process:
    """A process on a context in the units of a standardisation."""
    batch = torch.Size() if config.shared else scale.low.shape[:-2]
    return Process(scale.data(context), config.smoothness, config.noise_floor, batch, inducing)


def _fitted(context: Context, config: GPConfig) -> Process:
    """A process fitted to a context, or to a random part of a large one."""
    _check_count(context)
    scale, count = Standardisation.of(context), context.points.shape[-2]
    exact = count <= config.exact_up_to
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(context.points.device)
    seen = context if exact else context.part(order[: config.inducing_points])
    with linear_algebra():
        process = fit_process(_process(seen, scale, config, None), config.steps, config.learning_rate)
    if exact:
        return process
    if config.exact_up_to == GPConfig.exact_up_to:
        warnings.warn(
            f"GPSurrogate sees the {count} observations of a function through {config.inducing_points} points among "
            f"them, an approximation; GPConfig(exact_up_to={count}) is exact, in O(n³), and another value for "
            "exact_up_to or fewer observations end this warning.",
            stacklevel=3,
        )
    inducing = spread_points(scale.points(context.points), config.inducing_points)
    return _process(context, scale, config, inducing).set_raw(process.raw)


def _with_data(process: Process, config: GPConfig, fit: Context, context: Context) -> Process:
    """A fitted process on another context of the same functions."""
    inducing = process.inducing
    return _process(context, Standardisation.of(fit), config, inducing).set_raw(process.raw)


def _predicted(process: Process, scale: Standardisation, context: Context, query: Query) -> MultivariateNormal:
    """The posterior of the field at the query points, in the units and the dtype of the context."""
    standard, covariance = process.posterior(scale.points(query.points))
    mean, covariance = scale.offset + scale.spread * standard, covariance * scale.spread.square()[..., None]
    dtype = context.values.dtype
    return FieldGaussian(mean.to(dtype), to_linear_operator(covariance.to(dtype)))
