"""The change of a field in a step by kernel ridge regression between principal components, without a network.

Field and data of a step, each divided by the size of its deviations, and changes are reduced to principal components;
a kernel ridge regression maps one to the other. Kernels are chosen on single steps of other functions, for several
ridges: a regression that is best in single steps may amplify its own errors in the next ones.

Source: Bhattacharya et al. 2021, who put a network between the components.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

RIDGES = (1e-15, 1e-12, 1e-9, 1e-6, 1e-4, 1e-2)  # per training sample
_INPUTS = (16, 64)  # leading components of the input that are tried
_LENGTHS = (1.0, 2.0, 4.0, 8.0)  # of kernels; the mean square of the distance from the mean input is 1
_OUTPUTS = 256  # most components of the change
_SMALLEST = 1e-9  # singular values below this times the largest are rounding of float32 data


class Steps(NamedTuple):
    """Fields before and after steps ``(steps, c, *space)``, and what was given in each ``(steps, …)``."""

    before: Tensor
    after: Tensor
    data: tuple[Tensor, ...]

    def thinned(self, count: int) -> "Steps":
        """About ``count`` of the steps, evenly spaced."""
        every = slice(None, None, max(1, -(-len(self.before) // count)))
        return Steps(self.before[every], self.after[every], tuple(part[every] for part in self.data))


@dataclass(frozen=True)
class Kernel:
    """A kernel between the leading components of inputs.

    Args:
        inputs: Number of components.
        length: Correlation length; None for the linear kernel.
        smooth: Squared exponential kernel; otherwise Matérn's with ν = 5/2.
    """

    inputs: int
    length: float | None = None
    smooth: bool = True

    def __call__(self, z: Float[Tensor, "a n"], centres: Float[Tensor, "b n"]) -> Float[Tensor, "a b"]:
        z, centres = z[:, : self.inputs], centres[:, : self.inputs]
        if self.length is None:
            return z @ centres.mT
        squares = z.square().sum(dim=1)[:, None] + centres.square().sum(dim=1) - 2 * z @ centres.mT
        squares = squares.clamp_min(0.0) / self.length**2
        if self.smooth:
            return torch.exp(-0.5 * squares)
        distance = (5 * squares).sqrt()
        return (1 + distance + distance.square() / 3) * torch.exp(-distance)


class ComponentRegression(nn.Module):
    """Field ``(batch, c, *space)`` and data of a step to the field one step on; float64 inside.

    Build it with ``fit_path``.
    """

    input_mean: Tensor
    input_directions: Tensor
    centres: Tensor
    coefficients: Tensor
    output_mean: Tensor
    output_directions: Tensor

    def __init__(self, kernel: Kernel, **arrays: Tensor) -> None:
        super().__init__()
        self.kernel = kernel
        for name, array in arrays.items():
            self.register_buffer(name, array.contiguous())  # sums keep their order in a file

    @classmethod
    def fit_path(cls, training: Steps, validation: Steps) -> list[Self]:
        """The regression of every ridge whose kernel has the least error of changes in the validation's steps, in
        order of this error.

        The work grows with the cube of the number of training steps; a thousand take seconds.
        """
        rows, changes = _rows(training.before, training.data), _changes(training)
        input_mean, input_directions = _components(rows, training)
        z = (rows - input_mean) @ input_directions
        unit = z.square().sum(dim=1).mean().sqrt().clamp_min(torch.finfo(z.dtype).tiny)
        input_directions, z = input_directions / unit, z / unit
        output_mean = changes.mean(dim=0)
        left, values, right = torch.linalg.svd(changes - output_mean, full_matrices=False)
        count = max(1, min(_OUTPUTS, int((values > _SMALLEST * values[0]).sum())))
        targets, output_directions = left[:, :count] * values[:count], right[:count]
        unseen = (_rows(validation.before, validation.data) - input_mean) @ input_directions
        truth, best = _changes(validation), dict.fromkeys(RIDGES, (torch.inf, Kernel(1), targets))
        for kernel in _kernels(z.shape[1]):
            size, vectors = torch.linalg.eigh(kernel(z, z))
            projected, solved = kernel(unseen, z) @ vectors, vectors.mT @ targets
            for ridge in RIDGES:
                weighted = solved / (size.clamp_min(0.0) + ridge * len(z))[:, None]
                made = output_mean + (projected @ weighted) @ output_directions
                error = float((made - truth).square().mean())
                if error < best[ridge][0]:
                    best[ridge] = error, kernel, vectors @ weighted
        shared = {"input_mean": input_mean, "input_directions": input_directions, "centres": z}
        shared |= {"output_mean": output_mean, "output_directions": output_directions}
        ordered = sorted(best.values(), key=lambda each: each[0])
        return [cls(kernel, coefficients=coefficients, **shared) for _, kernel, coefficients in ordered]

    def forward(self, field: Float[Tensor, "batch c *space"], *data: Tensor) -> Float[Tensor, "batch c *space"]:
        """The field one step on."""
        z = (_rows(field, data) - self.input_mean) @ self.input_directions
        change = self.output_mean + (self.kernel(z, self.centres) @ self.coefficients) @ self.output_directions
        return field + change.view(field.shape).to(field.dtype)


def _kernels(available: int) -> list[Kernel]:
    few = sorted({min(count, available) for count in _INPUTS})
    linear = [Kernel(count) for count in sorted({*few, available})]
    return linear + [Kernel(*each) for each in product(few, _LENGTHS, (True, False))]


def _rows(field: Tensor, data: Sequence[Tensor]) -> Float[Tensor, "samples numbers"]:
    return torch.cat([part.double().flatten(1) for part in (field, *data)], dim=1)


def _changes(steps: Steps) -> Float[Tensor, "samples numbers"]:
    return (steps.after.double() - steps.before.double()).flatten(1)


def _components(rows: Tensor, training: Steps) -> tuple[Tensor, Tensor]:
    """Mean and directions ``(numbers, components)``, in which every channel and each of the data has deviations of
    mean square 1.
    """
    mean, channels = rows.mean(dim=0), training.before.shape[1]
    sizes = [training.before[0, 0].numel()] * channels + [part[0].numel() for part in training.data]
    scales = []
    for block in (rows - mean).split(sizes, dim=1):
        scale = float(block.square().mean().sqrt())
        scales.append(torch.full_like(block[0], scale or 1.0))
    scale = torch.cat(scales)
    _, values, right = torch.linalg.svd((rows - mean) / scale, full_matrices=False)
    kept = values > _SMALLEST * values[0]
    kept[0] = True
    return mean, right[kept].mT / scale[:, None]
