"""Stages of implicit steps along one axis, with all rows of a tile side by side."""

from typing import Any

import numpy as np

from solvers.finite_volume.laws._rows import cached_rows
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
    StageRange,
    StepControl,
)
from solvers.finite_volume.march.kernels import NOTHING, Array, Callback, numbers_at, zeros
from solvers.finite_volume.march.plan import END, LENGTHS, NOW, STATES
from solvers.finite_volume.march.tiles import CompiledLaw, Rest, rows_of

NEWTON_TOLERANCE, NEWTON_ITERATIONS = 1e-2, 20
"""Allowed mean |error| of a stage, as a fraction of the allowed error of the step, and the largest number of iterations
of Newton's method; then the step is rejected."""
BUDGET, BUDGET_IN_PYTHON = 200, 20
"""Steps between two looks at the progress; where Python is asked in every step, fewer."""


_LANES, _MOST_LANES, _CELLS = 8, 32, 6_400
"""Lanes of a tile; where Python is asked in every step, more of them, as long as the tile fits the cache."""


def lanes_for(operator: Any, reacts: bool, rows: int, cells: int) -> int:
    """Number of lanes for implicit steps of the given rows."""
    if rows == 1:
        return 1
    if not _calls_python(operator, reacts):
        return _LANES
    most = min(_MOST_LANES, max(_LANES, _CELLS // cells // 4 * 4))
    return min(most, max(_LANES, -(-rows // 4) * 4))


def _calls_python(operator: Any, reacts: bool) -> bool:
    """Whether steps need Python for times, data of the sides, explicit rates, or a law or source in tensors."""
    explicit_source = operator.source is not None and not reacts
    if operator.convection is not None or explicit_source or operator.sides.scan is not None:
        return True
    laws: list[Any] = [operator.diffusion.compiled_law]
    if reacts:
        laws.append(operator.source.compiled_law)  # type: ignore[union-attr]
    return any(law is None or law.timed >= 0 for law in laws) or not operator.sides.constant


class LineStages:
    """Arrays and laws of implicit steps along one axis.

    Args:
        operator: The operator of all rows.
        tableau: Coefficients of the scheme.
        width: Number of lanes.
        reacts: Whether the source is implicit.
        initial: Initial states of all rows ``(rows, n)``.
        start: Numbers that a lane starts with ``(1,)``.

    Attributes:
        system: What the compiled steps take.
        errors: What a function in Python has raised.
    """

    def __init__(self, operator: Any, tableau: Any, width: int, reacts: bool, initial: Array, start: Array) -> None:
        (count, n), stages, columns = initial.shape, len(tableau.nodes), (initial.shape[1] + 2) * width
        self.operator, self.tableau, self.width, self.errors = operator, tableau, width, []
        self.rest: Any = Rest.of(operator, width, reacts)
        lanes, scratch = np.zeros(width, LANE), zeros(implicit.ARRAYS, columns)
        lanes["row"], scratch[implicit.BASE] = -1.0, 1.0
        arrays = StageArrays(
            states=zeros(STATES, columns),
            rates=zeros(stages, columns),
            explicit_rates=zeros(stages, columns if self.rest else 0),
            scratch=scratch,
            lanes=lanes,
            flow=np.zeros((2, stages, 3, width)),
        )
        self.info, self.moments = np.zeros((3, width)), np.zeros((stages, width))
        diffusion, sides = operator.diffusion, operator.sides
        law = diffusion.compiled_law or self._callback(self._diffuse)
        source = CompiledLaw(NOTHING, (np.zeros((1, 0, 1)),))
        if reacts:
            source = operator.source.compiled_law or self._callback(self._react)
        self._kept = law, source
        linear = diffusion.linear and not reacts
        laws = ImplicitLaws(law.kernel.address, source.kernel.address, reacts, linear, law.timed, source.timed)
        everyone = np.arange(count)
        faces = rows_of(law.parameters[0], everyone)
        if faces.shape[2] > 1:
            faces = np.concatenate((faces, faces[:, :, -1:]), axis=2)
        rows = RowMedium(
            start=start,
            initial=initial,
            law=np.ascontiguousarray(faces),
            source=np.ascontiguousarray(rows_of(source.parameters[0], everyone)),
            coefficient=np.ascontiguousarray(rows_of(diffusion.face_weights[0], everyone)),
            pull=sides.pull,
            side_data=sides.fixed,
            source_sizes=sides.sizes,
        )
        medium = LaneMedium(
            law=zeros(rows.law.shape[1], columns),
            source=zeros(rows.source.shape[1], n * width),
            coefficient=zeros((n + 1) * width),
            pull=np.zeros((2, width)),
            side_data=np.zeros((stages, 2, width)),
        )
        self.system = LineSystem(arrays, medium, rows, laws)
        self._calls_python, self._write = _calls_python(operator, reacts), Callback(self._write_data, self.errors)

    def _callback(self, function: Any) -> CompiledLaw:
        return CompiledLaw(Callback(function, self.errors), (np.zeros((1, 0, 1)),))

    def prepare(self, scheme: ImplicitScheme, rows: Array, out: Outputs) -> tuple[StageRange, int]:
        """Prepares a trial step of all lanes, whose lengths are proposed.

        Returns what ``advance`` has to solve, and how many steps it may take.
        """
        if self.rest:
            self._take_stages(scheme, rows, out)
            return self.part(0, 0), 1
        return self.part(0, len(self.tableau.nodes)), BUDGET_IN_PYTHON if self._calls_python else BUDGET

    def advance(self, scheme: ImplicitScheme, out: Outputs, part: Any, row: int, steps: int) -> tuple[int, bool]:
        """Takes steps of all lanes, at most so many; without a part it enters the first rows."""
        return implicit.advance(self.system, scheme, out, part or self.part(0, 0), row, steps)

    def part(self, first: int, after: int) -> StageRange:
        """What ``advance`` takes to solve stages."""
        changes = not self.operator.sides.constant
        return StageRange(first, after, self.moments, self.info, self._write.address, changes)

    def _take_stages(self, scheme: ImplicitScheme, rows: Array, out: Outputs) -> None:
        """Takes a trial step with explicit rates at its stages."""
        arrays, tableau, stages = self.system.arrays, self.tableau, len(self.tableau.nodes)
        states, lanes, given = arrays.states, arrays.lanes, (self.system, scheme, out)
        busy = lanes["row"] >= 0.0
        lanes["fresh"] = 1.0
        self._sample(scheme.control, 1)
        self._rest(0, NOW, rows, busy)
        c.shorten(self.operator.sides, lanes, self.rest.speed, busy)
        self._sample(scheme.control, stages)
        for stage in range(1, stages):
            implicit.advance(*given, self.part(stage if stage > 1 else 0, stage + 1), 0, 0)
            self._rest(stage, END, rows, busy)
        lengths = states[LENGTHS]
        states[END] += lengths * np.tensordot(tableau.weights - tableau.explicit[-1], arrays.explicit_rates, 1)
        n, workspace = states.shape[1] // self.width - 2, arrays.scratch[implicit.WORK]
        rates = arrays.rates + arrays.explicit_rates
        implicit.estimate_error(rates, lanes, lengths, tableau.error, n, workspace)

    def _sample(self, control: StepControl, stages: int) -> None:
        """Times of the first stages, and data of the sides then."""
        c.set_moments(self.system.arrays.lanes, self.tableau.nodes[:stages], control, self.moments)
        if not self.operator.sides.constant:
            self._write_data(*[0] * 8, stages)

    def _write_data(self, *arguments: int) -> None:
        """Writes the data of the sides at the times of some stages."""
        chosen, numbers = slice(*arguments[7:]), self.system.arrays.lanes
        lanes = (numbers["row"] >= 0.0).nonzero()[0]
        try:
            found = self.operator.sides.values(self.moments[chosen, lanes], numbers["row"][lanes].astype(np.int64))
        except BaseException:
            numbers["verdict"] = c.STEP_UNDERFLOW
            raise
        self.system.medium.side_data[chosen, :, lanes] = found.swapaxes(1, 2)

    def _rest(self, stage: int, states: int, rows: Array, busy: Array) -> None:
        """Explicit rates at a stage."""
        arrays, data = self.system.arrays, self.system.medium.side_data[stage]
        size = arrays.states.shape[1] - 2 * self.width
        u = arrays.states[states, :size].reshape(-1, self.width).T
        rate, flow = self.rest.rates(u, data.T, self.moments[stage], rows, busy)
        arrays.explicit_rates[stage, :size], arrays.flow[1, stage] = rate.T.ravel(), flow[:, :3].T

    def _lanes(self) -> tuple[Array, Array, Array]:
        """Lanes that hold rows, their rows and times."""
        lanes = self.info[2].nonzero()[0]
        return lanes, self.info[0, lanes].astype(np.int64), self.info[1, lanes].copy()

    def _diffuse(
        self, u: int, _: int, w: int, _room: int, flux: int, left: int, right: int, faces: int, width: int
    ) -> None:
        lanes, rows, times = self._lanes()
        states = np.ascontiguousarray(numbers_at(u, faces // width + 1, width)[:, lanes].T)
        weight = numbers_at(w, faces // width, width)[:, lanes].T
        given = rows, times, 0, np.ascontiguousarray(states[:, :-1]), np.ascontiguousarray(states[:, 1:])
        for address, values in zip((flux, left, right), self.operator.diffusion.between(*given), strict=True):
            numbers_at(address, faces // width, width)[:, lanes] = (weight * values).T

    def _react(self, u: int, _p: int, _a: int, _b: int, s: int, slope: int, _c: int, count: int, _stride: int) -> None:
        (lanes, rows, times), width = self._lanes(), self.width
        states = np.ascontiguousarray(numbers_at(u, count // width, width)[:, lanes].T)
        source = cached_rows(self.operator.source, rows)
        numbers_at(s, count // width, width)[:, lanes] = source.rate(states, times)[0].T
        numbers_at(slope, count // width, width)[:, lanes] = source.slope(states, times).T
