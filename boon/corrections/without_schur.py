"""Elimination without the Schur term between the ends: the form in which versions 0.1 to 0.3 trained operators.

The input of a kernel K is changed at the boundary nodes B of one axis to

    y_B = 2 x_B − (K x)_B/s,

one end after the other and one axis after the other, with s the response of channel 0 at a boundary node to ones in all
channels there. With one channel on one axis (K y)_N = s x_N, but (K y)_0 still depends on the interior.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from boon.conditions.functionals import Boundary
from boon.conditions.sides import AxisSides
from boon.corrections.correction import Correction, PrescriptionStep, Step
from boon.corrections.elimination import check_both_sides, corrected, end_nodes
from boon.errors import SingularKernelError
from boon.spectral import Basis, Convolution, along_axis, multiply, synthesise, to_coefficients, to_modes
from solvers.recording import are_readable


@dataclass(frozen=True, kw_only=True)
class EliminationWithoutSchur(Correction):
    """``Elimination()`` of version 0.3: what its files hold.

    Args:
        hidden: Whether to prescribe hidden features as well.
    """

    hidden: bool = True
    acts_on_kernels: ClassVar[bool] = True
    needs_nodes: ClassVar[bool] = True

    def step(self, conditions: Sequence[AxisSides], channels: int) -> Step:  # noqa: ARG002
        check_both_sides(conditions)
        return PrescriptionStep()

    def kernel(self, convolution: Convolution, v: Tensor, bases: Sequence[Basis], boundary: Boundary) -> Tensor:
        return corrected(convolution, v, bases, boundary, eliminate)


def eliminate(x: Tensor, weight: Tensor, bases: Sequence[Basis], axes: Sequence[int]) -> Tensor:
    """K T₂ x for features ``(batch, c, *space)``, as in ``elimination.corrected``.

    Along the other axes a face is changed by its coefficients, in the padding too. ``faces`` has, for every set of axes
    that are still to come, y at their ends times the end weights, in coefficients along the others.

    Raises:
        SingularKernelError: If s is too small to divide by.
    """
    pivot, pending = _pivot(weight, bases), list(axes)
    faces = {corners: _coefficients_at(x, bases, corners) for corners in _subsets(pending)}
    for axis in axes:
        pending.remove(axis)
        for end, node in enumerate(end_nodes(bases[axis])):
            unit = bases[axis].analysis[:, [node]] / bases[axis].end_weight
            image = to_coefficients(multiply(to_modes(faces[frozenset()], bases), weight), bases)
            response = along_axis(bases[axis].synthesis[[node]], image, 2 + axis) / pivot
            for corners in _subsets(pending):
                at_corners = response
                for other in corners:
                    at_corners = along_axis(bases[other].synthesis[end_nodes(bases[other])], at_corners, 2 + other)
                change = faces[corners | {axis}].narrow(2 + axis, end, 1) - at_corners
                faces[corners] = faces[corners] + along_axis(unit, change, 2 + axis)
    return synthesise(multiply(to_modes(faces[frozenset()], bases), weight), bases)


def _coefficients_at(x: Tensor, bases: Sequence[Basis], corners: frozenset[int]) -> Tensor:
    """Weighted values at the ends of some axes, in coefficients along the others."""
    for axis, basis in enumerate(bases):
        nodes = end_nodes(basis)
        weighted = basis.end_weight * torch.eye(basis.analysis.shape[-1], dtype=x.dtype, device=x.device)[nodes]
        x = along_axis(weighted if axis in corners else basis.analysis, x, 2 + axis)
    return x


def _subsets(axes: Sequence[int]) -> list[frozenset[int]]:
    return [frozenset(chosen) for size in range(len(axes) + 1) for chosen in combinations(axes, size)]


def _pivot(weight: Tensor, bases: Sequence[Basis]) -> Tensor:
    """s: the response of output channel 0 at a node to ones in all channels there; it is real, as the field is."""
    columns = weight.real[..., 0]
    zero, channels = columns.select(-2, 0), columns.shape[-1]
    entries = 2 * columns.reshape(-1, channels).sum(0) - zero.reshape(-1, channels).sum(0)
    pivot = entries.sum() / prod([basis.period for basis in bases])
    if are_readable(pivot) and bool(entries.sum().abs() <= 1e-6 * entries.abs().sum()):
        raise SingularKernelError(
            f"The scalar s = {float(pivot.detach()):.3g} of this layer is too small to eliminate with; use another "
            "correction."
        )
    return pivot
