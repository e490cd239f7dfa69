"""Conditions that differ between channels: a velocity given at a wall where the gradient of the pressure is."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon._tensors.values import check_tensor
from boon.conditions.discretisation import SideValues
from boon.conditions.functionals import Boundary, prescribe
from boon.conditions.walls import warn_off_walls
from boon.corrections.correction import Correction, check_correction
from boon.corrections.extension import SmoothExtension
from boon.errors import InvalidArgumentError
from boon.normalisation import Normalised
from boon.operator import BOON, predicts_changes
from boon.scores import relative_residual
from solvers.grids import Grid


class ChannelBOON(nn.Module):
    """Wraps an operator so that every channel of its output meets its conditions, to round-off.

    Values are as in ``BOON``, with one channel: they broadcast to ``(batch, 1, *face)``.

    Args:
        operator: ``(batch, in_channels, *space)`` → ``(batch, out_channels, *space)``.
        conditions: The conditions of every output channel in order, each as in ``BOON``.
        lengths: Length of every axis in the units of gradients and coordinates; None means 1.
        correction: The correction; None means ``SmoothExtension()``. Features inside the layers belong to all channels,
            so only corrections at the output are possible.
        order: As in ``BOON``.
        grid: As in ``BOON``, in place of lengths.

    Raises:
        MissingBoundaryError: If neither side of a pair has a condition.
        InvalidArgumentError: If an argument is wrong, or the correction acts inside the layers.
    """

    def __init__(
        self,
        operator: nn.Module,
        conditions: Sequence[Sequence[object]],
        lengths: Sequence[float] | None = None,
        correction: Correction | None = None,
        order: int = 2,
        *,
        grid: Grid | None = None,
    ) -> None:
        super().__init__()
        correction = SmoothExtension() if correction is None else correction
        check_correction(correction)
        if correction.hidden or correction.acts_on_kernels:
            raise InvalidArgumentError(
                f"{correction} acts inside the layers, whose features belong to all channels; conditions per channel "
                "take SmoothExtension() or Prescription()."
            )
        if len(conditions) == 0:
            raise InvalidArgumentError("ChannelBOON needs the conditions of at least one output channel, got none.")
        self.operator = operator
        self.channels = nn.ModuleList(
            BOON(nn.Identity(), each, lengths, correction, order, grid=grid) for each in conditions
        )
        if isinstance(operator, Normalised):
            for mean, channel in zip(operator.output_mean.split(1), self.channels, strict=False):
                warn_off_walls(mean, channel.sides, channel.domain)  # type: ignore[arg-type]
        for channel in self.channels if predicts_changes(operator) else ():
            channel.step = channel.step.for_increments()  # type: ignore[operator]

    def forward(
        self, x: Float[Tensor, "batch in_channels *space"], boundary: Sequence[SideValues | None] | None = None
    ) -> Float[Tensor, "batch out_channels *space"]:
        """Maps input fields to output fields whose channels meet their conditions.

        Args:
            x: Input fields, at nodes or in cells as the grid says.
            boundary: For every channel the values of the sides whose condition has none, as in ``BOON``, or None.

        Raises:
            MissingBoundaryError: If a side has no value, or two.
            IncompatibleCornersError: If Dirichlet values of a channel disagree where two sides meet.
            InvalidArgumentError: If the operator gives another number of channels, or a value is wrong.
        """
        u = self.operator(x)
        return self._corrected(u, self.discretise(u, boundary))

    def with_residual(
        self, x: Float[Tensor, "batch in_channels *space"], boundary: Sequence[SideValues | None] | None = None
    ) -> tuple[Float[Tensor, "batch out_channels *space"], Float[Tensor, ""]]:
        """``forward``, and how far the operator was from all conditions before they were enforced, for the loss; see
        ``BOON.with_residual``.
        """
        u = self.operator(x)
        discrete = self.discretise(u, boundary)
        return self._corrected(u, discrete), relative_residual(u, discrete)

    def _corrected(self, u: Tensor, boundary: Sequence[Boundary]) -> Tensor:
        parts = zip(u.split(1, dim=1), self.channels, boundary, strict=True)
        return torch.cat(
            [prescribe(channel.step(part, each), each) for part, channel, each in parts],  # type: ignore[operator]
            dim=1,
        )

    def discretise(
        self,
        u: Float[Tensor, "batch out_channels *space"],
        boundary: Sequence[SideValues | None] | None = None,
        *,
        order: int | None = None,
    ) -> list[Boundary]:
        """The conditions of every channel with their data on the grid of a field; see ``BOON.discretise``."""
        check_tensor(u)
        parts = zip(u.split(1, dim=1), self.channels, self._values(u, boundary), strict=True)
        return [channel.discretise(part, value, order=order) for part, channel, value in parts]  # type: ignore[operator]

    def response(self, grid: Grid | None, fields: Float[Tensor, "..."] | None = None) -> Tensor:
        """``BOON.response`` of every channel ``(channels, *space)``."""
        if fields is None:
            return torch.cat([channel.response(grid) for channel in self.channels])  # type: ignore[operator]
        axis = -1 - len(self.channels[0].conditions)  # type: ignore[arg-type]
        parts = zip(self.channels, fields.split(1, dim=axis), strict=True)
        return torch.cat([channel.response(grid, part) for channel, part in parts], dim=axis)  # type: ignore[operator]

    def _values(self, u: Tensor, boundary: Sequence[SideValues | None] | None) -> Sequence[SideValues | None]:
        count = len(self.channels)
        if u.shape[1] != count:
            raise InvalidArgumentError(
                f"The operator gives {u.shape[1]} channels but conditions are given for {count}; give one list of "
                "conditions per channel."
            )
        if boundary is not None and len(boundary) != count:
            raise InvalidArgumentError(
                f"boundary needs one entry for each of {count} channels, got {len(boundary)}; give None where a "
                "channel takes no values."
            )
        return [None] * count if boundary is None else boundary
