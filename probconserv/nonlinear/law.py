"""Nonlinear laws g(u) = 0 of many rows: sparse Jacobians of a batch of fields by colouring.

Rows that share no point have one colour and are differentiated together, so that a Jacobian of any number of rows costs
as many backward passes as there are colours (Curtis, Powell & Reid 1974). Which entries may differ from zero is found
once, row by row. One more pass compares Jᵀ w with the entries for random w, so that an entry which was zero by chance
when they were found, behind an upwind switch for instance, is noticed and added.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.rows import SparseRows, stacked
from probconserv.constraints import LinearConstraint
from probconserv.errors import ConvergenceError, IncompatibleQueryError, InvalidArgumentError
from probconserv.inequalities.inequality import Inequality, JoinedConstraint

_PROBES = 4  # fields that the pattern is looked for at
_ROUNDING = 1e-9  # of Jᵀ w, relative to its largest entry; the entries of one pass have round-off of their own


@dataclass(frozen=True, eq=False, kw_only=True)
class NonlinearLaw:
    """The k statements g(u) = 0, with linear rows, inequalities and further nonlinear laws joined to them by ``&``.

    ``condition(prior, law)`` minimises (u − μ)ᵀ Σ⁻¹ (u − μ) over the fields that meet all statements: the best local
    minimum that several starts reach by sequential quadratic programming. It is the global one if a start lies in its
    basin; ``search`` of the result says how many starts agree. The result is the prior under the law linearised there
    (Laplace's approximation with the Gauss–Newton Hessian): its ``mode`` meets g = 0, its draws meet it to first order,
    which can be 10 % off where g bends within the prior's spread; ``nonlinear.projection.project`` takes draws onto
    g = 0. Results can be differentiated once, by the implicit function theorem at the mode; not under inequalities.

    Args:
        residual_function: g, from fields ``(s, n)`` in float64 to residuals ``(s, k)``, by torch operations; fields
            must not mix. Batch axes of a prediction come as one axis.
        points: Number n of values of a field.
        linear: Linear rows that hold as well.
        inequalities: Inequalities that hold as well; every step of the search then solves a quadratic programme.
        starts: Number of starts: the prior mean, then draws of the prior, by turns spread three and ten times as far,
            with a fixed seed.
        tolerance: Largest |g_i(u)| in units of the prior's standard scale of g_i, √(J Σ Jᵀ)_ii, and largest step, in
            standard deviations or relative to the field's largest distance from the mean.
        max_iterations: Largest number of steps from one start.

    Raises:
        IncompatibleQueryError: If the linear rows or the bounds are on another number of points.
        InvalidArgumentError: If tolerance or a number is out of its range.
    """

    residual_function: Callable[[Tensor], Tensor]
    points: int
    linear: LinearConstraint | None = None
    inequalities: JoinedConstraint | None = None
    starts: int = 5
    tolerance: float = 1e-10
    max_iterations: int = 200
    _found: list["_Pattern"] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.linear is not None and self.linear.points != self.points:
            raise IncompatibleQueryError(
                f"The nonlinear law acts on {self.points} points but the linear rows on {self.linear.points}; build "
                "both on one grid."
            )
        if not self.tolerance > 0 or self.max_iterations < 1 or self.starts < 1:
            raise InvalidArgumentError(
                f"tolerance must be positive, max_iterations and starts at least 1, got {self.tolerance}, "
                f"{self.max_iterations} and {self.starts}."
            )

    @property
    def batch_shape(self) -> torch.Size:
        """Batch axes of the linear rows' right-hand sides."""
        return torch.Size() if self.linear is None else self.linear.batch_shape

    def __and__(self, other: "AnyLaw") -> "NonlinearLaw":
        """The same law with further linear rows, inequalities or nonlinear statements."""
        if isinstance(other, NonlinearLaw):
            functions = self.residual_function, other.residual_function
            joint = replace(
                self, residual_function=lambda u: torch.cat([function(u) for function in functions], dim=-1), _found=[]
            )
            rest = [part for part in (other.linear, other.inequalities) if part is not None]
            return reduce(NonlinearLaw.__and__, rest, joint)
        joined = other.joined() if isinstance(other, Inequality) else JoinedConstraint(law=other)
        linear, bounds = self.linear, self.inequalities
        if joined.law is not None:
            linear = joined.law if linear is None else linear & joined.law
        rest = replace(joined, law=None)
        bounds = rest if bounds is None else (bounds & rest)
        limited = bool(torch.isfinite(bounds.lower).any() | torch.isfinite(bounds.upper).any())
        limited = limited or bounds.order != 0 or bounds.rows is not None
        return replace(self, linear=linear, inequalities=bounds if limited else None)

    def __rand__(self, other: LinearConstraint | Inequality) -> "NonlinearLaw":
        """The same with linear rows or inequalities on the left."""
        return self & other

    @property
    def has_plain_rows(self) -> bool:
        """Whether the linear rows are exact and the same for all fields, as statements of g are."""
        return self.linear is None or not (bool(self.linear.noise.any()) or len(self.linear.G.shape) > 2)

    def require_projection(self) -> None:
        """Raises InvalidArgumentError unless fields are projected onto it: exact rows, and bounds without an order."""
        if not self.has_plain_rows:
            raise InvalidArgumentError(
                "Linear rows beside a nonlinear law must be exact and the same for all fields to project these; "
                "condition a prediction on the law."
            )
        bounds = self.inequalities
        if bounds is None:
            return
        widths = {bound.shape[-1] for bound in (bounds.lower, bounds.upper) if bound.ndim} - {1, self.points}
        if bounds.rows is not None or bounds.order or widths or bounds.batch_shape:
            raise InvalidArgumentError(
                f"Fields are projected onto a nonlinear law with bounds that are numbers or ({self.points},), without "
                f"an order and without a LinearInequality; got order {bounds.order} and {tuple(bounds.lower.shape)}, "
                f"{tuple(bounds.upper.shape)}. condition takes these."
            )

    def statements(self, u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        """g(u), and the residuals of the linear rows below it, with derivatives.

        Args:
            u: Fields ``(*batch, n)``, float64; g sees them as ``(s, n)``.

        Raises:
            InvalidArgumentError: If g does not give ``(s, k)``.
        """
        fields = u.reshape(-1, self.points)
        values = self.residual_function(fields)
        check_shape(values, fields)
        values = values.reshape(*u.shape[:-1], values.shape[-1])
        return values if self.linear is None else torch.cat([values, self.linear.residual(u)], dim=-1)

    def residual(self, u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        """The same without derivatives, of fields of any precision.

        Raises:
            IncompatibleQueryError: If the fields have another number of points.
            InvalidArgumentError: If g does not give ``(s, k)``.
        """
        self._check_points(u)
        with torch.no_grad():
            return self.statements(u.to(torch.float64))

    def _check_points(self, u: Tensor) -> None:
        if u.shape[-1:] != (self.points,):
            raise IncompatibleQueryError(
                f"The law acts on {self.points} points but the fields are {tuple(u.shape)}; give (*batch, n) on its "
                "grid."
            )

    def linearise(self, u: Float[Tensor, "*batch n"]) -> tuple[Float[Tensor, "*batch k"], SparseRows]:
        """g(u) and ∂g/∂u without derivatives, linear rows below nonlinear ones.

        Raises:
            IncompatibleQueryError: If the fields have another number of points.
            InvalidArgumentError: If g has the wrong shape or does not depend on the fields.
            ConvergenceError: If a residual or a derivative is not finite.
        """
        self._check_points(u)
        with torch.enable_grad():
            values, rows = self._differentiate(u.detach().to(torch.float64).reshape(-1, self.points))
        if not bool(torch.isfinite(values).all() & torch.isfinite(rows.entries).all()):
            raise ConvergenceError(
                "Residual or Jacobian of residual_function is not finite; start from fields nearer to g(u) = 0."
            )
        values, entries = (part.reshape(*u.shape[:-1], part.shape[-1]) for part in (values, rows.entries))
        rows = replace(rows, entries=entries)
        if self.linear is None:
            return values, rows
        return torch.cat([values, self.linear.residual(u)], dim=-1), stacked(rows, self.linear.G)

    def _differentiate(self, u: Tensor) -> tuple[Tensor, SparseRows]:
        point = u.clone().requires_grad_()
        values = self.residual_function(point)
        check_residual(values, point)
        if not self._found:
            self._check_fields_apart(point, values)
            self._found.append(_pattern_of(values, point))
        for _ in range(3):
            pattern = self._found[-1]
            entries = _coloured_entries(values, point, pattern)
            missed = _missed(values, point, pattern, entries)
            if missed is None:
                return values.detach(), pattern.rows(entries)
            self._found[:] = [_pattern_of(values, point, missed, pattern)]
        raise InvalidArgumentError(
            "The Jacobian of residual_function is not reproducible: its entries and a product with it disagree. The "
            "function must not be random."
        )

    def _check_fields_apart(self, point: Tensor, values: Tensor) -> None:
        several = values[:1] @ torch.arange(1, values.shape[-1] + 1).to(values)
        (gradient,) = torch.autograd.grad(several.sum(), point, retain_graph=True)
        if bool((gradient[1:].abs() > 0).any()):
            raise InvalidArgumentError(
                "The residual of a field depends on other fields of the batch. Fields of a batch must not mix: reduce "
                "over the last axis only."
            )


def check_shape(residual: Tensor, u: Tensor) -> None:
    """Raises InvalidArgumentError unless residuals are ``(*batch, k)``."""
    if residual.ndim != u.ndim or residual.shape[:-1] != u.shape[:-1] or not residual.shape[-1]:
        raise InvalidArgumentError(
            f"residual_function must turn {tuple(u.shape)} into (*batch, k) with the same batch and k ≥ 1, got "
            f"{tuple(residual.shape)}."
        )


def check_residual(residual: Tensor, u: Tensor) -> None:
    """Raises InvalidArgumentError unless residuals are ``(*batch, k)`` and depend on the field."""
    check_shape(residual, u)
    if not residual.requires_grad:
        raise InvalidArgumentError("The residuals of residual_function do not depend on the field by torch operations.")


AnyLaw = LinearConstraint | Inequality | NonlinearLaw
"""What a prediction can be conditioned on."""


def linear_part(law: AnyLaw | None) -> LinearConstraint | None:
    """The linear rows of a law, without its inequalities and what is nonlinear; None if there are none."""
    if isinstance(law, Inequality):
        return law.joined().law
    return law.linear if isinstance(law, NonlinearLaw) else law


@dataclass(frozen=True, eq=False)
class _Pattern:
    """Where entries may differ from zero, in row-major order, and the colour of every row."""

    shape: tuple[int, int]
    row: Tensor
    column: Tensor
    colours: Tensor

    def rows(self, entries: Tensor) -> SparseRows:
        disjoint = int(torch.bincount(self.column, minlength=1).max()) <= 1
        k, n = self.shape
        return SparseRows(rows=k, points=n, row=self.row, column=self.column, entries=entries, is_disjoint=disjoint)


def _pattern_of(values: Tensor, point: Tensor, chosen: Tensor | None = None, old: _Pattern | None = None) -> _Pattern:
    """The pattern at some of the fields, joined with an old one: one backward pass a row."""
    k, n = values.shape[-1], point.shape[-1]
    chosen = torch.arange(min(_PROBES, len(point))) if chosen is None else chosen[:_PROBES]
    places = set() if old is None else {(int(i), int(j)) for i, j in zip(old.row, old.column, strict=True)}
    for i in range(k):
        (gradient,) = torch.autograd.grad(values[chosen, i].sum(), point, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise InvalidArgumentError("A residual of residual_function does not depend on the field; drop it.")
        columns = (gradient[chosen] != 0).any(dim=0).nonzero()[:, 0].tolist()
        places |= {(i, j) for j in columns}
    index = torch.tensor(sorted(places), dtype=torch.int64).reshape(-1, 2)
    return _Pattern((k, n), index[:, 0], index[:, 1], _colours(index.numpy(), (k, n)))


def _colours(index: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Colours of rows so that rows of one colour share no point: greedy, rows with most neighbours first."""
    matrix = scipy.sparse.csr_array((np.ones(len(index)), (index[:, 0], index[:, 1])), shape=shape)
    neighbours = scipy.sparse.csr_array(matrix @ matrix.T)
    colours = np.full(shape[0], -1)
    for row in np.argsort(-np.diff(neighbours.indptr), kind="stable"):
        near = colours[neighbours.indices[neighbours.indptr[row] : neighbours.indptr[row + 1]]]
        taken = set(near.tolist())
        colours[row] = next(colour for colour in range(len(taken) + 1) if colour not in taken)
    return torch.from_numpy(colours)


def _coloured_entries(values: Tensor, point: Tensor, pattern: _Pattern) -> Tensor:
    """Entries of the Jacobian of every field ``(s, entries)``: one backward pass a colour."""
    entries = values.new_zeros(len(point), len(pattern.row))
    of_entry = pattern.colours[pattern.row]
    for colour in range(int(pattern.colours.max()) + 1):
        chosen = (pattern.colours == colour).to(values)
        (gradient,) = torch.autograd.grad(values, point, chosen.expand_as(values), retain_graph=True)
        here = (of_entry == colour).nonzero()[:, 0]
        entries[:, here] = gradient[:, pattern.column[here]]
    return entries


def _missed(values: Tensor, point: Tensor, pattern: _Pattern, entries: Tensor) -> Tensor | None:
    """The fields for which the entries are not the whole Jacobian, from Jᵀ w; None if they are for all."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(pattern.shape[0], dtype=torch.float64, generator=generator)
    (product,) = torch.autograd.grad(values, point, weights.expand_as(values), retain_graph=True)
    mine = torch.zeros_like(product).index_add(-1, pattern.column, entries.detach() * weights[pattern.row])
    wrong = ((product - mine).abs() > _ROUNDING * product.abs().amax(dim=-1, keepdim=True)).any(dim=-1)
    return wrong.nonzero()[:, 0] if bool(wrong.any()) else None
