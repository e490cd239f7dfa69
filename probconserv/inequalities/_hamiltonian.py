"""Compiled exact Hamiltonian dynamics of a standard normal vector between walls (Pakman & Paninski 2014).

Between walls z(t) = z cos t + v sin t, so the time of the next hit has a closed form and no step is rejected. A wall
reflects the velocity. A trajectory of length π/2 would end at v, a fresh independent draw, if there were no walls.
"""

import math

import numpy as np

from solvers._compiled import compiled, inner

_Array = np.ndarray
_BOUNCES = 1_000_000  # of one trajectory
_TOUCHING = 1e-14  # distance from a wall, relative to one and the wall's distance from the origin


@inner
def _next_hit(position: _Array, velocity: _Array, offset: _Array, longest: float) -> tuple[float, int]:
    """Time until the first wall is hit from inside, and its number; ``longest`` and −1 if none is hit before."""
    first, wall = longest, -1
    for i in range(position.shape[0]):
        x, v, d = position[i], velocity[i], offset[i]
        if x + d <= _TOUCHING * (1.0 + abs(d)) and v < 0.0:
            return 0.0, i
        radius = math.sqrt(x * x + v * v)
        if radius <= d:
            continue
        time = math.acos(max(-1.0, min(1.0, -d / radius))) - math.atan2(-v, x)
        if time < 0.0:
            time += 2.0 * math.pi
        if time < first:
            first, wall = time, i
    return first, wall


@inner
def _rotate(position: _Array, velocity: _Array, time: float) -> None:
    """Moves along the circle for a time."""
    cosine, sine = math.cos(time), math.sin(time)
    for i in range(position.shape[0]):
        x, v = position[i], velocity[i]
        position[i], velocity[i] = x * cosine + v * sine, v * cosine - x * sine


@compiled
def run_chain(
    walls: tuple[_Array, _Array, _Array], start: _Array, trajectories: tuple[int, int], generator: np.random.Generator
) -> tuple[_Array, bool]:
    """Positions (kept, r) of N(0, I) truncated to {F z + h ≥ 0} after each of a number of trajectories.

    ``walls`` are F with rows of length one (m, r), F Fᵀ and h (m,); ``start`` is strictly inside; ``trajectories`` says
    how many are left out at the start and how many are kept. Also whether every one ended within the most bounces.
    """
    normals, products, offset = walls
    left_out, kept = trajectories
    z, v = start.copy(), np.empty_like(start)
    positions = np.empty((kept, start.shape[0]))
    for trajectory in range(left_out + kept):
        for i in range(v.shape[0]):
            v[i] = generator.standard_normal()
        position, velocity = normals @ z, normals @ v
        remaining = 0.5 * math.pi
        for bounce in range(_BOUNCES + 1):
            time, wall = _next_hit(position, velocity, offset, remaining)
            _rotate(z, v, time)
            if wall < 0:
                break
            if bounce == _BOUNCES:
                return positions, False
            _rotate(position, velocity, time)
            remaining -= time
            change = 2.0 * velocity[wall]
            for i in range(v.shape[0]):
                v[i] -= change * normals[wall, i]
            for i in range(velocity.shape[0]):
                velocity[i] -= change * products[wall, i]
        if trajectory >= left_out:
            positions[trajectory - left_out] = z
    return positions, True
