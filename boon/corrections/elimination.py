"""Elimination: kernels without coupling from the interior to the boundary (Saad et al. 2023), in the fast form.

Let B be the boundary nodes of one axis. The input of a kernel K is changed at them to

    y_B = 2 x_B − (K x)_B/s,

one end after the other, with the scalar s in place of K_BB: the response of channel 0 at a boundary node to ones in all
channels there. For one channel in one dimension (K y)_B = s x_B (T₂); then the output's boundary nodes are set so that
every channel keeps the boundary functional of the input (T₁): B(T₁ K T₂ x) = B x, which for Dirichlet is
(T₁ K T₂ x)_B = x_B.

All operations act on the kept modes. A change d of the input on a face adds d·phase to its modes, so no FFT is
repeated. Axes are treated in turn: T₂ is T₂⁽ᵈ⁾ … T₂⁽¹⁾.

``axes`` is the set of axes along which a tensor contains modes; along the others it contains the two end nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import pi, prod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from boon._tensors.tables import cached_table
from boon.conditions.discretisation import AxisCondition, has_free_side
from boon.conditions.functionals import Boundary, set_nodes
from boon.corrections.correction import Correction, PrescriptionStep, Step
from boon.errors import InvalidArgumentError, SingularKernelError
from boon.spectral import (
    Basis,
    Convolution,
    along_axis,
    analyse,
    fourier_axes,
    mirror,
    multiply,
    synthesise,
)
from solvers.recording import are_readable


@dataclass(frozen=True, kw_only=True)
class Elimination(Correction):
    """The paper's form, to compare with: T₁ K T₂ in every layer, prescription at the output.

    Args:
        block: False; files of version 0.2 name the form, of which the other one is gone.
        hidden: Whether to prescribe hidden features as well, so that boundary values enter the layers as in the paper.
    """

    block: bool = False
    hidden: bool = True
    acts_on_kernels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.block:
            raise InvalidArgumentError(
                "Elimination(block=True) is gone: 0.2 reads its files; Elimination() is another form."
            )

    def step(self, conditions: Sequence[AxisCondition], channels: int) -> Step:  # noqa: ARG002
        for axis, pair in enumerate(conditions):
            if has_free_side(pair):
                raise InvalidArgumentError(
                    f"Elimination acts on both ends of an axis, but axis {axis} has a condition on one side only or on "
                    "a part of a side; use MixedTransform(), SmoothExtension() or Prescription()."
                )
        return PrescriptionStep()

    def kernel(self, convolution: Convolution, v: Tensor, bases: Sequence[Basis], boundary: Boundary) -> Tensor:
        return eliminated(convolution, v, bases, boundary)


def eliminated(convolution: Convolution, v: Tensor, bases: Sequence[Basis], boundary: Boundary) -> Tensor:
    """T₁ K T₂ v: the kernel with eliminated ends, its boundary nodes set so that every channel keeps B v.

    Autocast leaves it in the dtype of the bases.
    """
    if torch.is_autocast_enabled(v.device.type):
        with torch.autocast(v.device.type, enabled=False):
            return eliminated(convolution, v.to(bases[0].analysis.dtype), bases, boundary)
    axes = list(boundary.by_axis())
    if not axes:
        return convolution(v, bases)
    ends = {axis: v.index_select(2 + axis, torch.tensor(end_nodes(bases[axis]), device=v.device)) for axis in axes}
    kept = tuple(side.read(v) for side in boundary.sides)
    return set_nodes(synthesise(eliminate(v, ends, convolution.weight, bases), bases), replace(boundary, data=kept))


def eliminate(
    x: Float[Tensor, "batch c *space"], ends: Mapping[int, Tensor], weight: Tensor, bases: Sequence[Basis]
) -> Tensor:
    """Modes ``(batch, o, *modes)`` of K T₂ x.

    Args:
        x: Features.
        ends: For every axis to eliminate, x at its first and last node: the axis has size 2.
        weight: Weights of the kernel ``(*modes, c, c)``.
        bases: One Fourier basis per axis.

    Raises:
        SingularKernelError: If s is too small to divide by.
    """
    weight = hermitian(weight, bases)
    modes, scalar = corner_modes(x, ends, bases), _pivot(weight, bases)
    pending = sorted(ends)
    for axis in sorted(ends):
        pending.remove(axis)
        for end, node in enumerate(end_nodes(bases[axis])):
            response = evaluate(multiply(modes[frozenset()], weight), bases, axis, range(len(bases)), [node])
            for corners in subsets(pending):
                axes = [other for other in range(len(bases)) if other not in corners]
                face = modes[corners | {axis}].narrow(2 + axis, end, 1)
                change = face - at_corners(response / scalar, bases, axis, corners)
                modes[corners] = modes[corners] + spread(change, bases, axis, axes, [node])
    return multiply(modes[frozenset()], weight)


def corner_modes(x: Tensor, ends: Mapping[int, Tensor], bases: Sequence[Basis]) -> dict[frozenset[int], Tensor]:
    """For every set of eliminated axes: x at the ends of these axes, in modes along all others.

    Values at ends have the weight of the end node in the modes along that axis (``Basis.end_weight``).
    """
    result = {}
    for corners in subsets(sorted(ends)):
        first, *others = sorted(corners) or (None,)
        nodes = x if first is None else ends[first]
        for axis in others:
            nodes = nodes.index_select(2 + axis, torch.tensor(end_nodes(bases[axis]), device=x.device))
        weight = prod([bases[axis].end_weight for axis in corners])
        free = [axis for axis in range(len(bases)) if axis not in corners]
        result[corners] = analyse(nodes if weight == 1.0 else weight * nodes, bases, free)
    return result


def evaluate(modes: Tensor, bases: Sequence[Basis], axis: int, axes: Sequence[int], nodes: Sequence[int]) -> Tensor:
    """Values at some nodes of ``axis`` from modes along it; nodes may lie outside the grid (modulo the period)."""
    *full, half = fourier_axes(bases, axes)
    basis, dim = bases[axis], 2 + axis
    if axis != half:
        return along_axis(_phases(basis, nodes, full=True, like=modes).mT / basis.period, modes, dim)
    phases = _phases(basis, nodes, full=False, like=modes).mT / basis.period
    phases[:, 0] *= 0.5
    part = along_axis(phases, modes, dim)
    if not full:
        return 2 * part.real
    total = part + mirror(part, [2 + other for other in full]).conj()
    return total.narrow(2 + full[-1], 0, bases[full[-1]].modes)


def spread(values: Tensor, bases: Sequence[Basis], axis: int, axes: Sequence[int], nodes: Sequence[int]) -> Tensor:
    """Modes along ``axis`` of a field that has these values at some nodes of it and is zero elsewhere."""
    *full, half = fourier_axes(bases, axes)
    if axis == half and full:
        values = _all_frequencies(values, bases, full)
    phases = _phases(bases[axis], nodes, full=axis != half, like=values).conj()
    return along_axis(phases, values.to(phases.dtype), 2 + axis)


def hermitian(weight: Tensor, bases: Sequence[Basis]) -> Tensor:
    """Weights with the same action on real fields and W(−k) = W(k)* where both are stored: (W(k) + W(−k)*)/2."""
    *full, half = fourier_axes(bases)
    if not full:
        return weight  # only frequency 0, of which only the real part is used
    zero, rest = weight.split([1, weight.shape[half] - 1], half)
    return torch.cat([0.5 * (zero + mirror(zero, full).conj()), rest], half)


def _pivot(weight: Tensor, bases: Sequence[Basis]) -> Tensor:
    """The response of output channel 0 at one node to ones in all channels at that node."""
    kernel = weight[None, None]
    remaining = list(range(len(bases)))
    for axis in range(len(bases)):
        kernel = evaluate(kernel, bases, axis, remaining, [0])
        remaining.remove(axis)
    entries = kernel.flatten(0, -2)[:, 0]
    pivot = entries.sum()
    if are_readable(pivot) and bool(pivot.abs() <= 1e-6 * entries.abs().sum()):
        raise SingularKernelError(
            f"The scalar s = {float(pivot.detach()):.3g} of this layer is too small to eliminate with; use another "
            "correction."
        )
    return pivot


def at_corners(inner: Tensor, bases: Sequence[Basis], axis: int, corners: frozenset[int]) -> Tensor:
    """A field on the faces of an axis, in modes along all others, at the ends of the axes in ``corners``."""
    axes = [other for other in range(len(bases)) if other != axis]
    for corner in sorted(corners):
        inner = evaluate(inner, bases, corner, axes, end_nodes(bases[corner]))
        axes.remove(corner)
    return inner


def _all_frequencies(values: Tensor, bases: Sequence[Basis], axes: Sequence[int]) -> Tensor:
    """Adds the negative frequencies on the last of the axes: the field is real."""
    *full, half = axes
    positive = values.narrow(2 + half, 1, bases[half].modes - 1)
    return torch.cat([values, mirror(positive, [2 + other for other in full]).conj()], 2 + half)


def _phases(basis: Basis, nodes: Sequence[int], *, full: bool, like: Tensor) -> Tensor:
    """exp(2πi k p/N): ``(frequencies, nodes)``, complex, in the dtype of ``like``."""
    dtype = torch.promote_types(like.dtype, torch.complex32)
    return _phase_table(basis.modes, basis.period, tuple(nodes), full, dtype, like.device)


@cached_table
def _phase_table(
    modes: int, period: float, nodes: tuple[int, ...], full: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    frequencies = list(range(modes)) + ([-k for k in range(1, modes)] if full else [])
    turns = torch.tensor([[k * node % period for node in nodes] for k in frequencies], dtype=torch.float64)
    phases = torch.polar(torch.ones_like(turns), 2 * pi / period * turns)
    return phases.to(device=device, dtype=dtype)


def end_nodes(basis: Basis) -> tuple[int, int]:
    return basis.margin, basis.analysis.shape[-1] - 1 - basis.margin


def subsets(axes: Sequence[int]) -> list[frozenset[int]]:
    return [frozenset(chosen) for size in range(len(axes) + 1) for chosen in combinations(axes, size)]
