"""The parts of an operator as kernels for compiled implicit steps: callbacks on the rows of a tile."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from solvers.finite_volume._kernels import NO_RECORD, Array, Callback, Lanes, lanes_of, numbers_at
from solvers.finite_volume._operator import Operator
from solvers.finite_volume.diffusion._newton_kernels import BY_FACES, Medium
from solvers.finite_volume.diffusion.newton import Reaction, Stage
from solvers.finite_volume.steppers._implicit_kernels import Calls
from solvers.finite_volume.steppers._march_kernels import Sides

_STIFF = 50.0
_DIFFERENCE = 6e-6


def has_stiff_source(operator: Operator, u: Array, time: Array) -> Array:
    """Whether the source would shorten explicit steps below a fiftieth of the span: by ∂s/∂u at the start ``(rows,)``.

    Only with diffusion; a source with a kernel is always taken for stiff, since that costs less.
    """
    if operator.source is None or operator.diffusion is None:
        return np.zeros(len(u), dtype=bool)
    if operator.source.kernel is not None:
        return np.ones(len(u), dtype=bool)
    return np.abs(slope_of_source(operator, u, time)).max(1) * (operator.sides.end - operator.sides.start) > _STIFF


def slope_of_source(operator: Operator, u: Array, time: Array) -> Array:
    """∂s/∂u of the cells by central differences."""
    assert operator.source is not None
    step = _DIFFERENCE * np.maximum(np.abs(u), 1e-3)
    ahead, behind = (operator.source.rate(u + sign * step, time)[0] for sign in (1.0, -1.0))
    return (ahead - behind) / (2.0 * step)


class OperatorKernels:
    """Kernels of an operator on its rows; they live as long as this object.

    Args:
        operator: Law, grid and boundary conditions of the rows.
        reacts: Whether the source is implicit.

    Attributes:
        error: What a kernel in Python has raised.
    """

    def __init__(self, operator: Operator, reacts: bool) -> None:
        self.operator, self.reacts = operator, reacts
        self.error: list[BaseException] = []
        self._rows, self._part = np.arange(len(operator.sides.rows)), operator

    @cached_property
    def medium(self) -> Medium:
        """Law and sides along one axis; with more the kernel of stages takes their place."""
        operator = self.operator
        assert operator.diffusion is not None
        if operator.grid.dimension == 1:
            medium = operator.diffusion.medium_with(self._address)
            if not self.reacts:
                return medium
            kernel = operator.source.kernel  # type: ignore[union-attr]
            if kernel is not None:
                return medium._replace(source=kernel.address, records=(medium.records[0], kernel.record))
            return medium._replace(source=self._reaction)
        none = np.zeros((1, 1))
        return Medium(BY_FACES, none, none, np.asarray(operator.sides.modes), none, 1.0, 0, 0, (NO_RECORD, NO_RECORD))

    @cached_property
    def _reaction(self) -> int:
        """Address of the kernel of an implicit source, or 0."""
        return self._address(self._source, rates=True) if self.reacts else 0

    @cached_property
    def rates(self) -> tuple[int, Array, int]:
        """Address and record of the kernel of all rates, and how many rows it takes at once."""
        kernel = self.operator.kernel
        if kernel is not None:
            return kernel.address, kernel.record, 1
        return self._address(self._rates, rates=True), NO_RECORD, len(self.operator.sides.rows)

    @cached_property
    def sides(self) -> Sides:
        """The data of the sides."""
        data = self.operator.sides
        kernel = data.kernel(self._address(self._look), self.operator.grid.dimension == 1)
        self._side_kernel = kernel
        if kernel is None:
            return Sides(0, np.zeros(1, np.int64), data.dirichlet)
        return Sides(kernel.address, kernel.record, data.dirichlet)

    def leave_series(self) -> bool:
        """Looks up all data from now on, so that tiny ones do not drown in the rounding of series, if there are any."""
        head = None if self._side_kernel is None else self._side_kernel.arrays[0]
        left = head is not None and head[1] > 0 and not self.operator.sides.constant
        if left:
            head[1] = 0  # type: ignore[index]
        return left

    @cached_property
    def calls(self) -> Calls:
        """Addresses of the others."""
        operator, one_axis = self.operator, self.operator.grid.dimension == 1
        explicit = operator.convection is not None or (operator.source is not None and not self.reacts)
        return Calls(
            rest=self._address(self._rest) if explicit else 0,
            stage=0 if one_axis else self._address(self._stage),
        )

    def _address(self, function: Callable[..., None], *, rates: bool = False) -> int:
        kept = Callback(function, self.error, rates=rates)
        self.__dict__.setdefault("_kept", []).append(kept)
        return kept.address

    def _of(self, lanes: Lanes) -> Operator:
        """The operator of the rows in some lanes."""
        if not np.array_equal(lanes.rows, self._rows):
            self._rows, self._part = lanes.rows, self.operator.take(lanes.rows)
        return self._part

    def _rest(self, u: Any, info: Any, rate: Any, account: Any, data: Any, cells: int, width: int) -> None:
        lanes = lanes_of(info, width)
        given = numbers_at(data, width, self.operator.sides.fixed.shape[1])[lanes.places]
        part, states = self._of(lanes), lanes.read(u, cells, width)
        result = (replace(part, source=None) if self.reacts else part).explicit_rate(states, given, lanes.times)
        lanes.write(rate, result.u, width)
        lanes.write(account, np.concatenate((result.flow, result.speed[:, None]), 1), width)

    def _source(self, u: Any, info: Any, value: Any, slope: Any, *rest: Any) -> None:
        (cells, width), lanes = rest[2:], lanes_of(info, rest[3])
        part, states = self._of(lanes), lanes.read(u, cells, width)
        lanes.write(value, part.source.rate(states, lanes.times)[0], width)  # type: ignore[union-attr]
        lanes.write(slope, slope_of_source(part, states, lanes.times), width)

    def _stage(self, right: Any, report: Any, u: Any, rate: Any, data: Any, cells: int, width: int) -> None:
        lanes, sides = lanes_of(report, width), 2 * self.operator.grid.dimension
        numbers = numbers_at(report, 8 + sides + 1, width)
        given = numbers_at(data, width, self.operator.sides.fixed.shape[1])[lanes.places]
        s, allowed = numbers[3:5, lanes.places]
        part, guess = self._of(lanes), lanes.read(u, cells, width)
        assert part.diffusion is not None
        if not s.any():
            implicit = replace(part, convection=None, source=part.source if self.reacts else None)
            change, flow = implicit.rate(guess, given, lanes.times)[:2]
        else:
            stage = Stage(lanes.read(right, cells, width), s, given, lanes.times, guess, allowed)
            solution = part.diffusion.solve(stage, Reaction(self._reaction, lanes.rows))
            change, flow = solution.du, solution.flow
            lanes.write(u, solution.u, width)
            numbers[5:8, lanes.places] = solution.converged, solution.iterations, solution.residual
        lanes.write(rate, change, width)
        numbers[8:, lanes.places] = flow.T

    def _look(self, times: Any, rows: Any, since: Any, data: Any, _: Any, count: int, entries: int) -> None:
        sides = self.operator.sides.take(numbers_at(rows, count).astype(np.int64))
        found: Array = sides.at(numbers_at(times, count)[None].copy(), numbers_at(since, count))
        numbers_at(data, count, entries)[:] = found[0]

    def _rates(self, u: Any, info: Any, rate: Any, flow: Any, data: Any, _: Any, cells: int, rows: int) -> None:
        flows, (numbers, times, marks) = 2 * self.operator.grid.dimension + 3, numbers_at(info, 3, rows)
        chosen = marks.nonzero()[0]
        lanes = Lanes(chosen, numbers[chosen].astype(np.int64), times[chosen])
        part, states = self._of(lanes), numbers_at(u, rows, cells)[chosen]
        given = numbers_at(data, rows, self.operator.sides.fixed.shape[1])[chosen]
        result, bound = part.rate(states, given, lanes.times), np.zeros(len(chosen))
        if (marks > 1.0).any():
            bound = part.euler_rate(states, given, lanes.times)
        every = numbers_at(rate, 2, rows, cells)
        every[0, chosen] = result.u
        if result.source is not None:
            every[1, chosen] = result.source
        numbers_at(flow, rows, flows)[chosen] = np.column_stack((result.flow, result.speed, bound))
