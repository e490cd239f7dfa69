"""Inequalities on fields, combined with ``&``: non-negative, bounded and monotone fields.

    law & NonNegative(),   law & Bounded(0.0, 1.0) & Monotone(decreasing=True)

``condition(prior, joined)`` gives the most probable field of the prior that meets law and inequalities, and draws that
meet them; see ``Projected``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.checks import axes_agree
from probconserv._linalg.values import as_tensor
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from solvers.recording import are_readable


class Inequality(ABC):
    """An inequality on the values of a field, or several combined with a linear law."""

    @abstractmethod
    def joined(self) -> "JoinedConstraint":
        """The same statement in the common form."""

    def __and__(self, other: "LinearConstraint | Inequality") -> "JoinedConstraint":
        """Both at once: rows stacked, bounds intersected."""
        return _join(self.joined(), _as_joined(other))

    def __rand__(self, other: LinearConstraint) -> "JoinedConstraint":
        """The same with a ``LinearConstraint`` on the left."""
        return _join(_as_joined(other), self.joined())


@dataclass(frozen=True)
class NonNegative(Inequality):
    """u ≥ 0 at every point."""

    def joined(self) -> "JoinedConstraint":
        """See ``Inequality``."""
        return JoinedConstraint(lower=torch.zeros((), dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Bounded(Inequality):
    """lower ≤ u ≤ upper at every point.

    Args:
        lower: A number or ``(*batch, n)``, in the units of the field; −∞ means no bound.
        upper: The same; +∞ means no bound. Equal bounds fix the value.

    Raises:
        InvalidArgumentError: If a bound is NaN or lower exceeds upper.
    """

    lower: Float[Tensor, "*batch n"] | float = -math.inf
    upper: Float[Tensor, "*batch n"] | float = math.inf

    def __post_init__(self) -> None:
        self.joined()

    def joined(self) -> "JoinedConstraint":
        """See ``Inequality``."""
        lower, upper = (as_tensor(bound) for bound in (self.lower, self.upper))
        return JoinedConstraint(lower=lower, upper=upper)


@dataclass(frozen=True)
class Lines:
    """The lines along one axis of a field that is flattened row by row.

    Args:
        shape: Lengths of the axes.
        axis: The axis, counted from the first.
    """

    shape: tuple[int, ...]
    axis: int

    def split(self, values: Tensor) -> Tensor:
        """Values ``(*batch, n)`` line by line, ``(*batch, lines, length)``."""
        return values.unflatten(-1, self.shape).movedim(self.axis - len(self.shape), -1).flatten(-len(self.shape), -2)

    def join(self, lines: Tensor) -> Tensor:
        """Lines ``(*batch, lines, length)`` as values ``(*batch, n)``."""
        rest = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return lines.unflatten(-2, rest).movedim(-1, self.axis - len(self.shape)).flatten(-len(self.shape))


@dataclass(frozen=True)
class Monotone(Inequality):
    """u_1 ≤ u_2 ≤ … ≤ u_n, or ≥ if decreasing; of a field with several axes, along every line of one axis.

    Args:
        decreasing: Whether the field falls.
        axis: The axis along which it is ordered; needed for a field with several axes, flattened row by row.
        shape: Lengths of the axes of that field.

    Raises:
        InvalidArgumentError: If only one of axis and shape is given, or there is no such axis.
    """

    decreasing: bool = False
    axis: int | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.axis is None) != (self.shape is None):
            raise InvalidArgumentError(
                f"Monotone needs axis and shape together, got axis={self.axis} and shape={self.shape}; the axis is one "
                "of those of the field before it was flattened."
            )
        if self.shape is not None and self.axis is not None and not -len(self.shape) <= self.axis < len(self.shape):
            raise InvalidArgumentError(f"axis must be one of the {len(self.shape)} axes of shape, got {self.axis}.")

    def joined(self) -> "JoinedConstraint":
        """See ``Inequality``."""
        lines = None
        if self.shape is not None and self.axis is not None:
            lines = Lines(tuple(self.shape), self.axis % len(self.shape))
        return JoinedConstraint(order=-1 if self.decreasing else 1, lines=lines)


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedConstraint(Inequality):
    """A linear law, bounds and an order together: the result of ``law & inequalities``.

    Args:
        law: Linear statements, or None.
        lower: Lower bounds, one number or ``(*batch, n)``; stored in float64.
        upper: Upper bounds, likewise.
        order: 1 for increasing fields, −1 for decreasing ones, 0 for any.
        lines: The lines along which fields are ordered, if these have several axes.

    Raises:
        InvalidArgumentError: If a bound is NaN, lower exceeds upper, or shapes do not match.
    """

    law: LinearConstraint | None = None
    lower: Float[Tensor, "*batch"] = torch.tensor(-math.inf, dtype=torch.float64)  # noqa: RUF009 - never written to
    upper: Float[Tensor, "*batch"] = torch.tensor(math.inf, dtype=torch.float64)  # noqa: RUF009 - never written to
    order: int = 0
    lines: Lines | None = None

    def __post_init__(self) -> None:
        self._check_order()
        for name in ("lower", "upper"):
            object.__setattr__(self, name, getattr(self, name).to(torch.float64))
        try:
            shape = torch.broadcast_shapes(self.lower.shape, self.upper.shape)
        except RuntimeError as error:
            raise InvalidArgumentError(
                f"The bounds have shapes {tuple(self.lower.shape)} and {tuple(self.upper.shape)}, which do not "
                "broadcast; give numbers or (*batch, n)."
            ) from error
        if shape and self.law is not None and shape[-1] not in (1, self.law.points):
            raise InvalidArgumentError(
                f"The bounds are on {shape[-1]} points but the law acts on {self.law.points}; build both on one grid, "
                "bounds of fields flattened as the fields are: layout.flatten(bounds)."
            )
        nonempty = (self.lower <= self.upper).all() & (self.lower < math.inf).all() & (self.upper > -math.inf).all()
        if are_readable(self.lower, self.upper) and not bool(nonempty):
            raise InvalidArgumentError(
                "The bounds leave no field: lower ≤ upper is required at every point, without NaN, lower < ∞ and "
                f"upper > −∞; got a largest lower − upper of {float((self.lower - self.upper).max()):g}."
            )

    def _check_order(self) -> None:
        if not self.order or self.law is None:
            return
        if self.lines is not None and math.prod(self.lines.shape) != self.law.points:
            raise InvalidArgumentError(
                f"The order is on a field {self.lines.shape} but the law acts on {self.law.points} points; build both "
                "on one grid."
            )
        if self.law.shape is not None:
            self.require_axis(self.law.shape)

    def require_axis(self, shape: Sequence[int]) -> None:
        """Checks that an order says along which axis it holds, for fields with several, and that its axes are theirs.

        Args:
            shape: Lengths of the axes.

        Raises:
            InvalidArgumentError: If it does not, or if it is on a field with its axes in another order.
        """
        if self.order and self.lines is None and sum(length > 1 for length in shape) > 1:
            raise InvalidArgumentError(
                f"Monotone would order the flattened field {tuple(shape)} row by row; say along which axis it is "
                f"ordered, Monotone(axis=0, shape={tuple(shape)})."
            )
        if self.order and self.lines is not None and not axes_agree(self.lines.shape, shape):
            raise InvalidArgumentError(
                f"The order is on a field {self.lines.shape}, but this one has the axes {tuple(shape)}; build both on "
                "one grid, with its axes in one order."
            )

    def joined(self) -> "JoinedConstraint":
        """See ``Inequality``."""
        return self

    def split(self, values: Tensor) -> Tensor:
        """Values ``(*batch, n)`` by the lines of the order, ``(*batch, lines, length)``."""
        return values[..., None, :] if self.lines is None else self.lines.split(values)

    @property
    def batch_shape(self) -> torch.Size:
        """Common batch shape of law and bounds."""
        law = torch.Size() if self.law is None else self.law.batch_shape
        return torch.broadcast_shapes(law, self.lower.shape[:-1], self.upper.shape[:-1])


def _as_joined(constraint: LinearConstraint | Inequality) -> JoinedConstraint:
    if isinstance(constraint, Inequality):
        return constraint.joined()
    if isinstance(constraint, LinearConstraint):
        return JoinedConstraint(law=constraint)
    raise InvalidArgumentError(
        "A constraint joins with a LinearConstraint, NonNegative, Bounded or Monotone, got "
        f"{type(constraint).__name__}."
    )


def _join(first: JoinedConstraint, second: JoinedConstraint) -> JoinedConstraint:
    if first.order * second.order < 0:
        raise InvalidArgumentError(
            "A field that both increases and decreases is constant; state that with linear rows instead of two orders."
        )
    if first.order and second.order and first.lines != second.lines:
        raise InvalidArgumentError("A field can be ordered along one axis only; state the other order by linear rows.")
    law = first.law if second.law is None else second.law
    if first.law is not None and second.law is not None:
        law = first.law & second.law
    return JoinedConstraint(
        law=law,
        lower=torch.maximum(first.lower, second.lower),
        upper=torch.minimum(first.upper, second.upper),
        order=first.order or second.order,
        lines=first.lines or second.lines,
    )
