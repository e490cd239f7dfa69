"""Scalar elimination of files of version 0.2: the form of the authors' code, with the Schur term between the ends.

Four numbers stand for the kernel between the ends 0 and N of an axis: k_ab is the response of channel 0 at end a to
ones in all channels at end b, on the whole face where there are other axes. With s = k_00 − k_0N k_N0 / k_NN

    y_0 = 2 x_0 − ((K x)_0 − (k_0N/k_NN) (K x)_N + k_0N x_N)/s,      then      z_N = 2 y_N − (K y)_N / k_NN,

for every channel, and the layer is K z. With one channel, (K z)_0 no longer depends on the interior but for round-off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from boon.conditions.discretisation import AxisCondition, periodic_axes
from boon.conditions.functionals import Boundary
from boon.corrections.correction import Correction, Step
from boon.corrections.elimination import (
    at_corners,
    boundary_kernel,
    corner_modes,
    eliminated,
    end_nodes,
    evaluate,
    hermitian,
    prescription_at_both_ends,
    spread,
    subsets,
)
from boon.errors import SingularKernelError
from boon.fno import FNOConfig, fourier_bases
from boon.spectral import Basis, Convolution, fourier_basis, multiply
from solvers.recording import are_readable

_SMALLEST = 1e-7


@dataclass(frozen=True, kw_only=True)
class ScalarElimination(Correction):
    """The paper's form as its authors wrote it: scalars with a Schur term in every layer, prescription at the output.

    Kept for files of version 0.2; ``Elimination`` omits the term and is what results are compared with.

    Axes with periodic conditions have a Fourier series with the period of the axis, without padding.

    Args:
        hidden: Whether to prescribe hidden features as well, so that boundary values enter the layers as in the paper.
    """

    hidden: bool = True
    acts_on_kernels: ClassVar[bool] = True

    def step(self, conditions: Sequence[AxisCondition], channels: int) -> Step:  # noqa: ARG002
        return prescription_at_both_ends(conditions)

    def bases(
        self, conditions: Sequence[AxisCondition], config: FNOConfig, shape: Sequence[int], like: Tensor
    ) -> tuple[Basis, ...]:
        bases = list(fourier_bases(config, shape, like))
        for axis in periodic_axes(conditions):
            bases[axis] = fourier_basis(shape[axis], config.modes[axis], periodic=True, like=like)
        return tuple(bases)

    def kernel(self, convolution: Convolution, v: Tensor, bases: Sequence[Basis], boundary: Boundary) -> Tensor:
        return eliminated(convolution, v, bases, boundary, eliminate_by_scalars)


def eliminate_by_scalars(x: Tensor, ends: Mapping[int, Tensor], weight: Tensor, bases: Sequence[Basis]) -> Tensor:
    """Modes ``(batch, o, *modes)`` of K T₂ x; arguments as in ``elimination.eliminate``.

    Raises:
        SingularKernelError: If k_NN or s is too small to divide by.
    """
    weight = hermitian(weight, bases)
    modes = corner_modes(x, ends, bases)
    pending = sorted(ends)
    for axis in sorted(ends):
        pending.remove(axis)
        first, last = end_nodes(bases[axis])
        k = end_scalars(weight, bases, axis)
        schur = k[0, 0] - k[0, 1] * k[1, 0] / k[1, 1]
        _check(torch.stack([k[1, 1], schur]), axis)
        for step, node in enumerate((first, last)):
            response = evaluate(multiply(modes[frozenset()], weight), bases, axis, range(len(bases)), [first, last])
            for corners in subsets(pending):
                ends_of_x = modes[corners | {axis}].split(1, 2 + axis)
                ends_of_k = at_corners(response, bases, axis, corners).split(1, 2 + axis)
                if step == 0:
                    inner = (ends_of_k[0] - (k[0, 1] / k[1, 1]) * ends_of_k[1] + k[0, 1] * ends_of_x[1]) / schur
                else:
                    inner = ends_of_k[1] / k[1, 1]
                axes = [other for other in range(len(bases)) if other not in corners]
                modes[corners] = modes[corners] + spread(ends_of_x[step] - inner, bases, axis, axes, [node])
    return multiply(modes[frozenset()], weight)


def end_scalars(weight: Tensor, bases: Sequence[Basis], axis: int) -> Tensor:
    """The numbers k_ab ``(2, 2)`` between the ends of an axis, from Hermitian weights ``(*modes, c, o)``."""
    kernel = boundary_kernel(weight, bases, axis, end_nodes(bases[axis]))
    constant = kernel[(0,) * (kernel.ndim - 2)]
    constant = constant.real if constant.is_complex() else constant
    return constant.unflatten(0, (2, -1)).unflatten(-1, (2, -1))[:, 0].sum(-1)


def _check(divisors: Tensor, axis: int) -> None:
    if are_readable(divisors) and bool((divisors.abs() < _SMALLEST).any()):
        raise SingularKernelError(
            f"The scalars k_NN and s = {divisors.detach().tolist()} of the ends of axis {axis} are too small to divide "
            "by; keep at least two modes, pad the axis, or use Elimination()."
        )
