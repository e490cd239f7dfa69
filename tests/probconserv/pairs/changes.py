"""Numbers for a call of a feature, and the changes that are made to them: all that a feature takes comes from here."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a call differs from the usual one.

    Args:
        unit: Factor of all that has the unit of the field; a power of two, which rounds nothing.
        length: Factor of all lengths.
        shape: Batch axes.
        batched: The one input that has them; all of them if it is empty.
        cases: Number of cases, members, functions or fields that something is fitted to.
        hole: The input of which one value is missing.
        other: The input or option whose values are others.
        dtype: Precision of the inputs.
    """

    unit: float = 1.0
    length: float = 1.0
    shape: tuple[int, ...] = ()
    batched: str = ""
    cases: int = 12
    hole: str = ""
    other: str = ""
    dtype: torch.dtype = torch.float64


USUAL = Change()


@dataclass
class Given:
    """Inputs of one call; entry i of a batch has the same numbers in a batch of any length.

    Args:
        change: How the call differs from the usual one.
        folder: Where a fit leaves its checkpoints.
        inputs: The tensors that were handed out, by name.
        batched: Names or groups of those that can have batch axes.
        says: How errors call them, by name.
        options: Names of the options that were handed out.
    """

    change: Change = USUAL
    folder: Path | None = None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    batched: list[str] = field(default_factory=list)
    says: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.change.cases

    def normal(self, name: str, *size: int, **axes: Any) -> Tensor:
        """Standard normal numbers."""
        return self.of(name, lambda random, shape: random.standard_normal(shape), *size, **axes)

    def uniform(self, name: str, *size: int, low: float = 0.3, high: float = 1.2, **axes: Any) -> Tensor:
        """Uniform numbers, positive unless it says otherwise."""
        return self.of(name, lambda random, shape: random.uniform(low, high, shape), *size, **axes)

    def points(self, name: str, count: int, **axes: Any) -> Tensor:
        """Unequal positions between 0 and 1, in order."""

        def positions(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
            return (np.arange(count) + random.uniform(0.2, 0.8, shape)) / count

        return self.of(name, positions, count, unit=0, length=1, **axes)

    def of(
        self,
        name: str,
        numbers: Draw,
        *size: int,
        lead: tuple[int, ...] = (),
        batch: bool = True,
        unit: int = 1,
        length: int = 0,
        group: str = "",
        says: str = "",
    ) -> Tensor:
        """Numbers ``(*lead, *batch, *size)``.

        Args:
            name: Name of the input.
            numbers: (generator, shape) → the numbers of one entry.
            size: Axes after those of the batch.
            lead: Axes before them, such as members.
            batch: Whether it can have batch axes.
            unit: Power of the field's unit in the unit of these numbers.
            length: Power of length in it.
            group: Inputs that have a batch axis together, since no function of the library joins them.
            says: How an error calls it, a pattern; the name by default.
        """
        change = self.change
        shape = change.shape if batch and change.batched in ("", group or name) else ()
        if batch:
            self.batched.append(group or name)
        self.says[name] = says or name
        entries = []
        for entry in range(int(np.prod(shape, dtype=int))):
            random = np.random.default_rng([zlib.crc32(name.encode()), entry, name == change.other])
            entries.append(np.asarray(numbers(random, (*lead, *size))))
        values = np.stack(entries, axis=len(lead)).reshape((*lead, *shape, *size))
        values = torch.tensor(values * change.unit**unit * change.length**length).to(change.dtype)
        if name == change.hole:
            values[(*[-1] * len(lead), *[0] * len(shape), *[count // 2 for count in size])] = np.nan
        self.inputs[name] = values
        return values

    def option(self, name: str, usual: Any, other: Any) -> Any:
        """A setting, or another one."""
        self.options.append(name)
        return other if name == self.change.other else usual

    def number(self, name: str, usual: float, *, unit: int = 0, length: int = 0) -> float:
        """A number with a unit, or half of it."""
        value = self.option(name, usual, usual / 2)
        return value * self.change.unit**unit * self.change.length**length

    def scale(self, unit: int = 1, length: int = 0) -> float:
        """The factor of quantities with these powers of the units."""
        return self.change.unit**unit * self.change.length**length


@dataclass(frozen=True)
class Quantity:
    """An answer ``(*lead, *batch, …)``.

    Args:
        values: Numbers.
        unit: Power of the field's unit in their unit.
        length: Power of length in it.
        log: How often the logarithm of the field's unit is in them, as −n in a density over n values.
        log_length: How often the logarithm of the unit of length is.
        lead: Number of axes before those of the batch; None if it has no entries of a batch.
        random: Whether it depends on random numbers, which a batch shares out in another way.
    """

    values: Tensor
    unit: int = 1
    length: int = 0
    log: float = 0.0
    log_length: float = 0.0
    lead: int | None = 0
    random: bool = False

    def in_units_of(self, change: Change) -> Tensor:
        """The numbers in the usual units, float64."""
        added = self.log * np.log(change.unit) + self.log_length * np.log(change.length)
        return self.values.detach().to(torch.float64) / (change.unit**self.unit * change.length**self.length) - added

    def entry(self, number: int) -> "Quantity":
        """One entry of a batch axis."""
        if self.lead is None:
            return self
        return replace(self, values=self.values.select(self.lead, number))


Answer = dict[str, Quantity]
