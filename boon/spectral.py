"""Spectral convolutions in any number of axes as products with small matrices.

A field x on n nodes of an axis is zero beyond them up to a period N (the padding; ``boon.transforms``). Only
frequencies |k| < m are kept, and m is much smaller than n, so the truncated transform is a matrix product with cosines
and sines: three to nine times faster than a full FFT of which most of the output is discarded, and without a padded
copy of the field. With a whole number of nodes as period it equals ``rfftn`` of the weighted, zero-padded field,
truncated (tested). The matrices are kept for every number of nodes, dtype and device.

With several axes the kept modes form an array ``(2m₁ − 1, …, m_d)``: all frequencies on every axis but the last, in
the order 0, 1 … m − 1, −1 … −(m − 1), and 0 … m − 1 on the last one, since the field is real.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, pi, prod
from typing import Any, Protocol

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from boon._tensors.tables import cached_table
from boon.domain import intervals
from boon.errors import InvalidArgumentError, TooManyModesError
from boon.transforms import DomainFourier, FourierTransform
from solvers.recording import is_transformed

_DOMAIN = DomainFourier()


@dataclass(frozen=True, kw_only=True)
class Basis:
    """The r basis functions along one axis with n nodes.

    Args:
        analysis: ``(r, n)``, coefficient_r = Σ_j analysis_rj x_j.
        synthesis: ``(n, r)``, y_i = Σ_r synthesis_ir coefficient_r.
        modes: Number m of frequencies; r = 2m − 1 for Fourier, m for sines or cosines.
        period: Period N of a Fourier series in units of the distance between nodes.
        fourier: Whether the functions are 1, cos θ … cos (m−1)θ, sin θ … sin (m−1)θ.
        margin: Number of the n nodes beyond each end of the domain (for arrays that include padding).
        end_weight: Weight of the two end nodes in ``analysis``.
    """

    analysis: Float[Tensor, "r n"]
    synthesis: Float[Tensor, "n r"]
    modes: int
    period: float
    fourier: bool
    margin: int = 0
    end_weight: float = 1.0


def fourier_basis(
    count: int,
    modes: int,
    padding: float = 0.0,
    *,
    periodic: bool = False,
    like: Tensor,
    transform: FourierTransform = _DOMAIN,
) -> Basis:
    """Cosines and sines along one axis.

    Args:
        count: Number n of nodes, both ends included, or of cells.
        modes: Frequencies 0 … modes − 1 are kept.
        padding: Length by which the axis is extended, as a fraction of its length.
        periodic: Whether the last node equals the first: the period is n − 1 nodes and each end has weight ½. In cells
            the period is n.
        like: Tensor of the dtype and device.
        transform: Period and weights of an axis that is not periodic.

    Raises:
        TooManyModesError: If the highest frequency is aliased to its negative.
    """
    period = intervals(count, transform.cells) if periodic else transform.period(count, padding)
    ends = (0.5,) if periodic and not transform.cells else transform.end_weights(count)
    if 2 * (modes - 1) >= period:
        raise TooManyModesError(
            f"modes={modes} needs an axis whose period has more than {2 * modes - 2} intervals between nodes, got "
            f"{period:g} ({count} nodes, padding included); keep at most {ceil(period / 2)} modes or use a finer grid."
        )
    return _fourier_matrices(count, modes, float(period), ends, like.dtype, like.device)


@cached_table
def _fourier_matrices(
    count: int, modes: int, period: float, ends: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Basis:
    frequencies, nodes = torch.arange(modes, dtype=torch.float64), torch.arange(count, dtype=torch.float64)
    angle = (2 * pi / period) * (frequencies[:, None] * nodes).remainder(period)
    rows = torch.cat([angle.cos(), angle[1:].sin()])
    weight = torch.full((2 * modes - 1, 1), 2.0 / period, dtype=torch.float64)
    weight[0] = 1.0 / period
    synthesis = (weight * rows).mT.contiguous()
    for offset, factor in enumerate(ends):
        rows[:, [offset, count - 1 - offset]] *= factor
    analysis, synthesis = rows.to(device, dtype), synthesis.to(device, dtype)
    end_weight = ends[0] if ends else 1.0
    return Basis(
        analysis=analysis, synthesis=synthesis, modes=modes, period=period, fourier=True, end_weight=end_weight
    )


def fourier_axes(bases: Sequence[Basis]) -> tuple[int, ...]:
    """The Fourier axes, in order; the last one stores only frequencies ≥ 0."""
    return tuple(axis for axis, basis in enumerate(bases) if basis.fourier)


def analyse(x: Float[Tensor, "batch channels *space"], bases: Sequence[Basis]) -> Tensor:
    """Modes of a real field, ``(batch, channels, *modes)``; complex if there is a Fourier axis."""
    for axis, basis in enumerate(bases):
        x = along_axis(basis.analysis, x, 2 + axis)
    return to_modes(x, bases)


def to_modes(x: Tensor, bases: Sequence[Basis]) -> Tensor:
    """Coefficients of cosines and sines along the Fourier axes → modes, as in ``analyse``."""
    *full, half = fourier_axes(bases) or (None,)
    if half is None:
        return x
    cosine, sine = x.split([bases[half].modes, bases[half].modes - 1], 2 + half)
    modes = torch.complex(cosine, -_pad_front(sine, 2 + half))
    for axis in full:
        modes = _to_frequencies(modes, bases[axis].modes, 2 + axis)
    return modes


def synthesise(modes: Tensor, bases: Sequence[Basis]) -> Float[Tensor, "batch channels *space"]:
    """The real field with these modes: the inverse of ``analyse`` on the span of the bases."""
    x = to_coefficients(modes, bases)
    for axis in reversed(range(len(bases))):
        x = along_axis(bases[axis].synthesis, x, 2 + axis)
    return x


def to_coefficients(modes: Tensor, bases: Sequence[Basis]) -> Tensor:
    """Modes → coefficients of cosines and sines along the Fourier axes: the inverse of ``to_modes``."""
    *full, half = fourier_axes(bases) or (None,)
    if half is None:
        return modes
    for axis in full:
        modes = _from_frequencies(modes, bases[axis].modes, 2 + axis)
    return torch.cat([modes.real, -modes.imag.narrow(2 + half, 1, bases[half].modes - 1)], 2 + half)


def along_axis(matrix: Float[Tensor, "r n"], x: Tensor, dim: int) -> Tensor:
    """Applies a matrix along one dimension of a tensor: y_r = Σ_j matrix_rj x_j."""
    if dim == x.ndim - 1:
        return x.contiguous() @ matrix.mT
    trailing = x.shape[dim + 1 :]
    return (matrix @ x.flatten(dim + 1)).unflatten(-1, trailing)


def mirror(modes: Tensor, dims: Sequence[int]) -> Tensor:
    """Swaps frequency k for −k along dimensions that store all frequencies."""
    for dim in dims:
        size = modes.shape[dim] // 2
        zero, positive, negative = modes.split([1, size, size], dim)
        modes = torch.cat([zero, negative, positive], dim)
    return modes


class Convolution(Protocol):
    """A spectral layer for boundary corrections: its weights ``(*modes, c, o)``, and the convolution as a call."""

    @property
    def weight(self) -> Tensor:
        """W(k), the modes in the order of this module."""
        ...

    def __call__(self, x: Tensor, bases: Sequence[Basis]) -> Tensor:
        """K x on these bases."""
        ...


class SpectralConvolution(nn.Module):
    """y = K x: every kept mode of x is multiplied by a complex matrix, ŷ(k) = x̂(k) W(k).

    The weights are complex64, complex128 after ``.double()`` or where float64 is torch's default. Their real and
    imaginary parts start as those of Li et al. 2021, uniform in [0, 1)/(c o): small, so that an operator starts
    almost pointwise, which trains better than with large Gaussian weights, and positive, so that K_BB is
    invertible.

    Args:
        in_channels: Channels c of x.
        out_channels: Channels o of y.
        modes: Number m of frequencies 0 … m − 1 kept along every axis.
    """

    weight: Complex[Tensor, "*modes c o"]

    def __init__(self, in_channels: int, out_channels: int, modes: Sequence[int]) -> None:
        super().__init__()
        if not modes or min(modes) < 1:
            raise InvalidArgumentError(f"modes needs one entry of at least 1 per axis, got {tuple(modes)}.")
        shape = (*(2 * m - 1 for m in modes[:-1]), modes[-1], in_channels, out_channels)
        dtype = torch.complex128 if torch.get_default_dtype() == torch.float64 else torch.complex64
        self.weight = nn.Parameter(torch.rand(shape, dtype=dtype) / (in_channels * out_channels))

    def forward(
        self, x: Float[Tensor, "batch channels *space"], bases: Sequence[Basis]
    ) -> Float[Tensor, "batch out *space"]:
        """Applies the convolution on Fourier bases, one per axis."""
        return convolve(x, self.weight, bases)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Lets ``.double()`` and ``.float()``, which skip complex tensors, act on the weights as real pairs."""
        return super()._apply(in_real_pairs(fn), recurse)


def half_refused(dtype: torch.dtype) -> InvalidArgumentError:
    """The error for an operator with spectral weights whose weights are to be in half precision."""
    return InvalidArgumentError(
        f"Spectral weights are complex and exist in float32 and float64 only, got {dtype}; leave the weights in "
        "float32 and call the operator under torch.autocast."
    )


def in_real_pairs(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of tensors, as ``nn.Module._apply`` takes them, that acts on complex ones as pairs of real numbers."""

    def on_real(tensor: Tensor) -> Tensor:
        if not tensor.is_complex():
            return fn(tensor)
        pairs = fn(torch.view_as_real(tensor))
        if pairs.dtype not in (torch.float32, torch.float64):
            raise half_refused(pairs.dtype)
        return torch.view_as_complex(pairs)

    return on_real


def convolve(x: Tensor, weight: Tensor, bases: Sequence[Basis]) -> Tensor:
    """K x: modes of x times the weights ``(*modes, c, o)``, at nodes; autocast leaves it in the dtype of the bases."""
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return convolve(x.to(bases[0].analysis.dtype), weight, bases)
    return synthesise(multiply(analyse(x, bases), weight), bases)


def multiply(modes: Tensor, weight: Tensor) -> Tensor:
    """ŷ(k) = x̂(k) W(k) for every mode: modes ``(batch, c, *modes)``, weight ``(*modes, c, o)``."""
    shape = weight.shape[:-2]
    return multiply_modes(modes.flatten(2), weight.reshape(prod(shape), *weight.shape[-2:])).unflatten(-1, shape)


def multiply_modes(x: Tensor, weight: Tensor) -> Tensor:
    """Σ_c x_bck W_kco: ``(batch, c, modes)`` by ``(modes, c, o)`` → ``(batch, o, modes)``, complex or real.

    Autograd of this product uses transposed and conjugated views, which the complex matrix product copies mode by mode.
    """
    if is_transformed():
        return torch.bmm(_by_mode(x), weight).permute(1, 2, 0)
    result: Any = _MultiplyModes.apply(x, weight)
    return result


class _MultiplyModes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.bmm(_by_mode(x), weight).permute(1, 2, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        by_mode = _by_mode(grad)
        grad_x = torch.bmm(by_mode, weight.mH.resolve_conj().contiguous()).permute(1, 2, 0)
        return grad_x, torch.bmm(x.conj().permute(2, 1, 0).resolve_conj().contiguous(), by_mode)


def _by_mode(x: Tensor) -> Tensor:
    return x.permute(2, 0, 1).contiguous()


def _pad_front(x: Tensor, dim: int) -> Tensor:
    shape = list(x.shape)
    shape[dim] = 1
    return torch.cat([x.new_zeros(shape), x], dim)


def _to_frequencies(x: Tensor, modes: int, dim: int) -> Tensor:
    """Coefficients of cosines and sines → frequencies 0, 1 …, −1 …: x̂(±k) = c_k ∓ i s_k."""
    zero, cosine, sine = x.split([1, modes - 1, modes - 1], dim)
    return torch.cat([zero, cosine - 1j * sine, cosine + 1j * sine], dim)


def _from_frequencies(x: Tensor, modes: int, dim: int) -> Tensor:
    """The inverse of ``_to_frequencies``."""
    zero, positive, negative = x.split([1, modes - 1, modes - 1], dim)
    return torch.cat([zero, 0.5 * (positive + negative), 0.5j * (positive - negative)], dim)
