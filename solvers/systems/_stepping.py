"""Time steps of a batch whose entries keep their own time: SSPRK3 (Shu and Osher 1988), halved where one fails."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import SolverDivergedError
from solvers.systems import _compiled_steps as compiled
from solvers.systems._schemes import Rates, Scheme, ShallowScheme, as_plane
from solvers.systems.laws import ShallowWater

_LIMIT = 0.5
_ROUND_OFF = 1e-14
_BUDGET = 200


@dataclass
class Progress:
    """State of the integration, changed in place.

    Attributes:
        u: Cell averages ``(entries, c, *cells)``.
        time: Time of every entry ``(entries,)``.
        largest: Largest step that every entry may try ``(entries,)``.
        boundary_flux: Time-integrated flux through every side ``(entries, 2d, c)``.
        source: Time-integrated source ``(entries, c)``.
        steps: Accepted steps of every entry ``(entries,)``.
    """

    u: Tensor
    time: Tensor
    largest: Tensor
    boundary_flux: Tensor
    source: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Control:
    """Choice of the step.

    Attributes:
        courant: Fraction of a cell that the fastest signal may cross in a step.
        largest_step: Upper bound of the step.
        floor: Smallest step to try.
        report: Called with the mean advance in time over the batch, or None.
        record: Called with entries, times and lengths of accepted steps if sides change with time.
    """

    courant: float
    largest_step: float
    floor: float
    report: Callable[[float], None] | None
    record: Callable[[Tensor, Tensor, Tensor], None]


def advance(scheme: Scheme, state: Progress, target: float, control: Control) -> None:
    """Integrates every entry to a target time.

    Args:
        scheme: Discretisation in space.
        state: State, changed in place.
        target: Time to reach.
        control: Choice of the step.

    Raises:
        SolverDivergedError: If an entry fails at the smallest step.
    """
    if isinstance(scheme, ShallowScheme) and not any(side.changes for pair in scheme.setting.sides for side in pair):
        _advance_compiled(scheme, state, target, control)
        return
    while bool((state.time < target).any()):
        rows = torch.nonzero(state.time < target)[:, 0]
        u, time = state.u[rows], state.time[rows]
        first = scheme.rates(u, time, rows)
        step, lands = _choose_step(first, target - time, state.largest[rows], control)
        new, mean, good, worst = _attempt(scheme, u, time, rows, step, first)
        accepted = good.flatten(1).all(1) & (step * worst <= _LIMIT)
        _check_floor(scheme, state, rows, step, accepted, good, control)
        chosen = rows[accepted]
        taken = step[accepted]
        control.record(chosen, time[accepted], taken)
        state.u[chosen] = new[accepted]
        state.boundary_flux[chosen] += taken[:, None, None] * mean.sides[accepted]
        state.source[chosen] += taken[:, None] * mean.source[accepted]
        state.time[chosen] = torch.where(lands, torch.full_like(time, target), time + step)[accepted]
        state.steps[chosen] += 1
        state.largest[rows] = torch.where(accepted, 2.0 * state.largest[rows], 0.5 * step)
        if control.report is not None:
            control.report(float(taken.sum()) / state.time.shape[0])


def _advance_compiled(scheme: ShallowScheme, state: Progress, target: float, control: Control) -> None:
    """``advance`` for shallow water whose sides do not change with time, by compiled steps."""
    u = as_plane(state.u)
    rows = torch.arange(len(u))
    clocks = torch.stack([state.time, state.largest, state.steps.to(torch.float64)], dim=1)
    account = (state.boundary_flux.numpy(), state.source.numpy())
    fixed = (scheme.plan, scheme.states(state.time, rows), scheme.levels(rows))
    bounds = (target, float(control.courant), float(control.largest_step), control.floor)
    before = clocks[:, 0].clone()
    while True:
        status, cells = compiled.run(u.numpy(), clocks.numpy(), account, *fixed, bounds, _BUDGET)
        if control.report is not None:
            control.report(float((clocks[:, 0] - before).mean()))
            before = clocks[:, 0].clone()
        failed = (status == compiled.FAILED).nonzero()[0]
        if len(failed):
            entry, cell = int(failed[0]), int(cells[failed[0]])
            place = np.unravel_index(cell, scheme.setting.grid.shape) if cell >= 0 else None
            raise _failure(scheme, entry, place, float(clocks[entry, 0]), float(clocks[entry, 1]), control)
        if bool((status == compiled.DONE).all()):
            break
    state.u, state.time, state.largest = u.reshape(state.u.shape), clocks[:, 0], clocks[:, 1]
    state.steps = clocks[:, 2].to(torch.int64)


def _choose_step(first: Rates, remaining: Tensor, largest: Tensor, control: Control) -> tuple[Tensor, Tensor]:
    """Step of every entry, without a tiny one before the target, and whether it ends at the target."""
    bound = torch.where(first.speed > 0, control.courant / first.speed, inf)
    bound = torch.minimum(bound, largest).clamp(max=control.largest_step)
    lands = bound >= remaining * (1 - 1e-9)
    return torch.where(lands, remaining, torch.minimum(bound, 0.5 * remaining)), lands


def _attempt(
    scheme: Scheme, u: Tensor, time: Tensor, rows: Tensor, step: Tensor, first: Rates
) -> tuple[Tensor, Rates, Tensor, Tensor]:
    """State after a step, mean rates of the step, admissible cells ``(entries, *cells)`` and largest speed."""
    dt = step.reshape(-1, *[1] * (u.ndim - 1))
    law = scheme.setting.law
    one = _settle(law, u + dt * first.change, u)
    good = law.admissible(one)
    second = scheme.rates(_usable(one, u, good), time + step, rows)
    two = _settle(law, 0.75 * u + 0.25 * (one + dt * second.change), u)
    good = good & law.admissible(two)
    third = scheme.rates(_usable(two, u, good), time + 0.5 * step, rows)
    new = _settle(law, (u + 2.0 * (two + dt * third.change)) / 3.0, u)
    good = good & law.admissible(new) & torch.isfinite(new).all(1)
    mean = Rates(
        change=new,
        sides=(first.sides + second.sides + 4.0 * third.sides) / 6.0,
        source=(first.source + second.source + 4.0 * third.source) / 6.0,
        speed=first.speed,
    )
    worst = torch.stack([first.speed, second.speed, third.speed]).amax(0)
    return new, mean, good, worst


def _usable(u: Tensor, before: Tensor, good: Tensor) -> Tensor:
    """The states, with those before the step in entries that have failed already."""
    entries = good.flatten(1).all(1)
    return u if bool(entries.all()) else torch.where(entries.reshape(-1, *[1] * (u.ndim - 1)), u, before)


def _settle(law: object, u: Tensor, before: Tensor) -> Tensor:
    """Sets depths to zero that are negative by round-off of the largest depth; other negative depths remain."""
    if not isinstance(law, ShallowWater) or not bool((u[:, 0] < 0).any()):
        return u
    largest = before[:, 0].flatten(1).amax(1).reshape(-1, *[1] * (u.ndim - 2))
    dried = (u[:, 0] < 0) & (u[:, 0] >= -_ROUND_OFF * largest)
    return torch.where(dried[:, None], 0.0, u)


def _check_floor(
    scheme: Scheme, state: Progress, rows: Tensor, step: Tensor, accepted: Tensor, good: Tensor, control: Control
) -> None:
    """Raises an error if an entry failed at the smallest step."""
    failed = ~accepted & ~(step > control.floor)
    if not bool(failed.any()):
        return
    entry = int(torch.nonzero(failed)[0, 0])
    bad = torch.nonzero(~good[entry])
    place = bad[0].tolist() if len(bad) else None
    row = int(rows[entry])
    raise _failure(scheme, row, place, float(state.time[row]), float(step[entry]), control)


def _failure(
    scheme: Scheme, entry: int, cell: Sequence[Any] | None, time: float, step: float, control: Control
) -> SolverDivergedError:
    """The error of an entry of the flattened batch that failed at the smallest step."""
    batch = scheme.setting.batch
    at = f" in cell {tuple(int(i) for i in cell)}" if cell is not None else ""
    where = f", batch entry {tuple(int(i) for i in np.unravel_index(entry, batch))}" if batch else ""
    return SolverDivergedError(
        f"{type(scheme.setting.law).__name__} has no admissible state{at}{where} after time {time:.6g} with a step of "
        f"{step:.3g} (smallest allowed {control.floor:.3g}). Check the law's flux, eigenvalues and admissible, and the "
        "boundary states; reconstruction=Constant() is the most robust."
    )
