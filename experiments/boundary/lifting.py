"""Lifting: boundary data extended into the interior by polynomials, plus an operator that vanishes at the boundary.

    u = e N + E (g − B (e N)),   B E = I,

with the envelope e = Π 4x(1 − x) over axes with Dirichlet conditions (only its factors at Dirichlet ends where the
sides differ) and E the columns of polynomials of the lowest degree that carry one datum each. Where all sides are
Dirichlet's, B (e N) = 0 and this is extension + envelope · N: linear interpolation of the two ends in one dimension,
transfinite interpolation in two. No envelope can leave the value at a Neumann end free and its gradient zero, so there
e = 1 and the polynomials take the gradient of N away.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from boon.functionals import Boundary, Functional
from boon.lifting import LiftingStep


def lift(n: Float[Tensor, "batch channels *space"], boundary: Boundary) -> Float[Tensor, "batch channels *space"]:
    """The field made of an operator's output N that meets the conditions up to rounding."""
    u = n
    for side in boundary.functionals:
        if side.is_value:
            u = u * _envelope(side, u)
    return LiftingStep()(u, boundary)


def _envelope(side: Functional, u: Tensor) -> Tensor:
    """2x, or 2(1 − x) at the last side, along the axis of the side."""
    rising = torch.linspace(0.0, 2.0, u.shape[2 + side.axis], dtype=torch.float64)
    along = [-1 if axis == side.axis else 1 for axis in range(u.ndim - 2)]
    return (rising.flip(0) if side.last else rising).to(u).view(along)
