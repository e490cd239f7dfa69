"""Compiled steps of systems of conservation laws: SSPRK3 (Shu and Osher 1988) along one to three axes.

Component k of cell i of a row b stands at [k, b, i], in the layout of ``rates`` with two ghost cells at each end:
neighbours along an axis are a fixed distance apart, and all loops run at unit stride. A law is a set of functions that
``kernels`` describes; shallow water over a bottom has functions of its own for the fluxes, see ``systems._shallow``.
"""

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import inner_on_views, merged, on_views
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march.arguments import Array, Lanes, RowArrays, System, SystemScheme
from solvers.finite_volume.march.explicit import weights
from solvers.finite_volume.march.kernels import Kernel, carray, function_at
from solvers.finite_volume.march.rates import layout_of

PADS = 2
CIRCLE, OPEN, GIVEN, WALL = range(4)
"""Kinds of sides."""

_THIN, _HALVINGS, _MOST = 1e-8, 8, 0.5


class Ghosts(NamedTuple):
    """Ghost cells of one row, those of one side after those of another, with corners.

    Attributes:
        ends: Where those of every side begin, and their number ``(2d + 1,)``.
        places: Their places.
        origins: Places of the cells that they are copied from, or whose mirror images they are.
        entries: Places of their states among those given at the sides.
        outer_ends: Where the outermost ones of every axis begin among ``outer``, and their number ``(d + 1,)``.
        outer: Places of the outermost ones.
    """

    ends: Array
    places: Array
    origins: Array
    entries: Array
    outer_ends: Array
    outer: Array


@lru_cache(maxsize=64)
def ghosts_of(shape: tuple[int, ...], kinds: tuple[int, ...]) -> Ghosts:
    """The ghost cells of cells ``(*shape)`` with sides of these kinds.

    Those of an axis run along the ghost cells of the axes before, too, so that corners are filled.
    """
    d, padded = len(shape), [n + 2 * PADS for n in shape]
    cells = np.arange(prod(padded)).reshape(padded)
    offsets, parts, layers = layout_of(shape, PADS).offsets, [], np.arange(PADS)
    for side, kind in enumerate(kinds):
        axis, last = divmod(side, 2)
        n, (edge, inwards) = shape[axis], (shape[axis] - 1, -1) if last else (0, 1)
        lines = np.moveaxis(cells[(slice(None),) * (axis + 1) + (slice(PADS, -PADS),) * (d - axis - 1)], axis, 0)
        origin = {CIRCLE: n - 1 - edge - inwards * layers, WALL: edge + inwards * layers}.get(kind, edge + 0 * layers)
        inside = np.clip(origin, 0, n - 1)
        others = [k for k in range(d) if k != axis]
        along = [np.clip(np.arange(-PADS, shape[k] + PADS), 0, shape[k] - 1) for k in others]
        along = [at if k < axis else at[PADS:-PADS] for k, at in zip(others, along, strict=True)]
        face = [shape[k] for k in others]
        entry = np.arange(prod(face)).reshape(face)[np.ix_(*along)]
        beyond = lines[PADS + edge - inwards * (layers + 1)]
        parts.append((beyond, lines[PADS + inside], np.broadcast_to(offsets[side] + entry, beyond.shape)))
    outer = [cells.take((0, -1), axis).ravel() for axis in range(d)]
    places, origins, entries = (np.concatenate([part[k].ravel() for part in parts]) for k in range(3))
    ends = np.cumsum([0, *(part[0].size for part in parts)])
    return Ghosts(ends, places, origins, entries, np.cumsum([0, *map(len, outer)]), np.concatenate(outer))


@inner_on_views
def _fill_ghosts(x: Array, data: Array, ghosts: Ghosts, kinds: Array, mirror: Any, p: Array, near: Array) -> None:
    """States beyond the sides: copied, given, or as a wall mirrors those of the cells; ``near`` is scratch."""
    components, rows = x.shape[0], x.shape[1]
    image = near[near.size // 2 :]
    for side in range(kinds.size):
        first, count, kind = ghosts.ends[side], ghosts.ends[side + 1] - ghosts.ends[side], kinds[side]
        places, origins, entries = ghosts.places[first:], ghosts.origins[first:], ghosts.entries[first:]
        for k in range(components):
            for b in range(rows):
                row, mine = x[k, b], near[(k * rows + b) * count :]
                for e in range(count):
                    if kind == WALL:
                        mine[e] = row[origins[e]]
                    else:
                        row[places[e]] = data[b, k, entries[e]] if kind == GIVEN else row[origins[e]]
        if kind != WALL:
            continue
        none = near.ctypes
        function_at(mirror)(none, p.ctypes, none, none, image.ctypes, none, none, rows * count, side // 2)
        for k in range(components):
            for b in range(rows):
                row, mine = x[k, b], image[(k * rows + b) * count :]
                for e in range(count):
                    row[places[e]] = mine[e]


def _hll(ends_, options_, found_, _d, flux_, scratch_, _g, n, apart):
    """Fluxes through faces by HLL (Davis 1988) or Rusanov, and the largest speed there, in the last row of scratch.

    Options are the number of components, whether it is Rusanov's flux, and the part for ``_move_to_averages``.
    """
    components, rusanov = int(options_[0]), options_[1] > 0.0
    ends, found = carray(ends_, (components, 2 * n)), carray(found_, (components + 2, 2 * n))
    flux, scratch = carray(flux_, (components, n)), carray(scratch_, (4, n))
    lows, highs, scales, speed = scratch[0], scratch[1], scratch[2], scratch[3]
    slow, fast = found[components], found[components + 1]
    slow_before, slow_behind, fast_before, fast_behind = slow[n:], slow[apart:], fast[n:], fast[apart:]
    for i in range(n - apart):
        low = slow_before[i] if slow_before[i] < slow_behind[i] else slow_behind[i]
        high = fast_before[i] if fast_before[i] > fast_behind[i] else fast_behind[i]
        speed[i] = -low if -low > high else high
        low, high = -speed[i] if rusanov else min(low, 0.0), speed[i] if rusanov else max(high, 0.0)
        lows[i], highs[i], scales[i] = low, high, 1.0 / (high - low) if high > low else 0.0
    for k in range(components):
        left, right, before, behind, through = ends[k, n:], ends[k, apart:], found[k, n:], found[k, apart:], flux[k]
        for i in range(n - apart):
            low, high = lows[i], highs[i]
            mixed = (high * before[i] - low * behind[i] + low * high * (right[i] - left[i])) * scales[i]
            through[i] = mixed if high > low else before[i]


def _move_to_averages(x_, options_, found_, _d, ends_, _f, _g, n, _apart):
    """Moves both ends of a cell towards its average where the law has no waves at one (Zhang and Shu 2010)."""
    components, part = int(options_[0]), options_[2]
    x, ends = carray(x_, (components, n)), carray(ends_, (components, 2 * n))
    waves = carray(found_, (components + 2, 2 * n))[components + 1]
    for i in range(n):
        if waves[i] != waves[i] or waves[n + i] != waves[n + i]:
            for k in range(components):
                ends[k, i] = x[k, i] + part * (ends[k, i] - x[k, i])
                ends[k, n + i] = x[k, i] + part * (ends[k, n + i] - x[k, i])


HLL_FLUX, MOVE_TO_AVERAGES = Kernel(_hll), Kernel(_move_to_averages)


@inner_on_views
def _law_fluxes(x: Array, system: System, axis: int, apart: int) -> None:
    """Fluxes through the faces of an axis; ends of cells move to the average until they are admissible.

    Since the average of both ends is that of the cell, HLL keeps the averages admissible in steps that no wave takes
    through more than half a cell, if the admissible states are convex.
    """
    laws, p, scratch, limits = system.laws, system.parameters, system.scratch, system.laws.reconstructs
    half, ends, found, flux = scratch.half, scratch.ends, scratch.waves, scratch.flux
    rest, options = scratch.rest, scratch.options
    components, n = x.shape
    none = rest.ctypes
    for k in range(components):
        v, slope, below, above = x[k], half[k], ends[k], ends[k, n:]
        for i in range(n):
            below[i] = v[i] - slope[i]
            above[i] = v[i] + slope[i]
    for attempt in range(_HALVINGS + 2):
        function_at(laws.waves)(ends.ctypes, p.ctypes, none, none, found.ctypes, none, none, 2 * n, axis)
        waves, missing = found[components + 1], 0
        for i in range(2 * n if limits and attempt <= _HALVINGS else 0):
            missing += 1 if waves[i] != waves[i] else 0
        if missing == 0:
            break
        options[2] = 0.5 if attempt < _HALVINGS else 0.0
        function_at(laws.move)(x.ctypes, options.ctypes, found.ctypes, none, ends.ctypes, none, none, n, apart)
    function_at(laws.hll)(ends.ctypes, options.ctypes, found.ctypes, none, flux.ctypes, none, none, n, apart)


@inner_on_views
def _add_through_sides(flux: Array, flow: Array, layout: Any, axis: int, area: float, bottom: bool) -> None:
    """Flows through the sides of an axis; with a bottom its force there is no source, but pressure on the side."""
    components, size = flow.shape[2], layout.size
    for b in range(flow.shape[0]):
        for side in range(2 * axis, 2 * axis + 2):
            at = layout.ghost if side % 2 == 0 else layout.edge
            for k in range(components):
                total, along = 0.0, bottom and k == axis + 1
                for e in range(layout.offsets[side], layout.offsets[side + 1]):
                    i = b * size + at[e]
                    if along:
                        flux[components + 1, i] = 0.0
                        first = flux[components, i] + flux[components + 5, i]
                        total += first if side % 2 == 0 else flux[k, i] + flux[components + 4, i]
                    else:
                        total += flux[k, i]
                flow[b, side, k] = area * total


@merged
def _rates(arrays: RowArrays, system: System, stage: int) -> None:
    """Rates of change of rows in a stage, and what flows through their sides and comes from the bottom.

    The number of cells that signals cross per time goes to the lanes.
    """
    laws, p, layout, spacing = system.laws, system.parameters, system.grid.layout, system.grid.spacing
    x, rate, flow, scratch = arrays.states[stage], arrays.rate, arrays.flow[0], system.scratch
    half, flux, rest, ghosts = scratch.half, scratch.flux, scratch.rest, system.grid.ghosts
    components, rows, size = x.shape
    n, d, bottom = rows * size, layout.shape.size, laws.bottom
    flat, change, none, volume = x.reshape(components, n), rate.reshape(components, n), rest.ctypes, 1.0
    for axis in range(d):
        volume *= spacing[axis]
    _fill_ghosts(x, arrays.side_data[stage], ghosts, system.grid.kinds, laws.mirror, p, scratch.near)
    _clear_rates(arrays, system, stage)
    if bottom:
        ground, thin, variables = system.ground.ctypes, scratch.thin.ctypes, scratch.variables.ctypes
        function_at(laws.primitives)(flat.ctypes, p.ctypes, ground, thin, variables, none, none, n, components)
    v = scratch.variables if bottom else flat
    for axis in range(d):
        apart, per = layout.strides[axis], 1.0 / spacing[axis]
        for k in range(v.shape[0] if laws.reconstructs else 0):
            row = v[k].ctypes
            function_at(laws.slopes)(row, row, row, row, half[k, apart:].ctypes, row, row, n - 2 * apart, apart)
            for b in range(rows):
                for e in range(ghosts.outer_ends[axis], ghosts.outer_ends[axis + 1]):
                    half[k, b * size + ghosts.outer[e]] = 0.0
        if bottom:
            p[3] = axis
            given = v.ctypes, p.ctypes, half.ctypes, scratch.thin.ctypes
            function_at(laws.faces)(*given, flux.ctypes, rest[3].ctypes, none, n - apart, apart)
        else:
            _law_fluxes(flat, system, axis, apart)
        _add_through_sides(flux, flow, layout, axis, volume * per, bottom)
        for k in range(components):
            along = bottom and k == axis + 1
            r, before, after = change[k, apart:], flux[components if along else k], flux[k, apart:]
            if along:
                push = flux[components + 2, apart:]
                for i in range(n - 2 * apart):
                    r[i] += ((before[i] - after[i]) - push[i]) * per
            else:
                for i in range(n - 2 * apart):
                    r[i] += (before[i] - after[i]) * per
        _note_speed(arrays, system, axis, volume * per)


@inner_on_views
def _clear_rates(arrays: RowArrays, system: System, stage: int) -> None:
    """Sets rates, sources and speeds to zero, and depths that count as thin to a part of the deepest."""
    x, thin, layout, components = arrays.states[stage], system.scratch.thin, system.grid.layout, arrays.states.shape[1]
    size, line = layout.size, layout.shape[layout.shape.size - 1]
    for b in range(arrays.lanes.size):
        arrays.lanes[b].speed, top = 0.0, 0.0
        mine, start = thin[0, b * size : (b + 1) * size], thin[1, b * size : (b + 1) * size]
        for k in range(components):
            arrays.flow[0, b, arrays.flow.shape[2] - 1, k] = 0.0
            rate = arrays.rate[k, b]
            for i in range(size):
                rate[i] = 0.0
        if system.laws.bottom:
            for k in range(layout.lines.size):
                for i in range(layout.lines[k], layout.lines[k] + line):
                    top = max(top, x[0, b, i])
            for i in range(size):
                mine[i] = _THIN * top
                start[i] = mine[i] if stage == 0 else start[i]


@inner_on_views
def _note_speed(arrays: RowArrays, system: System, axis: int, area: float) -> None:
    """Adds the speed of the fastest signal along an axis, in cells per time, and the force of the bottom."""
    layout, flux, components = system.grid.layout, system.scratch.flux, arrays.states.shape[1]
    d, size, line = layout.shape.size, layout.size, layout.shape[layout.shape.size - 1]
    for b in range(arrays.lanes.size):
        largest, force, speed = 0.0, 0.0, system.scratch.rest[3, b * size : (b + 1) * size]
        for k in range(layout.faces.shape[1]):
            at = layout.faces[axis, k]
            for i in range(at, at + (line + 1 if axis == d - 1 else line) if at >= 0 else 0):
                largest = speed[i] if speed[i] > largest else largest
        arrays.lanes[b].speed += largest / system.grid.spacing[axis]
        if system.laws.bottom:
            for k in range(layout.lines.size):
                for i in range(b * size + layout.lines[k], b * size + layout.lines[k] + line):
                    force += flux[components + 1, i] - flux[components + 3, i]
            arrays.flow[0, b, 2 * d, axis + 1] = area * force


@inner_on_views
def _count(lanes: Lanes, target: float) -> tuple[int, bool]:
    """Marks the rows that are under way; how many there are, and whether states at the start of any are unknown."""
    live, fresh = 0, False
    for b in range(lanes.size):
        lane = lanes[b]
        on = lane.time < target and lane.verdict == c.RUNNING
        lane.live, live = 1.0 if on else 0.0, live + (1 if on else 0)
        fresh = fresh or lane.fresh > 0.0
    return live, fresh


@inner_on_views
def _choose(lanes: Lanes, scheme: SystemScheme) -> None:
    """Lengths of the next steps, 0 for rows that are not under way."""
    for b in range(lanes.size):
        lane = lanes[b]
        bound = min(min(lane.proposal, lane.longest), scheme.longest)
        if lane.speed > 0.0:
            bound = min(bound, scheme.courant / lane.speed)
        lane.length = c.avoid_tiny_last_step(bound, scheme.target - lane.time) if lane.live > 0.0 else 0.0
        lane.worst, lane.place = 0.0, -1.0


@inner_on_views
def _accept_or_reject(arrays: RowArrays, b: int, scheme: SystemScheme) -> None:
    """Moves a row to the end of its step, or halves the step where a state is not admissible or a signal too fast."""
    states, data, sampled, total = arrays.states, arrays.side_data, arrays.sampled, arrays.total
    lane, length = arrays.lanes[b], arrays.lanes[b].length
    if lane.place >= 0.0 or not length * lane.worst <= _MOST:
        lane.proposal = 0.5 * length
        lane.verdict = c.RUNNING if length > scheme.smallest else c.STEP_UNDERFLOW
        return
    for k in range(states.shape[1]):
        start, end = states[0, k, b], states[3, k, b]
        for i in range(start.size):
            start[i] = end[i]
        for side in range(total.shape[1]):
            total[b, side, k] += length * arrays.flow[1, b, side, k]
        for e in range(sampled.shape[2]):
            sampled[b, k, e] += length * ((data[0, b, k, e] + data[1, b, k, e]) / 6.0 + data[2, b, k, e] * (2.0 / 3.0))
            data[0, b, k, e] = data[1, b, k, e]
    lane.fresh = 1.0 if lane.before_end > 0.0 else 0.0
    lane.time = scheme.target if length == scheme.target - lane.time else lane.time + length
    lane.proposal, lane.steps = 2.0 * lane.proposal, lane.steps + 1.0


@on_views
def advance(arrays: RowArrays, system: System, scheme: SystemScheme, budget: int) -> int:
    """Takes steps of the rows of a tile, at most a budget of them; returns how many rows are under way.

    It ends when at most half of the rows are.
    """
    X, lanes, changes, layout = arrays.states, arrays.lanes, arrays.sampled.shape[2] > 0, system.grid.layout
    rows, size, p, scratch = X.shape[2], X.shape[3], system.parameters, system.scratch
    n, none, line, live = rows * size, arrays.total.ctypes, layout.shape[layout.shape.size - 1], 0
    for part in range(3 * budget):
        stage = part % 3
        if stage == 0:
            c.look_ahead(lanes, system.limits)
            live, fresh = _count(lanes, scheme.target)
            if 2 * live <= rows:
                return live
            if changes and fresh:
                function_at(system.write_side_data)(none, none, none, none, none, none, none, 0, 0)
        _rates(arrays, system, stage)
        if stage == 0:
            _choose(lanes, scheme)
            c.keep_off_end(lanes, system.limits)
            if changes:
                function_at(system.write_side_data)(none, none, none, none, none, none, none, 1, 0)
        for b in range(rows):
            _combine(arrays, b, stage)
        check, thin = function_at(system.laws.check), scratch.thin[1].ctypes
        check(X[stage + 1].ctypes, p.ctypes, thin, none, scratch.good.ctypes, none, none, n, n)
        for b in range(rows):
            wrong = 0
            for k in range(layout.lines.size):
                for i in range(b * size + layout.lines[k], b * size + layout.lines[k] + line):
                    wrong += 1 if scratch.good[i] != 1.0 else 0
            if wrong > 0:
                _keep_start(arrays, scratch.good, layout, b, stage)
            if stage == 2 and lanes[b].live > 0.0:
                _accept_or_reject(arrays, b, scheme)
    return live


@inner_on_views
def _combine(arrays: RowArrays, b: int, stage: int) -> None:
    """The states of a row after a stage, and the mean flows so far."""
    states, flow, lane, own = arrays.states, arrays.flow, arrays.lanes[b], weights(1.0, stage + 1, 3.0)[0]
    length, kept, part = lane.length, 1.0 - own, 2.0 / 3.0 if stage == 2 else 1.0 / 6.0
    lane.worst = max(lane.worst, lane.speed)
    for k in range(states.shape[1]):
        start, now, rate, new = states[0, k, b], states[stage, k, b], arrays.rate[k, b], states[stage + 1, k, b]
        for i in range(new.size):
            new[i] = kept * start[i] + own * (now[i] + length * rate[i])
        for side in range(flow.shape[2]):
            flow[1, b, side, k] = (flow[1, b, side, k] if stage > 0 else 0.0) + part * flow[0, b, side, k]


@inner_on_views
def _keep_start(arrays: RowArrays, good: Array, layout: Any, b: int, stage: int) -> None:
    """Notes the first cell whose state is not admissible; the row goes on from the start of the step in its place."""
    states, lane, line, size = arrays.states, arrays.lanes[b], layout.shape[layout.shape.size - 1], layout.size
    for k in range(layout.lines.size):
        for i in range(line):
            if good[b * size + layout.lines[k] + i] != 1.0 and lane.place < 0.0:
                lane.place = k * line + i
    for k in range(states.shape[1]):
        for i in range(size):
            states[stage + 1, k, b, i] = states[0, k, b, i]
