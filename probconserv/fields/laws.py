"""Laws with many rows on fields: block means, totals per level or channel, totals per region.

Every point enters one row at most, so the update costs a few passes over the field however many rows there are. A field
is a vector of its values in row-major order, and each block, level or region has a row; ``FieldLayout`` does the
flattening. Tensors stay on their device.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probconserv._linalg.rows import BlockRows, as_sparse_rows
from probconserv.constraints import LinearConstraint, as_tensor
from probconserv.errors import InvalidArgumentError


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
    return LinearConstraint(rows, means.flatten(-len(sizes)), _of_blocks(as_tensor(noise_variance), counts), shape)


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
    return LinearConstraint(rows, totals, noise_variance, (levels, *weights.shape[1:]))


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
    return LinearConstraint(as_sparse_rows(G).to(totals.device), totals, noise_variance, tuple(labels.shape))


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
