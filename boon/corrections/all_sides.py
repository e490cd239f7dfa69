"""Elimination on fields of two and more axes: all sides at once, corners included.

Let B be the nodes of all sides with a condition and I the others. With the input changed on B to (T₂)

    z_B = 2 x_B − K_BB⁻¹ (K x)_B,    (K z)_B = K_BB x_B:    K T₂ x = K x − K_·B K_BB⁻¹ K_BI x_I,

no side sees the interior. One axis after the other would not do: the second axis' change depends on the interior and
reaches the sides of the first. On one axis this is not the paper's form, in which (K z)_B is s x_0 and k_NN x_N: inside
the two differ by 5 to 10 %.

A layer keeps r = 2m − 1 coefficients per axis, so K_BB on nodes is singular where there are more nodes. Its inverse is
that between the coefficients that sources on B can have and those that B can read, each of dimension

    ρ = Π d − Π (d − e),    d = min(r, n) and e = min(2, d) on an axis with sides, 0 on another.

Both spaces are products: with an orthonormal basis along every axis whose first vectors span the two ends, they are the
products with at least one such vector. In these bases the kernel is S, ρ × ρ, and no kernel on nodes is formed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

from boon._tensors.tables import cached_table
from boon.corrections.pivots import checked
from boon.spectral import Basis, along_axis, multiply, synthesise, to_coefficients, to_modes


def eliminate_all_sides(x: Tensor, weight: Tensor, bases: Sequence[Basis], axes: Sequence[int]) -> Tensor:
    """K T₂ x for features ``(batch, c, *space)``, the weights ``(*modes, c, c)``, and the axes with sides.

    S is the response of channel 0 to ones in all channels, as on one axis, and computed in float64.

    Raises:
        SingularKernelError: If rounding of x may change more than half of its digits, √ε ‖S‖ ‖S⁻¹‖/ρ ≥ 1 in Frobenius
            norms (1 for a multiple of an isometry). While weights are trained this is a warning, and where a graph is
            recorded the result is NaN.
    """
    sides = _sides(tuple(bases), tuple(axes))
    inverse = _inverse(_kernel_at_sides(weight, bases, sides), x.dtype)
    inside = _apply(_along_axes(sides.interior, x), weight, bases)
    seen = _along_axes([each.mT for each in sides.readings], inside.double())
    change = seen.flatten(2).index_select(2, sides.products) @ inverse.mT
    whole = torch.zeros_like(seen.flatten(2)).index_copy(2, sides.products, change).view(seen.shape)
    coefficients = _along_axes([basis.analysis for basis in bases], x) - _along_axes(sides.sources, whole).to(x.dtype)
    return synthesise(multiply(to_modes(coefficients, bases), weight), bases)


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """Coefficients of sources on the sides of a grid, and those that values on the sides are made of.

    Args:
        sources: For every axis an orthonormal basis ``(r, d)`` of the coefficients, those of its ends first.
        readings: The same for the values.
        interior: For every axis the analysis ``(r, n)`` of fields that are 0 on the sides.
        products: The ρ products that have a vector of the ends of an axis with sides, as flattened indices.
    """

    sources: tuple[Tensor, ...]
    readings: tuple[Tensor, ...]
    interior: tuple[Tensor, ...]
    products: Tensor


@cached_table
def _sides(bases: tuple[Basis, ...], axes: tuple[int, ...]) -> _Sides:
    return _Sides(
        sources=tuple(_ends_first(basis.analysis, basis) for basis in bases),
        readings=tuple(_ends_first(basis.synthesis.mT, basis) for basis in bases),
        interior=tuple(_interior(basis) if axis in axes else basis.analysis for axis, basis in enumerate(bases)),
        products=_side_products(bases, axes),
    )


def _ends_first(columns: Tensor, basis: Basis) -> Tensor:
    """An orthonormal basis ``(r, d)`` of the columns of all nodes, whose first e vectors span those of both ends."""
    first, last = basis.margin, columns.shape[1] - 1 - basis.margin
    others = [node for node in range(columns.shape[1]) if node not in (first, last)]
    return torch.linalg.qr(columns.detach().double()[:, [first, last, *others]]).Q


def _interior(basis: Basis) -> Tensor:
    """The analysis of an axis without its ends."""
    inside = torch.ones_like(basis.analysis)
    inside[:, [basis.margin, inside.shape[1] - 1 - basis.margin]] = 0.0
    return basis.analysis * inside


def _side_products(bases: Sequence[Basis], axes: Sequence[int]) -> Tensor:
    """The products, as indices of the flattened array, in which an axis with sides has a vector of its ends."""
    sizes = [min(basis.analysis.shape) for basis in bases]
    products = product(*map(range, sizes))
    chosen = [number for number, vectors in enumerate(products) if any(vectors[axis] < 2 for axis in axes)]
    return torch.tensor(chosen, device=bases[0].analysis.device)


def _kernel_at_sides(weight: Tensor, bases: Sequence[Basis], sides: _Sides) -> Tensor:
    """S ``(ρ, ρ)``, float64."""
    sizes = [each.shape[1] for each in sides.sources]
    units = torch.eye(prod(sizes), dtype=torch.float64, device=weight.device).index_select(0, sides.products)
    scalar = weight[..., 0].sum(dim=-1).to(torch.complex128)
    image = to_coefficients(to_modes(_along_axes(sides.sources, units.view(-1, 1, *sizes)), bases) * scalar, bases)
    return _along_axes([each.mT for each in sides.readings], image).flatten(1).index_select(1, sides.products).mT


def _inverse(schur: Tensor, dtype: torch.dtype) -> Tensor:
    """S⁻¹: fields have more channels and samples than S has rows, so that solving for them costs no less."""
    inverse, _ = torch.linalg.solve_ex(schur, torch.eye(len(schur), dtype=schur.dtype, device=schur.device))
    condition, limit = (schur.norm() * inverse.norm()).detach() / len(schur), torch.finfo(dtype).eps ** -0.5
    return checked(
        inverse,
        ~(condition < limit),
        lambda: (
            f"The kernel of this layer between its sides has the condition number {float(condition):.2g}, and "
            f"elimination in {dtype} inverts none of {limit:.2g} or more"
        ),
        "The kernel of a layer between its sides, which elimination inverts, is nearly singular",
    )


def _along_axes(matrices: Sequence[Tensor], x: Tensor) -> Tensor:
    for axis, matrix in enumerate(matrices):
        x = along_axis(matrix, x, 2 + axis)
    return x


def _apply(coefficients: Tensor, weight: Tensor, bases: Sequence[Basis]) -> Tensor:
    """Coefficients of K x from those of x."""
    return to_coefficients(multiply(to_modes(coefficients, bases), weight), bases)
