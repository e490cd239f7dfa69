"""The method of lines in NumPy, integrated by SciPy from event to event: the reference of set-ups with events."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

import solvers

Array = np.ndarray


@dataclass(frozen=True)
class Wall:
    """a u + b ∂u/∂x = data(t), or a flux data(t) if both are 0; the first of an axis, or the last one."""

    condition: Any
    data: Callable[[float], Any]
    a: Any = 1.0
    b: Any = 0.0

    def through(self, edge: Array, k: Array, potential: Callable[[Array], Array], time: float, h: float) -> Array:
        """Flux along the axis between side and edge cell; h is half a cell, negative on the last side."""
        data = self.data(time) + 0 * edge
        if np.all(self.a == 0) and np.all(self.b == 0):
            return data
        state = (data - self.b / h * edge) / (self.a - self.b / h)
        return -k * (potential(edge) - potential(state)) / h


Pair = tuple[Wall, Wall] | None
PERIODIC = (solvers.Periodic(), solvers.Periodic())


@dataclass(frozen=True)
class Lines:
    """u_t = ∇·(k(x, t) ∇Φ(u)) + s(t, u) on cells of the unit interval, square or cube.

    k is a function of the points, one array an axis, and of time: at the centres, from which faces take the harmonic
    mean, and on sides.
    """

    shape: tuple[int, ...]
    pairs: tuple[Pair, ...]
    conductivity: Callable[..., Array] = lambda *x: 1.0 + 0 * x[0]
    potential: Callable[[Array], Array] = lambda u: u
    source: Callable[[float, Array], Any] = lambda _time, _u: 0.0

    @property
    def grid(self) -> solvers.CellGrid:
        return solvers.CellGrid((0.0,) * len(self.shape), (1.0,) * len(self.shape), self.shape)

    @property
    def boundary(self) -> list[Any]:
        return [tuple(wall.condition for wall in pair) if pair else PERIODIC for pair in self.pairs]

    def points(self, axis: int = -1, last: int = 0) -> list[Array]:
        """Centres of the cells, or of the faces of a side."""
        ticks = [(np.arange(n) + 0.5) / n for n in self.shape]
        if axis >= 0:
            ticks[axis] = np.array([float(last)])
        return list(np.meshgrid(*ticks, indexing="ij"))

    def rates(self, time: float, flat: Array) -> Array:
        u = flat.reshape(self.shape)
        k, p = self.conductivity(*self.points(), time), self.potential(u)
        rate = np.zeros(self.shape) + self.source(time, u)
        for axis, (pair, n) in enumerate(zip(self.pairs, self.shape, strict=True)):
            v, c, q = (np.moveaxis(each, axis, 0) for each in (u, k, p))
            flux = np.zeros((n + 1, *v.shape[1:]))
            flux[1:-1] = -2 * c[1:] * c[:-1] / (c[1:] + c[:-1]) * np.diff(q, axis=0) * n
            if pair is None:
                flux[0] = flux[-1] = -2 * c[0] * c[-1] / (c[0] + c[-1]) * (q[0] - q[-1]) * n
            else:
                for last, wall in enumerate(pair):
                    side = np.moveaxis(self.conductivity(*self.points(axis, last), time), axis, 0)[0]
                    flux[-last] = wall.through(v[-last], side, self.potential, time, (0.5 - last) / n)
            rate -= np.moveaxis(np.diff(flux, axis=0) * n, 0, axis)
        return rate.ravel()


def integrate(
    rates: Any, initial: Array, times: Sequence[float], breaks: Sequence[float] = (), **options: Any
) -> Array:
    """States ``(times, n)`` by Radau or LSODA, restarted at every break, where rates are those of after it."""
    ends = sorted({*(each for each in breaks if 0 < each < times[-1]), *times})
    state, now, states = initial.ravel().astype(float), 0.0, {}
    for end in ends:
        margin = 1e-12 * (end - now)  # rates of the piece, not of what begins at its ends

        def inside(time: float, u: Array, now: float = now, end: float = end, margin: float = margin) -> Array:
            return rates(min(max(time, now + margin), end - margin), u)

        given = {"method": "LSODA", "rtol": 1e-7, "atol": 1e-9, **options}
        state = solve_ivp(inside, (now, end), state, **given).y[:, -1]
        now, states[end] = end, state
    return np.stack([states[time] for time in times])
