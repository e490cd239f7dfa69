"""What the parts of the compiled core of systems share: entries that go side by side, what is solved, and room.

What is particular to a system are kernels, called by their addresses. A kernel gets ``count`` states of c components,
those of one component next to each other and the components ``stride`` apart. ``numbers`` holds a scale of the states,
the length of a cell and then the law's parameters.

* faces: states left (a) and right (b) of faces → flux (out) and largest speed (extra).
* check: whether states (a) are admissible → 1 or 0 (extra). It may mend their round-off, b being those before the step.
* reflect: states (a) → as a wall mirrors them (out).
* slopes: cells (a) → half the limited slopes of all but the first and the last (out), of one component.
* given: times (a) of some entries (b) → nothing; the states at the sides are where the core reads them.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from solvers.finite_volume._kernels import Block, Line, Places, PlaceTable, Table, numbers_at, reader

SWEEP = types.void(*[types.CPointer(types.float64)] * 7, types.CPointer(types.int64))

PERIODIC, REFLECTING, OUTFLOW, GIVEN = 0, 1, 2, 3
"""Conditions of a side."""

RUNNING, DONE, FAILED = 0, 1, 2
"""States of an entry."""

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
        slopes: Address of slopes, or 0.
        given: Address of given, or 0 if no side changes with time.
        numbers: Room for a scale of the states and the length of a cell, then the law's parameters.
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
    slopes: int
    given: int
    numbers: Line


class Rates(NamedTuple):
    """Rates of change of the entries of a tile.

    Attributes:
        change: ∂u/∂t ``(entries, c·cells)``.
        sides: Flux through every side, integrated over it, positive along +axis ``(entries, 2d, c)``.
        source: Integral of the source over the domain ``(entries, c)``.
        speed: Σ over the axes of the largest speed over the cell length ``(entries,)``.
    """

    change: Table
    sides: Block
    source: Table
    speed: Line


class Buffers(NamedTuple):
    """Room for a sweep.

    Attributes:
        cells: Lines with ghost cells ``(c, lines, n + 2g)``.
        change: ∂u/∂t along the lines ``(c, lines, n)``.
        through: Fluxes through the first and the last ends, and sources ``(lines, 3, c)``.
        speed: Largest speed ``(lines,)``.
        near: Cells at a wall ``(c, lines, g)``.
        image: As the wall mirrors them.
        work: For the sweep.
        fastest: Largest speed along an axis ``(entries,)``.
        order: What the sweep is to do, see ``LINES``.
    """

    cells: Line
    change: Line
    through: Line
    speed: Line
    near: Line
    image: Line
    work: Line
    fastest: Line
    order: Places


class Attempt(NamedTuple):
    """Room for a step of the entries of a tile.

    Attributes:
        one: States of the first and the last stage ``(entries, c·cells)``.
        two: Of the second.
        sides: Sums over the stages of the fluxes through the sides ``(entries, 2d, c)``.
        source: Of the sources ``(entries, c)``.
        sampled: Of the states at sides that change with time.
        step: Lengths ``(entries,)``.
        worst: Largest speed of the stages ``(entries,)``.
        bad: First cell that is not admissible, or −1 ``(entries,)``.
        good: Room for checks ``(entries·cells,)``.
    """

    one: Table
    two: Table
    sides: Block
    source: Table
    sampled: Table
    step: Line
    worst: Line
    bad: Places
    good: Line


class Parts(NamedTuple):
    """Addresses of the parts of a step; ``look`` is 0 where no side changes with time."""

    look: int
    rates: int
    fill_ghosts: int
    finish_stage: int
    end_step: int


class Tile(NamedTuple):
    """Entries that go side by side through their steps, and all that these need.

    Attributes:
        u: States ``(entries, c·cells)``, overwritten.
        clocks: Time, largest step to try and number of accepted steps ``(entries, 3)``, overwritten.
        flux: Time integrals of the fluxes through the sides ``(entries, 2d, c)``, added to.
        source: Of the sources ``(entries, c)``.
        sampled: Of the states at sides that change with time.
        status: ``RUNNING``, ``DONE`` or ``FAILED`` ``(entries,)``, overwritten.
        places: The cell that failed, or −1 ``(entries,)``.
        live: Entries under way, and behind all their number ``(entries + 1,)``.
        given: States at the sides ``(entries, Σ over axes of 2·c·lines)``.
        bottom: Bottom with ghost cells ``(entries, Σ over axes of lines·(n + 2g))``.
        bounds: Target time, Courant number, largest and smallest step.
        first: Number of the first entry.
        plan: What does not change with time.
        room: Room for a step.
        rates: Rates of a stage.
        sweep: Room for a sweep.
        parts: Addresses of the parts of a step.
    """

    u: Table
    clocks: Table
    flux: Block
    source: Table
    sampled: Table
    status: Places
    places: Places
    live: Places
    given: Table
    bottom: Table
    bounds: Line
    first: int
    plan: Plan
    room: Attempt
    rates: Rates
    sweep: Buffers
    parts: Parts


tile_at = reader(Tile)


def view(pointer: Any, components: int, count: int, stride: int) -> np.ndarray:
    """States behind a pointer ``(components, count)``."""
    return numbers_at(pointer, components, stride)[:, :count]
