"""The terms of an operator on a tile of rows, as compiled steps take them, and their rates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from solvers.finite_volume.laws._rows import cached_rows
from solvers.finite_volume.march.arguments import TileGrid, TileLaws, TileMedium, TileSystem, Timed
from solvers.finite_volume.march.kernels import NOTHING, Array, Callback, call_from_python, numbers_at
from solvers.finite_volume.march.rates import (
    COMPILED,
    IN_TENSORS,
    ISOTROPIC,
    Layout,
    from_padded,
    layout_of,
    rates,
    to_padded,
)
from solvers.finite_volume.sides._side_data import PERIODIC, STATE


@dataclass(frozen=True, eq=False)
class CompiledLaw:
    """A law as compiled steps see it.

    Attributes:
        kernel: The kernel.
        parameters: For every axis its parameters ``(rows or 1, k, 1 or faces)``; of a source one array on the cells.
        timed: Which of them is the time, or −1.
    """

    kernel: Any
    parameters: tuple[Array, ...]
    timed: int = -1


@lru_cache(maxsize=256)
def face_places(shape: tuple[int, ...], pads: int, axis: int) -> Array:
    """Places of the faces across an axis, those of the cells before them, in the layout of cells ``(*shape)``."""
    places = np.arange(np.prod([n + 2 * pads for n in shape])).reshape([n + 2 * pads for n in shape])
    return places[tuple(slice(pads - (other == axis), -pads) for other in range(len(shape)))].ravel()


@lru_cache(maxsize=256)
def cell_places(shape: tuple[int, ...], pads: int) -> Array:
    """Places of the cells."""
    places = np.arange(np.prod([n + 2 * pads for n in shape])).reshape([n + 2 * pads for n in shape])
    return places[(slice(pads, -pads),) * len(shape)].ravel()


def spread(values: Array, places: Array, size: int) -> Array:
    """Values ``(rows, k, 1 or points)`` at their places in rows of a layout ``(k, rows · size)``."""
    rows, k, points = values.shape
    out = np.empty((k, rows, size))
    out[:] = values[:, :, :1].swapaxes(0, 1)
    if points > 1:
        out[:, :, places] = values.swapaxes(0, 1)
    return out.reshape(k, rows * size)


def rows_of(values: Array, rows: Array) -> Array:
    """Some rows of values ``(rows or 1, …)``."""
    return values[rows] if len(values) > 1 else np.repeat(values, len(rows), axis=0)


class Tile:
    """Terms of an operator on a tile of rows: arrays for compiled steps, and their rates.

    Args:
        operator: The operator of all rows.
        width: Number of rows in the tile.
        terms: Diffusion, convection and source, each or None.

    Attributes:
        system: What the compiled steps take.
        differentiates: Whether a source in tensors gives its derivative, too.
        errors: What a term in tensors has raised.
    """

    def __init__(self, operator: Any, width: int, terms: tuple[Any, Any, Any]) -> None:
        convection: Any = terms[1]
        self.operator, self.width, self.terms, self.errors = operator, width, terms, []
        self.differentiates, self._rows = False, np.empty(0)
        self.pads = 2 if convection is not None and convection.reconstruction.ghosts > 1 else 1
        self.shape, d = tuple(operator.grid.shape), operator.grid.dimension
        self.layout: Layout = layout_of(self.shape, self.pads)
        self.info, size = np.zeros((3, width)), self.layout.size
        self._laws = tuple(term and (term.compiled_law or self._callback(kind)) for kind, term in enumerate(terms))
        kernels = [law.kernel.address if law else NOTHING.address for law in self._laws]
        slopes = NOTHING.address if convection is None or self.pads == 1 else convection.reconstruction.kernel.address
        kind = 0 if terms[0] is None else _kind_of(terms[0].compiled_law)
        nothing = np.zeros((d, 0, width * size))
        used = any(law and (law.timed >= 0 or isinstance(law.kernel, Callback)) for law in self._laws)
        self.system = TileSystem(
            laws=TileLaws(kernels[0], kernels[1], slopes, kernels[2], kind, *(term is not None for term in terms[1:])),
            medium=TileMedium(nothing, nothing, np.zeros((0, width * size)), np.zeros((d, width * size))),
            grid=TileGrid(
                self.layout,
                np.asarray(operator.sides.modes),
                np.zeros((width, 2 * d)),
                np.asarray(operator.grid.spacing, dtype=float),
            ),
            work=np.zeros((5, width * size)),
            timed=Timed(*(law.timed if law else -1 for law in self._laws), used=used),
        )
        self._arrays = np.zeros((3, width, size))
        self._flow = np.zeros((width, 2 * d + 3))

    def _callback(self, kind: int) -> CompiledLaw:
        """A term without kernel as a callback on the marked rows."""
        functions: tuple[Callable[..., Any], ...] = self._diffuse, self._convect, self._react
        nothing = (np.zeros((1, 0, 1)),) * (self.operator.grid.dimension if kind < 2 else 1)
        return CompiledLaw(Callback(functions[kind], self.errors), nothing)

    def enter(self, rows: Array) -> None:
        """Puts rows of the operator, as many as the tile has, into it."""
        if len(rows) == len(self._rows) and (rows == self._rows).all():
            return
        self._rows, self.info[0], self.system.grid.pull[:] = rows, rows, self.operator.sides.pull[rows]
        diffusion: Any = self.terms[0]
        d, size, medium = len(self.shape), self.layout.size, list(self.system.medium)
        for kind, law in enumerate(self._laws):
            if law is None:
                continue
            places = [face_places(self.shape, self.pads, axis) for axis in range(d if kind < 2 else 0)] or [
                cell_places(self.shape, self.pads)
            ]
            each = [spread(rows_of(v, rows), at, size) for v, at in zip(law.parameters, places, strict=True)]
            medium[kind] = np.stack(each) if kind < 2 else each[0]
        for axis in range(d) if diffusion is not None else ():
            values = rows_of(diffusion.face_weights[axis], rows)  # type: ignore[union-attr]
            at = face_places(self.shape, self.pads, axis)
            medium[3][axis].reshape(self.width, size)[:, at] = values
        self.system = self.system._replace(medium=TileMedium(*medium))

    def rates(self, u: Array, data: Array, times: Array, marks: Array | None = None) -> tuple[Array, Array, Array]:
        """Rates ``(rows, cells)``, flow ``(rows, 2d + 3)`` and rates of the source of cells ``(rows, cells)``."""
        x, rate, source = self._arrays
        x[:] = to_padded(u, self.layout)
        self.set_times(times, marks)
        rates(x, rate, source, self._flow, np.ascontiguousarray(data), self.system, True)
        if self.errors:
            raise self.errors.pop()
        return from_padded(rate, self.layout), self._flow.copy(), from_padded(source, self.layout)

    def set_times(self, times: Array, marks: Array | None = None) -> None:
        """Sets the times of the rows ``(rows,)``, for laws in tensors of the marked ones."""
        if not self.system.timed.used:
            return
        self.info[1], self.info[2] = times, 1.0 if marks is None else marks
        for values, timed in zip(self.system.medium[:3], self.system.timed[:3], strict=True):
            if timed >= 0:
                values[..., timed, :] = np.repeat(times, self.layout.size)

    def _marked(self) -> tuple[Array, Array, Array]:
        """Places in the tile, rows and times of the marked rows."""
        places = self.info[2].nonzero()[0]
        return places, self.info[0, places].astype(np.int64), self.info[1, places].copy()

    def _axis_of(self, apart: int) -> int:
        return self.layout.strides.tolist().index(apart)

    def _read(self, address: int, at: Array, chosen: Array, count: int) -> Array:
        """Values of the chosen rows at places ``(rows, places)``; the array may lack the end of the last row."""
        flat = numbers_at(address, count)
        return flat[(chosen[:, None] * self.layout.size + at).ravel()].reshape(len(chosen), -1)

    def _write(self, address: int, at: Array, chosen: Array, count: int, values: Any) -> None:
        numbers_at(address, count)[(chosen[:, None] * self.layout.size + at).ravel()] = np.asarray(values).ravel()

    def _diffuse(
        self, u: int, _: int, w: int, _room: int, flux: int, left: int, right: int, faces: int, apart: int
    ) -> None:
        apart = abs(apart)
        axis, (chosen, rows, times) = self._axis_of(apart), self._marked()
        at = face_places(self.shape, self.pads, axis)
        before, behind = (self._read(u, at + shift, chosen, faces + apart) for shift in (0, apart))
        weight = self._read(w, at, chosen, faces)
        found = self.terms[0].between(rows, times, axis, before, behind)
        for address, values in zip((flux, left, right), found, strict=True):
            self._write(address, at, chosen, faces, weight * values)

    def _convect(
        self, left: int, right: int, before: int, behind: int, _: int, flux: int, speed: int, faces: int, apart: int
    ) -> None:
        axis, (chosen, rows, times) = self._axis_of(apart), self._marked()
        at = face_places(self.shape, self.pads, axis)
        states = [self._read(each, at, chosen, faces) for each in (left, right, before, behind)]
        found = self.terms[1].fluxes(rows, times, axis, states)
        for address, values in zip((flux, speed), found, strict=True):
            self._write(address, at, chosen, faces, values)

    def _react(self, u: int, _p: int, _a: int, _b: int, s: int, slope: int, _c: int, count: int, _stride: int) -> None:
        chosen, rows, times = self._marked()
        at = cell_places(self.shape, self.pads)
        states = self._read(u, at, chosen, count)
        source = cached_rows(self.terms[2], rows)
        self._write(s, at, chosen, count, source.rate(states, times)[0])
        if self.differentiates:
            self._write(slope, at, chosen, count, source.slope(states, times))


class Rest:
    """The explicit terms of an operator on a tile of rows.

    Attributes:
        speed: Cells crossed per time by the fastest signal of every row, by the last rates.
    """

    def __init__(self, operator: Any, width: int, source: Any) -> None:
        self._sides, self._source, self.speed = operator.sides, source, np.zeros(width)
        self._tile = operator.convection and Tile(operator, width, (None, operator.convection, source))

    @classmethod
    def of(cls, operator: Any, width: int, reacts: bool) -> "Rest | None":
        """The explicit terms; None if there are none."""
        source = None if reacts else operator.source
        return cls(operator, width, source) if operator.convection is not None or source is not None else None

    def rates(self, u: Array, data: Array, times: Array, rows: Array, busy: Array) -> tuple[Array, Array]:
        """Rates ``(rows, cells)`` and flow ``(rows, 2d + 1)``, without given fluxes, which diffusion passes."""
        if self._tile is None:
            rate, flow, busy = np.zeros(u.shape), np.zeros((len(u), len(self._sides.modes) + 1)), np.flatnonzero(busy)
            source = cached_rows(self._source, rows[busy])
            rate[busy], flow[busy, -1] = source.rate(np.ascontiguousarray(u[busy]), times[busy])
            return rate, flow
        self._tile.enter(rows)
        rate, flow, _ = self._tile.rates(u, self._sides.without_fluxes(data), times, busy)
        self.speed = flow[:, -2]
        return rate, flow[:, :-2]


def _kind_of(law: CompiledLaw | None) -> int:
    """The kind of a law with diffusion for ``rates``."""
    if law is None:
        return IN_TENSORS
    first = law.parameters[0]
    same = first.shape[2] == 1 and all(np.array_equal(first, other) for other in law.parameters[1:])
    return ISOTROPIC if same else COMPILED


def side_factors(modes: Sequence[int], axis: int) -> tuple[float, float]:
    """Factors of 1/h² on the first and the last face of an axis, half a cell from the state there."""
    return tuple(2.0 if modes[2 * axis + end] == STATE else 1.0 for end in (0, 1))  # type: ignore[return-value]


def euler_rate(tile: Tile, u: Array, data: Array, times: Array) -> Array:
    """Half a bound of the spectral radius of diffusion ``(rows,)`` by Gershgorin's circles, without compiled steps."""
    tile.enter(np.arange(len(u)))
    tile.set_times(times)
    (layout, modes, pull, _), medium, x = tile.system.grid, tile.system.medium, to_padded(u, tile.layout)
    rows, n = len(u), x.size
    for side, mode in enumerate(modes):
        part = slice(layout.offsets[side], layout.offsets[side + 1])
        ghost, edge = layout.ghost[part], layout.edge[part]
        beyond = data[:, part] + pull[:, side : side + 1] * x[:, edge] if mode == STATE else x[:, edge]
        x[:, ghost] = x[:, layout.opposite[part]] if mode == PERIODIC else beyond
    sizes: list[Array] = []
    for axis, apart in enumerate(layout.strides.tolist()):
        flux, left, right = np.zeros((3, n))
        given = x, medium.diffusion[axis], medium.weights[axis], np.zeros(2 * n), flux, left, right
        call_from_python(tile.system.laws.diffusion, given, n - apart, apart)
        faces = np.arange(rows)[:, None] * layout.size + face_places(tile.shape, tile.pads, axis)
        shape = (rows, *(m + (other == axis) for other, m in enumerate(tile.shape)))
        sizes.append(np.maximum(left, right)[faces].reshape(shape))
    if tile.errors:
        raise tile.errors.pop()
    return radius_of(sizes, modes, pull)


def radius_of(sizes: Sequence[Array], modes: Array, pull: Array) -> Array:
    """Half a bound of the spectral radius ``(rows,)`` by the derivatives on the faces of every axis ``(rows, *faces)``.

    It overwrites them on the sides.
    """
    total: Any = 0.0
    for axis, each in enumerate(sizes):
        values = each.swapaxes(1 + axis, -1)
        for end in (0, 1):
            if modes[2 * axis + end] == STATE:
                values[..., -end] *= 0.5
        total = total + values.reshape(len(values), -1).max(1)
    stretched = np.where(modes == STATE, np.maximum(np.abs(pull), 1.0 - pull), 1.0).max(1)
    return total * (1.0 + np.maximum(stretched, 1.0))
