"""Linear constraints G u = b + ε, ε ~ N(0, σ²), as values that join with ``&``.

A conservation law in integral form, a boundary value, a boundary gradient, a total of one component, a second
difference: each is a row of G (k × n) with its right-hand side. Rows are kept in float64; the field they act on may
have any precision. All quantities carry the units of the field and of the domain.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from solvers.grid import CellGrid, NodeGrid, trapezoid_weights

Domain = NodeGrid | CellGrid | Tensor
Side = Literal["first", "last"]


@dataclass(frozen=True, eq=False)
class LinearConstraint:
    """The k linear statements G u = b + ε with independent ε_i ~ N(0, σ_i²); σ² = 0 means exactly.

    Args:
        G: Rows ``(*batch, k, n)``, a tensor or a ``LinearOperator``; held in float64.
        b: Right-hand sides ``(*batch, k)``; held in float64. Batch axes of G and b broadcast.
        noise_variance: σ², one number, or one per row ``(*batch, k)``.

    Raises:
        InvalidArgumentError: If shapes do not match, an entry is not finite, a row is zero, or a variance is negative.
    """

    G: Float[Tensor, "*batch k n"] | LinearOperator
    b: Float[Tensor, "*batch k"]
    noise_variance: float | Float[Tensor, "*batch k"] = 0.0

    def __post_init__(self) -> None:
        if self.G.ndim < 2 or self.b.ndim < 1 or 0 in self.G.shape[-2:] or self.G.shape[-2] != self.b.shape[-1]:
            raise InvalidArgumentError(
                "A constraint needs G (*batch, k, n) and b (*batch, k) with k, n ≥ 1 and the same k, "
                f"got {tuple(self.G.shape)} and {tuple(self.b.shape)}."
            )
        object.__setattr__(self, "G", self.G.to(dtype=torch.float64))
        object.__setattr__(self, "b", self.b.to(torch.float64))
        noise = torch.as_tensor(self.noise_variance, dtype=torch.float64, device=self.b.device)
        if noise.ndim and noise.shape[-1] != self.b.shape[-1]:
            raise InvalidArgumentError(
                f"noise_variance must be a number or (*batch, k) with k = {self.b.shape[-1]}, got {tuple(noise.shape)}."
            )
        object.__setattr__(self, "noise_variance", noise)
        _check_finite(self.rows, "G")
        _check_finite(self.b, "b")
        if not bool(((noise >= 0) & torch.isfinite(noise)).all()):
            raise InvalidArgumentError(
                f"noise_variance must be finite and not negative, got a smallest entry of {float(noise.min()):g}."
            )
        if not bool(self.rows.any(dim=-1).all()):
            raise InvalidArgumentError("A row of G is zero, so it says nothing about the field; drop it.")
        try:
            self.batch_shape  # noqa: B018 - evaluated to find shapes that do not broadcast
        except RuntimeError as error:
            raise InvalidArgumentError(
                f"The batch axes of G {tuple(self.G.shape[:-2])}, b {tuple(self.b.shape[:-1])} and noise_variance "
                f"{tuple(noise.shape[:-1])} do not broadcast."
            ) from error

    @cached_property
    def rows(self) -> Tensor:
        """G as a dense float64 tensor ``(*batch, k, n)``."""
        return self.G if isinstance(self.G, Tensor) else self.G.to_dense()

    @cached_property
    def noise(self) -> Tensor:
        """Variances σ² of the rows ``(*batch, k)``, float64."""
        noise = torch.as_tensor(self.noise_variance)
        return noise if noise.ndim else noise.expand(self.b.shape[-1])

    @property
    def points(self) -> int:
        """Number n of field values that a row acts on."""
        return self.G.shape[-1]

    @cached_property
    def batch_shape(self) -> torch.Size:
        """Common batch shape of G, b and σ²."""
        return torch.broadcast_shapes(self.G.shape[:-2], self.b.shape[:-1], self.noise.shape[:-1])

    def residual(self, u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        """How far a field is from the constraint.

        Args:
            u: Field ``(*batch, n)`` of any precision.

        Returns:
            G u − b ``(*batch, k)`` in float64.

        Raises:
            IncompatibleQueryError: If the field has another number of points.
        """
        if u.shape[-1] != self.points:
            raise IncompatibleQueryError(
                f"The constraint acts on {self.points} points but the field has {u.shape[-1]}; "
                "build it on the same grid."
            )
        return (self.rows @ u.to(torch.float64)[..., None])[..., 0] - self.b

    def __and__(self, other: "LinearConstraint") -> "LinearConstraint":
        """Both constraints at once: rows, right-hand sides and variances one below the other."""
        if self.points != other.points:
            raise InvalidArgumentError(
                f"Constraints join only on the same points, got {self.points} and {other.points} points."
            )
        batch = torch.broadcast_shapes(self.G.shape[:-2], other.G.shape[:-2])
        return LinearConstraint(
            torch.cat([c.rows.expand(*batch, *c.rows.shape[-2:]) for c in (self, other)], dim=-2),
            _concatenate(self.b, other.b),
            _concatenate(self.noise, other.noise),
        )


def integral(domain: Domain, total: Float[Tensor, "*batch"] | float) -> LinearConstraint:
    """The conservation law ∫ u dx = total, as one row of quadrature weights.

    Trapezoid rule on a ``NodeGrid`` and on points, cell sum on a ``CellGrid``; any number of axes, the field flattened
    in row-major order.

    Args:
        domain: Grid, or increasing, possibly unequally spaced points ``(*batch, n)``.
        total: Value of the integral ``(*batch,)``.

    Returns:
        One exact row per batch entry.
    """
    total = torch.as_tensor(total, dtype=torch.float64)
    return LinearConstraint(quadrature_weights(domain).to(total.device)[..., None, :], total[..., None])


def quadrature_weights(domain: Domain) -> Float[Tensor, "*batch n"]:
    """Weights w with Σ_j w_j u_j ≈ ∫ u dx.

    Args:
        domain: As for ``integral``.

    Returns:
        Weights ``(*batch, n)``, float64; n counts all points of the grid.
    """
    return trapezoid_weights(domain) if isinstance(domain, Tensor) else domain.weights.flatten()


def _concatenate(first: Tensor, second: Tensor) -> Tensor:
    batch = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    return torch.cat([part.expand(*batch, part.shape[-1]) for part in (first, second)], dim=-1)


def _check_finite(values: Tensor, name: str) -> None:
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        raise InvalidArgumentError(
            f"{name} of the constraint holds {int((~finite).sum())} NaN or infinite entries; repair them."
        )
