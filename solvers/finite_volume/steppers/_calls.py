"""The parts of an operator as kernels for compiled implicit steps: callbacks on the rows of a tile."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from solvers.finite_volume._kernels import Callback, Lanes, lanes_of, numbers_at
from solvers.finite_volume._operator import Array, Operator
from solvers.finite_volume.diffusion._newton_kernels import Medium
from solvers.finite_volume.diffusion.newton import Stage
from solvers.finite_volume.steppers._implicit_kernels import Calls

_STIFF = 50.0
_DIFFERENCE = 6e-6


def has_stiff_source(operator: Operator, u: Array, time: Array) -> Array:
    """Whether the source would shorten explicit steps below a fiftieth of the span: by ∂s/∂u at the start ``(rows,)``.

    Only along one axis, and with diffusion.
    """
    if operator.source is None or operator.grid.dimension > 1:
        return np.zeros(len(u), dtype=bool)
    return np.abs(_slope_of_source(operator, u, time)).max(1) * (operator.sides.end - operator.sides.start) > _STIFF


def _slope_of_source(operator: Operator, u: Array, time: Array) -> Array:
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
            return medium._replace(source=self._address(self._source)) if self.reacts else medium
        none = np.zeros((1, 1))
        return Medium(-1, none, none, np.asarray(operator.sides.modes), none, 1.0, 0, 0)

    @cached_property
    def calls(self) -> Calls:
        """Addresses of the others."""
        operator, one_axis = self.operator, self.operator.grid.dimension == 1
        explicit = operator.convection is not None or (operator.source is not None and not self.reacts)
        return Calls(
            rest=self._address(self._rest) if explicit else 0,
            stage=0 if one_axis else self._address(self._stage),
            look=self._address(self._look),
            sampled=one_axis,
        )

    def _address(self, function: Callable[..., None]) -> int:
        kept = Callback(function, self.error)
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
        (cells, width), lanes = rest[1:], lanes_of(info, rest[2])
        part, states = self._of(lanes), lanes.read(u, cells, width)
        lanes.write(value, part.source.rate(states, lanes.times)[0], width)  # type: ignore[union-attr]
        lanes.write(slope, _slope_of_source(part, states, lanes.times), width)

    def _stage(self, right: Any, report: Any, u: Any, rate: Any, data: Any, cells: int, width: int) -> None:
        lanes, sides = lanes_of(report, width), 2 * self.operator.grid.dimension
        numbers = numbers_at(report, 8 + sides + 1, width)
        given = numbers_at(data, width, self.operator.sides.fixed.shape[1])[lanes.places]
        s, allowed = numbers[3:5, lanes.places]
        diffusion, guess = self._of(lanes).diffusion, lanes.read(u, cells, width)
        assert diffusion is not None
        if not s.any():
            change, flow = diffusion.rate(guess, given, lanes.times)
        else:
            stage = Stage(lanes.read(right, cells, width), s, given, lanes.times, guess, allowed)
            solution = diffusion.solve(stage)
            change, flow = solution.du, solution.sides
            lanes.write(u, solution.u, width)
            numbers[5:8, lanes.places] = solution.converged, solution.iterations, solution.residual
        lanes.write(rate, change, width)
        numbers[8 : 8 + sides, lanes.places] = flow.T

    def _look(self, times: Any, where: Any, data: Any, *rest: Any) -> None:
        count, entries = rest[2:]
        row, since = numbers_at(where, 2)
        sides = self.operator.sides.take(np.array([int(row)]))
        found: Array = sides.at(numbers_at(times, count)[:, None], np.array([since]))
        numbers_at(data, count, entries)[:] = found[:, 0]
