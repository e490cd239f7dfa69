"""Finite-difference weights of any order, central or one-sided."""

from fractions import Fraction
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.errors import InvalidArgumentError


def difference_weights(offsets: tuple[int, ...], derivative: int) -> Float[Tensor, " stencil"]:
    """Weights c with Σ_j c_j u(x + offset_j·h) = h^derivative · u^(derivative)(x), exact for polynomials.

    The moment equations Σ_j c_j offset_jᵖ = p!·[p = derivative], p = 0 … len(offsets) − 1, are solved in rational
    arithmetic, so the only rounding is the last one, to float64.

    Args:
        offsets: Distinct integer positions of the stencil in units of the spacing h.
        derivative: Order of the derivative, at least 0 and below the number of offsets.

    Returns:
        Weights ``(len(offsets),)``, float64, for unit spacing.

    Raises:
        InvalidArgumentError: If offsets repeat or are too few for the derivative.
    """
    size = len(offsets)
    if len(set(offsets)) != size or not 0 <= derivative < size:
        raise InvalidArgumentError(
            f"A derivative of order {derivative} needs more than {derivative} distinct offsets, got {offsets}."
        )
    factorial = 1
    for p in range(2, derivative + 1):
        factorial *= p
    rows = [
        [Fraction(offset) ** p for offset in offsets] + [Fraction(factorial if p == derivative else 0)]
        for p in range(size)
    ]
    return torch.tensor([float(weight) for weight in _solve(rows)], dtype=torch.float64)


def one_sided_gradient(order: int, side: Literal["first", "last"]) -> Float[Tensor, " stencil"]:
    """Weights of ∂u/∂x at an end of an axis from the ``order + 1`` nodes nearest to it, for unit spacing.

    The weights start at the boundary node and go inward; those of the last side are the negated weights of the first
    side.

    Args:
        order: Order of accuracy, at least 1.
        side: End of the axis.

    Returns:
        Weights ``(order + 1,)``, float64; divide by the spacing.

    Raises:
        InvalidArgumentError: If the order is below 1 or the side is neither "first" nor "last".
    """
    if order < 1:
        raise InvalidArgumentError(f"order of a one-sided gradient must be at least 1, got {order}.")
    if side not in ("first", "last"):
        raise InvalidArgumentError(f'side of a one-sided gradient must be "first" or "last", got {side!r}.')
    weights = difference_weights(tuple(range(order + 1)), derivative=1)
    return weights if side == "first" else -weights


def _solve(rows: list[list[Fraction]]) -> list[Fraction]:
    """Gauss–Jordan elimination of an augmented square system in rational arithmetic."""
    size = len(rows)
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column] != 0)
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = rows[column][column]
        rows[column] = [entry / scale for entry in rows[column]]
        for row in range(size):
            if row != column and rows[row][column] != 0:
                factor = rows[row][column]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[column], strict=True)]
    return [row[-1] for row in rows]
