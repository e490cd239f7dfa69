"""Matched transforms: sines and cosines that suit the condition at each end, instead of the periodic transform.

A kernel acts on the field extended beyond the ends, oddly at a Dirichlet end and evenly at a Neumann or Robin end,
which makes it periodic without a jump; of the result the part with the same symmetry is kept. In modes this is an
expansion in sin or cos and a kernel that is the same for k and −k:

    odd–odd sin π(k+1)x,  even–even cos πkx,  odd–even sin π(k+½)x,  even–odd cos π(k+½)x,   k = 0 … m − 1.

So kernels leave homogeneous conditions intact; prescription at the output meets the given values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor

from boon.conditions import AxisCondition
from boon.correction import Boundary
from boon.errors import TooManyModesError
from boon.family import Correction, PrescriptionStep, Step
from boon.fno import FNOConfig, fourier_bases
from boon.spectral import Basis, Convolution, convolve, fourier_axes, mirror
from solvers import Dirichlet, Periodic


@dataclass(frozen=True, kw_only=True)
class MatchedTransform(Correction):
    """Sine and cosine transforms matched to the conditions in every layer, prescription at the output.

    Args:
        hidden: Prescribes the hidden features too. Sines vanish at Dirichlet ends, so the hidden value there reaches
            no other node; the data of Neumann and Robin ends do.
    """

    hidden: bool = False
    acts_on_kernels: ClassVar[bool] = True

    def step(self, conditions: Sequence[AxisCondition], channels: int) -> Step:  # noqa: ARG002
        return PrescriptionStep()

    def bases(
        self, conditions: Sequence[AxisCondition], config: FNOConfig, shape: Sequence[int], like: Tensor
    ) -> tuple[Basis, ...]:
        bases = list(fourier_bases(config, shape, like))
        for axis, pair in enumerate(conditions):
            if pair is not None and not isinstance(pair[0], Periodic):
                odd = (isinstance(pair[0], Dirichlet), isinstance(pair[1], Dirichlet))
                bases[axis] = matched_basis(shape[axis], config.modes[axis], odd, like)
        return tuple(bases)

    def kernel(
        self,
        convolution: Convolution,
        v: Tensor,
        bases: Sequence[Basis],
        boundary: Boundary,  # noqa: ARG002
    ) -> Tensor:
        return convolve(v, symmetric_weight(convolution.weight, bases), bases)


def matched_basis(count: int, modes: int, odd: tuple[bool, bool], like: Tensor) -> Basis:
    """Sines or cosines on n nodes, orthogonal under the trapezoid rule.

    Args:
        count: Number n of nodes, both ends included.
        modes: Number m of functions.
        odd: Whether the functions vanish at the first and at the last end; else their derivative does.
        like: Gives dtype and device.

    Raises:
        TooManyModesError: If the grid cannot tell the highest function from a lower one.
    """
    intervals = count - 1
    shift = 0.5 if odd[0] != odd[1] else float(odd[0])
    if modes - 1 + shift >= intervals:
        raise TooManyModesError(
            f"modes={modes} sines or cosines need more than {modes - 1 + shift:g} intervals between nodes, got "
            f"{intervals}; keep fewer modes or use a finer grid."
        )
    nodes = torch.arange(count, dtype=torch.float64)
    angle = (pi / intervals) * (torch.arange(modes, dtype=torch.float64)[:, None] + shift) * nodes
    rows = angle.sin() if odd[0] else angle.cos()
    for end, vanishes in zip((0, -1), odd, strict=True):
        rows[:, end] *= 0.0 if vanishes else 1.0
    scale = torch.full((modes, 1), 2.0 / intervals, dtype=torch.float64)
    if shift == 0.0:
        scale[0] *= 0.5
    synthesis = (scale * rows).mT.contiguous()
    rows[:, [0, -1]] *= 0.5
    return Basis(analysis=rows.to(like), synthesis=synthesis.to(like), modes=modes, period=2 * intervals, fourier=False)


def symmetric_weight(weight: Tensor, bases: Sequence[Basis]) -> Tensor:
    """The average of W(k) over the signs of k along the axes without Fourier basis, for k ≥ 0 there.

    Args:
        weight: Weights ``(*modes, c, o)`` of a spectral convolution.
        bases: One basis per axis.

    Returns:
        Weights for the modes that ``analyse`` gives on these bases; real if no axis is a Fourier axis.
    """
    last = len(bases) - 1
    if not bases[last].fourier:
        weight = 0.5 * (weight + mirror(weight, range(last)).conj())
    for axis in range(last):
        if not bases[axis].fourier:
            size = bases[axis].modes - 1
            zero, positive, negative = weight.split([1, size, size], axis)
            weight = torch.cat([zero, 0.5 * (positive + negative)], axis)
    fourier = fourier_axes(bases)
    if not fourier:
        return weight.real
    half = fourier[-1]
    return weight if half == last else weight.narrow(half, 0, bases[half].modes)
