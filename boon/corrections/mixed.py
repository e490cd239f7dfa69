"""Mixed kernels: a part of the channels of every layer is convolved on Fourier series, the rest on matched functions.

Sines and cosines that match the conditions (``matched``) suit the solution of a linear equation with constant
coefficients. They cannot shift a field, and their kernels are zero at a Dirichlet end, where features such as a
coefficient of the equation are not. Fourier series on the padded domain can do both. With each for a part of the
channels, the pointwise parts of the layers combine them, and training decides.

Matched functions reach the highest frequency of the Fourier series on its padded period, (m − 1)/(1 + padding) waves
over the axis, and no higher: beyond it they would be the first to come near the limit of a coarse grid, where sums are
poor integrals, and a trained operator would give another answer on a finer grid.

Features inside the layers are left as they are: boundary data are input channels (``boundary_channels``). At the output
smooth extension enforces the conditions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from boon.conditions.functionals import Boundary
from boon.conditions.sides import AxisSides
from boon.corrections.correction import Correction, Step
from boon.corrections.extension import SmoothExtension, check_length
from boon.corrections.matched import matched_bases, matched_weight
from boon.errors import InvalidArgumentError
from boon.fno import LATER, FNOConfig, fourier_bases
from boon.spectral import Basis, Convolution, along_axis, convolve, multiply, synthesise, to_modes


@dataclass(frozen=True, kw_only=True)
class MixedTransform(Correction):
    """Fourier series for a part of the channels, sines and cosines matched to the conditions for the rest.

    Wrap an operator before training: on matched functions the weights define other kernels than on Fourier modes. Give
    boundary data that do not follow from the input as input channels, see ``boundary_channels``.

    Args:
        share: Part of the channels on Fourier series, between 0 and 1. Without influence along axes with conditions on
            one side only, or on parts of sides.
        length: Initial ℓ of the smooth extension of the output, as a fraction of the length of the axis. Where nodes
            are farther apart than about 5 ℓ, the extension sets the boundary nodes alone, and ℓ does not learn.
        floor: Smallest ℓ in units of the distance between nodes, see ``SmoothExtension``.

    Raises:
        InvalidArgumentError: If the length is not a positive number, the share not between 0 and 1, or the floor
            negative.
    """

    share: float = 0.5
    length: float = 0.01
    floor: float = field(default=0.0, metadata=LATER)
    hidden: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleVariableOverride]
    acts_on_kernels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_length("MixedTransform", self.length, self.floor)
        if not 0 <= self.share <= 1:
            raise InvalidArgumentError(f"share of MixedTransform must be between 0 and 1, got {self.share}.")
        object.__setattr__(self, "share", float(self.share))

    def step(self, conditions: Sequence[AxisSides], channels: int) -> Step:
        return SmoothExtension(length=self.length, floor=self.floor).step(conditions, channels)

    def bases(
        self, conditions: Sequence[AxisSides], config: FNOConfig, shape: Sequence[int], like: Tensor
    ) -> tuple[Basis, ...]:
        matched = matched_bases(conditions, config, shape, like)
        pairs = zip(fourier_bases(config, shape, like), matched, strict=True)
        return tuple(MixedBasis(**vars(fourier), matched=functions) for fourier, functions in pairs)

    def kernel(
        self,
        convolution: Convolution,
        v: Tensor,
        bases: Sequence[Basis],
        boundary: Boundary,  # noqa: ARG002
    ) -> Tensor:
        matched = tuple(basis.matched for basis in bases if isinstance(basis, MixedBasis))
        width = convolution.weight.shape[-1]
        first, rest = convolution.weight.split([count := round(self.share * width), width - count], -1)
        if count == width:
            return convolve(v, first, bases)
        if count == 0:
            return convolve(v, matched_weight(rest, matched), matched)
        return _convolve_both(v, (first, matched_weight(rest, matched)), (bases, matched))


def _convolve_both(v: Tensor, weights: Sequence[Tensor], bases: Sequence[Sequence[Basis]]) -> Tensor:
    """``convolve`` on either of two sets of bases, one after the other in the channels; v is read once for both."""
    if torch.is_autocast_enabled(v.device.type):
        with torch.autocast(v.device.type, enabled=False):
            return _convolve_both(v.to(bases[0][0].analysis.dtype), weights, bases)
    functions = [each[0].analysis for each in bases]
    lines = along_axis(torch.cat(functions), v, 2).split([len(rows) for rows in functions], 2)
    parts = zip(lines, weights, bases, strict=True)
    return torch.cat([synthesise(multiply(_modes(x, each), weight), each) for x, weight, each in parts], dim=1)


def _modes(lines: Tensor, bases: Sequence[Basis]) -> Tensor:
    """The rest of ``analyse`` after the first axis."""
    for axis, basis in enumerate(bases[1:], start=1):
        lines = along_axis(basis.analysis, lines, 2 + axis)
    return to_modes(lines, bases)


@dataclass(frozen=True, kw_only=True)
class MixedBasis(Basis):
    """The Fourier series of an axis, and its matched functions."""

    matched: Basis
