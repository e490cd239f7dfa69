"""A small re-statement of neuraloperator's FNO, from its documentation: so its adapter is tested without the package.

The layer keeps the frequencies −⌊M/2⌋ … ⌈M/2⌉ − 1 along every axis but the last and 0 … ⌊M/2⌋ along the last; its
weights are ``(in, out, *modes)`` in that order. Written with full complex FFTs and one loop over the modes.
"""

import itertools
import sys
import types

import torch
from torch import nn
from torch.nn import functional


class SpectralConv(nn.Module):
    def __init__(self, channels, n_modes, dtype=torch.float32):
        super().__init__()
        self.n_modes = [*n_modes[:-1], n_modes[-1] // 2 + 1]
        complex_dtype = torch.promote_types(dtype, torch.complex32)
        self.weight = nn.Parameter(torch.randn(channels, channels, *self.n_modes, dtype=complex_dtype) / channels)
        self.bias = nn.Parameter(torch.randn(channels, *(1 for _ in n_modes), dtype=dtype))

    def forward(self, x, output_shape=None):  # noqa: ARG002
        return convolve(x, self.weight) + self.bias

    def transform(self, x, output_shape=None):  # noqa: ARG002
        return x


def convolve(x, weight):
    """The layer without its bias, its weights in the package's order."""
    dims, counts = tuple(range(2, x.ndim)), x.shape[2:]
    spectrum = torch.fft.fftn(x, dim=dims)
    result = torch.zeros(x.shape[0], weight.shape[1], *counts, dtype=spectrum.dtype)
    for index in itertools.product(*(range(size) for size in weight.shape[2:])):
        place = [i - size // 2 for i, size in zip(index[:-1], weight.shape[2:-1], strict=True)] + [index[-1]]
        key = (..., *(k % n for k, n in zip(place, counts, strict=True)))
        result[key] = spectrum[key] @ weight[(..., *index)]
    half = counts[-1] // 2 + 1
    return torch.fft.irfftn(result[..., :half], s=counts, dim=dims)


class Skip(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x):
        return self.conv(x.flatten(2)).view(x.shape)


class FNOBlocks(nn.Module):
    def __init__(self, channels, n_modes, n_layers):
        super().__init__()
        self.n_layers, self.norm, self.resolution_scaling_factor = n_layers, None, None
        self.convs = nn.ModuleList(SpectralConv(channels, n_modes) for _ in range(n_layers))
        self.fno_skips = nn.ModuleList(Skip(channels) for _ in range(n_layers))

    def forward(self, x, index=0, output_shape=None):
        skip = self.convs[index].transform(self.fno_skips[index](x), output_shape=output_shape)
        x = self.convs[index](x, output_shape=output_shape) + skip
        return functional.gelu(x) if index + 1 < self.n_layers else x


class FNO(nn.Module):
    def __init__(self, n_modes, in_channels, out_channels, hidden_channels, n_layers=2, padding=0):
        super().__init__()
        self.in_channels, self.out_channels, self.hidden_channels = in_channels, out_channels, hidden_channels
        self.n_layers, self.padding = n_layers, padding
        self.complex_data = self.separable = self.preactivation = False
        self.fno_block_precision = "full"
        self.lifting = nn.Conv1d(in_channels, hidden_channels, 1)
        self.fno_blocks = FNOBlocks(hidden_channels, n_modes, n_layers)
        self.projection = nn.Conv1d(hidden_channels, out_channels, 1)

    def forward(self, x):
        shape = x.shape[2:]
        x = self.lifting(x.flatten(2)).unflatten(-1, shape)
        x = functional.pad(x, [self.padding] * (2 * len(shape)))
        for index in range(self.n_layers):
            x = self.fno_blocks(x, index, output_shape=None)
        x = x[(..., *(slice(self.padding, self.padding + n) for n in shape))]
        return self.projection(x.flatten(2)).unflatten(-1, shape)


def install(monkeypatch):
    """Lets this module stand in for the package."""
    for name in ("neuralop.models.fno", "neuralop.layers.spectral_convolution"):
        module = types.ModuleType(name)
        module.FNO, module.SpectralConv = FNO, SpectralConv  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
