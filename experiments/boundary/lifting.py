"""Lifting: boundary residuals extended into the interior by polynomials of low degree.

    u' = u + E (g − B u),   B E = I,

where the columns of E are polynomials along the axis, of the lowest degree that fits one datum for each side: straight
lines if a value is given at an end, parabolas without constant between two gradients. It changes every node of the axis
and costs one pass over the field. Several axes are treated in turn, as in ``extension``; if all sides are Dirichlet,
the extension of the data is transfinite interpolation (Gordon & Hall 1973).
"""

from functools import lru_cache
from itertools import combinations
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from boon.conditions.functionals import Boundary, Functional
from boon.corrections.extension import extend, functional_row
from boon.errors import SingularKernelError

_GOOD_CONDITION = 10.0
_LARGEST_CONDITION = 1e8


def lift(u: Tensor, boundary: Boundary) -> Tensor:
    """Adds the polynomials of the residual, one axis after the other; periodic axes are not changed."""
    for axis, numbers in boundary.by_axis().items():
        sides = tuple(boundary.functionals[index] for index in numbers)
        missing = [boundary.data[index] - side.read(u) for index, side in zip(numbers, sides, strict=True)]
        columns = polynomial_columns(sides, u.shape[2 + axis]).to(u.device)
        u = extend(u, columns[None], torch.stack(missing, dim=2 + axis), axis)
    return u


@lru_cache
def polynomial_columns(sides: tuple[Functional, ...], count: int) -> Float[Tensor, "n sides"]:
    """E with B E = I in the span of 1, x, x²: the lowest powers for which the functionals are well-conditioned.

    Args:
        sides: The two sides of an axis.
        count: Number of nodes of the axis.

    Raises:
        SingularKernelError: If the functionals are dependent on all pairs of powers.
    """
    points = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    monomials = torch.stack([points**power for power in range(3)], dim=1)
    rows = torch.stack([functional_row(side, count) for side in sides])
    seen = rows @ monomials
    unit = seen / torch.linalg.vector_norm(seen, dim=1, keepdim=True)
    conditions = {powers: _condition(unit[:, list(powers)]) for powers in combinations(range(3), len(sides))}
    lowest = [powers for powers, condition in conditions.items() if condition < _GOOD_CONDITION]
    powers = lowest[0] if lowest else min(conditions, key=conditions.__getitem__)
    if not conditions[powers] < _LARGEST_CONDITION:
        raise SingularKernelError(
            f"The conditions of axis {sides[0].axis} are dependent on parabolas with {count} nodes; check their "
            "coefficients or use a finer grid."
        )
    return torch.linalg.solve(seen[:, list(powers)], monomials[:, list(powers)], left=False)


def _condition(block: Tensor) -> float:
    """Condition number; infinite where nothing is left but round-off."""
    return float(torch.linalg.cond(block)) if float(block.abs().max()) > 1 / _LARGEST_CONDITION else inf
