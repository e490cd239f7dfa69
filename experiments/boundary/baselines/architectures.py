"""The networks that methods may have, each built for the layout of a case."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

from torch import Tensor, nn
from typing_extensions import override

from boon import FNO, FNOConfig
from experiments.boundary.baselines.networks import DeepONet, UNet
from experiments.boundary.baselines.sensors import Sensors
from experiments.errors import InvalidArgumentError, MissingPackageError

EXTRA = "neuraloperator"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a network maps between, and the sizes that networks of a case have in common.

    ``modes`` are frequencies 0 … m − 1 along every axis; ``periodic`` says along which an FNO has the period of the
    domain, and is empty for none.
    """

    sensors: Sensors
    out_channels: int
    width: int
    modes: tuple[int, ...]
    depth: int
    periodic: tuple[bool, ...] = ()

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The layout of the fields of one, of whose tuples JSON may have made lists."""
        sensors = Sensors(**{name: tuple(entry) for name, entry in content["sensors"].items()})
        lists = {name: tuple(content[name]) for name in ("modes", "periodic")}
        return cls(**{**content, **lists, "sensors": sensors})


class Architecture(ABC):
    """A kind of network, as a frozen dataclass of its options."""

    @abstractmethod
    def build(self, layout: Layout, targets: Tensor | None = None) -> nn.Module:
        """A network between normalised fields, its weights drawn from torch's global generator.

        ``targets`` are normalised outputs of the training samples; None where weights are read from a file.
        """


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
    def build(self, layout: Layout, targets: Tensor | None = None) -> nn.Module:
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
            )
        )


@cache
def has_neuraloperator() -> bool:
    """Whether the package neuraloperator is installed."""
    return find_spec("neuralop") is not None


@dataclass(frozen=True, kw_only=True)
class NeuralOperator(Architecture):
    """The FNO of the package neuraloperator, with the modes, width and depth of ours.

    Args:
        own_defaults: Whether the rest is as the package has it (a channel MLP after every layer, a lifting of two
            layers, depth 4); else it has the layers of ours.
        padding: Its ``domain_padding``; 0 for none, its default.
    """

    own_defaults: bool = False
    padding: float = 0.0

    @override
    def build(self, layout: Layout, targets: Tensor | None = None) -> nn.Module:
        if not has_neuraloperator():
            raise MissingPackageError(
                f"This method needs the package {EXTRA}: pip install 'probconserv-boon[{EXTRA}]'."
            )
        models = import_module("neuralop.models")  # takes seconds
        ours = {"n_layers": layout.depth, "use_channel_mlp": False, "lifting_channel_ratio": 0}
        return models.FNO(
            n_modes=tuple(2 * modes - 1 for modes in layout.modes),  # −(m − 1) … m − 1, as ours
            in_channels=len(layout.sensors.constant),
            out_channels=layout.out_channels,
            hidden_channels=layout.width,
            domain_padding=self.padding,
            **({} if self.own_defaults else ours),
        )


@dataclass(frozen=True, kw_only=True)
class DeepOperator(Architecture):
    """POD-DeepONet with eight times the width of the FNO, see ``DeepONet``."""

    @override
    def build(self, layout: Layout, targets: Tensor | None = None) -> nn.Module:
        model = DeepONet(layout.sensors, layout.out_channels, width=8 * layout.width, terms=4 * layout.width)
        if targets is not None:
            model.set_basis(targets)
        return model


@dataclass(frozen=True, kw_only=True)
class Convolutional(Architecture):
    """A U-Net, half as wide on its finest level as the FNO, so that a step costs about as much."""

    @override
    def build(self, layout: Layout, targets: Tensor | None = None) -> nn.Module:
        channels = len(layout.sensors.constant), layout.out_channels
        return UNet(len(layout.sensors.space), *channels, width=max(1, layout.width // 2))


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents(Architecture):
    """Regression on principal components, which is fitted, not trained; its settings are all tried when it is."""

    @override
    def build(self, layout: Layout, targets: Tensor | None = None) -> nn.Module:
        raise InvalidArgumentError("A regression on principal components has no untrained form; fit it.")
