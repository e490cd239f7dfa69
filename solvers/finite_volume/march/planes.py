"""Stages of implicit steps along several axes, row by row."""

from typing import Any

import numpy as np

from solvers.finite_volume.march import control as c
from solvers.finite_volume.march import implicit
from solvers.finite_volume.march.arguments import (
    LANE,
    ImplicitLaws,
    ImplicitScheme,
    LaneMedium,
    LineSystem,
    Outputs,
    RowMedium,
    StageArrays,
    StepControl,
)
from solvers.finite_volume.march.kernels import NOTHING, Array
from solvers.finite_volume.march.lines import NEWTON_ITERATIONS
from solvers.finite_volume.march.newton import RowNewton
from solvers.finite_volume.march.plan import END, LENGTHS, MIDDLE, NOW, SLOPE, STATES
from solvers.finite_volume.march.tiles import Rest


class PlaneStages:
    """Arrays and laws of implicit steps along several axes; arguments as of ``LineStages``, with one lane."""

    def __init__(self, operator: Any, tableau: Any, width: int, reacts: bool, initial: Array, start: Array) -> None:
        (count, n), stages, d, sides = initial.shape, len(tableau.nodes), operator.grid.dimension, operator.sides
        assert width == 1
        self.operator, self.tableau, entries = operator, tableau, int(sides.offsets[-1])
        self.rest: Any = Rest.of(operator, width, reacts)
        self.newton = RowNewton(operator, reacts, NEWTON_ITERATIONS)
        self.errors, lanes, none = self.newton.errors, np.zeros(1, LANE), np.zeros((0, 1))
        lanes["row"], nothing = -1.0, np.zeros((count, 0, 1))
        arrays = StageArrays(
            states=np.zeros((STATES, n + 2)),
            rates=np.zeros((stages, n + 2)),
            explicit_rates=np.zeros((stages, n + 2 if self.rest else 0)),
            scratch=np.zeros((1, 0)),
            lanes=lanes,
            flow=np.zeros((2, stages, 2 * d + 1, 1)),
        )
        given = nothing, nothing, np.zeros((count, 1)), sides.pull, sides.fixed, sides.sizes
        medium = LaneMedium(none, none, np.zeros(0), np.zeros((2 * d, 1)), np.zeros((stages, entries, 1)))
        laws = ImplicitLaws(NOTHING.address, NOTHING.address, False, False, -1, -1)
        self.system = LineSystem(arrays, medium, RowMedium(start, initial, *given), laws)

    def advance(self, scheme: ImplicitScheme, out: Outputs, _: Any, row: int, steps: int) -> tuple[int, bool]:
        """Judges a step; the next row to enter, and whether one is under way."""
        assert steps == 1
        return implicit.judge(self.system, scheme, out, row)

    def prepare(self, scheme: ImplicitScheme, rows: Array, _: Any) -> tuple[None, int]:
        """Takes a trial step, whose length is proposed; leaves nothing to solve, and one step to judge."""
        arrays, tableau, sides = self.system.arrays, self.tableau, self.operator.sides
        lane, n = arrays.lanes[0], arrays.states.shape[1] - 2
        busy, fresh = arrays.lanes["row"] >= 0.0, lane["fresh"] > 0.0 or self.rest is not None
        states, rates, extra = arrays.states[:, :n], arrays.rates[:, :n], arrays.explicit_rates[:, :n]
        now, data, flow = states[NOW], self.system.medium.side_data, arrays.flow
        if self.rest:
            self._sample(scheme.control, rows, 1)
            self._rest(0, now, rows, busy)
            c.shorten(sides, arrays.lanes, self.rest.speed, busy)
        self._sample(scheme.control, rows, len(tableau.nodes))
        length = lane["length"]
        arrays.states[LENGTHS] = length
        self.newton.enter(rows)
        if fresh:
            rates[0], flow[0, 0, :, 0] = self.newton.rate(now, data[0].T, self.moments[0])
            lane["fresh"] = 0.0
        self._begin_step(scheme)
        for stage in range(1, len(tableau.nodes)):
            right = now + length * (tableau.implicit[stage, :stage] @ rates[:stage])
            if self.rest:
                right += length * (tableau.explicit[stage, :stage] @ extra[:stage])
            self._solve_stage(stage, right, rates[stage], flow[0, stage, :, 0])
            if self.rest:
                self._rest(stage, states[END], rows, busy)
            if stage == tableau.middle:
                arrays.states[MIDDLE] = arrays.states[END]
        total = rates
        if self.rest:
            states[END] += length * ((tableau.weights - tableau.explicit[-1]) @ extra)
            total = rates + extra
        lane["error"] = length * np.abs(tableau.error @ total).sum() / n
        return None, 1

    def _solve_stage(self, stage: int, right: Array, rate: Array, flow: Array) -> None:
        """Writes the state, the rate and the flow of a stage, unless one before has failed."""
        arrays, nodes = self.system.arrays, self.tableau.nodes
        states, lane = arrays.states[:, : len(right)], arrays.lanes[0]
        now, after, length = states[NOW], states[END], lane["length"]
        if stage == 1:
            guess = now + nodes[1] * length * states[SLOPE]
        else:
            guess = after + (nodes[stage] / nodes[stage - 1] - 1.0) * (after - now)
        s, data = self.tableau.implicit[stage, stage] * length, self.system.medium.side_data[stage].T
        if lane["converged"] > 0.0:
            given = right, guess, s, data, self.moments[stage], lane["allowed"], rate, flow
            converged, iterations, lane["residual"] = self.newton.solve(*given)
            lane["converged"], lane["evaluations"] = float(converged), lane["evaluations"] + iterations
        states[END] = right + s * rate

    def _begin_step(self, scheme: ImplicitScheme) -> None:
        """The allowed error of Newton's iteration in the step."""
        arrays, medium = self.system.arrays, self.system.medium
        scratch, sizes = np.zeros(arrays.states.shape[1]), np.diff(self.operator.sides.offsets)
        modes, pull = (np.repeat(each, sizes, axis=0) for each in (scheme.modes, medium.pull))
        given = medium.side_data, modes, pull, scheme.control, scheme.newton
        implicit.begin_step(arrays.rates, arrays.lanes, *given, arrays.states.shape[1] - 2, scratch)

    def _sample(self, control: StepControl, rows: Array, stages: int) -> None:
        """Times of the first stages, and data of the sides then."""
        sides, self.moments = self.operator.sides, np.zeros((stages, 1))
        c.set_moments(self.system.arrays.lanes, self.tableau.nodes[:stages], control, self.moments)
        if not sides.constant:
            self.system.medium.side_data[:stages] = sides.values(self.moments, rows).swapaxes(1, 2)

    def _rest(self, stage: int, u: Array, rows: Array, busy: Array) -> None:
        """Explicit rates at a stage."""
        moments, arrays = self.moments[min(stage, len(self.moments) - 1)], self.system.arrays
        rate, flow = self.rest.rates(u[None], self.system.medium.side_data[stage].T, moments, rows, busy)
        arrays.explicit_rates[stage, : len(u)], arrays.flow[1, stage, :, 0] = rate[0], flow[0]
