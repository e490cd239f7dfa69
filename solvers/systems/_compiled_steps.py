"""Compiled time steps of shallow water, one batch entry after the other, as ``_stepping`` takes them for any law."""

from typing import Any

import numpy as np

from solvers._compiled import compiled
from solvers.systems._kernels import entry_rates

_Array = np.ndarray

RUNNING, DONE, FAILED = 0, 1, 2
"""States of an entry after ``run``."""

_LIMIT = 0.5
_ROUND_OFF = 1e-14


@compiled
def _stage(before: _Array, now: _Array, change: _Array, weight: float, step: float, floor: float, out: _Array) -> int:
    """Writes weight·before + (1 − weight)·(now + step·change); the first cell that is not admissible, or −1.

    Depths that are negative by less than ``floor``, round-off, become zero.
    """
    components, n, m = now.shape
    bad = -1
    for i in range(n):
        for j in range(m):
            finite = True
            for k in range(components):
                value = weight * before[k, i, j] + (1.0 - weight) * (now[k, i, j] + step * change[k, i, j])
                out[k, i, j] = value
                finite = finite and np.isfinite(value)
            if out[0, i, j] < 0.0 and out[0, i, j] >= -floor:
                out[:, i, j] = 0.0
            if bad < 0 and not (finite and out[0, i, j] >= 0.0):
                bad = i * m + j
    return bad


@compiled
def _choose(remaining: float, speed: float, largest: float, courant: float) -> float:
    """The step: the rest of the interval, or at most half of it."""
    bound = min(courant / speed, largest) if speed > 0.0 else largest
    return remaining if bound >= remaining * (1.0 - 1e-9) else min(bound, 0.5 * remaining)


@compiled
def _attempt(u: _Array, step: float, problem: Any, first: Any, buffers: Any, floor: float) -> tuple[int, float]:
    """Stages two and three of a step; the result is ``buffers[0]``.

    Returns:
        First cell that is not admissible or −1, and the largest speed of these stages.
    """
    plan, given, level = problem
    one, two, change, sides, source = buffers
    bad = _stage(u, u, first[0], 0.0, step, floor, one)
    if bad >= 0:
        return bad, 0.0
    speed = entry_rates(one, plan, given, level, change, sides, source)
    bad = _stage(u, one, change, 0.75, step, floor, two)
    if bad >= 0:
        return bad, speed
    first[1][:] += sides
    first[2][:] += source
    speed = max(speed, entry_rates(two, plan, given, level, change, sides, source))
    first[1][:] += 4.0 * sides
    first[2][:] += 4.0 * source
    return _stage(u, two, change, 1.0 / 3.0, step, floor, one), speed


@compiled
def _run_entry(u: _Array, clock: _Array, account: Any, problem: Any, control: Any, budget: int) -> tuple[int, int]:
    """Integrates one entry; see ``run``. ``clock`` is time, largest step and number of steps."""
    target, courant, largest_step, smallest = control
    components, sides = u.shape[0], account[0].shape[0]
    first = (np.empty(u.shape), np.empty((sides, components)), np.empty(components))
    buffers = (
        np.empty(u.shape),
        np.empty(u.shape),
        np.empty(u.shape),
        np.empty((sides, components)),
        np.empty(components),
    )
    plan, given, level = problem
    for _ in range(budget):
        if clock[0] >= target:
            return DONE, -1
        remaining = target - clock[0]
        speed = entry_rates(u, plan, given, level, first[0], first[1], first[2])
        step = _choose(remaining, speed, min(clock[1], largest_step), courant)
        bad, faster = _attempt(u, step, problem, first, buffers, _ROUND_OFF * u[0].max())
        if bad >= 0 or not step * max(speed, faster) <= _LIMIT:
            if not step > smallest:
                clock[1] = step
                return FAILED, bad
            clock[1] = 0.5 * step
            continue
        u[:] = buffers[0]
        account[0][:] += step / 6.0 * first[1]
        account[1][:] += step / 6.0 * first[2]
        clock[0] = target if step == remaining else clock[0] + step
        clock[1] *= 2.0
        clock[2] += 1.0
    return (DONE if clock[0] >= target else RUNNING), -1


@compiled
def run(
    u: _Array, clocks: _Array, account: Any, plan: Any, states: Any, bottoms: Any, control: Any, budget: int
) -> tuple[_Array, _Array]:
    """Integrates every entry to a target time, or as many steps as the budget allows.

    Args:
        u: States ``(batch, c, cells, cells)``, overwritten.
        clocks: Time, largest step to try and number of accepted steps ``(batch, 3)``, overwritten.
        account: Time-integrated fluxes through the sides ``(batch, 2d, c)`` and sources ``(batch, c)``, added to.
        plan: See ``entry_rates``.
        states: See ``rates``.
        bottoms: See ``rates``.
        control: Target time, Courant number, largest and smallest step.
        budget: Most steps to try for an entry.

    Returns:
        ``RUNNING``, ``DONE`` or ``FAILED``, and the cell that failed or −1, ``(batch,)`` each.
    """
    batch = u.shape[0]
    status, cells = np.empty(batch, dtype=np.int64), np.empty(batch, dtype=np.int64)
    for b in range(batch):
        problem = (plan, (states[0][b], states[-1][b]), (bottoms[0][b], bottoms[-1][b]))
        status[b], cells[b] = _run_entry(u[b], clocks[b], (account[0][b], account[1][b]), problem, control, budget)
    return status, cells
