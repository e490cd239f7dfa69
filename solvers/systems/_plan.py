"""What the compiled rates of systems need to know: what is solved, and room.

What is particular to a system are kernels, called by their addresses. A kernel gets ``count`` states of c components,
those of one component next to each other and the components ``stride`` apart. ``numbers`` holds a scale of the states,
the length of a cell and then the law's parameters.

* faces: states left (a) and right (b) of faces → flux (out) and largest speed (extra).
* check: whether states (a) are admissible → 1 or 0 (extra). It may mend their round-off.
* reflect: states (a) → as a wall mirrors them (out).
* slopes: cells (a) → half the limited slopes of all but the first and the last (out), of one component.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from solvers.finite_volume._kernels import Line, Places, PlaceTable, Table, numbers_at, reader

SWEEP = types.void(*[types.CPointer(types.float64)] * 7, types.CPointer(types.int64))

PERIODIC, REFLECTING, OUTFLOW, GIVEN = 0, 1, 2, 3
"""Conditions of a side."""

LINES, CELLS, AXIS, COMPONENTS, GHOSTS, FACES, CHECK, SLOPES = range(8)
"""Places in the order that a sweep gets: how many lines and cells, the axis, and addresses of kernels."""


class Plan(NamedTuple):
    """What does not change with time.

    Attributes:
        shape: Number of cells of every axis ``(d,)``.
        spacing: Length of a cell along every axis ``(d,)``.
        kinds: Condition of every side, ``PERIODIC`` and so on, ``(d, 2)``.
        components: Number c of components.
        ghosts: Number of ghost cells beyond an end.
        chunk: How many lines a sweep takes at once.
        sweep: Address of the sweep.
        kernels: Addresses of faces and reflect of every axis ``(d, 2)``.
        check: Address of check.
        numbers: Room for a scale of the states and the length of a cell, then the law's parameters.
        bottom: Bottom with ghost cells ``(entries, Σ over axes of lines·(n + 2g))``.
    """

    shape: Places
    spacing: Line
    kinds: PlaceTable
    components: int
    ghosts: int
    chunk: int
    sweep: int
    kernels: PlaceTable
    check: int
    numbers: Line
    bottom: Table


class Room(NamedTuple):
    """Room for the rates of the entries that go side by side.

    Attributes:
        cells: Lines with ghost cells ``(c, lines, n + 2g)``.
        change: ∂u/∂t along the lines ``(c, lines, n)``.
        through: Fluxes through the first and the last ends, and sources ``(lines, 3, c)``.
        speed: Largest speed ``(lines,)``.
        near: Cells at a wall ``(c, lines, g)``.
        image: As the wall mirrors them.
        work: For the sweep.
        fastest: Largest speed along an axis ``(entries,)``.
        good: For checks ``(entries·cells,)``.
        order: What the sweep is to do, see ``LINES``.
        live: Which entries are admissible ``(entries,)``.
    """

    cells: Line
    change: Line
    through: Line
    speed: Line
    near: Line
    image: Line
    work: Line
    fastest: Line
    good: Line
    order: Places
    live: Places


class System(NamedTuple):
    """What the rates read; ``bad`` is the first cell of every entry that was not admissible last, or −1."""

    plan: Plan
    room: Room
    bad: Places


system_at = reader(System)


def view(pointer: Any, components: int, count: int, stride: int) -> np.ndarray:
    """States behind a pointer ``(components, count)``."""
    return numbers_at(pointer, components, stride)[:, :count]
