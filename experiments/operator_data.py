"""Samples of a boundary-condition problem as the tensors that operators take and give."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.boundary_data import BoundaryDataConfig, boundary_samples
from experiments.operator_config import OperatorCase
from solvers.problems.boundary_samples import BoundarySamples

Values = tuple[tuple[Tensor, Tensor] | None, ...]


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Input, output and boundary values, divided by the unit of the case.

    The output times are the channels of output and values, or the last axis of ``space`` and ``face``.

    Args:
        input: Fields at the start, repeated along the time axis if there is one, ``(batch, 1, *space)``.
        output: ``(batch, channels, *space)``.
        values: Per axis the values on its (first, last) side, ``(batch, channels, *face)`` each; None for periodic
            axes and for time.
    """

    input: Float[Tensor, "batch 1 *space"]
    output: Float[Tensor, "batch channels *space"]
    values: Values

    def __len__(self) -> int:
        return len(self.input)

    @property
    def parts(self) -> tuple[Tensor, Tensor, Values]:
        """Input, output, boundary values."""
        return self.input, self.output, self.values

    def take(self, indices: Tensor | slice) -> "Fields":
        """Some of the samples."""
        return Fields(
            input=self.input[indices],
            output=self.output[indices],
            values=tuple(pair and (pair[0][indices], pair[1][indices]) for pair in self.values),
        )

    def to(self, device: torch.device) -> "Fields":
        """The same on a device."""
        return Fields(
            input=self.input.to(device),
            output=self.output.to(device),
            values=tuple(pair and (pair[0].to(device), pair[1].to(device)) for pair in self.values),
        )


def load_fields(case: OperatorCase, config: BoundaryDataConfig, folder: Path) -> Fields:
    """The fields of a case, made once and read afterwards.

    Args:
        case: Problem, unit, and whether time is an axis.
        config: Which samples.
        folder: Where the samples live.
    """
    return as_fields(boundary_samples(case.problem, config, folder), case)


def as_fields(samples: BoundarySamples, case: OperatorCase) -> Fields:
    """Samples in the unit of a case, with time where its operators expect it."""
    unit, along_time = case.sizes.network.unit, case.sizes.network.time_modes > 0
    first = samples.input.unsqueeze(1) / unit

    def later(field: Tensor) -> Tensor:
        return (field.movedim(1, -1).unsqueeze(1) if along_time else field) / unit

    values = tuple(pair and (later(pair[0]), later(pair[1])) for pair in samples.boundary)
    if along_time:
        first = first.unsqueeze(-1).expand(*first.shape, len(samples.times))
    return Fields(input=first, output=later(samples.output), values=(*values, None) if along_time else values)


def by_time(u: Float[Tensor, "batch channels *space"], case: OperatorCase) -> Float[Tensor, "batch t *nodes"]:
    """A field of a case with the output times before the axes of space, in the units of the problem."""
    later = u.squeeze(1).movedim(-1, 1) if case.sizes.network.time_modes > 0 else u
    return later * case.sizes.network.unit
