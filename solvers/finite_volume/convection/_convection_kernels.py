"""Compiled convection of rows in any number of axes: transport and Burgers with Godunov's flux, and SSPRK3.

A row is cut into blocks: an axis of n cells with ``inner`` cells in the later axes has blocks of ``n·inner`` cells,
with neighbours ``inner`` apart, so that every loop runs along memory. A row never sees the others.
"""

from typing import Any

import numpy as np

from solvers._compiled import compiled
from solvers.finite_volume.convection.reconstruction_kernels import half_slopes, parabola, weno5
from solvers.finite_volume.laws._law_rows import BURGERS, TRANSPORT
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

_Array = np.ndarray

_LANES = 8


@compiled
def _largest(values: _Array) -> float:
    """Largest entry of a non-negative array, in lanes that vectorise."""
    lanes = np.zeros(_LANES)
    whole = values.shape[0] // _LANES * _LANES
    for start in range(0, whole, _LANES):
        part = values[start : start + _LANES]
        for lane in range(_LANES):
            lanes[lane] = max(lanes[lane], part[lane])
    for i in range(whole, values.shape[0]):
        lanes[0] = max(lanes[0], values[i])
    return lanes.max()


@compiled
def _extend(block: _Array, inner: int, ghosts: int, ends: Any, work: Any) -> None:
    """Copies a block between ghost cells and writes the states outside its first and last faces."""
    extended, outer = work
    cells = block.shape[0]
    extended[ghosts * inner : ghosts * inner + cells] = block
    for end in range(2):
        mode, pull, data = ends[end]
        edge, step = (0, inner) if end == 0 else (cells - inner, -inner)
        beyond = (ghosts - 1) * inner if end == 0 else ghosts * inner + cells
        for j in range(inner):
            if mode == PERIODIC:
                outer[end, j] = block[cells - inner + j if end == 0 else j]
                for i in range(ghosts):
                    opposite = cells - (i + 1) * inner if end == 0 else i * inner
                    extended[beyond - i * step + j] = block[opposite + j]
            elif mode == STATE:
                state, first = data[j] + pull * block[edge + j], block[edge + j]
                slope, curvature = 2.0 * (first - state), 0.0
                if ghosts > 2 and cells > inner:
                    line = block[j::inner]
                    size = max(state, line.max()) - min(state, line.min())
                    slope, curvature = parabola(state, first, block[edge + step + j], size)
                for i in range(ghosts):
                    ghost = state - slope * (i + 0.5) + curvature * (i * (i + 1) + 1.0 / 3.0)
                    extended[beyond - i * step + j] = ghost
                outer[end, j] = state
            else:
                for i in range(ghosts):
                    extended[beyond - i * step + j] = block[edge + j]
                outer[end, j] = block[edge + j]


@compiled
def _muscl(extended: _Array, inner: int, limit: Any, half: _Array, states: tuple[_Array, _Array]) -> None:
    """Limited linear states on both sides of every face."""
    left, right = states
    cell, after, later = extended[inner:], extended[2 * inner :], half[inner:]
    half_slopes(extended, cell, after, limit, half)
    for k in range(left.shape[0]):
        left[k] = cell[k] + half[k]
        right[k] = after[k] - later[k]


@compiled
def _weno(extended: _Array, inner: int, scale: _Array, states: tuple[_Array, _Array]) -> None:
    """Fifth-order states on both sides of every face; ``scale`` is scratch for 1/(max − min)² of every line."""
    left, right = states
    low, high = extended[:inner].copy(), extended[:inner].copy()
    for start in range(0, extended.shape[0], inner):
        part = extended[start : start + inner]
        for j in range(inner):
            low[j], high[j] = min(low[j], part[j]), max(high[j], part[j])
    for j in range(inner):
        spread = high[j] - low[j]
        scale[j] = 0.0 if spread == 0.0 else 1.0 / (spread * spread)
    for start in range(0, left.shape[0], inner):
        a, b, c = extended[start:], extended[start + inner :], extended[start + 2 * inner :]
        d, e, f = extended[start + 3 * inner :], extended[start + 4 * inner :], extended[start + 5 * inner :]
        lower, upper = left[start : start + inner], right[start : start + inner]
        for j in range(inner):
            lower[j] = weno5((a[j], b[j], c[j], d[j], e[j]), scale[j])
            upper[j] = weno5((f[j], e[j], d[j], c[j], b[j]), scale[j])


@compiled
def _weno_line(extended: _Array, states: tuple[_Array, _Array]) -> None:
    """As ``_weno`` for cells next to each other."""
    left, right = states
    low, high = extended.min(), extended.max()
    scale = 0.0 if high == low else 1.0 / ((high - low) * (high - low))
    a, b, c, d, e, f = extended, extended[1:], extended[2:], extended[3:], extended[4:], extended[5:]
    for k in range(left.shape[0]):
        left[k] = weno5((a[k], b[k], c[k], d[k], e[k]), scale)
        right[k] = weno5((f[k], e[k], d[k], c[k], b[k]), scale)


@compiled
def _advection_flux(a: float, states: tuple[_Array, _Array], flux: _Array) -> float:
    """Upwind flux; returns the speed."""
    upwind = states[0] if a >= 0.0 else states[1]
    for k in range(flux.shape[0]):
        flux[k] = a * upwind[k]
    return abs(a)


@compiled
def _transport_flux(velocity: _Array, states: tuple[_Array, _Array], flux: _Array, fast: _Array) -> float:
    """Upwind flux with one velocity per face; returns the largest speed."""
    left, right = states
    for k in range(flux.shape[0]):
        flux[k] = velocity[k] * (left[k] if velocity[k] >= 0.0 else right[k])
        fast[k] = abs(velocity[k])
    return _largest(fast)


@compiled
def _burgers_flux(
    states: tuple[_Array, _Array], neighbours: tuple[_Array, _Array], flux: _Array, fast: _Array
) -> float:
    """Godunov's flux; returns the largest |u| of the neighbours and the states of all faces."""
    left, right = states
    before, after = neighbours
    for k in range(flux.shape[0]):
        from_left, from_right = max(left[k], 0.0), min(right[k], 0.0)
        flux[k] = 0.5 * max(from_left * from_left, from_right * from_right)
        fast[k] = max(max(abs(left[k]), abs(right[k])), max(abs(before[k]), abs(after[k])))
    return _largest(fast)


@compiled
def _block_flux(block: _Array, inner: int, ends: Any, law: tuple[int, _Array], scheme: Any, work: Any) -> float:
    """Writes the fluxes through the faces of a block into ``work[3]``; returns the largest speed."""
    ghosts, limit = scheme
    extended, outer, half, flux, fast, left, right = work
    _extend(block, inner, ghosts, ends, (extended, outer))
    states = (left, right)
    if ghosts == 1:
        left[:], right[:] = extended[: left.shape[0]], extended[inner:]
    elif ghosts == 2:
        _muscl(extended, inner, limit, half, states)
    elif inner == 1:
        _weno_line(extended, states)
    else:
        _weno(extended, inner, fast[:inner], states)
    last, cells = flux.shape[0] - inner, block.shape[0]
    extended[(ghosts - 1) * inner : ghosts * inner] = outer[0]
    extended[ghosts * inner + cells : (ghosts + 1) * inner + cells] = outer[1]
    if ends[0][0] == STATE:
        left[:inner] = outer[0]
    if ends[1][0] == STATE:
        right[last:] = outer[1]
    if law[0] == BURGERS:
        speed = _burgers_flux(states, (extended[(ghosts - 1) * inner :], extended[ghosts * inner :]), flux, fast)
    elif law[0] == TRANSPORT:
        speed = _transport_flux(law[1], states, flux, fast)
    else:
        speed = _advection_flux(law[1][0], states, flux)
    if ends[0][0] == GIVEN_FLUX:
        flux[:inner] = ends[0][2]
    if ends[1][0] == GIVEN_FLUX:
        flux[last:] = ends[1][2]
    if ends[0][0] == PERIODIC:
        flux[last:] = flux[:inner]
    return speed


@compiled
def _subtract_divergence(flux: _Array, inner: int, inverse: float, change: _Array) -> None:
    after = flux[inner:]
    for k in range(change.shape[0]):
        change[k] -= (after[k] - flux[k]) * inverse


@compiled
def _row_rate(u: _Array, data: _Array, law: Any, setting: Any, scheme: Any, work: Any, out: Any) -> float:
    """Writes du/dt and the side fluxes of one row; returns the speed.

    Args:
        u: Cell averages ``(cells,)``.
        data: Side data ``(S,)``.
        law: Kind and parameters of the row.
        setting: Blocks ``(d, 3)`` as (outer, n, inner), spacings and areas of a face ``(d,)``, modes ``(2d,)``, pulls
            of the row ``(2d,)``, and offsets of the sides.
        scheme: Ghost cells and limiter.
        work: Scratch of the largest block.
        out: du/dt ``(cells,)`` and side fluxes ``(2d,)``, overwritten.
    """
    blocks, spacing, area, modes, pull, offsets = setting
    extended, outer, half, flux, fast, left, right = work
    change, sides = out
    change[:] = 0.0
    sides[:] = 0.0
    total, passed = 0.0, 0
    for axis in range(blocks.shape[0]):
        count, n, inner = blocks[axis, 0], blocks[axis, 1], blocks[axis, 2]
        size, faces = n * inner, (n + 1) * inner
        scratch = (
            extended[: (n + 2 * scheme[0]) * inner],
            outer[:, :inner],
            half[: (n + 2) * inner],
            flux[:faces],
            fast[:faces],
            left[:faces],
            right[:faces],
        )
        first, last, speed = 2 * axis, 2 * axis + 1, 0.0
        for o in range(count):
            low, high = offsets[first] + o * inner, offsets[last] + o * inner
            ends = (
                (modes[first], pull[first], data[low : low + inner]),
                (modes[last], pull[last], data[high : high + inner]),
            )
            block, there = u[o * size : (o + 1) * size], (law[0], law[1][passed:])
            speed = max(speed, _block_flux(block, inner, ends, there, scheme, scratch))
            passed += faces if law[0] == TRANSPORT else 0
            _subtract_divergence(scratch[3], inner, 1.0 / spacing[axis], change[o * size : (o + 1) * size])
            for j in range(inner):
                sides[first] += flux[j] * area[axis]
                sides[last] += flux[faces - inner + j] * area[axis]
        total += speed / spacing[axis]
    return total


@compiled
def _scratch(blocks: _Array, ghosts: int) -> Any:
    """Arrays for the largest block: extended cells, outer states, half slopes, fluxes, speeds, left, right."""
    cells, inner = 0, 0
    for axis in range(blocks.shape[0]):
        cells = max(cells, (blocks[axis, 1] + 2 * ghosts) * blocks[axis, 2])
        inner = max(inner, blocks[axis, 2])
    return (
        np.empty(cells),
        np.empty((2, inner)),
        np.empty(cells),
        np.empty(cells),
        np.empty(cells),
        np.empty(cells),
        np.empty(cells),
    )


@compiled
def rate(u: _Array, data: _Array, law: Any, setting: Any, ghosts: int, limit: Any) -> tuple[_Array, _Array, _Array]:
    """du/dt, side fluxes and speeds of all rows.

    Args:
        u: Cell averages ``(rows, cells)``.
        data: Side data ``(rows, S)``.
        law: Kind and parameters ``(rows, p)``, as in ``kernel_of``.
        setting: As in ``_row_rate``, with the pulls of all rows ``(rows, 2d)``.
        ghosts: 1 for constant, 2 for linear, 3 for WENO reconstruction.
        limit: Place in ``LIMITERS`` or a compiled limiter.

    Returns:
        ``(rows, cells)``, ``(rows, 2d)`` and ``(rows,)``.
    """
    blocks, spacing, area, modes, pull, offsets = setting
    rows = u.shape[0]
    change, sides, speed = np.empty_like(u), np.empty((rows, modes.shape[0])), np.empty(rows)
    work, scheme = _scratch(blocks, ghosts), (ghosts, limit)
    for b in range(rows):
        row = (blocks, spacing, area, modes, pull[b], offsets)
        speed[b] = _row_rate(u[b], data[b], (law[0], law[1][b]), row, scheme, work, (change[b], sides[b]))
    return change, sides, speed


@compiled
def _later_stages(
    start: _Array, initial: Any, step: float, data: tuple[_Array, _Array], row: Any, out: tuple[_Array, _Array]
) -> float:
    """Second and third stage of a step of one row, into cells and account; returns the largest speed of the two."""
    kind, setting, scheme, work, (stage, change, sides) = row
    final, account = out
    rate_at_start, flow = initial
    for i in range(start.shape[0]):
        stage[i] = start[i] + step * rate_at_start[i]
    fast = _row_rate(stage, data[0], kind, setting, scheme, work, (change, sides))
    for j in range(sides.shape[0]):
        account[j] = (flow[j] + sides[j]) * (step / 6.0)
    for i in range(start.shape[0]):
        stage[i] = 0.75 * start[i] + 0.25 * (stage[i] + step * change[i])
    fast = max(fast, _row_rate(stage, data[1], kind, setting, scheme, work, (change, sides)))
    for j in range(sides.shape[0]):
        account[j] += sides[j] * (4.0 * step / 6.0)
    for i in range(start.shape[0]):
        final[i] = (start[i] + 2.0 * (stage[i] + step * change[i])) / 3.0
    return fast


@compiled
def ssprk3(
    u: _Array,
    first: tuple[_Array, _Array],
    h: _Array,
    data: _Array,
    law: Any,
    setting: Any,
    ghosts: int,
    limit: Any,
) -> tuple[_Array, _Array, _Array]:
    """Second and third stage of a step of Shu and Osher's method, after the rate at its start.

    Args:
        u: Cell averages ``(rows, cells)``.
        first: du/dt and side fluxes at the start.
        h: Time steps ``(rows,)``.
        data: Side data at t, t + h and t + h/2 ``(3, rows, S)``, or ``(1, rows, S)`` if they are constant.
        law: As in ``rate``.
        setting: As in ``rate``.
        ghosts: As in ``rate``.
        limit: As in ``rate``.

    Returns:
        Cell averages at the end, time-integrated side fluxes, and the largest speed of the two stages.
    """
    blocks, spacing, area, modes, pull, offsets = setting
    rows, cells = u.shape
    end, account, speed = np.empty_like(u), np.empty((rows, modes.shape[0])), np.empty(rows)
    work, last = _scratch(blocks, ghosts), data.shape[0] - 1
    stages = np.empty(cells), np.empty(cells), np.empty(modes.shape[0])
    for b in range(rows):
        row = ((law[0], law[1][b]), (blocks, spacing, area, modes, pull[b], offsets), (ghosts, limit), work, stages)
        initial, at = (first[0][b], first[1][b]), (data[min(1, last), b], data[min(2, last), b])
        speed[b] = _later_stages(u[b], initial, h[b], at, row, (end[b], account[b]))
    return end, account, speed


@compiled
def march(
    u: _Array, room: _Array, control: tuple[float, float], data: _Array, law: Any, setting: Any, ghosts: int, limit: Any
) -> tuple[_Array, _Array, _Array, _Array]:
    """Steps of Shu and Osher's method with data that are constant in time, as many as end before a stop.

    Args:
        u: Cell averages ``(rows, cells)``.
        room: Time until the stop ``(rows,)``.
        control: Courant number and largest step.
        data: Side data ``(rows, S)``.
        law: As in ``rate``.
        setting: As in ``rate``.
        ghosts: As in ``rate``.
        limit: As in ``rate``.

    Returns:
        Cell averages, elapsed time, time-integrated side fluxes and number of steps. A row also ends before a step in
        which a signal crosses more than a cell, or with a state that is not finite.
    """
    blocks, spacing, area, modes, pull, offsets = setting
    rows, cells = u.shape
    end, account, elapsed = u.copy(), np.zeros((rows, modes.shape[0])), np.zeros(rows)
    count, work = np.zeros(rows, np.int64), _scratch(blocks, ghosts)
    stages = np.empty(cells), np.empty(cells), np.empty(modes.shape[0])
    change, sides, final, flow = np.empty(cells), np.empty(modes.shape[0]), np.empty(cells), np.empty(modes.shape[0])
    for b in range(rows):
        kind, geometry = (law[0], law[1][b]), (blocks, spacing, area, modes, pull[b], offsets)
        row, at = (kind, geometry, (ghosts, limit), work, stages), (data[b], data[b])
        while True:
            speed = _row_rate(end[b], data[b], kind, geometry, (ghosts, limit), work, (change, sides))
            step = min(control[1], control[0] / speed) if speed > 0.0 else control[1]
            if not elapsed[b] + step < (1.0 - 1e-9) * room[b]:
                break
            fast = _later_stages(end[b], (change, sides), step, at, row, (final, flow))
            if not step * fast <= 1.0 or not np.isfinite(final.sum()):
                break
            end[b], elapsed[b], count[b] = final, elapsed[b] + step, count[b] + 1
            account[b] += flow
    return end, elapsed, account, count
