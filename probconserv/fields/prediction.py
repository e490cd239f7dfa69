"""Fields ``(*batch, channels, *space)`` as point sets, and their conditioning, members of an ensemble first.

Predictions live on n points ``(*batch, n)``, which run through the channels, then through space in row-major order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from probconserv._linalg.checks import axes_agree
from probconserv._linalg.gaussian import variance_of
from probconserv._linalg.values import as_tensor
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fitted.members import from_samples
from probconserv.inequalities.inequality import Inequality, JoinedConstraint
from probconserv.mixture import Mixture, with_draws
from probconserv.nonlinear.law import AnyLaw, NonlinearLaw, linear_part
from probconserv.prediction import SINGLE, Drawable, Prediction
from probconserv.update import as_statement, condition


@dataclass(frozen=True, kw_only=True)
class FieldLayout:
    """How a field ``(*batch, channels, *space)`` becomes a point set.

    Args:
        channels: Number of components c.
        shape: Length of every axis of ``space``, a time axis included.
        time_axis: Which axis of ``shape`` is time; None if the field has none.
        joint_time: Whether one distribution covers all times, n = c·t·(points of space), so that a law may link times;
            or every time is a separate batch entry, ``(*batch, t, n)`` with n = c·(points of space), so that there
            is one law per time. No meaning without a time axis.
    """

    channels: int
    shape: tuple[int, ...]
    time_axis: int | None = None
    joint_time: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.shape, Sequence):
            raise InvalidArgumentError(
                f"shape needs the length of every axis, as (64,) for one axis, got {self.shape!r}."
            )
        if self.channels < 1 or not self.shape or min(self.shape) < 1:
            raise InvalidArgumentError(
                f"A field needs at least one channel and one point on every axis, got {self.channels} and {self.shape}."
            )
        if self.time_axis is not None and not 0 <= self.time_axis < len(self.shape):
            raise InvalidArgumentError(
                f"time_axis must be one of the {len(self.shape)} axes, counted from 0, or None, got {self.time_axis}."
            )

    @property
    def point_shape(self) -> tuple[int, ...]:
        """Shape of one distribution: channels, and the axes that are not separate times."""
        return (self.channels, *(length for axis, length in enumerate(self.shape) if axis != self._apart))

    @property
    def points(self) -> int:
        """Number n of points of one distribution."""
        return math.prod(self.point_shape)

    def flatten(self, field: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """A field ``(*batch, channels, *space)`` as values ``(*batch, n)``, or ``(*batch, t, n)`` if times are apart.

        A sample axis counts as a batch axis.
        """
        expected = (self.channels, *self.shape)
        if tuple(field.shape[-len(expected) :]) != expected:
            raise InvalidArgumentError(f"field must end in the shape {expected}, got {tuple(field.shape)}.")
        batch = field.shape[: field.ndim - len(expected)]
        if self._apart is None:
            return field.reshape(*batch, self.points)
        ordered = field.movedim(self._apart - len(self.shape), len(batch))
        return ordered.reshape(*batch, self.shape[self._apart], self.points)

    def unflatten(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Values on points as a field ``(*batch, channels, *space)``; the inverse of ``flatten``."""
        times = () if self._apart is None else (self.shape[self._apart],)
        expected = (*times, self.points)
        if tuple(values.shape[-len(expected) :]) != expected:
            raise InvalidArgumentError(f"values must end in the shape {expected}, got {tuple(values.shape)}.")
        batch = values.shape[: values.ndim - len(expected)]
        field = values.reshape(*batch, *times, *self.point_shape)
        return field if self._apart is None else field.movedim(len(batch), self._apart - len(self.shape))

    @property
    def _apart(self) -> int | None:
        """The axis of ``shape`` whose entries are batch entries."""
        return None if self.joint_time else self.time_axis


class FieldPrediction(Drawable):
    """A prediction whose mean, variance and draws have the shape of fields.

    Args:
        points: The same prediction over points ``(*batch, n)``.
        layout: How fields become points.
    """

    def __init__(self, points: Prediction, layout: FieldLayout) -> None:
        self.points: Any = points
        self.layout = layout

    def __repr__(self) -> str:
        return f"FieldPrediction({self.points!r}, {self.layout!r})"

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """Mean ``(*batch, channels, *space)``."""
        return self.layout.unflatten(self.points.mean)

    @property
    def variance(self) -> Float[Tensor, "..."]:
        """Pointwise variance ``(*batch, channels, *space)``."""
        return self.layout.unflatten(variance_of(self.points))

    @property
    def mode(self) -> Float[Tensor, "..."]:
        """Most probable field ``(*batch, channels, *space)``, where the prediction has one."""
        return self.layout.unflatten(self.points.mode)

    @property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Lower and upper bounds ``(*batch, channels, *space)``; None without bounds."""
        bounds = self.points.bounds if isinstance(self.points, Drawable) else None
        if bounds is None:
            return None
        lower, upper = (self.layout.unflatten(bound.expand(self.points.mean.shape)) for bound in bounds)
        return lower, upper

    def with_draws(self, draws: int, seed: int = 0) -> "FieldPrediction":
        """The same prediction with mean and variance from other draws, where they are those of draws."""
        points = with_draws(self.points, draws, seed)
        if points is None:
            raise InvalidArgumentError(
                "Mean and variance of this prediction have a closed form and need no draws; with_draws is for "
                "predictions under inequalities."
            )
        return FieldPrediction(points, self.layout)

    def rsample(self, sample_shape: torch.Size = SINGLE, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws ``(*sample_shape, *batch, channels, *space)``; differentiable."""
        return self.layout.unflatten(self.points.rsample(torch.Size(sample_shape), generator=generator))

    def labelled(self, like: Any) -> tuple[Any, Any]:
        """Mean and standard deviation with the labels of a field.

        ``like`` is a ``DataArray`` of xarray (*batch, channels, *space), such as one member of the ensemble; its
        dimensions, coordinates, name and attributes stay.
        """
        if not (hasattr(like, "copy") and hasattr(like, "dims")):
            raise InvalidArgumentError(
                f"labelled needs a field with labels, a DataArray of xarray, got {type(like).__name__}."
            )
        if tuple(like.shape) != tuple(self.mean.shape):
            raise InvalidArgumentError(
                f"The labels are those of a field {tuple(like.shape)}, but the prediction is one of "
                f"{tuple(self.mean.shape)}; give one field, without the axis of the members."
            )
        mean, deviation = (like.copy(data=part.numpy(force=True)) for part in (self.mean, self.stddev))
        return mean, deviation

    def log_prob(self, value: Float[Tensor, "..."]) -> Tensor:
        """Log-density of fields, where the prediction has one; see ``Posterior.log_prob``."""
        return self.points.log_prob(self.layout.flatten(value))


def condition_fields(
    prior: Normal | MultivariateNormal | Mixture | Tensor,
    constraint: AnyLaw,
    layout: FieldLayout,
    *,
    noise_variance: float | Float[Tensor, "..."] = 0.0,
    shrinkage: float | Literal["auto"] | None = None,
    validate: bool = True,
) -> FieldPrediction:
    """Conditions a prediction of fields; see ``condition``.

    Args:
        prior: A ``Normal`` of shape ``(*batch, channels, *space)``; the members of an ensemble
            ``(members, *batch, channels, *space)``, tensor, array or ``DataArray`` of xarray; or a prediction over
            points.
        constraint: Laws and inequalities over the points of the layout.
        layout: How fields become points.
        noise_variance: Variance added to every value of an ensemble, a number or ``(*batch, channels, *space)``.
        shrinkage: How far the correlations of an ensemble are shrunk; see ``from_samples``.
        validate: See ``condition``.
    """
    constraint = as_statement(constraint, prior)
    points = points_of(prior, layout, noise_variance, shrinkage)
    check_axes(points.mean.shape, constraint, layout)
    return FieldPrediction(condition(points, constraint, validate=validate), layout)


def check_axes(shape: torch.Size, constraint: AnyLaw, layout: FieldLayout) -> None:
    """Says how to write an order that names no axis, a law that was built per channel, where blocks
    must count the channels, or one whose axes are in another order.
    """
    joined = constraint.joined() if isinstance(constraint, Inequality) else constraint
    inequalities = joined.inequalities if isinstance(joined, NonlinearLaw) else joined
    if isinstance(inequalities, JoinedConstraint):
        inequalities.require_axis(layout.point_shape)
    law = linear_part(joined)
    if law is None:
        return
    is_per_channel = law.batch_shape == (*shape[:-1], layout.channels) and law.points * layout.channels == shape[-1]
    if is_per_channel:
        raise IncompatibleQueryError(
            f"The batch axes {tuple(law.batch_shape)} of the constraint end in the channels, but a field becomes "
            f"points together with its channels; make the channels part of the rows, for instance block_means(means, "
            "(1, f, f)) for means (*batch, channels, H/f, W/f)."
        )
    if law.shape is not None and law.points == layout.points and not axes_agree(law.shape, layout.point_shape):
        raise IncompatibleQueryError(
            f"The constraint was built for a field of the shape {tuple(law.shape)}, but the layout has "
            f"{layout.point_shape}, channels first; bring the axes of both into one order."
        )


def points_of(
    prior: Any,
    layout: FieldLayout,
    noise_variance: float | Float[Tensor, "..."] = 0.0,
    shrinkage: float | Literal["auto"] | None = None,
) -> Normal | MultivariateNormal | Mixture:
    """A prediction of fields as one over points; see ``condition_fields``."""
    if isinstance(prior, Tensor | np.ndarray) or hasattr(prior, "to_numpy"):
        if isinstance(noise_variance, Tensor | np.ndarray) and noise_variance.ndim:
            noise_variance = layout.flatten(as_tensor(noise_variance, dtype=None))
        return from_samples(layout.flatten(as_tensor(prior, dtype=None)), noise_variance, shrinkage=shrinkage)
    if isinstance(noise_variance, Tensor | np.ndarray) or noise_variance:
        raise InvalidArgumentError("noise_variance is for the members of an ensemble; add it to the variance instead.")
    if shrinkage is not None:
        raise InvalidArgumentError(
            "shrinkage is for the members of an ensemble; give from_samples(samples, shrinkage=...) as the prior."
        )
    if isinstance(prior, Normal):
        return Normal(layout.flatten(prior.loc), layout.flatten(prior.scale), validate_args=False)
    if not hasattr(prior, "mean"):
        raise InvalidArgumentError(
            "The prior must be a prediction, or the members of an ensemble as one tensor (members, *batch, channels, "
            f"*space), got {type(prior).__name__}; join members by torch.stack."
        )
    return prior
