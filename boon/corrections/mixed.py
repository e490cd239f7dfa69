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
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from boon.conditions.discretisation import AxisCondition
from boon.conditions.functionals import Boundary
from boon.corrections.correction import Correction, Step
from boon.corrections.extension import SmoothExtension, check_length
from boon.corrections.matched import matched_bases, matched_weight
from boon.errors import InvalidArgumentError
from boon.fno import FNOConfig, fourier_bases
from boon.spectral import Basis, Convolution, convolve


@dataclass(frozen=True, kw_only=True)
class MixedTransform(Correction):
    """Fourier series for a part of the channels, sines and cosines matched to the conditions for the rest.

    Wrap an operator before training: on matched functions the weights define other kernels than on Fourier modes. Give
    boundary data that do not follow from the input as input channels, see ``boundary_channels``.

    Args:
        share: Part of the channels on Fourier series, between 0 and 1.
        length: Initial ℓ of the smooth extension of the output, as a fraction of the length of the axis.

    Raises:
        InvalidArgumentError: If the length is not a positive number or the share not between 0 and 1.
    """

    share: float = 0.5
    length: float = 0.01
    hidden: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleVariableOverride]
    acts_on_kernels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_length("MixedTransform", self.length)
        if not 0 <= self.share <= 1:
            raise InvalidArgumentError(f"share of MixedTransform must be between 0 and 1, got {self.share}.")

    def step(self, conditions: Sequence[AxisCondition], channels: int) -> Step:
        return SmoothExtension(length=self.length).step(conditions, channels)

    def bases(
        self, conditions: Sequence[AxisCondition], config: FNOConfig, shape: Sequence[int], like: Tensor
    ) -> tuple[Basis, ...]:
        matched = matched_bases(conditions, config, shape, like, padded=True)
        pairs = zip(fourier_bases(config, shape, like), matched, strict=True)
        return tuple(_MixedBasis(**vars(fourier), matched=functions) for fourier, functions in pairs)

    def kernel(
        self,
        convolution: Convolution,
        v: Tensor,
        bases: Sequence[Basis],
        boundary: Boundary,  # noqa: ARG002
    ) -> Tensor:
        matched = tuple(basis.matched for basis in bases if isinstance(basis, _MixedBasis))
        width = convolution.weight.shape[-1]
        first, rest = convolution.weight.split([count := round(self.share * width), width - count], -1)
        parts = [(first, bases)] if count else []
        parts += [(matched_weight(rest, matched), matched)] if count < width else []
        return torch.cat([convolve(v, weight, functions) for weight, functions in parts], dim=1)


@dataclass(frozen=True, kw_only=True)
class _MixedBasis(Basis):
    """The Fourier series of an axis, and its matched functions."""

    matched: Basis
