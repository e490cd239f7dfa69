"""Stages of implicit steps along several axes, row by row."""

from typing import Any

import numpy as np

from solvers.finite_volume.march import control as c
from solvers.finite_volume.march import implicit, timing
from solvers.finite_volume.march.kernels import NOTHING, Array
from solvers.finite_volume.march.lines import NEWTON_ITERATIONS, NEWTON_TOLERANCE
from solvers.finite_volume.march.newton import RowNewton
from solvers.finite_volume.march.plan import END, LENGTHS, MIDDLE, NOW, SLOPE, STATES
from solvers.finite_volume.march.tiles import Rest


class PlaneStages:
    """Arrays and laws of implicit steps along several axes; arguments as of ``LineStages``, with one lane."""

    def __init__(self, operator: Any, tableau: Any, width: int, reacts: bool, initial: Array) -> None:
        (count, n), stages, d = initial.shape, len(tableau.nodes), operator.grid.dimension
        assert width == 1
        self.operator, self.tableau, self.width = operator, tableau, width
        self.rest: Any = Rest.of(operator, width, reacts)
        self.newton = RowNewton(operator, reacts, NEWTON_ITERATIONS)
        self.errors = self.newton.errors
        self.S, self.R = np.zeros((STATES, n + 2)), np.zeros((stages, n + 2))
        self.E = np.zeros((stages, n + 2 if self.rest else 0))
        self.L, self.flow = np.zeros((c.NUMBERS, 1)), np.zeros((2, stages, 2 * d + 1, 1))
        self.L[c.ROW], entries, sides = -1.0, int(operator.sides.offsets[-1]), operator.sides
        nothing = np.zeros((count, 0, 1))
        self.rows = initial, nothing, nothing, np.zeros((count, 1)), sides.pull, sides.fixed, sides.sizes
        none = np.zeros((0, 1))
        self.medium = none, none, np.zeros(0), np.zeros((2 * d, 1)), np.zeros((stages, entries, 1))
        self.laws = NOTHING.pointer, NOTHING.pointer, False, False, -1, -1
        self.arrays = self.S, self.R, self.E, np.zeros((1, 0)), self.L, self.flow
        self.settings = np.asarray(sides.modes), 1.0, NEWTON_TOLERANCE, NEWTON_ITERATIONS, tableau.error

    def prepare(self, scheme: Any, rows: Array, _: Any) -> tuple[Any, int]:
        """Takes a trial step, whose length is proposed; leaves nothing to solve, and one step to judge."""
        L, tableau, S, R, E, span = self.L[:, 0], self.tableau, self.S, self.R, self.E, scheme[1][3]
        n, busy, fresh = S.shape[1] - 2, L[None, c.ROW] >= 0.0, L[c.FRESH] > 0.0 or self.rest is not None
        now, options = S[NOW, :n], scheme[1][4]
        self._sample(span, rows, 1)
        if self.rest:
            self._rest(0, now, rows, busy)
            timing.shorten(self.operator.sides, self.L, self.rest.speed, busy)
        self._sample(span, rows, len(tableau.nodes))
        length, data = L[c.LENGTH], self.medium[4]
        S[LENGTHS] = length
        self.newton.enter(rows)
        if fresh:
            R[0, :n], self.flow[0, 0, :, 0] = self.newton.rate(now, data[0].T, self.moments[0])
            L[c.FRESH] = 0.0
        self._begin_step(options)
        for stage in range(1, len(tableau.nodes)):
            right = now + length * (tableau.implicit[stage, :stage] @ R[:stage, :n])
            if self.rest:
                right += length * (tableau.explicit[stage, :stage] @ E[:stage, :n])
            if stage == 1:
                guess = now + tableau.nodes[1] * length * S[SLOPE, :n]
            else:
                after = S[END, :n]
                guess = after + (tableau.nodes[stage] / tableau.nodes[stage - 1] - 1.0) * (after - now)
            s, found = tableau.implicit[stage, stage] * length, (R[stage, :n], self.flow[0, stage, :, 0])
            given = right, guess, s, data[stage].T, self.moments[stage], L[c.ALLOWED]
            if L[c.CONVERGED] > 0.0:
                converged, iterations, L[c.RESIDUAL] = self.newton.solve(*given, *found)
                L[c.CONVERGED], L[c.EVALUATIONS] = float(converged), L[c.EVALUATIONS] + iterations
            S[END, :n] = right + s * R[stage, :n]
            if self.rest:
                self._rest(stage, S[END, :n], rows, busy)
            if stage == tableau.middle:
                S[MIDDLE] = S[END]
        rates = R[:, :n]
        if self.rest:
            S[END, :n] += length * ((tableau.weights - tableau.explicit[-1]) @ E[:, :n])
            rates = rates + E[:, :n]
        L[c.ERROR] = length * np.abs(tableau.error @ rates).sum() / n
        return (0, 0, self.moments, np.zeros((3, 1)), NOTHING.pointer, False), 1

    def _begin_step(self, options: Any) -> None:
        """The allowed error of Newton's iteration in the step."""
        scratch, sizes = np.zeros(self.S.shape[1]), np.diff(self.operator.sides.offsets)
        modes, pull = (np.repeat(each, sizes, axis=0) for each in (self.settings[0], self.medium[3]))
        given = self.L, self.medium[4], modes, pull, options
        implicit.begin_step(self.R, *given, NEWTON_TOLERANCE, self.S.shape[1] - 2, scratch)

    def _sample(self, span: tuple[float, float], rows: Array, stages: int) -> None:
        """Times of the first stages, and data of the sides then."""
        sides, self.moments = self.operator.sides, np.zeros((stages, 1))
        timing.set_moments(self.L, self.tableau.nodes[:stages], span, self.moments)
        if not sides.constant:
            self.medium[4][:stages] = sides.values(self.moments, rows).swapaxes(1, 2)

    def _rest(self, stage: int, u: Array, rows: Array, busy: Array) -> None:
        """Explicit rates at a stage."""
        moments = self.moments[min(stage, len(self.moments) - 1)]
        rate, flow = self.rest.rates(u[None], self.medium[4][stage].T, moments, rows, busy)
        self.E[stage, : len(u)], self.flow[1, stage, :, 0] = rate[0], flow[0]
