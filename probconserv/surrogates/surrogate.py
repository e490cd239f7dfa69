"""The interface of surrogates: observed points in, a probabilistic prediction at query points out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import Array, copied, floating
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Context:
    """Observed values of one function per batch entry, copied; NumPy arrays become tensors, whole numbers float64.

    Args:
        points: Points ``(*batch, n, d)``; the columns are the coordinates, time first: (t, x) or (t, x, y).
        values: Observed field ``(*batch, n)``.
        problem: Name of the problem the data come from; empty matches any.
        noise_variance: Variances of the observations' errors, one number or ``(*batch, n)``, where they are known;
            stored as ``(*batch, n)``. Surrogates that cannot use them refuse them.
    """

    points: Float[Tensor, "*batch n d"]
    values: Float[Tensor, "*batch n"]
    problem: str = ""
    noise_variance: Float[Tensor, "*batch n"] | float | None = None

    if TYPE_CHECKING:

        def __init__(
            self, points: Array, values: Array, problem: str = ..., noise_variance: Array | float | None = ...
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("points", "values"):
            object.__setattr__(self, name, floating(copied(getattr(self, name), dtype=None)))
        _check_points(self.points, "context points")
        if self.values.shape != self.points.shape[:-1]:
            raise InvalidArgumentError(
                f"context values must be (*batch, n) = {tuple(self.points.shape[:-1])} to match the points, "
                f"got {tuple(self.values.shape)}."
            )
        refuse_missing(self.values, "context values hold")
        if self.noise_variance is not None:
            noise = self.noise_variance
            if isinstance(noise, int | float) or not noise.ndim:
                noise = torch.full_like(self.values, float(noise))
            noise = floating(copied(noise, dtype=None))
            self._check_noise(noise)
            object.__setattr__(self, "noise_variance", noise)

    @property
    def noise(self) -> Float[Tensor, "*batch n"] | None:
        """The variances of the observations' errors, if they are known."""
        assert not isinstance(self.noise_variance, int | float)
        return self.noise_variance

    def part(self, index: Tensor) -> "Context":
        """Some of the observations, the same of every function: indices or a mask ``(m,)``."""
        noise = None if self.noise is None else self.noise[..., index]
        return Context(self.points[..., index, :], self.values[..., index], self.problem, noise)

    def _check_noise(self, noise: Tensor) -> None:
        if noise.shape != self.values.shape:
            raise InvalidArgumentError(
                f"noise_variance must be (*batch, n) = {tuple(self.values.shape)}, one for every observation, or a "
                f"number for all, got {tuple(noise.shape)}."
            )
        refuse_missing(noise, "noise variances hold")
        if bool((noise < 0).any()):
            raise InvalidArgumentError(
                f"noise_variance must not be negative, got {float(noise.min()):g}; give variances, not deviations."
            )


@dataclass(frozen=True, eq=False)
class Query:
    """Points at which a prediction is requested, copied; a NumPy array becomes a tensor, whole numbers float64.

    Args:
        points: Points ``(*batch, n, d)``, with the same columns as the context.
        problem: Name of the problem; empty matches any.
    """

    points: Float[Tensor, "*batch n d"]
    problem: str = ""

    if TYPE_CHECKING:

        def __init__(self, points: Array, problem: str = ...) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", floating(copied(self.points, dtype=None)))
        _check_points(self.points, "query points")


class Surrogate(nn.Module, ABC):
    """A model that predicts a field with its uncertainty from observed points."""

    @abstractmethod
    def predict(self, context: Context, query: Query) -> Prediction:
        """Predicts the field at the query points.

        Args:
            context: Observed values of one function per batch entry.
            query: Points ``(*batch, n, d)`` of the same functions.
        """


def ask(model: nn.Module, arguments: tuple[Any, ...]) -> Any:
    """Calls a model: ``predict`` of a surrogate if the first argument is a context, else the module itself."""
    if isinstance(model, Surrogate) and arguments and isinstance(arguments[0], Context):
        return model.predict(*arguments)
    return model(*arguments)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within: dropout would draw numbers of its own, which no seed repeats."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def check_compatible(context: Context, query: Query) -> None:
    """Raises IncompatibleQueryError unless context and query agree in problem, coordinates and batch."""
    check_problem("The context", context.problem, query)
    if context.points.shape[-1] != query.points.shape[-1]:
        raise IncompatibleQueryError(
            f"Context points have {context.points.shape[-1]} coordinates but query points {query.points.shape[-1]}; "
            "give both the same columns, time first."
        )
    if context.points.shape[:-2] != query.points.shape[:-2]:
        raise IncompatibleQueryError(
            f"Context and query must have the same batch shape, got {tuple(context.points.shape[:-2])} and "
            f"{tuple(query.points.shape[:-2])}; expand the smaller one."
        )


def check_problem(subject: str, problem: str, *parts: Context | Query) -> None:
    """Raises IncompatibleQueryError where data name another problem."""
    for part in parts:
        if problem and part.problem and part.problem != problem:
            raise IncompatibleQueryError(
                f"{subject} is of problem '{problem}', but the {type(part).__name__.lower()} of '{part.problem}'; take "
                "both of one problem."
            )


def _check_points(points: Tensor, name: str) -> None:
    if points.ndim < 2 or points.shape[-2] == 0 or points.shape[-1] == 0:
        raise InvalidArgumentError(f"{name} must be (*batch, n, d) with n, d ≥ 1, got {tuple(points.shape)}.")
    refuse_missing(points, f"{name} hold")
