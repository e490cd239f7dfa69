"""The FNO of the neuraloperator package (``neuralop.models.FNO``) with its spectral layers corrected kernel by kernel.

The package is not imported here: users with such an operator have imported it.

Along every axis but the last their layers keep the M frequencies −⌊M/2⌋ … ⌈M/2⌉ − 1, along the last 0 … ⌊M/2⌋, and
their weights are in this order. Here they are reordered as in ``boon.spectral``, which keeps k with every −k: for
even M the weight of +M/2 is zero. The rest of their operator (lifting, skip connections, channel MLPs, padding,
projection) is unchanged, in a copy that shares all parameters and whose spectral layers are replaced.

Their domain padding extends the features at both ends; the domain's first and last node are
then nodes p and n − 1 + p of N = n + 2p, and all of the faces through them, padding included, are eliminated.

With an odd number of nodes along an axis other than the last, release 2.0.0 shifts the frequencies of the result by
one (it calls fftshift where ifftshift is the inverse; corrected in the package's repository since). The layer here is
the correct convolution for even and odd numbers.
"""

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from boon.corrections.correction import CorrectedLayers
from boon.corrections.mixed import MixedBasis
from boon.errors import InvalidArgumentError, TooManyModesError
from boon.fno import FNOConfig
from boon.spectral import Basis, convolve, half_refused
from boon.transforms import CellFourier, NodeFourier
from solvers.recording import are_readable


def is_neuraloperator(operator: nn.Module) -> bool:
    """Whether it is a ``neuralop.models.FNO`` (or ``TFNO``, or a class derived from them)."""
    model = _imported("neuralop.models.fno", "FNO")
    return model is not None and isinstance(operator, model)


def check_precision(operator: nn.Module) -> None:
    """Refuses a ``neuralop.models.FNO`` in half precision: ``.bfloat16()`` and ``.half()`` leave complex weights."""
    if not is_neuraloperator(operator) or operator.fno_block_precision != "full":
        return
    half = next((p.dtype for p in operator.parameters() if p.is_floating_point() and p.dtype.itemsize < 4), None)
    if half is not None:
        raise half_refused(half)


class NeuralOperatorFNO:
    """An adapter of their FNO to the interface of ``boon.FNO``, so that its layers can be corrected.

    Dense and factorised weights, incremental modes (``max_n_modes``), every skip connection, channel MLPs, the tanh
    stabiliser, positional embeddings and domain padding are supported.

    Args:
        operator: The FNO; it is not changed.
        cells: Whether fields are averages over cells, else at nodes.

    Raises:
        InvalidArgumentError: If an option makes its layers other than real convolutions on one grid followed by
            pointwise maps.
    """

    def __init__(self, operator: nn.Module, cells: bool = False) -> None:
        self.operator: Any = operator
        self.transform = CellFourier() if cells else NodeFourier()
        for option, fits in _needed(self.operator).items():
            if not fits:
                raise InvalidArgumentError(
                    f"Corrections inside the layers of a neuralop FNO need {option}; build it so, or correct it at "
                    "its output with Prescription() or SmoothExtension()."
                )

    @property
    def config(self) -> FNOConfig:
        """Its sizes; the modes are those of ``boon.spectral``, −(m − 1) … m − 1. Padding is part of the layers."""
        kept = self.operator.fno_blocks.convs[0].n_modes
        return FNOConfig(
            in_channels=self.operator.in_channels,
            out_channels=self.operator.out_channels,
            width=self.operator.hidden_channels,
            modes=(*(count // 2 + 1 for count in kept[:-1]), kept[-1]),
            depth=self.operator.n_layers,
            padding=0.0,
            transform=self.transform,
        )

    @property
    def is_trained(self) -> bool:
        """Whether a pointwise weight lies beyond ±1/√inputs, within which torch draws it."""
        maps = [each for each in self.operator.modules() if isinstance(each, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
        weights = [each.weight.detach() for each in maps]
        return are_readable(*weights) and any(
            bool((weight.abs() > 1.01 / weight[0].numel() ** 0.5).any()) for weight in weights
        )

    def __call__(self, a: Tensor, layers: CorrectedLayers) -> Tensor:
        """Maps ``(batch, in_channels, *space)`` to ``(batch, out_channels, *space)`` with corrected layers.

        Raises:
            InvalidArgumentError: If the input has the wrong shape, or the correction does not support domain padding.
            TooManyModesError: If the grid is too coarse for the modes kept.
        """
        config = self.config
        if a.ndim != config.dimension + 2 or a.shape[1] != config.in_channels:
            raise InvalidArgumentError(
                f"The input must be (batch, {config.in_channels}, *space) with {config.dimension} axes, "
                f"got {tuple(a.shape)}."
            )
        call = _Call(layers, config, tuple(a.shape[2:]))
        blocks = self.operator.fno_blocks
        corrected = nn.ModuleList(_CorrectedLayer(layer, call) for layer in blocks.convs)
        twin = _twin(self.operator, fno_blocks=_PreparedBlocks(_twin(blocks, convs=corrected), call))
        return twin(a)


@dataclass(frozen=True)
class Kernel:
    """A spectral convolution with given weights ``(*modes, c, o)``."""

    weight: Tensor

    def __call__(self, x: Tensor, bases: Sequence[Basis]) -> Tensor:
        """Applies it on Fourier bases, one per axis."""
        return convolve(x, self.weight, bases)


def kernel_of(layer: Any, dtype: torch.dtype) -> Kernel:
    """The kernel of one of their spectral layers, without its bias.

    Args:
        layer: A ``neuralop.layers.spectral_convolution.SpectralConv``, its weights ``(c, o, *modes)``.
        dtype: Dtype of the (real) features; the weights are cast to its precision.
    """
    weight = layer.weight if isinstance(layer.weight, Tensor) else layer.weight.to_tensor()
    *full, half = layer.n_modes
    for dim, kept in enumerate(full, start=2):
        weight = weight.narrow(dim, (weight.shape[dim] - kept) // 2, kept)
        weight = _frequencies_in_order(weight, dim)
    weight = weight.narrow(-1, 0, half)
    return Kernel(weight.movedim((0, 1), (-2, -1)).to(torch.promote_types(dtype, torch.complex32)))


class _Call:
    """State of one evaluation of an operator, common to its layers.

    Args:
        layers: The correction of the layers.
        config: Sizes of the operator.
        shape: Nodes of the domain along every axis, without padding.
    """

    def __init__(self, layers: CorrectedLayers, config: FNOConfig, shape: tuple[int, ...]) -> None:
        self.layers, self.config, self.shape = layers, config, shape
        self.bases: tuple[Basis, ...] | None = None

    def prepare(self, index: int, x: Tensor) -> Tensor:
        """The features that enter block ``index``; those in the padding are not changed."""
        if not self.layers.hidden:
            return x
        domain = (..., *(slice(p, p + n) for p, n in zip(self._margins(x), self.shape, strict=True)))
        prepared = self.layers.prepare(index, x[domain])
        if prepared.shape == x.shape:
            return prepared
        result = x.clone()
        result[domain] = prepared
        return result

    def convolve(self, layer: Any, x: Tensor) -> Tensor:
        """The corrected kernel of a layer plus its bias, which is a pointwise map.

        Autocast leaves it in the dtype of the weights.
        """
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.promote_types(x.dtype, next(layer.parameters()).dtype).to_real())
        if self.bases is None:
            self.bases = self._find_bases(x)
        y = self.layers.kernel(kernel_of(layer, x.dtype), x, self.bases)
        return y if layer.bias is None else y + layer.bias

    def _margins(self, x: Tensor) -> tuple[int, ...]:
        return tuple((padded - count) // 2 for padded, count in zip(x.shape[2:], self.shape, strict=True))

    def _find_bases(self, x: Tensor) -> tuple[Basis, ...]:
        try:
            bases = self.layers.bases(self.config, x.shape[2:], x)
        except TooManyModesError as error:
            raise TooManyModesError(
                f"The neuralop FNO keeps frequencies up to {tuple(m - 1 for m in self.config.modes)} (half of its "
                f"n_modes), too many for {tuple(x.shape[2:])} nodes, domain padding included. {error}"
            ) from error
        margins = self._margins(x)
        for axis, (basis, margin) in enumerate(zip(bases, margins, strict=True)):
            if margin and isinstance(basis, MixedBasis) and not basis.matched.fourier:
                raise InvalidArgumentError(
                    f"{self.layers.correction} extends the field beyond the ends of axis {axis} itself; build the "
                    "neuralop FNO without domain_padding along it, or use another correction."
                )
        return tuple(replace(basis, margin=margin) for basis, margin in zip(bases, margins, strict=True))


class _PreparedBlocks(nn.Module):
    """Their blocks on features that satisfy the hidden conditions."""

    def __init__(self, blocks: nn.Module, call: _Call) -> None:
        super().__init__()
        self.blocks, self.call = blocks, call

    def forward(self, x: Tensor, index: int = 0, output_shape: Any = None) -> Tensor:
        return self.blocks(self.call.prepare(index, x), index, output_shape=output_shape)


class _CorrectedLayer(nn.Module):
    """Replacement for one of their spectral layers."""

    def __init__(self, layer: nn.Module, call: _Call) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor, output_shape: Any = None) -> Tensor:  # noqa: ARG002
        return self.call.convolve(self.layer, x)

    def transform(self, x: Tensor, output_shape: Any = None) -> Tensor:  # noqa: ARG002
        """Adapts the features of skip connections to another grid; here the grid never changes."""
        return x


def _needed(operator: Any) -> dict[str, bool]:
    """Requirements of the corrections, and whether the operator meets them."""
    blocks, layer = operator.fno_blocks, _imported("neuralop.layers.spectral_convolution", "SpectralConv")
    scaling = blocks.resolution_scaling_factor or []
    precision = operator.fno_block_precision
    return {
        "real data (complex_data=False)": not operator.complex_data,
        "full weight matrices (separable=False)": not operator.separable,
        "activations after the kernel (preactivation=False)": not operator.preactivation,
        "no normalisation (norm=None)": blocks.norm is None,
        f"full precision (fno_block_precision='full', got {precision!r})": precision == "full",
        f"one grid (resolution_scaling_factor=None, got {scaling})": all(f == 1 for row in scaling for f in row),
        "spectral layers of type SpectralConv (conv_module)": all(type(conv) is layer for conv in blocks.convs),
    }


def _frequencies_in_order(weight: Tensor, dim: int) -> Tensor:
    """From −⌊M/2⌋ … ⌈M/2⌉ − 1 to 0, 1 … ⌊M/2⌋, −1 … −⌊M/2⌋ along one dimension."""
    count = weight.shape[dim]
    half = count // 2
    if count % 2 == 0:
        missing = torch.zeros_like(weight.narrow(dim, 0, 1))
        weight = torch.cat([weight, missing], dim)
    frequencies = [*range(half + 1), *range(-1, -half - 1, -1)]
    return weight.index_select(dim, torch.tensor([half + k for k in frequencies], device=weight.device))


def _twin(module: nn.Module, **children: nn.Module) -> nn.Module:
    """A copy of a module that shares everything except the named children."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, **children}
    return twin


def _imported(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)
