"""Sines and cosines that match the condition at each end, instead of a periodic series.

A kernel acts on the field extended beyond the ends, oddly at a Dirichlet end and evenly at a Neumann or Robin end,
so that it is periodic without a jump; the part of the result with the same symmetry is kept. In modes this is an
expansion in sin or cos and a real matrix for every function:

    odd–odd sin π(j+1)x,  even–even cos πjx,  odd–even sin π(j+½)x,  even–odd cos π(j+½)x,   j = 0 … 2m − 2,

as many functions as a Fourier series with frequencies below m has, less those that reach beyond its highest frequency.
A periodic axis keeps its Fourier series, without padding.

Kernels therefore preserve homogeneous conditions, and the solution operator of a linear equation with constant
coefficients is diagonal in these functions.
"""

from collections.abc import Sequence
from math import floor, pi

import torch
from torch import Tensor

from boon._tensors.tables import cached_table
from boon.conditions.sides import AxisSides
from boon.domain import intervals
from boon.errors import TooManyModesError
from boon.fno import FNOConfig, fourier_bases
from boon.spectral import Basis, fourier_axes, fourier_basis, mirror


def matched_bases(
    conditions: Sequence[AxisSides], config: FNOConfig, shape: Sequence[int], like: Tensor
) -> tuple[Basis, ...]:
    """Sines or cosines on axes with two sides, Fourier series of the length of the axis on periodic ones, those of the
    operator on axes that are free or have a free side. Sines and cosines reach the highest frequency of the Fourier
    series on the padded axis, (m − 1)/(1 + padding) waves over the axis.

    Args:
        conditions: The conditions of every axis.
        config: Of the operator.
        shape: Nodes of every axis.
        like: Tensor of the dtype and device.

    Raises:
        TooManyModesError: If an axis has too few nodes.
    """
    bases = list(fourier_bases(config, shape, like))
    for axis, sides in enumerate(conditions):
        if sides.is_free or sides.has_free_side:
            continue
        if sides.periodic:
            bases[axis] = fourier_basis(
                shape[axis], config.modes[axis], periodic=True, like=like, transform=config.transform
            )
            continue
        odd = (sides.first.is_value, sides.last.is_value)
        count = min(2 * config.modes[axis] - 1, _below(config.modes[axis], config.paddings[axis], odd))
        bases[axis] = matched_basis(shape[axis], count, odd, like, config.transform.cells)
    return tuple(bases)


def _below(modes: int, padding: float, odd: tuple[bool, bool]) -> int:
    """How many functions, of j + shift half waves, have no higher frequency than the Fourier series; at least one."""
    return max(1, floor(2 * (modes - 1) / (1 + padding) - _shift(odd)) + 1)


def _shift(odd: tuple[bool, bool]) -> float:
    """Half waves of the first function."""
    return 0.5 if odd[0] != odd[1] else float(odd[0])


def matched_basis(count: int, modes: int, odd: tuple[bool, bool], like: Tensor, cells: bool = False) -> Basis:
    """Sines or cosines on n nodes, orthogonal under the trapezoid rule, or on the centres of n cells.

    Args:
        count: Number n of nodes, both ends included, or of cells.
        modes: Number m of functions.
        odd: Whether the functions vanish at the first and at the last end; else their derivative does.
        like: Tensor of the dtype and device.
        cells: Whether fields are averages over cells.

    Raises:
        TooManyModesError: If the highest function is aliased to a lower one on the grid.
    """
    steps, shift = intervals(count, cells), _shift(odd)
    if modes - 1 + shift >= steps:
        raise TooManyModesError(
            f"{modes} sines or cosines need more than {modes - 1 + shift:g} intervals between nodes, got {steps}; "
            "keep fewer modes or use a finer grid."
        )
    return _matched_matrices(count, modes, odd, cells, like.dtype, like.device)


@cached_table
def _matched_matrices(
    count: int, modes: int, odd: tuple[bool, bool], cells: bool, dtype: torch.dtype, device: torch.device
) -> Basis:
    steps, shift = intervals(count, cells), _shift(odd)
    nodes = torch.arange(count, dtype=torch.float64) + 0.5 * cells
    angle = (pi / steps) * (torch.arange(modes, dtype=torch.float64)[:, None] + shift) * nodes
    rows = angle.sin() if odd[0] else angle.cos()
    scale = torch.full((modes, 1), 2.0 / steps, dtype=torch.float64)
    if shift == 0.0:
        scale[0] *= 0.5
    if not cells:
        rows[:, [0, -1]] *= torch.tensor([not odd[0], not odd[1]])
    synthesis = (scale * rows).mT.contiguous()
    if not cells:
        rows[:, [0, -1]] *= 0.5
    analysis, synthesis = rows.to(device, dtype), synthesis.to(device, dtype)
    return Basis(analysis=analysis, synthesis=synthesis, modes=modes, period=2 * steps, fourier=False)


def matched_weight(weight: Tensor, bases: Sequence[Basis]) -> Tensor:
    """The weights of a spectral convolution for bases that are not all Fourier series.

    Frequencies 0 … m − 1, −1 … −(m − 1) of an axis become the numbers 0 … 2m − 2 of its functions. The last axis has
    frequencies 0 … m − 1 with complex weights only, W = V₁ + i V₂, where V₁ and V₂ are the weights of real kernels
    (real numbers if no axis is a Fourier axis): V₁ belongs to its functions 0 … m − 1, V₂ without frequency 0 to the
    others. Functions that a basis leaves out have no part in the result.

    Args:
        weight: Weights ``(*modes, c, o)`` of a spectral convolution.
        bases: One basis per axis.

    Returns:
        Weights for the modes of ``analyse`` on these bases.
    """
    last = len(bases) - 1
    fourier = fourier_axes(bases)
    if not bases[last].fourier:
        if fourier:
            mirrored = mirror(weight, fourier).conj()
            first, second = 0.5 * (weight + mirrored), -0.5j * (weight - mirrored)
        else:
            first, second = torch.view_as_real(weight).unbind(-1)
        weight = torch.cat([first, second.narrow(last, 1, weight.shape[last] - 1)], last)
    for axis, basis in enumerate(bases):
        if not basis.fourier or axis == fourier[-1]:
            weight = weight.narrow(axis, 0, basis.modes)
    return weight
