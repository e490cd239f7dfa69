"""Laws with many rows on fields: block means, totals per level, channel or region, and budgets of control volumes.

Of the former every point enters one row at most, so the update costs a few passes over the field however many rows
there are. A field is a vector of its values in row-major order, and each block, level or region has a row;
``FieldLayout`` does the flattening. Tensors stay on their device.

In a budget the content of a cell changes by what passes its faces,

    V u_j + Σ_axes (P_{j+½} − P_{j−½}) = content at the start,

with P the flux through a face, integrated over the face and over time, positive along +axis. Where P is given, it goes
to the right-hand side (``block_budgets``, one row per block); where it is predicted too, content and fluxes are one
vector (``FluxLayout``) and the laws are sparse rows, one per cell (``flux_budgets``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probconserv._linalg.rows import BlockRows, as_sparse_rows
from probconserv.constraints import LinearConstraint, as_tensor
from probconserv.errors import InvalidArgumentError
from solvers.grids import CellGrid


def block_means(
    means: Float[Tensor, "*batch_and_blocks"],
    factor: int | Sequence[int],
    *,
    weights: Float[Tensor, "*space"] | None = None,
    noise_variance: float | Float[Tensor, "*batch_and_blocks"] = 0.0,
) -> LinearConstraint:
    """The mean over every block of a regular partition, as in downscaling: each coarse cell's mean is given.

    Args:
        means: Means ``(*batch, H/f, W/f)``; one axis for every entry of ``factor``.
        factor: Points of a block along every axis; one number f means f × f blocks over two axes. For fields with
            channels give ``(1, f, f)`` and means ``(*batch, channels, H/f, W/f)``.
        weights: Weight of every point ``(H, W)``, for instance ``sphere_areas``; equal by default.
        noise_variance: σ² of the means, a number or one per mean.
    """
    means = as_tensor(means)
    sizes = (int(factor),) * 2 if isinstance(factor, int | np.integer) else tuple(factor)
    if not sizes or min(sizes) < 1 or means.ndim < len(sizes):
        raise InvalidArgumentError(
            f"factor needs a number of points ≥ 1 for every axis of the means, got {factor} for means "
            f"{tuple(means.shape)}; one number stands for two axes."
        )
    counts = tuple(means.shape[means.ndim - len(sizes) :])
    entries = torch.full((), 1.0 / prod(sizes), dtype=torch.float64, device=means.device)
    if weights is not None:
        entries = _normalised(as_tensor(weights).to(means.device), counts, sizes)
    rows = BlockRows(counts=counts, sizes=sizes, entries=entries)
    shape = tuple(count * size for count, size in zip(counts, sizes, strict=True))
    return LinearConstraint(
        rows, means.flatten(-len(sizes)), noise_variance=_of_blocks(as_tensor(noise_variance), counts), shape=shape
    )


def level_totals(
    totals: Float[Tensor, "*batch levels"],
    weights: Float[Tensor, "..."],
    noise_variance: float | Float[Tensor, "*batch levels"] = 0.0,
) -> LinearConstraint:
    """The weighted total of every level, channel or species of a field ``(*batch, levels, *space)``.

    Args:
        totals: Totals ``(*batch, levels)``.
        weights: Weight of every cell: its area, volume or mass ``(levels, *space)``, or ``(1, *space)`` for all levels;
            ``grid.weights[None]`` of a grid, ``sphere_areas(...)[None]``.
        noise_variance: σ² of the totals.
    """
    totals = as_tensor(totals)
    weights = as_tensor(weights).to(totals.device)
    if not totals.ndim:
        raise InvalidArgumentError("level_totals needs totals (*batch, levels), got one number; give it an axis.")
    levels = totals.shape[-1]
    if weights.ndim < 2 or weights.shape[0] not in (1, levels):
        raise InvalidArgumentError(
            f"weights must be (1, *space) or (levels, *space) with the {levels} levels of the totals, got "
            f"{tuple(weights.shape)}."
        )
    each = weights.flatten(1)
    entries = each.expand(levels, each.shape[1]).flatten()
    rows = BlockRows(counts=(levels,), sizes=(each.shape[1],), entries=entries)
    return LinearConstraint(rows, totals, noise_variance=noise_variance, shape=(levels, *weights.shape[1:]))


def region_totals(
    totals: Float[Tensor, "*batch regions"],
    labels: Int[Tensor, "*space"],
    weights: Float[Tensor, "*space"] | None = None,
    noise_variance: float | Float[Tensor, "*batch regions"] = 0.0,
) -> LinearConstraint:
    """The weighted total of every region of any shape: basins, countries, watersheds.

    Args:
        totals: Totals ``(*batch, regions)``.
        labels: Region of every cell, counted from 0; −1 for cells of no region.
        weights: Weight of every cell, not zero within regions; 1 by default.
        noise_variance: σ² of the totals.
    """
    totals, labels = as_tensor(totals), _whole(as_tensor(labels, dtype=None))
    weights = torch.ones(labels.shape) if weights is None else weights
    weights = as_tensor(weights).to(labels.device)
    if not totals.ndim or not labels.numel():
        raise InvalidArgumentError(
            "region_totals needs totals (*batch, regions) and labels of at least one cell, got "
            f"{tuple(totals.shape)} and {tuple(labels.shape)}."
        )
    count = totals.shape[-1]
    if weights.shape != labels.shape or int(labels.min()) < -1 or int(labels.max()) >= count:
        raise InvalidArgumentError(
            f"labels must lie between −1 and {count - 1} for {count} totals, with one weight each; got labels from "
            f"{int(labels.min())} to {int(labels.max())} and shapes {tuple(labels.shape)} and {tuple(weights.shape)}."
        )
    column = (labels.flatten() >= 0).nonzero()[:, 0]
    index = torch.stack([labels.flatten()[column], column])
    shape = (count, labels.numel())
    G = torch.sparse_coo_tensor(index, weights.flatten()[column], shape, check_invariants=False)
    return LinearConstraint(
        as_sparse_rows(G).to(totals.device), totals, noise_variance=noise_variance, shape=tuple(labels.shape)
    )


def sphere_areas(
    latitudes: Float[Tensor, " rows_plus_one"] | np.ndarray,
    longitudes: Float[Tensor, " columns_plus_one"] | np.ndarray,
    radius: float = 1.0,
) -> Float[Tensor, "rows columns"]:
    """Areas of latitude–longitude cells, R² (sin φ_{i+1} − sin φ_i)(λ_{j+1} − λ_j).

    Args:
        latitudes: Faces of the cells φ in degrees, increasing or decreasing, within [−90, 90].
        longitudes: Faces of the cells λ in degrees, increasing or decreasing.
        radius: R; areas are in its square.
    """
    latitudes, longitudes = as_tensor(latitudes), as_tensor(longitudes)
    for name, faces in (("latitudes", latitudes), ("longitudes", longitudes)):
        steps = faces.diff() if faces.ndim == 1 else faces
        if faces.ndim != 1 or len(faces) < 2 or not bool((steps > 0).all() | (steps < 0).all()):
            raise InvalidArgumentError(
                f"{name} must be at least two faces in one row, all increasing or all decreasing."
            )
    if float(latitudes.abs().max()) > 90:
        raise InvalidArgumentError(
            f"latitudes must lie within [−90, 90] degrees, got up to {float(latitudes.abs().max()):g}."
        )
    rows, columns = torch.deg2rad(latitudes).sin().diff().abs(), torch.deg2rad(longitudes).diff().abs()
    return radius**2 * rows[:, None] * columns


@dataclass(frozen=True)
class FluxLayout:
    """Cell values and face fluxes of a grid as one vector: cells first, then the faces normal to every axis in turn.

    Args:
        grid: Cells.
        cells: Whether the vector holds cell values; without them it holds fluxes only.
    """

    grid: CellGrid
    cells: bool = True

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of every part: of the cells, and of the faces normal to every axis, one more along it."""
        return ((self.grid.shape,) if self.cells else ()) + _faces(self.grid.shape)

    @property
    def points(self) -> int:
        """Number n of values."""
        return sum(prod(shape) for shape in self.shapes)

    def flatten(self, *parts: Float[Tensor, "..."]) -> Float[Tensor, "*batch n"]:
        """Cell values ``(*batch, *shape)`` and one tensor of fluxes per axis as one vector."""
        shapes = self.shapes
        if len(parts) != len(shapes) or any(
            tuple(part.shape[-len(shape) :]) != shape for part, shape in zip(parts, shapes, strict=False)
        ):
            raise InvalidArgumentError(
                f"The parts must end in the shapes {shapes}, got {[tuple(part.shape) for part in parts]}."
            )
        flat = [part.flatten(-self.grid.dimension) for part in parts]
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in flat))
        return torch.cat([part.expand(*batch, part.shape[-1]) for part in flat], dim=-1)

    def unflatten(self, values: Float[Tensor, "*batch n"]) -> tuple[Float[Tensor, "..."], ...]:
        """The parts of a vector; the inverse of ``flatten``."""
        if values.shape[-1:] != (self.points,):
            raise InvalidArgumentError(f"values must be (*batch, {self.points}), got {tuple(values.shape)}.")
        parts = values.split([prod(shape) for shape in self.shapes], dim=-1)
        return tuple(part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, self.shapes, strict=True))


def flux_budgets(
    grid: CellGrid,
    initial_contents: Float[Tensor, "*batch_and_space"],
    noise_variance: float = 0.0,
) -> LinearConstraint:
    """The budget of every cell, with its content at the end and the fluxes through its faces both uncertain.

    Args:
        grid: Cells, any number of axes.
        initial_contents: ∫ u over every cell at the start ``(*batch, *shape)``: cell averages times ``grid.weights``.
        noise_variance: σ² of a budget.
    """
    contents = _on_cells(grid, initial_contents, "initial_contents")
    layout = FluxLayout(grid)
    return _law_of_faces(layout, (1.0,) * grid.dimension, contents, noise_variance)


def divergence(
    grid: CellGrid, value: Float[Tensor, "*batch_and_space"] | float = 0.0, noise_variance: float = 0.0
) -> LinearConstraint:
    """∇·F of every cell, Σ_axes (F_{j+½} − F_{j−½})/h, for fields of fluxes on faces; 0 for incompressible flow.

    Args:
        grid: Cells, any number of axes.
        value: The divergence, a number or ``(*batch, *shape)``.
        noise_variance: σ² of the divergence.
    """
    value = as_tensor(value)
    target = _on_cells(grid, value if value.ndim else value.expand(grid.shape), "value")
    return _law_of_faces(FluxLayout(grid, cells=False), grid.spacing, target, noise_variance)


def block_budgets(
    grid: CellGrid,
    factor: int | Sequence[int],
    initial_contents: Float[Tensor, "*batch_and_blocks"],
    passed: Sequence[Float[Tensor, "*batch_and_faces"]],
    noise_variance: float = 0.0,
) -> LinearConstraint:
    """The budget of every control volume made of a block of cells, with given fluxes; any number of axes.

        ∫_{block} u = initial content − Σ_axes (passed_{j+½} − passed_{j−½})

    Args:
        grid: Cells.
        factor: Cells of a block along every axis, or one number for all.
        initial_contents: ∫ u over every block at the start ``(*batch, *blocks)``.
        passed: For every axis the flux through the faces of the blocks normal to it, integrated over face and time,
            ``(*batch, *blocks)`` with one more along that axis; positive along +axis.
        noise_variance: σ² of a budget.
    """
    sizes = (int(factor),) * grid.dimension if isinstance(factor, int | np.integer) else tuple(factor)
    if len(sizes) != grid.dimension or any(
        size < 1 or count % size for size, count in zip(sizes, grid.shape, strict=True)
    ):
        raise InvalidArgumentError(f"Blocks of {sizes} cells do not divide the grid {tuple(grid.shape)}.")
    counts = tuple(count // size for count, size in zip(grid.shape, sizes, strict=True))
    contents = as_tensor(initial_contents)
    fluxes = [as_tensor(flux) for flux in passed]
    shapes, actual = _faces(counts), tuple(tuple(flux.shape[-grid.dimension :]) for flux in fluxes)
    if tuple(contents.shape[-grid.dimension :]) != counts or actual != shapes:
        raise InvalidArgumentError(
            f"initial_contents must end in {counts} and the fluxes in {shapes}, got {tuple(contents.shape)} and "
            f"{[tuple(flux.shape) for flux in fluxes]}."
        )
    for axis, flux in enumerate(fluxes):
        contents = contents - flux.diff(dim=axis - grid.dimension)
    rows = BlockRows(counts=counts, sizes=sizes, entries=grid.weights.flatten().to(contents.device))
    return LinearConstraint(
        rows, contents.flatten(-grid.dimension), noise_variance=noise_variance, shape=tuple(grid.shape)
    )


def _of_blocks(noise: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Variances that broadcast to the blocks as one per row ``(*batch, k)``; a number stays one."""
    if not noise.ndim:
        return noise
    try:
        return noise.expand(*noise.shape[: -len(counts)], *counts).flatten(-len(counts))
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"noise_variance must be a number or (*batch, {', '.join(map(str, counts))}), one for every block, got "
            f"{tuple(noise.shape)}."
        ) from error


def _whole(labels: Tensor) -> Tensor:
    """Labels as integers; InvalidArgumentError if they have fractions, as those of an interpolated map."""
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise InvalidArgumentError(
            "labels must be whole numbers, got fractions or NaN; bring a map of regions to another grid by nearest "
            "neighbours."
        )
    return labels.to(torch.int64)


def _normalised(weights: Tensor, counts: tuple[int, ...], sizes: tuple[int, ...]) -> Tensor:
    """Weights divided by their sum over the block ``(n,)``."""
    shape = tuple(count * size for count, size in zip(counts, sizes, strict=True))
    if weights.shape != shape or not bool((weights >= 0).all()):
        raise InvalidArgumentError(
            f"weights must be {shape}, not negative, for blocks of {sizes} points; got {tuple(weights.shape)}."
        )
    unit = BlockRows(counts=counts, sizes=sizes, entries=torch.ones((), dtype=torch.float64, device=weights.device))
    total = unit.functional(weights.reshape(1, -1))
    if not bool((total > 0).all()):
        raise InvalidArgumentError("The weights of a block add up to zero, so that it has no mean; drop its row.")
    inverse = -1.0 / total
    return unit.subtract(None, weights.flatten(), inverse)[0]


def _faces(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Shapes of the faces normal to every axis, one more along it than cells."""
    return tuple(tuple(count + (along == axis) for along, count in enumerate(shape)) for axis in range(len(shape)))


def _face_numbers(layout: FluxLayout) -> list[tuple[Tensor, Tensor]]:
    """For every axis the numbers of the first and of the last face of every cell in the vector."""
    start, numbers = prod(layout.grid.shape) if layout.cells else 0, []
    for axis, shape in enumerate(layout.shapes[-layout.grid.dimension :]):
        faces = start + torch.arange(prod(shape)).reshape(shape)
        count = layout.grid.shape[axis]
        numbers.append(tuple(faces.narrow(axis, first, count).flatten() for first in (0, 1)))
        start += prod(shape)
    return numbers


def _law_of_faces(
    layout: FluxLayout, sizes: Sequence[float], target: Tensor, noise_variance: float
) -> LinearConstraint:
    """One row per cell: its content, if the vector has it, and the difference of its fluxes over a size per axis."""
    cells = torch.arange(prod(layout.grid.shape))
    columns, entries = ([cells], [layout.grid.weights.flatten()]) if layout.cells else ([], [])
    for size, (first, last) in zip(sizes, _face_numbers(layout), strict=True):
        columns += [last, first]
        entries += [torch.full((len(cells),), sign / size, dtype=torch.float64) for sign in (1.0, -1.0)]
    index = torch.stack([cells.repeat(len(columns)), torch.cat(columns)])
    shape = (len(cells), layout.points)
    G = torch.sparse_coo_tensor(index, torch.cat(entries), shape, check_invariants=False)
    return LinearConstraint(as_sparse_rows(G).to(target.device), target, noise_variance=noise_variance)


def _on_cells(grid: CellGrid, values: Tensor, name: str) -> Tensor:
    values = as_tensor(values)
    if tuple(values.shape[-grid.dimension :]) != tuple(grid.shape):
        raise InvalidArgumentError(
            f"{name} must be one number per cell, (*batch, {', '.join(map(str, grid.shape))}), got "
            f"{tuple(values.shape)}."
        )
    return values.flatten(-grid.dimension)
