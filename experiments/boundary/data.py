"""Samples as operators take and give them: the tensors of a batch."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from experiments.boundary.cases import BoundaryCase
from experiments.boundary.samples import DataStore, SampleConfig, Samples
from experiments.boundary.samples import SideValues as Values


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Inputs, outputs and boundary values.

    The channels of output and values are the unknowns at the first output time, then those at the next. If time is an
    axis, the last one of ``space`` and ``face``, they are the unknowns, and inputs are repeated along time. Values are
    per axis those on its (first, last) side, ``(batch, channels, *face)`` each; None where there are no data.
    """

    input: Float[Tensor, "batch inputs *space"]
    output: Float[Tensor, "batch channels *space"]
    values: Values

    def __len__(self) -> int:
        return len(self.input)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Fields":
        """Every tensor changed."""
        return Fields(input=change(self.input), output=change(self.output), values=_each(self.values, change))

    def take(self, indices: Tensor | slice) -> "Fields":
        """Some of the samples."""
        return self.each(lambda tensor: tensor[indices])


def load_fields(case: BoundaryCase, config: SampleConfig, store: DataStore) -> Fields:
    """The fields of a case on these samples, which are made once and read afterwards."""
    return as_fields(case.source.samples(config, store), case)


def as_fields(samples: Samples, case: BoundaryCase) -> Fields:
    """Samples with time where the operators of a case expect it."""
    along_time, first = case.sizes.network.time_modes > 0, samples.input

    def later(field: Tensor) -> Tensor:
        return field.movedim(1, -1) if along_time else field.flatten(1, 2)

    values = _each(samples.values, later)
    if along_time:
        first = first.unsqueeze(-1).expand(*first.shape, len(samples.times))
    return Fields(input=first, output=later(samples.output), values=(*values, None) if along_time else values)


def by_time(u: Float[Tensor, "batch channels *space"], case: BoundaryCase) -> Float[Tensor, "batch t unknowns *nodes"]:
    """A field of a case with the output times before unknowns and space."""
    if case.sizes.network.time_modes > 0:
        return u.movedim(-1, 1)
    return u.unflatten(1, (case.times, -1))


def _each(values: Values, change: Callable[[Tensor], Tensor]) -> Values:
    def one(side: Tensor | None) -> Tensor | None:
        return None if side is None else change(side)

    return tuple(pair and (one(pair[0]), one(pair[1])) for pair in values)
