"""Operators in the ``Trainer`` of neuraloperator, whose data processors normalise the fields.

The Trainer calls ``model(**sample)`` with normalised inputs, compares with normalised outputs in training, and undoes
the normalisation of outputs in validation. Conditions are about the physical field; so the operator gets physical
inputs, and its physical outputs are normalised as the processor will undo it:

    processor = DefaultDataProcessor(in_normalizer, out_normalizer)
    operator = BOON(normalised_by(FNO(config), processor), conditions)
    trainer = Trainer(model=ForTrainer(operator, processor, [("inflow", None)]), data_processor=processor, …)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boon.errors import InvalidArgumentError, MissingBoundaryError
from boon.normalisation import Normalised

Names = Sequence[Any]
"""As the values of sides at a call of ``BOON``, with names of entries of a sample in place of values."""


class ForTrainer(nn.Module):
    """A model for neuraloperator's ``Trainer``: an operator between physical fields, called by the names of a sample.

    Args:
        operator: ``BOON``, ``ChannelBOON`` or another operator; ``.operator`` of the trained one is to be kept.
        processor: The data processor that the Trainer has; None if it has none.
        sides: Values of sides that the operator takes at the call, by the names that they have in a sample:
            ``[("inflow", None)]`` for the entry "inflow" ``(batch, channels)`` on the left, in physical units. Other
            entries of a sample, such as "y", are not the operator's.
    """

    def __init__(self, operator: nn.Module, processor: Any, sides: Names | None = None) -> None:
        super().__init__()
        self.operator, self.sides = operator, sides
        self.register_state_dict_post_hook(_without_metadata)
        self._normalizers = tuple(getattr(processor, f"{end}_normalizer", None) for end in ("in", "out"))
        if processor is not None and not hasattr(processor, "out_normalizer"):
            raise InvalidArgumentError(
                f"processor must be a data processor with in_normalizer and out_normalizer, or None, got "
                f"{type(processor).__name__}."
            )

    def forward(self, x: Tensor, **sample: Any) -> Tensor:
        """Output fields, normalised as the processor's are, for (normalised) input fields."""
        before, after = self._normalizers
        physical = x if before is None else before.inverse_transform(x)
        values = () if self.sides is None else (_filled(self.sides, sample, x),)
        u = self.operator(physical, *values)
        return u if after is None else after.transform(u)

    def save_checkpoint(self, save_folder: str | Path, save_name: str) -> None:
        """Writes the state for the Trainer's ``save_every``, ``save_best`` and ``resume_from_dir``."""
        Path(save_folder).mkdir(parents=True, exist_ok=True)
        torch.save(self.state_dict(), Path(save_folder) / f"{save_name}_state_dict.pt")


def _without_metadata(_: nn.Module, state: dict[str, Any], __: str, ___: Any) -> None:
    """Leaves out the entry of neuraloperator's models that is no tensor: their Trainer reads weights only."""
    state.pop("_metadata", None)


def normalised_by(operator: nn.Module, processor: Any) -> Normalised:
    """An operator between physical fields with the numbers of a data processor: one mean and scale for every channel.

    Raises:
        InvalidArgumentError: If a normalizer is missing, is not fitted, or has numbers that vary in space.
    """
    numbers = []
    for end in ("in", "out"):
        normalizer: Any = getattr(processor, f"{end}_normalizer", None)
        mean, std = (getattr(normalizer, name, None) for name in ("mean", "std"))
        if mean is None or std is None or mean.ndim < 3 or mean.numel() != mean.shape[1]:
            raise InvalidArgumentError(
                f"{end}_normalizer must be a fitted UnitGaussianNormalizer with one mean for every channel, "
                f"(1, channels, 1, …) by dim=[0, 2, …], got {'none' if mean is None else tuple(mean.shape)}."
            )
        numbers.append((mean[0], (std + normalizer.eps).flatten()))
    (before, scale), (after, spread) = numbers
    return Normalised(operator, before.flatten(), scale, after, spread)


def _filled(names: Any, sample: Mapping[str, Any], like: Tensor) -> Any:
    """The same structure with the values of a sample in place of their names."""
    if names is None:
        return None
    if not isinstance(names, str):
        return [_filled(name, sample, like) for name in names]
    if names not in sample:
        raise MissingBoundaryError(
            f"sides names {names!r}, but a sample has {['x', *sample]}; put it into the data set."
        )
    value = sample[names]
    return value.to(like.device) if isinstance(value, torch.Tensor) else value
