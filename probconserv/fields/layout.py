"""Conversion between fields and point sets.

Operators work on fields ``(*batch, channels, *space)``; predictions live on n points ``(*batch, n)``. Points run
through the channels, then through space in row-major order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from probconserv.errors import InvalidArgumentError


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
        """What one distribution covers: channels, and the axes that are not apart as times."""
        apart = None if self._time_position is None else self.time_axis
        return (self.channels, *(length for axis, length in enumerate(self.shape) if axis != apart))

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
        if self._time_position is None or self.time_axis is None:
            return field.reshape(*batch, self.points)
        times = self.shape[self.time_axis]
        return field.movedim(self._time_position, len(batch)).reshape(*batch, times, self.points)

    def unflatten(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Values on points as a field ``(*batch, channels, *space)``; the inverse of ``flatten``."""
        expected = (self.points,)
        if self._time_position is not None and self.time_axis is not None:
            expected = (self.shape[self.time_axis], self.points)
        if tuple(values.shape[-len(expected) :]) != expected:
            raise InvalidArgumentError(f"values must end in the shape {expected}, got {tuple(values.shape)}.")
        batch = values.shape[: values.ndim - len(expected)]
        if self._time_position is None or self.time_axis is None:
            return values.reshape(*batch, self.channels, *self.shape)
        space = self.shape[: self.time_axis] + self.shape[self.time_axis + 1 :]
        field = values.reshape(*batch, self.shape[self.time_axis], self.channels, *space)
        return field.movedim(len(batch), self._time_position)

    @property
    def _time_position(self) -> int | None:
        """Time axis counted from the end of a field, if times are batch entries."""
        if self.time_axis is None or self.joint_time:
            return None
        return self.time_axis - len(self.shape)
