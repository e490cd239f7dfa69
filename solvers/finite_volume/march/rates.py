"""Compiled rates of change of rows along one to three axes: diffusion, convection and sources.

The cells of a row lie in a flat array with ghost cells at both ends of every axis, and rows come one after the other:
neighbours along an axis are a fixed distance apart, so that every loop runs over all of it at unit stride, whatever the
axis and the number of axes. What it finds between ghost cells is not used.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import inner_on_views, merged, on_views
from solvers.finite_volume.march.arguments import Array, TileSystem
from solvers.finite_volume.march.kernels import function_at
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

COMPILED, IN_TENSORS, ISOTROPIC = 1, 2, 3
"""Kinds of diffusion; 0 where there is none. Isotropic is compiled, with the same parameters along all axes."""


class Layout(NamedTuple):
    """Places in the flat array of one row; S is the number of faces on all sides.

    Attributes:
        shape: Cells along every axis ``(d,)``.
        strides: Distances of neighbours along every axis ``(d,)``.
        pads: Ghost cells at each end.
        size: Length of the array.
        lines: Places of the first cells of all lines along the last axis.
        faces: Places of the first faces across an axis of lines along the last axis ``(d, l)``, −1 where there is none.
        ghost: Places of the ghost cells at the sides ``(S,)``.
        edge: Places of the cells there.
        opposite: Places of the cells at the opposite ends.
        offsets: Where the faces of every side begin, and S ``(2d + 1,)``.
    """

    shape: Array
    strides: Array
    pads: int
    size: int
    lines: Array
    faces: Array
    ghost: Array
    edge: Array
    opposite: Array
    offsets: Array


@lru_cache(maxsize=64)
def layout_of(shape: tuple[int, ...], pads: int) -> Layout:
    """The layout of cells ``(*shape)``."""
    padded = [n + 2 * pads for n in shape]
    d, places, inside = len(shape), np.arange(np.prod(padded)).reshape(padded), slice(pads, -pads)
    sides: Sequence[tuple[int, int, int]] = ((pads - 1, pads, -pads - 1), (-pads, -pads - 1, pads))
    at_sides = []
    for axis in range(d):
        before, after = (inside,) * axis, (inside,) * (d - axis - 1)
        at_sides += [[places[(*before, at, *after)].ravel() for at in three] for three in sides]
    first = [slice(pads - (other == axis), -pads) for axis in range(d) for other in range(d)]
    lines = [places[tuple(first[axis * d : axis * d + d])][..., 0].ravel() for axis in range(d)]
    faces = np.full((d, max(map(len, lines))), -1)
    for axis, line in enumerate(lines):
        faces[axis, : len(line)] = line
    ghost, edge, opposite = (np.concatenate(part) for part in zip(*at_sides, strict=True))
    return Layout(
        np.array(shape),
        np.array([stride // places.itemsize for stride in places.strides]),
        pads,
        places.size,
        places[(inside,) * (d - 1) + (pads,)].ravel().copy(),
        faces,
        np.ascontiguousarray(ghost),
        np.ascontiguousarray(edge),
        np.ascontiguousarray(opposite),
        np.cumsum([0, *(len(part[0]) for part in at_sides)]),
    )


def to_padded(cells: Array, layout: Layout) -> Array:
    """Rows ``(rows, cells)`` in the layout ``(rows, size)``, zero in the ghost cells."""
    padded, n = np.zeros((len(cells), layout.size)), layout.shape[-1]
    if len(layout.shape) == 1:
        padded[:, layout.pads : layout.pads + n] = cells
    else:
        padded[:, (layout.lines[:, None] + np.arange(n)).ravel()] = cells
    return padded


def from_padded(padded: Array, layout: Layout) -> Array:
    """The cells ``(rows, cells)`` of rows in the layout."""
    if len(layout.shape) == 1:
        return padded[:, layout.pads : layout.pads + layout.shape[-1]].copy()
    return padded[:, (layout.lines[:, None] + np.arange(layout.shape[-1])).ravel()]


@inner_on_views
def sum_cells(v: Array, lines: Array, count: int) -> float:
    """Sum over the cells of a row."""
    total = 0.0
    for k in range(lines.size):
        for i in range(lines[k], lines[k] + count):
            total += v[i]
    return total


@inner_on_views(fastmath={"nnan", "nsz"})
def _largest(v: Array, faces: Array, count: int) -> float:
    """Largest entry on the faces across an axis."""
    largest = 0.0
    for k in range(faces.size):
        line = v[faces[k] : faces[k] + count] if faces[k] >= 0 else v[:0]
        for i in range(line.size):
            largest = max(largest, line[i])
    return largest


@on_views
def fill_ghosts(x: Array, layout: Layout, modes: Array, pull: Array, data: Array, rows: int) -> None:
    """States on the sides, in the ghost cells next to them."""
    ghost, edge, opposite, offsets = layout.ghost, layout.edge, layout.opposite, layout.offsets
    for b in range(rows):
        row = x[b * layout.size :]
        for side in range(modes.size):
            for e in range(offsets[side], offsets[side + 1]):
                if modes[side] == STATE:
                    row[ghost[e]] = data[b, e] + pull[b, side] * row[edge[e]]
                else:
                    row[ghost[e]] = row[opposite[e]] if modes[side] == PERIODIC else row[edge[e]]


@inner_on_views
def _extend(x: Array, layout: Layout, axis: int, modes: Array, rows: int) -> None:
    """Ghost cells of linear reconstructions, by the line through the state on the side, which the first one holds."""
    ghost, edge, opposite, offsets = layout.ghost, layout.edge, layout.opposite, layout.offsets
    for b in range(rows):
        row = x[b * layout.size :]
        for side in range(2 * axis, 2 * axis + 2):
            out = -layout.strides[axis] if side % 2 == 0 else layout.strides[axis]
            for e in range(offsets[side], offsets[side + 1]):
                state, first = row[ghost[e]], row[edge[e]]
                if modes[side] == PERIODIC:
                    row[ghost[e] + out] = row[opposite[e] + out]
                else:
                    slope = 2.0 * (first - state) if modes[side] == STATE else 0.0
                    row[ghost[e]], row[ghost[e] + out] = state - 0.5 * slope, state - 1.5 * slope


@inner_on_views
def _reconstruct(x: Array, work: Array, layout: Layout, axis: int, modes: Array, slopes: Any, rows: int) -> None:
    """Limited linear states before and behind the faces of an axis, and x with the states on the sides again.

    ``work`` holds states before and behind the faces, and scratch: the states on the sides, half slopes.
    """
    apart, before, behind, half = layout.strides[axis], work[0], work[1], work[3]
    ghost, offsets = layout.ghost, layout.offsets
    count, first, last = x.size - 2 * apart, 2 * axis, 2 * axis + 1
    if layout.pads == 1:
        for i in range(x.size - apart):
            before[i] = x[i]
        after = x[apart:]
        for i in range(x.size - apart):
            behind[i] = after[i]
        return
    kept = work[4]
    for b in range(rows):
        for e in range(offsets[first], offsets[last + 1]):
            kept[b * ghost.size + e] = x[b * layout.size + ghost[e]]
    _extend(x, layout, axis, modes, rows)
    function_at(slopes)(x.ctypes, x.ctypes, x.ctypes, x.ctypes, half[apart:].ctypes, x.ctypes, x.ctypes, count, apart)
    after, half_after = x[apart:], half[apart:]
    for i in range(x.size - apart):
        before[i] = x[i] + half[i]
    for i in range(x.size - apart):
        behind[i] = after[i] - half_after[i]
    for b in range(rows):
        row, low, high = x[b * layout.size :], before[b * layout.size :], behind[b * layout.size :]
        for e in range(offsets[first], offsets[last + 1]):
            row[ghost[e]] = kept[b * ghost.size + e]
        for e in range(offsets[first], offsets[first + 1] if modes[first] == STATE else 0):
            low[ghost[e]] = row[ghost[e]]
        for e in range(offsets[last], offsets[last + 1] if modes[last] == STATE else 0):
            high[layout.edge[e]] = row[ghost[e]]


@inner_on_views
def add_side_flows(
    flux: Array, layout: Layout, axis: int, modes: Array, data: Array, flow: Array, scale: Any, given: bool
) -> None:
    """Sets given fluxes, closes circles and adds what flows through the sides of an axis.

    ``scale`` takes a flux along +axis to the entries of ``flux``, and these to flows through a face.
    """
    (into, area), rows = scale, flow.shape[0]
    ghost, edge, offsets, first = layout.ghost, layout.edge, layout.offsets, 2 * axis
    for b in range(rows):
        row = flux[b * layout.size :]
        for side in range(first, first + 2):
            total = 0.0
            for e in range(offsets[side], offsets[side + 1]):
                at = ghost[e] if side == first else edge[e]
                if modes[side] == GIVEN_FLUX:
                    row[at] = into * data[b, e] if given else 0.0
                elif modes[side] == PERIODIC and side > first:
                    row[at] = row[ghost[offsets[first] + e - offsets[side]]]
                total += row[at]
            flow[b, side] += area * total


@merged
def _diffuse(
    flat: Array, change: Array, flow: Array, data: Array, system: TileSystem, volume: float, bounds: bool
) -> None:
    """Adds the rates of diffusion, its flows through the sides, and half a bound of its spectral radius."""
    laws, weights, grid, work = system.laws, system.medium.weights, system.grid, system.work
    layout, modes, n, rows = grid.layout, grid.modes, flat.size, flow.shape[0]
    d, flux, left, right, scratch = layout.shape.size, work[2], work[0], work[1], work[3:5].reshape(2 * n)
    for axis in range(d):
        apart, p = layout.strides[axis], system.medium.diffusion[axis]
        w, inside, after, signed = weights[axis], change[apart:], flux[apart:], apart if bounds else -apart
        signed_faces = n - apart if axis == 0 or laws.kind != ISOTROPIC else apart - n
        given = flat.ctypes, p.ctypes, w.ctypes, scratch.ctypes
        function_at(laws.diffusion)(*given, flux.ctypes, left.ctypes, right.ctypes, signed_faces, signed)
        add_side_flows(flux, layout, axis, modes, data, flow, (1.0 / grid.spacing[axis], volume), laws.kind > 0)
        for i in range(n - 2 * apart if axis == 0 else 0):
            inside[i] = flux[i] - after[i]
        for i in range(n - 2 * apart if axis > 0 else 0):
            inside[i] += flux[i] - after[i]
        for b in range(rows if bounds else 0):
            flow[b, 2 * d + 2] += _largest_slope(left, right, layout, axis, modes, b, laws.kind == IN_TENSORS)
    for b in range(rows if bounds else 0):
        stretch = 1.0
        for side in range(modes.size):
            if modes[side] == STATE:
                stretch = max(stretch, max(abs(grid.pull[b, side]), 1.0 - grid.pull[b, side]))
        flow[b, 2 * d + 2] *= 1.0 + stretch


@merged
def _largest_slope(left: Array, right: Array, layout: Layout, axis: int, modes: Array, b: int, columns: bool) -> float:
    """Largest derivative of the fluxes across an axis of a row, which it changes at the sides.

    ``columns`` bounds column by column, as released data of laws in tensors are.
    """
    line, start, faces = layout.shape[layout.shape.size - 1], b * layout.size, layout.faces[axis]
    count = line + 1 if axis == layout.shape.size - 1 else line
    for side in range(2 * axis, 2 * axis + 2):
        for e in range(layout.offsets[side], layout.offsets[side + 1]):
            at = start + (layout.ghost[e] if side % 2 == 0 else layout.edge[e])
            part = 0.5 if modes[side] == STATE or (columns and modes[side] == GIVEN_FLUX) else 1.0
            left[at], right[at] = part * left[at], part * right[at]
            if modes[side] == GIVEN_FLUX and side % 2 == 0:
                left[at] = 0.0
            elif modes[side] == GIVEN_FLUX:
                right[at] = 0.0
    before, behind = _largest(left[start:], faces, count), _largest(right[start:], faces, count)
    return 0.5 * (before + behind) if columns else max(before, behind)


@merged
def _convect(flat: Array, change: Array, flow: Array, data: Array, system: TileSystem, volume: float) -> None:
    """Adds the rates of convection, its flows through the sides and the speed of signals, in cells per time."""
    laws, grid, work = system.laws, system.grid, system.work
    layout, modes, n, rows = grid.layout, grid.modes, flat.size, flow.shape[0]
    d, size, line = layout.shape.size, layout.size, layout.shape[layout.shape.size - 1]
    flux, left, right = work[2], work[0], work[1]
    for axis in range(d):
        apart, per, q = layout.strides[axis], 1.0 / grid.spacing[axis], system.medium.convection[axis]
        _reconstruct(flat, work, layout, axis, modes, laws.slopes, rows)
        inside, after = change[apart:], flux[apart:]
        given = left.ctypes, right.ctypes, flat.ctypes, flat[apart:].ctypes, q.ctypes
        function_at(laws.convection)(*given, flux.ctypes, work[3].ctypes, n - apart, apart)
        add_side_flows(flux, layout, axis, modes, data, flow, (1.0, volume * per), laws.kind == 0)
        for i in range(n - 2 * apart):
            inside[i] -= (after[i] - flux[i]) * per
        count = line + 1 if axis == d - 1 else line
        for b in range(rows):
            flow[b, 2 * d + 1] += _largest(work[3, b * size : (b + 1) * size], layout.faces[axis], count) * per


@on_views
def rates(x: Array, rate: Array, source: Array, flow: Array, data: Array, system: TileSystem, bounds: bool) -> None:
    """Rates of change of rows ``(rows, size)`` with everything that goes with them, and those of the source alone.

    ``flow (rows, 2d + 3)`` is what flows through the sides and comes from the source, the number of cells that signals
    cross per time, and half a bound of the spectral radius of diffusion, if ``bounds`` ask for it.
    ``data (rows, S)`` are those of the sides.
    """
    laws, grid, r, n, (rows, size) = system.laws, system.grid, system.medium.source, x.size, x.shape
    layout, flat, change, produced, volume = grid.layout, x.reshape(n), rate.reshape(n), source.reshape(n), 1.0
    d = layout.shape.size
    for axis in range(d):
        volume *= grid.spacing[axis]
    for b in range(rows):
        for k in range(2 * d + 3):
            flow[b, k] = 0.0
    for i in range(layout.strides[0] if laws.kind else n):
        change[i] = change[n - 1 - i] = 0.0
    fill_ghosts(flat, layout, grid.modes, grid.pull, data, rows)
    if laws.kind:
        _diffuse(flat, change, flow, data, system, volume, bounds)
    if laws.convects:
        _convect(flat, change, flow, data, system, volume)
    if laws.reacts:
        none, react = flat.ctypes, function_at(laws.source)
        react(none, r.ctypes, none, none, produced.ctypes, system.work[0].ctypes, none, n, r.shape[1])
        for i in range(n):
            change[i] += produced[i]
        for b in range(rows):
            cells = produced[b * size : (b + 1) * size]
            flow[b, 2 * d] = volume * sum_cells(cells, layout.lines, layout.shape[d - 1])
