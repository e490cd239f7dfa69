"""Normalised operators: scaled inputs and outputs, and the mean field of the training set, as part of the model.

    u(x) = ū(x) + s · N((a − ā)/σ)(x)

with one ā and σ for every input channel, one s for every output channel, and the mean ū of the training outputs as a
function of place: stored on the nodes of the training set and interpolated by cubic polynomials to other grids.
"""

from dataclasses import replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon._tensors.tables import cached_table
from boon._tensors.values import check_real
from boon.conditions.functionals import Boundary
from boon.domain import positions
from boon.errors import InvalidArgumentError
from boon.fno import FNO
from boon.spectral import along_axis

_STENCIL = 4  # nodes of a cubic polynomial
_ROUNDING = 16
"""Deviations up to this many units of rounding count as zero."""


class Normalised(nn.Module):
    """An operator between physical fields around one between normalised fields.

    Inside ``BOON`` the conditions hold for the physical field: ``BOON(Normalised.fit(FNO(config), a, u), conditions)``.
    The numbers are buffers: they are saved, moved and cast with the operator, and are not trained.

    Args:
        operator: ``(batch, in_channels, *space)`` → ``(batch, out_channels, *space)`` between normalised fields.
        input_mean: ā of every input channel.
        input_scale: σ of every input channel, in the units of the channel.
        output_mean: ū of every output channel on the nodes of the training set, both ends of every axis included.
        output_scale: s of every output channel, in the units of the channel.
        cells: Whether fields are averages over cells, else at nodes; an ``FNO`` says this itself.

    Raises:
        InvalidArgumentError: If shapes do not match or a scale is not positive.
    """

    input_mean: Tensor
    input_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(
        self,
        operator: nn.Module,
        input_mean: Float[Tensor, " in_channels"],
        input_scale: Float[Tensor, " in_channels"],
        output_mean: Float[Tensor, " out_channels *space"],
        output_scale: Float[Tensor, " out_channels"],
        *,
        cells: bool = False,
    ) -> None:
        super().__init__()
        shapes = [tuple(each.shape) for each in (input_mean, input_scale, output_mean, output_scale)]
        fits = input_mean.ndim == output_scale.ndim == 1 and output_mean.ndim > 1
        if not fits or shapes[0] != shapes[1] or shapes[2][:1] != shapes[3]:
            raise InvalidArgumentError(
                "Normalised needs means and scales (in_channels,), (in_channels,), (out_channels, *space) and "
                f"(out_channels,), got {', '.join(map(str, shapes))}; Normalised.fit makes them from training fields."
            )
        for name, scale in (("input_scale", input_scale), ("output_scale", output_scale)):
            if not bool(((scale > 0) & scale.isfinite()).all()):
                raise InvalidArgumentError(f"{name} must be positive and finite, got {scale.tolist()}.")
        self.operator, self._cells = operator, cells
        self.register_buffer("input_mean", input_mean)
        self.register_buffer("input_scale", input_scale)
        self.register_buffer("output_mean", output_mean)
        self.register_buffer("output_scale", output_scale)

    @classmethod
    def fit(
        cls,
        operator: nn.Module,
        inputs: Float[Tensor, "samples in_channels *space"],
        outputs: Float[Tensor, "samples out_channels *space"],
        *,
        cells: bool = False,
    ) -> Self:
        """Takes the numbers from training fields.

        ā and σ are the mean and the standard deviation of a channel over samples and nodes, ū is the mean over samples
        and s the root mean square of what it leaves. A channel without deviation but by rounding has scale 1.

        Args:
            operator: An operator, usually not trained yet.
            inputs: Input fields of the training set.
            outputs: Output fields of the training set.
            cells: Whether fields are averages over cells, else at nodes; an ``FNO`` says this itself.

        Raises:
            InvalidArgumentError: If the fields have no samples, differ in shape, are not finite, or are no tensors of
                real floating-point numbers.
        """
        check_real(inputs)
        check_real(outputs)
        grids = [(len(fields), *fields.shape[2:]) for fields in (inputs, outputs)]
        if min(inputs.ndim, outputs.ndim) < 3 or len(inputs) == 0 or grids[0] != grids[1]:
            raise InvalidArgumentError(
                "Normalised.fit needs inputs and outputs (samples, channels, *space), as many samples of both on one "
                f"grid, got {tuple(inputs.shape)} and {tuple(outputs.shape)}."
            )
        for name, fields in (("inputs", inputs), ("outputs", outputs)):
            if not bool(torch.isfinite(fields).all()):
                raise InvalidArgumentError(f"{name} hold NaN or infinity; leave these samples out.")
        like = next((p for p in operator.parameters() if not p.is_complex()), outputs)
        a, u = (fields.detach().to(torch.float64).transpose(0, 1) for fields in (inputs, outputs))
        mean, field = a.flatten(1).mean(1), u.mean(1)
        spread, left = a.flatten(1) - mean[:, None], (u - field[:, None]).flatten(1)
        numbers = (mean, _scale(spread, a, inputs.dtype), field, _scale(left, u, outputs.dtype))
        return cls(operator, *(each.to(like) for each in numbers), cells=cells)

    @property
    def cells(self) -> bool:
        """Whether fields are averages over cells."""
        return self.operator.config.transform.cells if isinstance(self.operator, FNO) else self._cells

    def forward(self, x: Float[Tensor, "batch in_channels *space"], *arguments: Any) -> Tensor:
        """Maps physical input fields to physical output fields, on any grid.

        Args:
            x: Input fields.
            arguments: Further arguments of the operator.

        Raises:
            InvalidArgumentError: If the input has another number of channels or axes.
        """
        return self.restore(self.operator(self.normalise(x), *arguments))

    def normalise(self, a: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch in_channels *space"]:
        """(a − ā)/σ."""
        axes = self.output_mean.ndim - 1
        if a.ndim != axes + 2 or a.shape[1] != len(self.input_mean):
            raise InvalidArgumentError(
                f"The input must be (batch, {len(self.input_mean)}, *space) with {axes} axes, got {tuple(a.shape)}."
            )
        mean, scale = (each.view(-1, *[1] * axes) for each in (self.input_mean, self.input_scale))
        return (a - mean) / scale

    def restore(self, u: Float[Tensor, "batch out_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        """ū + s u."""
        mean = interpolate(self.output_mean, u.shape[2:], self.cells)
        return mean + self.output_scale.view(-1, *[1] * (u.ndim - 2)) * u

    def inside(self, boundary: Boundary, shape: tuple[int, ...]) -> Boundary:
        """The conditions of the normalised field: the same functionals, data (g − B ū)/s.

        Args:
            boundary: Conditions of the physical field.
            shape: Nodes along every axis.
        """
        mean = interpolate(self.output_mean.to(torch.float64), shape, boundary.cells)[None]
        data = []
        for side, values in zip(boundary.sides, boundary.data, strict=True):
            scale = self.output_scale.to(torch.float64).view(-1, *[1] * (values.ndim - 2))
            data.append((values - side.read(mean)) / scale)
        return replace(boundary, data=tuple(data))


def interpolate(
    field: Float[Tensor, " channels *nodes"], shape: tuple[int, ...], cells: bool = False
) -> Float[Tensor, " channels *space"]:
    """A field on equally spaced nodes, both ends included, as values on another such grid: cubic along every axis.

    Args:
        field: The field.
        shape: Nodes of the other grid along every axis; a field on this grid is returned as it is. Autocast leaves the
            result in the dtype of the field.
        cells: Whether both grids are of cells, whose centres then are the nodes.
    """
    if torch.is_autocast_enabled(field.device.type):
        with torch.autocast(field.device.type, enabled=False):
            return interpolate(field, shape, cells)
    for axis, (stored, count) in enumerate(zip(field.shape[1:], shape, strict=True)):
        if stored != count:
            field = along_axis(_interpolation(stored, count, cells).to(field), field, 1 + axis)
    return field


@cached_table
def _interpolation(stored: int, count: int, cells: bool) -> Float[Tensor, "count stored"]:
    """Weights of Lagrange polynomials through the four nodes around each point (three intervals), float64."""
    width = min(_STENCIL, stored)
    position = torch.linspace(0, stored - 1, count, dtype=torch.float64)
    if cells:
        position = stored * positions(count, cells) - 0.5
    start = (position.floor().long() - (width - 1) // 2).clamp(0, stored - width)
    local = position - start
    matrix = torch.zeros(count, stored, dtype=torch.float64)
    for node in range(width):
        weight = torch.ones(count, dtype=torch.float64)
        for other in range(width):
            if other != node:
                weight = weight * (local - other) / (node - other)
        matrix.scatter_(1, (start + node)[:, None], weight[:, None])
    return matrix


def _scale(deviations: Float[Tensor, "channels n"], fields: Tensor, dtype: torch.dtype) -> Float[Tensor, " channels"]:
    """Root mean square of every channel, 1 where that is rounding of the fields ``(channels, …)`` in this dtype."""
    scale = deviations.square().mean(1).sqrt()
    return torch.where(scale > _ROUNDING * torch.finfo(dtype).eps * fields.abs().flatten(1).amax(1), scale, 1.0)
