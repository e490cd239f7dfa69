"""Smooth extension: spreads the boundary residual into the interior by a ProbConserv update on the boundary.

    u' = u + E (g − B u),   E = A (B A)⁻¹,   A = [Σ_ℓ b]_sides,

where B are the boundary functionals of both ends of an axis, b are the weights of each functional, and Σ_ℓ is the
squared-exponential kernel exp(−(x − x')²/2ℓ²) on the nodes of the axis. B E = I, so the conditions hold to round-off
for any u. With one ℓ for both ends E = Σ Bᵀ (B Σ Bᵀ)⁻¹: u' is the mean of a Gaussian N(u, Σ) conditioned on
B u' = g (Hansen et al. 2023), that is ``probconserv.condition(N(u, Σ), LinearConstraint(B, g))`` (tested). For ℓ → 0
a Dirichlet side changes its boundary node only, as in ``Prescription``.

The lengths ℓ are learned, one per side and channel. Several axes are treated in turn; functionals of different axes
commute, so with compatible data at corners a later axis preserves the conditions of an earlier one.

A one-sided difference of a field with noise has an error of Σ|c|/h times the noise, which E would spread into the
interior. Derivatives are therefore read from a stretch of the axis of fixed length: by the linear functional that is
exact for cubic polynomials and else has the smallest response to noise, weighted towards the side. What it leaves of a
smooth field's residual is of fourth order in that length, and is taken by the boundary node. Around an ``FNO`` of
increments fields that meet B u = g are left as they are, see ``ExtensionStep``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, log, prod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon._tensors.tables import cached_table
from boon.conditions.functionals import STENCILS, Boundary, Functional
from boon.conditions.sides import AxisSides, periodic_axes, sides_of
from boon.conditions.varying import Varying
from boon.corrections.correction import Correction, Step
from boon.corrections.varying import extend_varying
from boon.domain import intervals, positions
from boon.errors import InvalidArgumentError, SingularKernelError
from boon.fno import LATER
from boon.spectral import along_axis
from boon.transforms import DomainFourier
from solvers.recording import are_readable, is_transformed

_DEGREE = 3
_GRIDS = 64  # axes, with their sides and nodes, that a step remembers


@dataclass(frozen=True, kw_only=True)
class SmoothExtension(Correction):
    """Spreads the boundary residual into the interior with learned lengths.

    Args:
        length: Initial ℓ as a fraction of the length of the axis. Around weights that are trained already it should be
            about a step of the grid: a long one moves values that were right.
        hidden: Whether to correct hidden features as well.
        reach: Part of the axis from which derivatives are read, as a fraction of its length. 0 reads them from the
            nodes of the one-sided difference, as version 0.1 did; noise in the field is then amplified.
        floor: Smallest ℓ in units of the distance between nodes; a shorter one bends the last nodes into a zigzag where
            a derivative is given. 0 for none.

    Raises:
        InvalidArgumentError: If the length is not a positive number, the reach not between 0 and 1, or the floor
            negative.
    """

    length: float = 0.01
    hidden: bool = False
    reach: float = 0.25
    floor: float = field(default=0.0, metadata=LATER)
    acts_on_kernels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_length("SmoothExtension", self.length, self.floor)
        if not 0 <= self.reach <= 1:
            raise InvalidArgumentError(f"reach of SmoothExtension must be between 0 and 1, got {self.reach}.")

    @property
    def amplifies_rounding(self) -> bool:
        return self.reach == 0

    def step(self, conditions: Sequence[AxisSides], channels: int) -> Step:
        return ExtensionStep(self, len(sides_of(conditions)) + len(periodic_axes(conditions)), channels)


def check_length(owner: str, length: float, floor: float = 0.0) -> None:
    """Raises an error for an extension length that is not a positive number, or a floor of it that is negative."""
    if not (isfinite(length) and length > 0):
        raise InvalidArgumentError(f"length of {owner} must be positive and finite, got {length}.")
    if not (isfinite(floor) and floor >= 0):
        raise InvalidArgumentError(f"floor of {owner} must be finite and not negative, got {floor}.")


class ExtensionStep(Step):
    """``extend`` along every axis, with the lengths as parameters.

    Args:
        options: Initial length, reach and floor.
        count: Number of sides that are not periodic plus number of periodic axes.
        channels: Channels of the fields; 1 uses the same lengths for all channels.
    """

    of_increments = False

    def __init__(self, options: SmoothExtension, count: int, channels: int) -> None:
        super().__init__()
        self.options = options
        self.log_length = nn.Parameter(torch.full((count, channels), log(options.length)))
        self._made: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def forward(self, u: Tensor, boundary: Boundary) -> Tensor:
        """Adds the extension of the residual, one axis after the other; autocast leaves it in the dtype of u."""
        if torch.is_autocast_enabled(u.device.type):
            with torch.autocast(u.device.type, enabled=False):
                return self(u, boundary)
        lengths = self.log_length.to(torch.float64).exp()
        if self.options.floor:
            axes = (*(side.axis for side in boundary.sides), *boundary.periodic)
            counts = [intervals(u.shape[2 + axis], boundary.cells) for axis in axes]
            lengths = torch.maximum(lengths, self.options.floor / lengths.new_tensor(counts)[:, None])
        for axis, numbers in boundary.by_axis().items():
            residuals = [self._residual(boundary.sides[index], boundary.data[index], u) for index in numbers]
            chosen = torch.stack([lengths[index] for index in numbers])
            if boundary.varying:
                u = extend_varying(u, [boundary.varying[index] for index in numbers], chosen, residuals)
                continue
            sides = tuple(boundary.functionals[index] for index in numbers)
            u = extend(u, self._columns(sides, u.shape[2 + axis], chosen), torch.stack(residuals, dim=2 + axis), axis)
        for number, axis in enumerate(boundary.periodic):
            residual = (u.select(2 + axis, -1) - u.select(2 + axis, 0)).to(torch.float64).unsqueeze(2 + axis)
            row = torch.zeros(1, u.shape[2 + axis], dtype=torch.float64, device=u.device)
            row[0, 0], row[0, -1] = 1.0, -1.0
            u = extend(u, extension_columns(row, lengths[len(boundary.sides) + number, None]), residual, axis)
        return u

    def for_increments(self) -> "ExtensionStep":
        """The step for an operator whose output is its input next; see ``_residual``."""
        self.of_increments = True
        return self

    def _residual(self, side: Functional | Varying, data: Tensor, u: Tensor) -> Tensor:
        """g − B u with smooth derivatives, ``(batch, channels, *face)``.

        A field that meets B u = g by differences has such a residual, too, and an operator of increments would add its
        extension in every step: errors at walls then grow by a third a step. There the residual by differences counts
        where it is the smaller one, and none where the two differ in sign, so that fields that meet B u = g stay.
        """
        reach = self.options.reach
        residual = data - (read_smoothly(side, u, reach) if reach else side.read(u))
        if not self.of_increments:
            return residual
        exact = data - side.read(u)
        smaller = torch.where(exact.abs() < residual.abs(), exact, residual)
        return torch.where(exact * residual > 0, smaller, 0.0)

    def _columns(
        self, sides: tuple[Functional, ...], count: int, lengths: Float[Tensor, "sides channels"]
    ) -> Float[Tensor, "channels n sides"]:
        """E of the sides of an axis; in evaluation without derivatives made once for these lengths."""

        def made() -> Tensor:
            rows = torch.stack([functional_row(side, count) for side in sides]).to(lengths.device)
            return extension_columns(rows, lengths, sides[0].cells)

        if self.training or is_transformed() or (torch.is_grad_enabled() and lengths.requires_grad):
            return made()
        before, columns = self._made.get((sides, count), (lengths.new_empty(0), lengths))
        if before.device != lengths.device or not torch.equal(before, lengths):
            if len(self._made) >= _GRIDS:
                self._made.clear()
            with torch.inference_mode(False), torch.no_grad():
                _, columns = self._made[sides, count] = lengths.clone(), made()
        return columns


def extension_columns(
    rows: Float[Tensor, "sides n"], lengths: Float[Tensor, "sides channels"], cells: bool = False
) -> Float[Tensor, "channels n sides"]:
    """E = A (B A)⁻¹ with A_s = Σ_{ℓ_s} b_s, so that B E = I.

    Args:
        rows: B, one functional per row, float64.
        lengths: ℓ of every functional and channel as a fraction of the axis, float64.
        cells: Whether fields are averages over cells.

    Raises:
        SingularKernelError: If the functionals are numerically dependent under these lengths.
    """
    points = positions(rows.shape[1], cells).to(rows.device)
    columns = []
    for row, length in zip(rows, lengths, strict=True):
        used = row.nonzero().squeeze(1) if are_readable(row) else slice(None)
        distance = points[:, None] - points[used]
        kernel = torch.exp(-0.5 * (distance / length[:, None, None]).square())
        columns.append(kernel @ row[used])
    spread = torch.stack(columns, dim=-1)
    result, info = torch.linalg.solve_ex(rows @ spread, spread, left=False)
    if are_readable(result) and (bool(info.any()) or not bool(torch.isfinite(result).all())):
        raise SingularKernelError(
            f"The sides of an axis are dependent under extension lengths {lengths.detach().tolist()} (as a "
            "fraction of the axis); start from a smaller length or a smaller learning rate."
        )
    return result


def extend(
    u: Float[Tensor, "batch channels *space"],
    columns: Float[Tensor, "channels n sides"],
    residual: Tensor,
    axis: int,
) -> Float[Tensor, "batch channels *space"]:
    """u + E r along one axis.

    Args:
        u: A field.
        columns: E, for every channel or one for all.
        residual: r = g − B u ``(batch, channels, …, sides, …)``, with the axis replaced by the sides.
        axis: The axis.
    """
    columns, residual = columns.to(u.dtype), residual.to(u.dtype)
    before, after = prod(u.shape[2 : 2 + axis]), prod(u.shape[3 + axis :])
    faces = residual.reshape(*u.shape[:2], before, columns.shape[-1], after)
    change = faces.squeeze(-1) @ columns.mT if after == 1 else columns[:, None] @ faces
    return u + change.reshape(u.shape)


def functional_row(side: Functional, count: int) -> Float[Tensor, " n"]:
    """The weights of a functional on all ``count`` nodes of its axis, float64."""
    row = torch.zeros(count, dtype=torch.float64)
    for offset, weight in enumerate(side.weights):
        row[side.node(offset, count)] += weight
    return row


def read_smoothly(side: Functional | Varying, u: Float[Tensor, "batch channels *space"], reach: float) -> Tensor:
    """a u + b ∂u/∂x on a side, the derivative from a stretch of the axis: ``(batch, channels, *face)``, float64.

    Args:
        side: The side.
        u: A field.
        reach: Length of the stretch as a fraction of the length of the axis.
    """
    if isinstance(side, Varying):
        return side.value(u) + side.b * smooth_derivative(side, u, reach, side.gradient)
    if side.is_value:
        return side.read(u)
    return _value_part(side).read(u) + smooth_derivative(side, u, reach, side.weights)


def smooth_derivative(side: Functional | Varying, u: Tensor, reach: float, weights: tuple[float, ...]) -> Tensor:
    """b ∂u/∂x on a side, with the factor b of a one-sided difference in its innermost weight."""
    dim, count = 2 + side.axis, u.shape[2 + side.axis]
    smooth = derivative_weights(count, reach, side.cells)
    _, difference = STENCILS[len(weights) - 1, side.last, side.cells]
    factor = weights[-1] / (difference[-1] * intervals(count, side.cells))  # b/L
    strip = u.narrow(dim, count - len(smooth) if side.last else 0, len(smooth)).to(torch.float64)
    row = (factor * (-smooth.flip(0) if side.last else smooth)).to(u.device)
    return along_axis(row[None], strip, dim).squeeze(dim)


@cached_table
def derivative_weights(count: int, reach: float, cells: bool = False) -> Float[Tensor, " k"]:
    """Weights of the first nodes or cells of the interval [0, 1] for the derivative at 0, exact for cubic polynomials.

    The weighted least-squares fit with weights (1 − x/r)² times those of an integral: it converges to one functional as
    the grid is refined. The stretch r has at least six intervals, or all there are.

    Args:
        count: Number n of nodes or cells.
        reach: r.
        cells: Whether fields are averages over cells.
    """
    x, steps = positions(count, cells), intervals(count, cells)
    stretch = max(reach, 2 * _DEGREE / steps)
    window = (1.0 - x / stretch).clamp(min=0.0).square()
    for node, factor in enumerate(() if cells else DomainFourier().end_weights(count)):
        window[node] *= factor
    used = max(sum((node + 0.5 * cells) / steps < stretch for node in range(count)), min(_DEGREE + 1, count))
    window, monomials = window[:used], torch.stack([x[:used] ** power for power in range(min(_DEGREE + 1, used))], 1)
    moments = monomials.mT @ (window[:, None] * monomials)
    first = torch.zeros(len(moments), dtype=torch.float64)
    first[1] = 1.0
    return window * (monomials @ torch.linalg.solve(moments, first))


def _value_part(side: Functional) -> Functional:
    """The part a u of a functional a u + b ∂u/∂x; its weights are 0 for a given gradient."""
    total = side.of_one
    if abs(total) <= 1e-9 * sum(abs(weight) for weight in side.weights):
        total = 0.0
    of_value, _ = STENCILS[len(side.weights) - 1, side.last, side.cells]
    return replace(side, weights=tuple(total * weight for weight in of_value))
