"""The interface of boundary corrections, and prescription, the simplest one.

A correction is a frozen dataclass. It builds a ``Step`` for fields with a given number of channels (a Module, since it
may have parameters), chooses the basis functions of the layers of an ``FNO``, and evaluates the kernels of the layers.
After every correction ``BOON`` applies ``prescribe`` to the output.

With ``hidden=True`` a step is also applied before every Fourier layer. Hidden features then satisfy the conditions
of an affine image A u + c of the solution, B v = A g + c·B1, with A and c learned for each layer. In this way boundary
data enter the layers, and data that are compatible at corners remain so.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from boon.conditions.functionals import Boundary, set_nodes
from boon.conditions.sides import AxisSides
from boon.errors import InvalidArgumentError
from boon.fno import FNOConfig, Layers, fourier_bases
from boon.spectral import Basis, Convolution


class Step(nn.Module, ABC):
    """A map from fields to fields that meet the conditions, at least to round-off."""

    @abstractmethod
    def forward(self, u: Tensor, boundary: Boundary) -> Tensor:
        """Corrects ``(batch, channels, *space)``."""

    def for_increments(self) -> "Step":
        """The step at the output of an operator that predicts changes, and is given its own output."""
        return self


class Correction(ABC):
    """A method by which an operator meets its boundary conditions.

    Attributes:
        hidden: Whether hidden features are corrected as well.
        acts_on_kernels: Whether the kernels of the layers are changed, which requires the ``FNO`` of this package or of
            neuraloperator.
        needs_nodes: Whether fields must be given at nodes, of which two lie on the walls.
    """

    hidden: bool
    acts_on_kernels: ClassVar[bool]
    needs_nodes: ClassVar[bool] = False

    @property
    def amplifies_rounding(self) -> bool:
        """Whether derivatives are read from neighbouring nodes, and rounding of the field divided by their distance.

        Autocast then leaves an ``FNO`` in the dtype of its weights.
        """
        return False

    @abstractmethod
    def step(self, conditions: Sequence[AxisSides], channels: int) -> Step:
        """The step at the output, and with ``hidden`` before every layer, for fields with this many channels."""

    def bases(
        self,
        conditions: Sequence[AxisSides],  # noqa: ARG002
        config: FNOConfig,
        shape: Sequence[int],
        like: Tensor,
    ) -> tuple[Basis, ...]:
        """The basis functions of the layers for fields of this shape, one basis per axis: by default Fourier modes."""
        return fourier_bases(config, shape, like)

    def kernel(
        self,
        convolution: Convolution,
        v: Tensor,
        bases: Sequence[Basis],
        boundary: Boundary,  # noqa: ARG002
    ) -> Tensor:
        """Applies the kernel of a layer to its features ``(batch, width, *space)``; by default unchanged."""
        return convolution(v, bases)


def check_correction(correction: object) -> None:
    """Raises an error for anything but an instance of a correction, such as its class or its name."""
    if isinstance(correction, Correction):
        return
    given = f"the class {correction.__name__}" if isinstance(correction, type) else repr(correction)
    raise InvalidArgumentError(f"correction must be an instance, as SmoothExtension(), or None, got {given}.")


@dataclass(frozen=True, kw_only=True)
class Prescription(Correction):
    """Sets the boundary nodes and nothing else.

    Args:
        hidden: Whether to set them in hidden layers as well.
    """

    hidden: bool = False

    acts_on_kernels: ClassVar[bool] = False

    def step(self, conditions: Sequence[AxisSides], channels: int) -> Step:  # noqa: ARG002
        return PrescriptionStep()


class PrescriptionStep(Step):
    """``set_nodes`` as a step."""

    def forward(self, u: Tensor, boundary: Boundary) -> Tensor:
        """Sets the boundary nodes."""
        return set_nodes(u, boundary)


class HiddenConditions(nn.Module):
    """The conditions of the features v_l = A_l u + c_l of all layers: the same functionals, data A_l g + c_l·B1.

    Args:
        depth: Number of layers.
        out_channels: Channels of u.
        width: Channels of v.
    """

    def __init__(self, depth: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(depth, 1, width, out_channels) / out_channels**0.5)
        self.bias = nn.Parameter(torch.zeros(depth, 1, width, 1))

    def forward(self, boundary: Boundary) -> list[Boundary]:
        """Maps the boundary of the solution to that of the features of every layer."""
        if not boundary.data:
            return [boundary] * len(self.weight)
        flat = [data.reshape(*data.shape[:2], data.shape[2:].numel()) for data in boundary.data]
        sizes = [part.shape[-1] for part in flat]
        pairs = zip(boundary.sides, boundary.data, strict=True)
        of_one = [side.of_one_on(data).to(self.weight.dtype) for side, data in pairs]
        images = self.weight @ torch.cat(flat, -1).to(self.weight.dtype)
        images = images + self.bias * torch.cat(of_one, -1)
        return [
            replace(
                boundary,
                data=tuple(
                    part.reshape(*part.shape[:2], *data.shape[2:])
                    for part, data in zip(image.split(sizes, -1), boundary.data, strict=True)
                ),
            )
            for image in images
        ]


@dataclass(frozen=True, kw_only=True)
class CorrectedLayers(Layers):
    """The layers of an operator under a correction, for one call.

    Args:
        correction: The correction.
        conditions: The sides of every axis.
        boundary: The conditions of the solution with their data.
        hidden: For every layer the conditions of its features and the step that enforces them; may be empty.
    """

    correction: Correction
    conditions: Sequence[AxisSides]
    boundary: Boundary
    hidden: Sequence[tuple[Boundary, Step]]

    def bases(self, config: FNOConfig, shape: Sequence[int], like: Tensor) -> tuple[Basis, ...]:
        return self.correction.bases(self.conditions, config, shape, like)

    def prepare(self, layer: int, v: Tensor) -> Tensor:
        if not self.hidden:
            return v
        boundary, step = self.hidden[layer]
        return step(v, boundary)

    def kernel(self, convolution: Convolution, v: Tensor, bases: Sequence[Basis]) -> Tensor:
        boundary = self.boundary.inside([basis.margin for basis in bases])
        return self.correction.kernel(convolution, v, bases, boundary)
