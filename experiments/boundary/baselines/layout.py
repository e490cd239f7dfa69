"""Inputs and outputs of networks of a case; and input fields as vectors, as regressions on one grid read them."""

from dataclasses import dataclass
from math import prod
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from experiments.errors import InvalidArgumentError

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, kw_only=True)
class Sensors:
    """Places where input channels are read: on every node, or along one side where they are constant along an axis.

    Args:
        space: Nodes of the training grid along every axis.
        constant: Per input channel the axis along which it is constant, as channels with the data of a side are; None
            for a field.
    """

    space: tuple[int, ...]
    constant: tuple[int | None, ...]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Numbers read of every channel."""
        return tuple(prod(self.space) // (1 if axis is None else self.space[axis]) for axis in self.constant)

    def read(self, a: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch numbers"]:
        """The values of input fields at the sensors; fields on other grids are interpolated linearly."""
        if a.ndim != len(self.space) + 2 or a.shape[1] != len(self.constant):
            raise InvalidArgumentError(
                f"The input must be (batch, {len(self.constant)}, *space) with {len(self.space)} axes, "
                f"got {tuple(a.shape)}."
            )
        a = on_grid(a, self.space)
        parts = (
            a[:, channel] if axis is None else a[:, channel].select(1 + axis, 0)
            for channel, axis in enumerate(self.constant)
        )
        return torch.cat([part.reshape(len(a), -1) for part in parts], dim=1)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Channels in and out of a network, and the sizes that networks of a case share.

    ``modes`` are frequencies 0 … m − 1 along every axis; ``periodic`` says along which an FNO has the period of the
    domain, and is empty for none; ``cells`` whether fields are averages over cells, else at nodes.
    """

    sensors: Sensors
    out_channels: int
    width: int
    modes: tuple[int, ...]
    depth: int
    periodic: tuple[bool, ...] = ()
    cells: bool = False

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The layout of the fields of one, of whose tuples JSON may have made lists."""
        sensors = Sensors(**{name: tuple(entry) for name, entry in content["sensors"].items()})
        lists = {name: tuple(content[name]) for name in ("modes", "periodic")}
        return cls(**{**content, **lists, "sensors": sensors})


def on_grid(field: Float[Tensor, "batch channels *nodes"], space: tuple[int, ...]) -> Tensor:
    """A field on equally spaced nodes, both ends included, interpolated linearly to another such grid."""
    if field.shape[2:] == space:
        return field
    return functional.interpolate(field, space, mode=_MODES[len(space)], align_corners=True)
