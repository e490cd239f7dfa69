"""Reaction and diffusion of several unknowns, u_t = D ∇²u + f(u), along one to three axes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, isfinite, prod
from numbers import Real
from typing import Any

import numpy as np
import torch

from solvers._arguments import output_times
from solvers._compiled import compiled
from solvers.conditions import per_axis
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.finite_volume._operator import Operator
from solvers.finite_volume.diffusion._diffusion import DiffusionTerm
from solvers.finite_volume.diffusion.face_means import IntegralMean
from solvers.finite_volume.laws._law_rows import LawRows
from solvers.finite_volume.laws.laws import Diffusion
from solvers.finite_volume.march.drive import diffusion_steps
from solvers.finite_volume.march.kernels import Array, call_from_python
from solvers.finite_volume.sides._side_data import SideData
from solvers.grids import CellGrid
from solvers.systems.pointwise import State, law_kernel
from solvers.systems.solution import SystemSolution, as_field

_GAMMA = 1.0 - 0.5**0.5
_SHORTEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class ReactionDiffusion:
    """c unknowns that react at every point and diffuse independently.

    Args:
        reaction: ``reaction(u, *parameters)``: rates f of c numbers u, as a tuple; a function that numba can compile.
        diffusivities: D of every unknown, at least 0.
        parameters: Numbers.

    Raises:
        InvalidArgumentError: If a diffusivity is negative or not finite, or the reaction does not give c numbers.
    """

    reaction: Callable[..., State]
    diffusivities: tuple[float, ...]
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (*self.diffusivities, *self.parameters)
        if not (self.diffusivities and all(isinstance(each, Real) and isfinite(each) for each in numbers)):
            raise InvalidArgumentError(
                f"ReactionDiffusion: diffusivities and parameters must be finite numbers, got {numbers}."
            )
        if min(self.diffusivities) < 0.0:
            raise InvalidArgumentError(
                f"ReactionDiffusion: diffusivities must not be negative, got {self.diffusivities}."
            )

    def check(self, state: Sequence[float]) -> None:
        """Raises an error if the reaction fails at a state or does not give c numbers."""
        plain, name = getattr(self.reaction, "py_func", self.reaction), "ReactionDiffusion: reaction"
        try:
            rates = plain(tuple(state), *self.parameters)
        except Exception as error:
            raise InvalidArgumentError(
                f"{name} failed for u = {tuple(state)}: {type(error).__name__}: {error}. It takes the unknowns as a "
                "tuple of numbers, and the parameters."
            ) from error
        if not (isinstance(rates, tuple) and len(rates) == len(state) and all(isinstance(x, Real) for x in rates)):
            raise InvalidArgumentError(f"{name} must return a tuple of {len(state)} numbers, got {rates!r}.")


@lru_cache
def reaction_kernel(reaction: Callable[..., State], c: int, parameters: int) -> Any:
    """A step of ROS2 (Verwer et al., SIAM J. Sci. Comput. 20, 1999) at every point: second order, L-stable.

    Kernel (states, [step, parameters], –, –, states after the step, –, –). Derivatives of f are central differences.
    """
    each, rest = range(c), "".join(f", p_[{1 + k}]" for k in range(parameters))
    names = [f"u{k}" for k in each]
    lines = ["h = p_[0]", f"w = {_GAMMA} * h", "for i in range(count):"]
    lines += [f"    u{k} = u_[{k} * axis + i]" for k in each]
    lines += [f"    f = reaction(({', '.join(names)},){rest})"]
    for d in each:
        shifted = [", ".join([*names[:d], f"u{d} {sign} e", *names[d + 1 :]]) for sign in "+-"]
        lines += [f"    e = 6e-6 * max(1e-3, abs(u{d}))", "    v = 0.5 * w / e"]
        lines += [f"    p, q = reaction(({shifted[0]},){rest}), reaction(({shifted[1]},){rest})"]
        lines += [f"    m{r}{d} = {float(r == d)} - v * (p[{r}] - q[{r}])" for r in each]
    for p in each:
        lines += [f"    i{p} = 1.0 / m{p}{p}"]
        for r in range(p + 1, c):
            lines += [f"    m{r}{p} *= i{p}", *(f"    m{r}{q} -= m{r}{p} * m{p}{q}" for q in range(p + 1, c))]

    def solve(x: str) -> list[str]:
        down = [f"    {x}{r} -= m{r}{p} * {x}{p}" for r in each for p in range(r)]
        up = [[*(f"    {x}{r} -= m{r}{p} * {x}{p}" for p in range(r + 1, c)), f"    {x}{r} *= i{r}"] for r in each]
        return [*down, *(line for part in reversed(up) for line in part)]

    lines += [*(f"    x{k} = f[{k}]" for k in each), *solve("x")]
    ahead = ", ".join(f"u{k} + h * x{k}" for k in each)
    lines += [f"    f = reaction(({ahead},){rest})", *(f"    y{k} = f[{k}] - 2.0 * x{k}" for k in each), *solve("y")]
    lines += [f"    out_[{k} * axis + i] = u{k} + h * (1.5 * x{k} + 0.5 * y{k})" for k in each]
    return law_kernel("ros2", lines, {"reaction": reaction}, c)


@compiled(fastmath={"reassoc"})
def _differences(before: Array, after: Array) -> Array:
    """Sum of after − before for every unknown, and of its magnitude ``(2, c)``."""
    sums = np.zeros((2, len(before)))
    for k in range(len(before)):
        total, size = 0.0, 0.0
        for i in range(before.shape[1]):
            change = after[k, i] - before[k, i]
            total, size = total + change, size + abs(change)
        sums[0, k], sums[1, k] = total, size
    return sums


@compiled
def _active_mean(fine: Array, coarse: Array) -> Array:
    """Mean difference of every unknown over the cells where there is one, Σ d²/Σ |d| ``(c,)``.

    Overwrites ``fine`` by the states that the two extrapolate to, of third order: their errors of order h² cancel.
    """
    means = np.zeros(len(fine))
    for k in range(len(fine)):
        total, squares = 0.0, 0.0
        for i in range(fine.shape[1]):
            change = fine[k, i] - coarse[k, i]
            total, squares = total + abs(change), squares + change * change
            fine[k, i] += change / 3.0
        means[k] = squares / total if total != 0.0 else 0.0
    return means


class _Entry:
    """One entry of a batch: Strang steps of half a reaction, diffusion by RKL2, and half a reaction."""

    def __init__(self, law: ReactionDiffusion, grid: CellGrid, sides: SideData, term: DiffusionTerm | None) -> None:
        c = len(law.diffusivities)
        self.law, self.volume, self.sides = law, prod(grid.spacing), sides
        self.moving, self.d = np.flatnonzero(law.diffusivities), grid.dimension
        nothing = np.empty((0, prod(grid.shape))), lambda *_: (np.zeros((2 * self.d, 0)), sides.fixed)
        self.states, self.diffuse = diffusion_steps(Operator(grid, sides, term, None, None)) if term else nothing
        self.between = self.states if len(self.moving) == c else np.empty((c, prod(grid.shape)))
        self.kernel = reaction_kernel(law.reaction, c, len(law.parameters)).address
        self.numbers = np.array([0.0, *map(float, law.parameters)])

    def check(self, u: Array, number: int) -> None:
        """Raises an error unless the reaction is finite for the initial field."""
        self.react(u, 1e-300, after := np.empty_like(u))
        if not np.isfinite(after).all():
            cell = int(np.argmin(np.isfinite(after).all(0)))
            raise InvalidArgumentError(
                f"ReactionDiffusion: reaction or its derivative is not finite for u = {tuple(u[:, cell].tolist())}, "
                f"entry {number}, cell {cell} of initial."
            )

    def react(self, u: Array, h: float, after: Array) -> Array:
        """Writes the states after a reaction; its integral ``(c,)``."""
        self.numbers[0] = h
        call_from_python(self.kernel, (u, self.numbers, u, u, after, u, u), u.shape[1], u.shape[1])
        return self.volume * _differences(u, after)[0]

    def largest_step(self, time: float) -> float:
        """Largest step that sees boundary data and does not pass a break point."""
        return float(self.sides.largest_step(np.full(len(self.moving), time)).min(initial=inf))

    def step(self, u: Array, time: float, h: float, end: Array) -> tuple[Array, ...]:
        """Writes the states ``(c, cells)`` at the end of a step.

        Returns fluxes through the sides ``(2d, c)``, integral of the source ``(c,)``, and time integrals of the
        boundary data as the step sampled them.
        """
        flux, between, moving = np.zeros((2 * self.d, len(u))), self.between, self.moving
        source = self.react(u, 0.5 * h, between)
        if len(moving) < len(u):
            self.states[:] = between[moving]
        flux[:, moving], sampled = self.diffuse(time, h)
        if len(moving) < len(u):
            between[moving] = self.states
        source += self.react(between, 0.5 * h, end)
        return flux, source, sampled.copy()


def solve_reactions(
    law: ReactionDiffusion, grid: CellGrid, boundary: Sequence[Any], initial: Any, times: Any, **options: Any
) -> SystemSolution:
    """Solves u_t = D ∇²u + f(u) for a batch; called by ``solve_system``.

    A step and two of half its length give the error, the mean over the cells where there is one, relative to the spread
    of every unknown over cells and time. Both together are the state at the end, of third order.

    Args:
        law: The law.
        grid: Cells of the domain.
        boundary: Conditions as for ``solve``, with values that broadcast to ``(c, *face)``.
        initial: Cell averages ``(*batch, c, *cells)``, or a function of ``grid.points``.
        times: Increasing output times, none before the start.
        options: ``start``, ``tolerance`` (1e-4 by default), ``largest_step``, ``breakpoints`` and ``estimate_error``.

    Returns:
        The solution; ``source`` is the time-integrated reaction.
    """
    unknown = sorted(set(options) - {"start", "tolerance", "largest_step", "breakpoints", "estimate_error"})
    if unknown:
        raise InvalidArgumentError(f"With ReactionDiffusion solve_system takes no option {', '.join(unknown)}.")
    start, tolerance = float(options.get("start", 0.0)), float(options.get("tolerance", 1e-4))
    if not tolerance > 0:
        raise InvalidArgumentError(f"tolerance must be positive, got {tolerance}.")
    output, c = output_times(times, start), len(law.diffusivities)
    field = as_field("initial", initial, grid)
    d = grid.dimension
    if field.ndim <= d or tuple(field.shape[-d - 1 :]) != (c, *grid.shape):
        raise InvalidArgumentError(
            f"initial must have the shape (*batch, {c}, *{grid.shape}), one field for each diffusivity, got "
            f"{tuple(field.shape)}."
        )
    batch, u = tuple(field.shape[: -d - 1]), field.reshape(-1, c, prod(grid.shape)).contiguous().numpy()
    law.check(u[0, :, 0].tolist())
    breakpoints = options.get("breakpoints", ())
    sides = SideData.build(per_axis(boundary, d), grid, (c,), start, float(output[-1]), breakpoints)
    moving = np.flatnonzero(law.diffusivities)
    sides = sides.take(moving)
    term = None
    if len(moving):
        part = LawRows.build(Diffusion(torch.tensor(law.diffusivities)[moving].double()), (len(moving),), grid)
        term = DiffusionTerm(part, grid, sides, IntegralMean())
    entry, bounds = _Entry(law, grid, sides, term), (tolerance, float(options.get("largest_step", inf)))
    for number, each in enumerate(u):
        entry.check(each, number)
    times = np.array([start, *output.tolist()])
    runs = [_run(entry, each, times, bounds, k) for k, each in enumerate(u)]
    values, flux, source, steps = (torch.from_numpy(np.array(part)) for part in zip(*runs, strict=True))
    estimate = None
    if options.get("estimate_error"):
        refined, limits = _Entry(law, grid, replace(sides, part=0.5), term), (0.1 * bounds[0], 0.5 * bounds[1])
        finer = np.array([_run(refined, each, times, limits, k)[0] for k, each in enumerate(u)])
        estimate = (torch.from_numpy(finer) - values).abs().amax(-1).reshape(*batch, len(output), c)
    count = len(output)
    return SystemSolution(
        grid=grid,
        times=output,
        values=values.reshape(*batch, count, c, *grid.shape),
        initial_total=(field * grid.weights).flatten(-d).sum(-1),
        boundary_flux=flux.reshape(*batch, count, 2 * d, c),
        source=source.reshape(*batch, count, c),
        steps=steps.reshape(batch),
        error_estimate=estimate,
    )


def _run(entry: _Entry, u: Array, times: Array, bounds: tuple[float, float], number: int) -> tuple[Any, ...]:
    """States, accounts at the output times and the number of steps of one entry."""
    time, proposal, steps = times[0], 1e-4 * (times[-1] - times[0]), 0
    flux, source, sampled = np.zeros((2 * entry.d, len(u))), np.zeros(len(u)), np.zeros_like(entry.sides.fixed)
    low, high, outputs, (u, coarse, middle, after) = u.min(1), u.max(1), [], np.array([u] * 4)
    for target in times[1:]:
        while time < target:
            left = target - time
            bound = min(proposal, bounds[1], entry.largest_step(time))
            h = left if bound >= left * (1.0 - 1e-9) else min(bound, 0.5 * left)
            with np.errstate(all="ignore"):
                whole = entry.step(u, time, h, coarse)
                first = entry.step(u, time, 0.5 * h, middle)
                second = entry.step(middle, time + 0.5 * h, 0.5 * h, after)
                lowest, highest = after.min(1), after.max(1)
                spread = np.maximum(high, highest) - np.minimum(low, lowest)
                allowed = np.maximum(bounds[0] * spread, 1e-13 * np.maximum(highest, -lowest)) + 1e-300
                ratio = float((_active_mean(after, coarse) / 3.0 / allowed).max())
            factor = 0.25 if not isfinite(ratio) else min(2.0, max(0.2, 0.8 * max(ratio, 1e-9) ** (-1 / 3)))
            if ratio <= 1.0:
                u, after, time, steps = after, u, target if h == left else time + h, steps + 1
                flux, source, sampled = (
                    old + one + two + (one + two - all_) / 3.0
                    for old, one, two, all_ in zip((flux, source, sampled), first, second, whole, strict=True)
                )
                low, high = np.minimum(low, lowest), np.maximum(high, highest)
                proposal = max(factor * h, proposal if h < proposal else 0.0)
            elif (proposal := min(factor, 0.9) * h) < _SHORTEST * max(abs(time), 1e-4 * (times[-1] - times[0])):
                raise SolverDivergedError(
                    f"Entry {number} cannot be continued past time {time:.6g}: a step of {h:.3g} fails, and max |u| is "
                    f"{np.abs(u).max():.3g}. A reaction such as u² makes solutions infinite in finite time; end "
                    "before. One that is not finite there, such as √u where u < 0, fails so, too."
                )
        outputs.append((u.copy(), flux, source))
    entry.sides.check(sampled, times[0], times[-1])
    return *(np.array(part) for part in zip(*outputs, strict=True)), steps
