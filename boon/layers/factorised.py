"""Spectral convolutions whose weights are a sum of products (canonical polyadic decomposition)."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon.errors import InvalidArgumentError
from boon.spectral import Basis, convolve, in_real_pairs


class FactorisedConvolution(nn.Module):
    """y = K x as in ``SpectralConvolution``, with weights of rank R (Hitchcock 1927):

        W[k₁ … k_d, c, o] = Σ_r F¹[k₁, r] ⋯ Fᵈ[k_d, r] · C[c, r] · O[o, r],

    R (Σ 2m + 2·width) numbers instead of Π 2m · width². The factors are complex64, complex128 after ``.double()``. All
    start with positive real parts, the last modes with imaginary parts as well, so that weights start as those of
    ``SpectralConvolution`` in size and sign.

    Args:
        in_channels: Channels c of x.
        out_channels: Channels o of y.
        modes: Number m of frequencies 0 … m − 1 kept along every axis.
        rank: R.

    Raises:
        InvalidArgumentError: If the rank or a number of modes is below 1.
    """

    def __init__(self, in_channels: int, out_channels: int, modes: Sequence[int], rank: int) -> None:
        super().__init__()
        if not modes or min(*modes, rank) < 1:
            raise InvalidArgumentError(
                f"A factorised convolution needs modes and a rank of at least 1, got {tuple(modes)} and {rank}."
            )
        sizes = (*(2 * m - 1 for m in modes[:-1]), modes[-1], in_channels, out_channels)
        last = len(modes) - 1
        factors = [
            torch.complex(part, torch.rand_like(part) if axis == last else 0 * part)
            for axis, part in enumerate(torch.rand(size, rank) for size in sizes)
        ]
        self.factors = nn.ParameterList(factors)
        with torch.no_grad():
            self.factors[last] *= self.limits[last][1]

    @property
    def limits(self) -> list[tuple[Tensor, float]]:
        """As in ``SpectralConvolution``, for every factor."""
        factors = list(self.factors)
        (inputs, rank), outputs = factors[-2].shape, len(factors[-1])
        largest = [1.0] * len(factors)
        largest[-3] = 2 ** (len(factors) - 1) / (rank * inputs * outputs)
        return list(zip(factors, largest, strict=True))

    @property
    def weight(self) -> Tensor:
        """W ``(*modes, c, o)``."""
        product, *others = self.factors
        for factor in others:
            product = product[..., None, :] * factor
        return product.sum(-1)

    def forward(
        self, x: Float[Tensor, "batch channels *space"], bases: Sequence[Basis]
    ) -> Float[Tensor, "batch out *space"]:
        """Applies the convolution on Fourier bases, one per axis."""
        return convolve(x, self.weight, bases)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """As in ``SpectralConvolution``."""
        return super()._apply(in_real_pairs(fn), recurse)
