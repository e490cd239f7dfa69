"""Newton's method for an implicit stage of one row along several axes: by conjugate gradients or sparse elimination."""

from typing import Any

import numpy as np
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from solvers.finite_volume.laws import _shipped_kernels as shipped
from solvers.finite_volume.march.arguments import Equation
from solvers.finite_volume.march.gradients import solve_by_gradients
from solvers.finite_volume.march.implicit import ROUND_OFF, has_converged, relaxation
from solvers.finite_volume.march.kernels import Array, call_from_python
from solvers.finite_volume.march.rates import fill_ghosts, from_padded, to_padded
from solvers.finite_volume.march.tiles import Tile, cell_places, face_places
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE


class RowNewton:
    """Solves u = r + s·rate(u) for one row at a time.

    Args:
        operator: The operator of all rows.
        reacts: Whether the source belongs to the rate.
        limit: Largest number of iterations.
    """

    def __init__(self, operator: Any, reacts: bool, limit: int) -> None:
        source, d = operator.source if reacts else None, operator.grid.dimension
        self.operator, self.limit, self.shape = operator, limit, tuple(operator.grid.shape)
        self.tile = Tile(operator, 1, (operator.diffusion, None, source))
        self.tile.differentiates = True
        self.errors, self.volume = self.tile.errors, float(np.prod(operator.grid.spacing))
        law = operator.diffusion.compiled_law
        self._by_gradients = law is not None and law.kernel in (shipped.LINEAR, shipped.POROUS, shipped.STEFAN)
        self._linear = operator.diffusion.linear and not reacts
        self._faces = [face_places(self.shape, 1, axis) for axis in range(d)]
        self._work, self._numbers = np.zeros((0, 0)), []

    def enter(self, rows: Array) -> None:
        """Puts a row ``(1,)`` in place of the last one."""
        self.tile.enter(rows)

    def rate(self, u: Array, data: Array, times: Array) -> tuple[Array, Array]:
        """Rate ``(cells,)`` and flow ``(2d + 1,)``."""
        rate, flow, _ = self.tile.rates(u[None], data, times)
        return rate[0], flow[0, :-2]

    def solve(
        self, right: Array, guess: Array, s: float, data: Array, times: Array, allowed: float, rate: Array, flow: Array
    ) -> tuple[bool, int, float]:
        """Writes rate and flow by the linearised fluxes and source of the last iteration, with u = r + s·rate.

        Returns whether it has converged to a mean |error|, the number of iterations, and the mean |change| in the last.
        """
        tile, layout = self.tile, self.tile.layout
        tile.set_times(times)
        data = np.ascontiguousarray(data)
        if self._by_gradients:
            if not self._work.size:
                self._work = np.zeros((20 + len(self.shape), layout.size))
            self._work[0], self._work[1] = to_padded(right[None], layout)[0], to_padded(guess[None], layout)[0]
            equation = Equation(s, allowed, self._linear, self.limit, self.operator.diffusion.linear)
            flow[:] = 0.0
            converged, iterations, change = solve_by_gradients(self._work, equation, data, tile.system, flow[None])
            rate[:] = from_padded(self._work[2][None], layout)[0]
            return converged, iterations, change
        return self._eliminate(right, guess, s, data, allowed, rate, flow)

    def _eliminate(
        self, right: Array, u: Array, s: float, data: Array, allowed: float, rate: Array, flow: Array
    ) -> Any:
        """The solution by sparse elimination."""
        iteration, before, part = 0, np.inf, 1.0
        while True:
            faces, produced, slope = self._linearise(u, s, data, iteration)
            delta = self._change(right - u + s * (self._divergence(faces) / s + produced), faces, 1.0 - s * slope)
            iteration, change = iteration + 1, float(np.abs(delta).mean())
            least = max(allowed, ROUND_OFF * float(np.abs(u).mean()))
            good = has_converged.py_func(change, before, least, iteration == 1, self._linear)
            if good or iteration == self.limit or not np.isfinite(change):
                break
            u, part, before = u + part * delta, relaxation.py_func(part, iteration, change, before), change
        moved = np.append(delta, 0.0)
        fluxes = []
        for (flux, left, right_slope), (first, second) in zip(faces, self._neighbours, strict=True):
            fluxes.append((flux + left * moved[first] - right_slope * moved[second], left, right_slope))
        produced = produced + slope * delta
        rate[:] = self._divergence(fluxes) / s + produced
        flow[:-1], flow[-1] = self._through(fluxes) * (self.volume / s), self.volume * produced.sum()
        return good, iteration, change

    @property
    def _neighbours(self) -> list[tuple[Array, Array]]:
        """Numbers of the cells before and behind the faces of every axis, −1 beyond a side that is not periodic."""
        if not self._numbers:
            layout, modes = self.tile.layout, self.tile.system.grid.modes
            number = np.full(layout.size, -1)
            number[cell_places(self.shape, 1)] = np.arange(np.prod(self.shape))
            circle = np.repeat(modes == PERIODIC, np.diff(layout.offsets))
            ghosts = number.copy()
            ghosts[layout.ghost[circle]] = number[layout.opposite[circle]]
            self._numbers = [
                (ghosts[at], ghosts[at + apart]) for at, apart in zip(self._faces, layout.strides.tolist(), strict=True)
            ]
        return self._numbers

    def _linearise(self, u: Array, s: float, data: Array, iteration: int) -> tuple[list[Any], Array, Array]:
        """s F/h and derivatives on the faces of every axis, the source and its derivative, at most 1/(2 s)."""
        tile, medium, (layout, modes, pull, spacing) = self.tile, self.tile.system.medium, self.tile.system.grid
        x, size, d = to_padded(u[None], layout)[0], layout.size, len(self.shape)
        fill_ghosts(x, layout, modes, pull, data, 1)
        faces: list[Any] = []
        for axis in range(d):
            apart, at = int(layout.strides[axis]), self._faces[axis]
            workspace, flux, left, right = np.zeros(2 * size), *np.zeros((3, size))
            given = x, medium.diffusion[axis], s * medium.weights[axis], workspace, flux, left, right
            call_from_python(tile.system.laws.diffusion, given, size - apart, apart)
            for end in (0, 1):
                side = 2 * axis + end
                places = (layout.ghost if end == 0 else layout.edge)[layout.offsets[side] : layout.offsets[side + 1]]
                outer, inside = (left, right) if end == 0 else (right, left)
                if modes[side] == STATE:
                    slope = pull[0, side] * outer[places]
                    bound = inside[places] + 0.5 / d if iteration < 8 else 0.0
                    inside[places] -= np.minimum(slope, bound)
                    outer[places] = 0.0
                elif modes[side] == GIVEN_FLUX:
                    entries = data[0, layout.offsets[side] : layout.offsets[side + 1]]
                    flux[places], outer[places], inside[places] = s / spacing[axis] * entries, 0.0, 0.0
            faces.append((flux[at], left[at], right[at]))
        produced = slope = np.zeros_like(u)
        if tile.terms[2] is not None:
            values = np.zeros((2, size))
            given = x, medium.source, x, x, values[0], values[1], x
            call_from_python(tile.system.laws.source, given, size, medium.source.shape[1])
            produced = from_padded(values[:1], layout)[0]
            slope = np.minimum(from_padded(values[1:], layout)[0], 0.5 / s)
        if self.errors:
            raise self.errors.pop()
        return faces, produced, slope

    def _divergence(self, faces: list[Any]) -> Array:
        """Σ over the axes of what flows into a cell less what flows out."""
        total = np.zeros(self.shape)
        for axis, (flux, _, _) in enumerate(faces):
            shape = [n + (other == axis) for other, n in enumerate(self.shape)]
            total -= np.diff(flux.reshape(shape), axis=axis)
        return total.ravel()

    def _through(self, faces: list[Any]) -> Array:
        """Sums of the fluxes over every side."""
        through = []
        for axis, (flux, _, _) in enumerate(faces):
            grid = flux.reshape([n + (other == axis) for other, n in enumerate(self.shape)])
            through += [float(grid.take(0, axis).sum()), float(grid.take(-1, axis).sum())]
        return np.array(through)

    def _change(self, residual: Array, faces: list[Any], diagonal: Array) -> Array:
        """δ by sparse elimination."""
        count, rows, columns, entries = len(residual), [], [], []
        diagonal = np.append(diagonal, 0.0)
        for axis, ((_, left, right), (first, second)) in enumerate(zip(faces, self._neighbours, strict=True)):
            once = np.ones(len(first), dtype=bool)
            if self.tile.system.grid.modes[2 * axis] == PERIODIC:
                shape = [n + (other == axis) for other, n in enumerate(self.shape)]
                np.moveaxis(once.reshape(shape), axis, 0)[-1] = False
            np.add.at(diagonal, first[once], left[once])
            np.add.at(diagonal, second[once], right[once])
            inside = once & (first >= 0) & (second >= 0)
            rows += [first[inside], second[inside]]
            columns += [second[inside], first[inside]]
            entries += [-right[inside], -left[inside]]
        every = np.arange(count)
        values = np.concatenate([diagonal[:-1], *entries])
        places = np.concatenate([every, *rows]), np.concatenate([every, *columns])
        if not (np.isfinite(values).all() and np.isfinite(residual).all()):
            return np.full(count, np.nan)
        matrix = csc_matrix((values, places), shape=(count, count))
        matrix.eliminate_zeros()
        return splu(matrix, permc_spec="MMD_AT_PLUS_A").solve(residual)
