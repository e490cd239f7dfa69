"""Budgets of control volumes in any number of axes: with given fluxes, and with fluxes that are uncertain as well.

The content of a cell changes by what passes its faces,

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
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.rows import BlockRows, as_sparse_rows
from probconserv.constraints import LinearConstraint, as_tensor
from probconserv.errors import InvalidArgumentError
from solvers.grids import CellGrid


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
        shape = self.grid.shape
        faces = tuple(
            tuple(count + (along == axis) for along, count in enumerate(shape)) for axis in range(self.grid.dimension)
        )
        return ((shape,) if self.cells else ()) + faces

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
    shapes = [tuple(n + (along == axis) for along, n in enumerate(counts)) for axis in range(grid.dimension)]
    actual = [tuple(flux.shape[-grid.dimension :]) for flux in fluxes]
    if tuple(contents.shape[-grid.dimension :]) != counts or actual != shapes:
        raise InvalidArgumentError(
            f"initial_contents must end in {counts} and the fluxes in {shapes}, got {tuple(contents.shape)} and "
            f"{[tuple(flux.shape) for flux in fluxes]}."
        )
    for axis, flux in enumerate(fluxes):
        contents = contents - flux.diff(dim=axis - grid.dimension)
    rows = BlockRows(counts=counts, sizes=sizes, entries=grid.weights.flatten().to(contents.device))
    return LinearConstraint(rows, contents.flatten(-grid.dimension), noise_variance, tuple(grid.shape))


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
    return LinearConstraint(as_sparse_rows(G).to(target.device), target, noise_variance)


def _on_cells(grid: CellGrid, values: Tensor, name: str) -> Tensor:
    values = as_tensor(values)
    if tuple(values.shape[-grid.dimension :]) != tuple(grid.shape):
        raise InvalidArgumentError(
            f"{name} must be one number per cell, (*batch, {', '.join(map(str, grid.shape))}), got "
            f"{tuple(values.shape)}."
        )
    return values.flatten(-grid.dimension)
