"""The networks that methods may have, each built for the layout of a case."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from torch import nn
from typing_extensions import override

from boon import FNO, CellFourier, FNOConfig
from boon.transforms import DomainFourier
from experiments.boundary.baselines.layout import Layout
from experiments.boundary.baselines.unet import UNet
from experiments.errors import InvalidArgumentError, MissingPackageError

EXTRA = "neuraloperator"


class Architecture(ABC):
    """A kind of network, as a frozen dataclass of its options."""

    @abstractmethod
    def build(self, layout: Layout) -> nn.Module:
        """A network between normalised fields, its weights drawn from torch's global generator."""


@dataclass(frozen=True, kw_only=True)
class FourierOperator(Architecture):
    """The FNO of this library.

    Args:
        padding: Extension of the axes, as a fraction of their length.
        channel_mlp: Hidden channels of a network at every node after each layer, as a multiple of the width; None for
            none.
    """

    padding: float = 0.125
    channel_mlp: float | None = None

    @override
    def build(self, layout: Layout) -> nn.Module:
        return FNO(
            FNOConfig(
                in_channels=len(layout.sensors.constant),
                out_channels=layout.out_channels,
                width=layout.width,
                modes=layout.modes,
                depth=layout.depth,
                padding=self.padding,
                periodic=layout.periodic,
                channel_mlp=self.channel_mlp,
                transform=CellFourier() if layout.cells else DomainFourier(),
            )
        )


@cache
def has_neuraloperator() -> bool:
    """Whether the package neuraloperator is installed."""
    return find_spec("neuralop") is not None


@dataclass(frozen=True, kw_only=True)
class NeuralOperator(Architecture):
    """The FNO of the package neuraloperator with the modes and width of ours and its defaults for the rest.

    These are a channel MLP after every layer, a lifting of two layers, and depth 4.

    Args:
        padding: Its ``domain_padding``; 0 for none, its default.
    """

    padding: float = 0.0

    @override
    def build(self, layout: Layout) -> nn.Module:
        if not has_neuraloperator():
            raise MissingPackageError(
                f"This method needs the package {EXTRA}: pip install 'probconserv-boon[{EXTRA}]'."
            )
        models = import_module("neuralop.models")  # takes seconds
        return models.FNO(
            n_modes=tuple(2 * modes - 1 for modes in layout.modes),  # −(m − 1) … m − 1, as ours
            in_channels=len(layout.sensors.constant),
            out_channels=layout.out_channels,
            hidden_channels=layout.width,
            domain_padding=self.padding,
        )


@dataclass(frozen=True, kw_only=True)
class Convolutional(Architecture):
    """A U-Net, half as wide on its finest level as the FNO, so that a step costs about as much."""

    @override
    def build(self, layout: Layout) -> nn.Module:
        channels = len(layout.sensors.constant), layout.out_channels
        return UNet(len(layout.sensors.space), *channels, width=max(1, layout.width // 2))


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents(Architecture):
    """Regression on principal components, which is fitted, not trained; its settings are all tried when it is."""

    @override
    def build(self, layout: Layout) -> nn.Module:
        raise InvalidArgumentError("A regression on principal components has no untrained form; fit it.")
