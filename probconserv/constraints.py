"""Linear constraints G u = b + ε, ε ~ N(0, σ²), as values that combine with ``&``.

A conservation law in integral form, a boundary value, a boundary gradient, a total of one component, a second
difference: each is a row of G (k × n) with a right-hand side. Rows are stored in float64; the field they act on may
have any precision. NumPy arrays are accepted wherever tensors are. Units are those of the field and of the domain.
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv._linalg.checks import joint_axes, refuse_missing
from probconserv._linalg.rows import (
    Rows,
    as_rows,
    as_sparse_rows,
    concatenate,
    joined_matrix,
    keep_structure,
    rows_applied,
    stacked,
)
from probconserv._linalg.values import Array, as_tensor, cached, copied, square_root
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from solvers._former import by_keyword
from solvers.grids import CellGrid, NodeGrid, trapezoid_weights
from solvers.recording import are_readable
from solvers.stencils import one_sided_gradient

Domain = NodeGrid | CellGrid | Tensor | np.ndarray
Side = Literal["first", "last"]


@by_keyword(
    "noise_variance",
    "shape",
    "rule_variance",
    after=2,
    instead="Bounds lb ≤ G u ≤ ub, which scipy.optimize.LinearConstraint takes, are LinearInequality here.",
)
@dataclass(frozen=True, eq=False, repr=False)
class LinearConstraint:
    """The k linear statements G u = b + ε with independent ε_i ~ N(0, σ_i²); σ² = 0 makes a row exact.

    Args:
        G: Rows ``(*batch, k, n)``: a tensor, a ``LinearOperator``, a sparse tensor, a sparse matrix of SciPy, or what
            ``block_means`` and the other laws of fields make; stored in float64. Sparse rows stay sparse.
        b: Right-hand sides ``(*batch, k)``; copied, and stored in float64. Batch axes of G and b broadcast.
        noise_variance: σ², one number, or one per row ``(*batch, k)``; no covariance matrix of the rows.
        shape: Lengths of the axes of the field, where they are known; n is their product. Neighbouring axes may be
            given as one.
        rule_variance: Variance of the error of the rows themselves, such as that of a quadrature: how far true fields
            miss G u = b; a number, or one per row ``(*batch, k)``. It changes nothing in the update, but ``condition``
            warns where a prediction knows G u better than the rule does; ``softened`` adds it to σ².
    """

    G: Float[Tensor, "*batch k n"] | LinearOperator | Rows
    b: Float[Tensor, "*batch k"]
    _: KW_ONLY
    noise_variance: float | Float[Tensor, "*batch k"] = 0.0
    shape: tuple[int, ...] | None = None
    rule_variance: float | Float[Tensor, "*batch k"] | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            G: Array | LinearOperator | Rows | Any,
            b: Array | Sequence[float],
            *,
            noise_variance: float | Array = ...,
            shape: tuple[int, ...] | None = ...,
            rule_variance: float | Array | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "G", as_rows(self.G))
        object.__setattr__(self, "b", copied(self.b))
        if self.G.ndim < 2 or self.b.ndim < 1 or 0 in self.G.shape[-2:] or self.G.shape[-2] != self.b.shape[-1]:
            raise InvalidArgumentError(
                "A constraint needs G (*batch, k, n) and b (*batch, k) with k, n ≥ 1 and the same k, "
                f"got {tuple(self.G.shape)} and {tuple(self.b.shape)}."
            )
        for name in ("noise_variance", "rule_variance"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _variances(self, name))
        if are_readable(self.b):
            self._check_values()
        try:
            self.batch_shape  # noqa: B018 - evaluated to find shapes that do not broadcast
        except RuntimeError as error:
            raise InvalidArgumentError(
                f"The batch axes of G {tuple(self.G.shape[:-2])}, b {tuple(self.b.shape[:-1])} and noise_variance "
                f"{tuple(self.noise.shape[:-1])} do not broadcast."
            ) from error

    def _check_values(self) -> None:
        rows = self.G
        refuse_missing(rows.entries if isinstance(rows, Rows) else self.rows, "G of the constraint holds")
        refuse_missing(self.b, "b of the constraint holds")
        if not bool((rows.norms() > 0 if isinstance(rows, Rows) else self.rows.any(dim=-1)).all()):
            raise InvalidArgumentError("A row of G is zero, so it says nothing about the field; drop it.")

    def __repr__(self) -> str:
        rows, points = self.b.shape[-1], self.G.shape[-1]
        noise = torch.as_tensor(self.noise_variance)
        kind = "" if not are_readable(noise) else "noisy " if bool(noise.any()) else "exact "
        what = f"{rows} {kind}row{'s' * (rows > 1)} on {points} values"
        return f"LinearConstraint({what}, batch_shape={tuple(self.batch_shape)})"

    @cached
    def rows(self) -> Tensor:
        """G as a dense float64 tensor ``(*batch, k, n)``; an error where structured rows would not fit in memory."""
        return self.G if isinstance(self.G, Tensor) else self.G.to_dense()

    @cached
    def noise(self) -> Tensor:
        """Variances σ² of the rows ``(*batch, k)``, float64."""
        noise = torch.as_tensor(self.noise_variance)
        return noise if noise.ndim else noise.expand(self.b.shape[-1])

    def with_rule_variance(self, variance: float | Float[Tensor, "*batch k"]) -> "LinearConstraint":
        """The same law with the variance of the error of its rows.

        From fields whose totals are known that is ``quadrature_variance``; B²/3 for an error somewhere within ±B.
        """
        return replace(self, rule_variance=variance)

    def softened(self) -> "LinearConstraint":
        """The same law as rough as its rule is: the variance of the rule added to σ²."""
        if self.rule_variance is None:
            raise InvalidArgumentError(
                "This law has no rule_variance to be softened by; give it one by with_rule_variance."
            )
        return replace(self, noise_variance=self.noise + self.rule_variance, rule_variance=None)

    def selected(self, rows: Tensor) -> "LinearConstraint":
        """The law of some of its rows, a mask ``(k,)``; of none of them, a law that says nothing."""
        G = self.rows[..., rows, :]
        G = as_sparse_rows(G) if isinstance(self.G, Rows) and bool(rows.any()) else G
        noise, rule = (
            part[..., rows] if isinstance(part, Tensor) and part.ndim else part
            for part in (self.noise_variance, self.rule_variance)
        )
        law = object.__new__(LinearConstraint)  # its values are checked, and users may not state a law without rows
        values = {"G": G, "b": self.b[..., rows], "noise_variance": noise, "shape": self.shape, "rule_variance": rule}
        for name, value in values.items():
            object.__setattr__(law, name, value)
        return law

    @property
    def points(self) -> int:
        """Number n of field values that a row acts on."""
        return self.G.shape[-1]

    @cached
    def batch_shape(self) -> torch.Size:
        """Common batch shape of G, b and σ²."""
        return torch.broadcast_shapes(self.G.shape[:-2], self.b.shape[:-1], self.noise.shape[:-1])

    def residual(self, u: Float[Array, "*batch n"]) -> Float[Tensor, "*batch k"]:
        """The residual G u − b ``(*batch, k)`` of a field ``(*batch, n)`` of any precision, in float64."""
        u = as_tensor(u)
        if u.shape[-1:] != (self.points,):
            raise IncompatibleQueryError(
                f"The constraint acts on {self.points} points but the field has {u.shape[-1] if u.ndim else 'none'}; "
                "build it on the same grid."
            )
        return rows_applied(self.G if isinstance(self.G, Rows) else self.rows, u) - self.b

    def __and__(self, other: "LinearConstraint") -> "LinearConstraint":
        """Both constraints at once: rows, right-hand sides and variances one below the other."""
        if not isinstance(other, LinearConstraint):
            return NotImplemented
        if self.points != other.points:
            raise InvalidArgumentError(
                f"Constraints join only on the same points, got {self.points} and {other.points} points."
            )
        try:
            torch.broadcast_shapes(self.batch_shape, other.batch_shape)
        except RuntimeError as error:
            raise InvalidArgumentError(
                f"Constraints join only if their batch axes broadcast, got {tuple(self.batch_shape)} and "
                f"{tuple(other.batch_shape)}; give both one right-hand side per function."
            ) from error
        structured = keep_structure(self.G, other.G)
        return LinearConstraint(
            stacked(self.G, other.G) if structured else joined_matrix(self.rows, other.rows),
            concatenate(self.b, other.b),
            noise_variance=concatenate(self.noise, other.noise),
            shape=joint_axes(self.shape, other.shape),
            rule_variance=_joined_rules(self, other),
        )


def integral(
    domain: Domain,
    total: Float[Array, "*batch"] | float,
    noise_variance: float | Float[Array, "*batch 1"] = 0.0,
    *,
    rule_variance: float | Float[Array, "*batch 1"] | None = None,
    dim: int | None = None,
) -> LinearConstraint:
    """The conservation law ∫ u dx = total, as one row of quadrature weights, or one row for each of several fields.

    Trapezoid rule on a ``NodeGrid`` and on points, cell sum on a ``CellGrid`` (the midpoint rule, if the field holds
    values at the centres); any number of axes, the field flattened in row-major order. For cells of unequal size give
    their lengths ``faces.diff()`` as the row of a ``LinearConstraint``.

    Args:
        domain: Grid, or increasing, possibly unequally spaced points ``(*batch, n)``.
        total: Value of the integral ``(*batch,)``, from a closed form or from ``total_over_time``.
        noise_variance: σ², the variance of the total.
        rule_variance: Variance of the quadrature error, see ``LinearConstraint`` and ``quadrature_variance``.
        dim: Axis of ``total`` that counts fields of a joint prediction, block by block in one vector: components, or
            times. None for a single field.
    """
    total = as_tensor(total)
    weights, axes = quadrature_weights(domain).to(total.device), _axes_of(domain)
    if dim is None:
        return LinearConstraint(
            weights[..., None, :],
            total[..., None],
            noise_variance=noise_variance,
            shape=axes,
            rule_variance=rule_variance,
        )
    if not -total.ndim <= dim < total.ndim:
        raise InvalidArgumentError(f"dim must be an axis of total, which has {total.ndim}, got {dim}.")
    total = total.movedim(dim, -1)
    blocks = torch.eye(total.shape[-1], dtype=torch.float64, device=total.device)
    rows = (blocks[:, :, None] * weights[..., None, None, :]).flatten(-2)
    return LinearConstraint(
        rows, total, noise_variance=noise_variance, shape=axes and (total.shape[-1], *axes), rule_variance=rule_variance
    )


def quadrature_variance(law: LinearConstraint, fields: Float[Tensor, "cases n"]) -> Float[Tensor, " k"]:
    """The variance of the error of a rule, the mean square of G u − b over fields that meet the law but for it.

    Args:
        law: The rule with the true right-hand sides of the fields ``(cases, k)``.
        fields: True fields, such as solutions at parameters of the training, ``(cases, n)``.
    """
    missed = law.residual(fields)
    if missed.ndim < 2 or not missed.shape[0] or not bool(torch.isfinite(missed).all()):
        raise InvalidArgumentError(
            f"fields must be (cases, n) of at least one case, without NaN, with totals (cases, k); got "
            f"{tuple(fields.shape)} and {tuple(law.b.shape)}."
        )
    return missed.square().flatten(0, -2).mean(dim=0)


def boundary_value(
    domain: NodeGrid | Tensor | np.ndarray,
    value: Float[Array, "*batch_and_face"] | float,
    *,
    side: Side,
    axis: int = 0,
    noise_variance: float = 0.0,
) -> LinearConstraint:
    """The field equals a value on one side: one row per node of that side, in row-major order.

    Args:
        domain: Nodes that include the side: a ``NodeGrid``, or points ``(*batch, n)`` along one axis.
        value: Value ``(*batch, *face)``; ``face`` is the shape of the side, empty with one axis.
        side: End of the axis, "first" or "last".
        axis: Axis normal to the side; negative numbers count from the last.
        noise_variance: σ² of the value.
    """
    if isinstance(domain, CellGrid):
        raise InvalidArgumentError("A CellGrid has no unknown on its sides; state boundary values on a NodeGrid.")
    shape = domain.shape if isinstance(domain, NodeGrid) else domain.shape[-1:]
    end = _check_side(side, axis, len(shape))
    return _side_rows(shape, torch.ones(1, dtype=torch.float64), value, end, noise_variance)


def boundary_gradient(
    grid: NodeGrid,
    gradient: Float[Array, "*batch_and_face"] | float,
    *,
    side: Side,
    axis: int = 0,
    order: int = 2,
    noise_variance: float = 0.0,
) -> LinearConstraint:
    """The derivative ∂u/∂x along an axis (not the outward normal one) has a value on one side.

    Args:
        grid: Nodes that include the side.
        gradient: Value ``(*batch, *face)``, field per length.
        side: End of the axis, as for ``boundary_value``.
        axis: Axis normal to the side.
        order: Order of accuracy of the one-sided difference, ``order + 1`` nodes.
        noise_variance: σ² of the gradient.
    """
    if not isinstance(grid, NodeGrid):
        raise InvalidArgumentError(f"boundary_gradient needs a NodeGrid, got {type(grid).__name__}.")
    side, axis = _check_side(side, axis, grid.dimension)
    if grid.shape[axis] <= order:
        raise InvalidArgumentError(
            f"A one-sided difference of order {order} takes {order + 1} nodes, axis {axis} has {grid.shape[axis]}; "
            "lower the order or refine the grid."
        )
    stencil = one_sided_gradient(order, side) / grid.spacing[axis]
    return _side_rows(grid.shape, stencil, gradient, (side, axis), noise_variance)


def smoothness(variance: Float[Tensor, "*batch n_minus_2"]) -> LinearConstraint:
    """Second differences u_{j−1} − 2 u_j + u_{j+1} ~ N(0, s_j): artificial diffusion (Hansen et al. 2023).

    s ``(*batch, n − 2)`` comes from ``second_difference_variance``, for instance.
    """
    variance = as_tensor(variance)
    count = variance.shape[-1]
    rows = torch.zeros(count, count + 2, dtype=torch.float64, device=variance.device)
    for offset, weight in enumerate((1.0, -2.0, 1.0)):
        rows.diagonal(offset).fill_(weight)
    return LinearConstraint(rows, torch.zeros_like(variance), noise_variance=variance)


def second_difference_variance(
    variance: Float[Tensor, "*batch n"], correlation: float = 0.9
) -> Float[Tensor, "*batch n_minus_2"]:
    """Variance s ``(*batch, n − 2)`` of the second differences of a field with pointwise variance v ``(*batch, n)``.

    s_j = v_{j−1} + 4 v_j + v_{j+1} − 4 α √(v_{j−1} v_j) + 2 α² √(v_{j−1} v_{j+1}) − 4 α √(v_j v_{j+1}), that is
    dᵀ C d with d = (1, −2, 1) and C_ij = α^|i−j| √(v_i v_j), α in [−1, 1] the correlation of neighbours; so s ≥ 0.
    """
    variance = as_tensor(variance, dtype=None)
    if variance.shape[-1] < 3 or not -1 <= correlation <= 1:
        raise InvalidArgumentError(
            f"Second differences need at least 3 points and a correlation in [−1, 1], got {variance.shape[-1]} points "
            f"and {correlation}."
        )
    sigma = square_root(variance)
    left, centre, right = sigma[..., :-2], sigma[..., 1:-1], sigma[..., 2:]
    # Sum of squares of the innovations of an autoregressive process: not negative in floating point either.
    alpha = correlation
    first = left - 2 * alpha * centre + alpha**2 * right
    second = 2 * centre - alpha * right
    return first.square() + (1 - alpha**2) * (second.square() + right.square())


def quadrature_weights(domain: Domain) -> Float[Tensor, "*batch n"]:
    """Weights w ``(*batch, n)`` with Σ_j w_j u_j ≈ ∫ u dx, float64; the domain as for ``integral``."""
    if isinstance(domain, NodeGrid | CellGrid):
        return domain.weights.flatten()
    return trapezoid_weights(as_tensor(domain))


def _variances(law: LinearConstraint, name: str) -> Tensor:
    """Variances of rows, or of their rules, as a tensor that broadcasts with b."""
    variance, k = copied(getattr(law, name)).to(law.b.device), law.b.shape[-1]
    if variance.ndim and variance.shape[-1] != k:
        raise InvalidArgumentError(f"{name} must be a number or (*batch, k) with k = {k}, got {tuple(variance.shape)}.")
    if are_readable(variance) and not bool(((variance >= 0) & torch.isfinite(variance)).all()):
        raise InvalidArgumentError(
            f"{name} must be finite and not negative, got a smallest entry of {float(variance.min()):g}."
        )
    if variance.ndim > 1 and variance.shape[-2] == k > 1 and _may_be_covariance(variance, law):
        raise InvalidArgumentError(
            f"{name} {tuple(variance.shape)} of {k} rows may be a covariance matrix, or the variances of {k} laws. "
            "Errors of rows are independent: give their variances (*batch, k), for several laws with right-hand sides "
            "b of the same axes. Rows with correlated errors, of the covariance L Lᵀ, are L⁻¹ G with L⁻¹ b and the "
            "variance 1."
        )
    return variance


def _may_be_covariance(variance: Tensor, law: LinearConstraint) -> bool:
    """Whether square variances have axes that no other part of the law has, or are symmetric without being constant."""
    if variance.ndim > max(law.b.ndim, law.G.ndim - 1):
        return True
    constant = variance[..., :1, :].expand_as(variance)
    return are_readable(variance) and torch.equal(variance, variance.mT) and not torch.equal(variance, constant)


def _joined_rules(first: LinearConstraint, second: LinearConstraint) -> Tensor | None:
    """Variances of the rules of both, 0 where one has none."""
    if first.rule_variance is None and second.rule_variance is None:
        return None
    parts = []
    for law in (first, second):
        variance = torch.zeros(()) if law.rule_variance is None else as_tensor(law.rule_variance)
        parts.append(variance.to(law.b).expand(*variance.shape[:-1], law.b.shape[-1]))
    return concatenate(*parts)


def _axes_of(domain: Domain) -> tuple[int, ...] | None:
    return tuple(domain.shape) if isinstance(domain, NodeGrid | CellGrid) else None


def _check_side(side: Side, axis: int, dimension: int) -> tuple[Side, int]:
    """The side, and the axis counted from the first."""
    if side not in ("first", "last"):
        raise InvalidArgumentError(f'side must be "first" or "last", got {side!r}.')
    if not -dimension <= axis < dimension:
        raise InvalidArgumentError(
            f"axis must lie in [{-dimension}, {dimension - 1}] since the domain has dimension {dimension}, got {axis}."
        )
    return side, axis % dimension


def _side_rows(
    shape: tuple[int, ...], stencil: Tensor, value: Array | float, end: tuple[Side, int], noise_variance: float
) -> LinearConstraint:
    """A stencil that starts at every node of a side and goes inward."""
    side, axis = end
    value = as_tensor(value)
    index = torch.arange(math.prod(shape)).reshape(shape)
    rows = torch.zeros(math.prod(shape) // shape[axis], math.prod(shape), dtype=torch.float64)
    for depth, weight in enumerate(stencil):
        nodes = index.select(axis, depth if side == "first" else shape[axis] - 1 - depth).flatten()
        rows.scatter_(1, nodes[:, None], weight.expand(len(nodes), 1))
    face = shape[:axis] + shape[axis + 1 :]
    try:
        value = value.expand(torch.broadcast_shapes(value.shape, face))
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"The {side} side of axis {axis} has nodes {face}, but its values have shape {tuple(value.shape)}; give a "
            "number or (*batch, *face)."
        ) from error
    b = value.flatten(-len(face)) if face else value[..., None]
    return LinearConstraint(rows.to(value.device), b, noise_variance=noise_variance, shape=tuple(shape))
