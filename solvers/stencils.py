"""Finite-difference weights of any order, central or one-sided."""

from fractions import Fraction
from math import factorial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.errors import InvalidArgumentError


def difference_weights(offsets: tuple[int, ...], derivative: int) -> Float[Tensor, " stencil"]:
    """Weights c with Σ_j c_j u(x + offset_j·h) = h^derivative · u^(derivative)(x), exact for polynomials.

    c_j is the derivative of Lagrange's polynomial that is 1 at offset j and 0 at the others, in rational arithmetic, so
    the only rounding is the last one, to float64.

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
    weights = []
    for offset in offsets:
        basis = [Fraction(1)]
        for other in set(offsets) - {offset}:
            raised, scaled = [Fraction(0), *basis], [other * each for each in basis] + [Fraction(0)]
            basis = [(a - b) / (offset - other) for a, b in zip(raised, scaled, strict=True)]
        weights.append(float(factorial(derivative) * basis[derivative]))
    return torch.tensor(weights, dtype=torch.float64)


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
