"""Inequalities on fields, combined with ``&``: non-negative, bounded and monotone fields.

    law & NonNegative(),   law & Bounded(0.0, 1.0) & Monotone(decreasing=True),   law & LinearInequality(A, c)

``condition(prior, joined)`` gives the nearest field to the conditioned mean that meets law and inequalities, and draws
that meet them; see ``Projected``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.checks import axes_agree, refuse_missing
from probconserv._linalg.rows import Rows, as_sparse_rows, is_sparse, stacked
from probconserv._linalg.values import Array, as_tensor, cached
from probconserv.constraints import LinearConstraint, joined_matrix, rows_applied
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities._division import Division, divided
from solvers.recording import are_readable

_SPARSE = 0.2  # fraction of entries that are not zero below which dense rows are stored as sparse ones


class _Nonlinear(Protocol):
    """A nonlinear law, which takes inequalities."""

    residual_function: Any

    def __and__(self, other: Any, /) -> "_Nonlinear": ...


_Law = TypeVar("_Law", bound=_Nonlinear)


class Inequality(ABC):
    """An inequality on the values of a field, or several combined with a linear law."""

    @abstractmethod
    def joined(self) -> "JoinedConstraint":
        """The same statement in the common form."""

    @overload
    def __and__(self, other: "LinearConstraint | Inequality") -> "JoinedConstraint": ...
    @overload
    def __and__(self, other: _Law) -> _Law: ...
    def __and__(self, other: Any) -> Any:
        """Both at once: rows stacked, bounds intersected."""
        if hasattr(other, "residual_function"):  # a NonlinearLaw takes the inequality
            return other & self
        return _join(self.joined(), _as_joined(other))

    def __rand__(self, other: LinearConstraint) -> "JoinedConstraint":
        """The same with a ``LinearConstraint`` on the left."""
        return _join(_as_joined(other), self.joined())


@dataclass(frozen=True)
class NonNegative(Inequality):
    """u ≥ 0 at every point."""

    def joined(self) -> "JoinedConstraint":
        return JoinedConstraint(lower=torch.zeros((), dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Bounded(Inequality):
    """lower ≤ u ≤ upper at every point.

    Args:
        lower: A number or ``(*batch, n)``, in the units of the field; None or −∞ means no bound.
        upper: The same; None or +∞ means no bound. Equal bounds fix the value.
    """

    lower: Float[Tensor, "*batch n"] | float | None = -math.inf
    upper: Float[Tensor, "*batch n"] | float | None = math.inf

    if TYPE_CHECKING:

        def __init__(self, lower: Array | float | None = ..., upper: Array | float | None = ...) -> None: ...

    def __post_init__(self) -> None:
        self.joined()

    def joined(self) -> "JoinedConstraint":
        lower = -math.inf if self.lower is None else self.lower
        upper = math.inf if self.upper is None else self.upper
        return JoinedConstraint(lower=as_tensor(lower), upper=as_tensor(upper))


@dataclass(frozen=True, eq=False)
class LinearInequality(Inequality):
    """A u ≤ c: inequalities between values, at two points or in two channels; for A u ≥ c give −A and −c.

    Frozen precipitation that is no more than all precipitation, on fields with these two channels, is
    ``LinearInequality(torch.cat([eye, -eye], dim=1).to_sparse(), torch.zeros(n))``.

    Args:
        A: Rows ``(*batch, m, n)``: a tensor, a sparse tensor, or a sparse matrix of SciPy; stored in float64. Rows that
            are mostly zero are stored as sparse ones.
        c: Right-hand sides ``(*batch, m)``, in the units of A u.
    """

    A: Float[Tensor, "*batch m n"] | Rows
    c: Float[Tensor, "*batch m"]

    if TYPE_CHECKING:

        def __init__(self, A: Array | Rows | Any, c: Array) -> None: ...

    def __post_init__(self) -> None:
        A = self.A if isinstance(self.A, Rows) else as_sparse_rows(self.A) if is_sparse(self.A) else as_tensor(self.A)
        object.__setattr__(self, "A", A)
        object.__setattr__(self, "c", as_tensor(self.c))
        if A.ndim < 2 or self.c.ndim < 1 or 0 in A.shape[-2:] or A.shape[-2] != self.c.shape[-1]:
            raise InvalidArgumentError(
                "LinearInequality needs A (*batch, m, n) and c (*batch, m) with m, n ≥ 1 and the same m, got "
                f"{tuple(A.shape)} and {tuple(self.c.shape)}."
            )
        entries = A.entries if isinstance(A, Rows) else A
        if are_readable(entries, self.c):
            self._check_values(entries)
            # A matrix with derivatives stays, since its zeros have derivatives too.
            if isinstance(A, Tensor) and A.ndim == 2 and not A.requires_grad and _is_sparse(A):
                object.__setattr__(self, "A", as_sparse_rows(A))

    def _check_values(self, entries: Tensor) -> None:
        refuse_missing(entries, "A of a LinearInequality holds")
        refuse_missing(self.c, "c of a LinearInequality (rows that bound nothing are left out) holds")
        stated = self.A.norms() > 0 if isinstance(self.A, Rows) else self.A.any(dim=-1)
        if not bool(stated.reshape(-1, stated.shape[-1]).any(dim=0).all()):
            raise InvalidArgumentError("A row of A is zero, so it says nothing about the field; drop it.")
        if not bool((stated | (self.c >= 0)).all()):
            raise InvalidArgumentError(
                "A row of A is zero in some entries of the batch, where its c must not be negative: 0 ≤ c."
            )

    def joined(self) -> "JoinedConstraint":
        return JoinedConstraint(rows=self)

    @property
    def batch_shape(self) -> torch.Size:
        """Common batch shape of A and c."""
        return torch.broadcast_shapes(self.A.shape[:-2], self.c.shape[:-1])

    def excess(self, u: Tensor) -> Tensor:
        """A u − c of fields ``(*batch, n)``: ``(*batch, m)``, positive where the inequality fails."""
        return rows_applied(self.A, u) - self.c

    def stacked(self, other: "LinearInequality") -> "LinearInequality":
        """Both, one below the other."""
        if self.A.shape[-1] != other.A.shape[-1]:
            raise InvalidArgumentError(
                f"Inequalities join only on the same points, got {self.A.shape[-1]} and {other.A.shape[-1]} points."
            )
        batch = torch.broadcast_shapes(self.batch_shape, other.batch_shape)
        c = torch.cat([part.c.expand(*batch, part.c.shape[-1]) for part in (self, other)], dim=-1)
        if isinstance(self.A, Rows) or isinstance(other.A, Rows):
            return LinearInequality(stacked(self.A, other.A), c)
        return LinearInequality(joined_matrix(self.A, other.A), c)


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

    Under the wrong one of the two, the nearest field is constant.

    Args:
        decreasing: Whether the field falls.
        axis: The axis along which it is ordered; needed for a field with several axes, flattened row by row.
        shape: Lengths of the axes of that field.
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
        lines = None
        if self.shape is not None and self.axis is not None:
            lines = Lines(tuple(self.shape), self.axis % len(self.shape))
        return JoinedConstraint(order=-1 if self.decreasing else 1, lines=lines)


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedConstraint(Inequality):
    """A linear law, bounds, an order and further rows together: the result of ``law & inequalities``.

    Args:
        law: Linear statements, or None.
        rows: Inequalities between values, or None.
        lower: Lower bounds, one number or ``(*batch, n)``; stored in float64.
        upper: Upper bounds, likewise.
        order: 1 for increasing fields, −1 for decreasing ones, 0 for any.
        lines: The lines along which fields are ordered, if these have several axes.
    """

    law: LinearConstraint | None = None
    lower: Float[Tensor, "*batch"] = field(default_factory=lambda: torch.tensor(-math.inf, dtype=torch.float64))
    upper: Float[Tensor, "*batch"] = field(default_factory=lambda: torch.tensor(math.inf, dtype=torch.float64))
    order: int = 0
    lines: Lines | None = None
    rows: LinearInequality | None = None

    def __post_init__(self) -> None:
        self._check_order()
        self._check_rows()
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

    def _check_rows(self) -> None:
        if self.rows is not None and self.law is not None and self.rows.A.shape[-1] != self.law.points:
            raise InvalidArgumentError(
                f"The inequalities are on {self.rows.A.shape[-1]} points but the law acts on {self.law.points}; build "
                "both on one grid, columns in the order of the flattened field."
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
        """Checks that an order names its axis, for fields with several, and that its axes are those of a shape."""
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
        return self

    @property
    def parts(self) -> list[Tensor | Rows]:
        """G of the law and A of the inequalities, as far as there are any."""
        parts: list[Tensor | Rows] = []
        if self.law is not None:
            parts.append(self.law.G if isinstance(self.law.G, Rows) else self.law.rows)
        if self.rows is not None:
            parts.append(self.rows.A)
        return parts

    @cached
    def division(self) -> Division:
        """The rows in the order of the solver."""
        return divided(self.parts, bool(self.order))

    def split(self, values: Tensor) -> Tensor:
        """Values ``(*batch, n)`` by the lines of the order, ``(*batch, lines, length)``."""
        return values[..., None, :] if self.lines is None else self.lines.split(values)

    @property
    def batch_shape(self) -> torch.Size:
        """Common batch shape of law and bounds."""
        shapes = [part.batch_shape for part in (self.law, self.rows) if part is not None]
        return torch.broadcast_shapes(*shapes, self.lower.shape[:-1], self.upper.shape[:-1])

    def violation(self, u: Tensor) -> Tensor:
        """By how much fields ``(*batch, n)`` miss the inequalities at worst ``(*batch,)``; 0 where they meet them."""
        u = as_tensor(u)
        missed = [self.lower - u, u - self.upper]
        if self.order:
            missed.append(-self.order * self.split(u).diff(dim=-1).flatten(-2))
        if self.rows is not None:
            missed.append(self.rows.excess(u))
        return torch.stack([part.amax(dim=-1) for part in missed if part.shape[-1]]).amax(dim=0).clamp_min(0.0)


def _is_sparse(A: Tensor) -> bool:
    return int(A.count_nonzero()) <= _SPARSE * A.numel()


def _as_joined(constraint: LinearConstraint | Inequality) -> JoinedConstraint:
    if isinstance(constraint, Inequality):
        return constraint.joined()
    if isinstance(constraint, LinearConstraint):
        return JoinedConstraint(law=constraint)
    raise InvalidArgumentError(
        "A constraint joins with a LinearConstraint, NonNegative, Bounded, Monotone or LinearInequality, got "
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
    rows = first.rows if second.rows is None else second.rows
    if first.rows is not None and second.rows is not None:
        rows = first.rows.stacked(second.rows)
    return JoinedConstraint(
        law=law,
        rows=rows,
        lower=torch.maximum(first.lower, second.lower),
        upper=torch.minimum(first.upper, second.upper),
        order=first.order or second.order,
        lines=first.lines or second.lines,
    )
