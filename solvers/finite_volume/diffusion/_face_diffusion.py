"""Diffusion by the fluxes through faces and their derivatives, for any law and any mean of the conductivity."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from torch import Tensor

from solvers.finite_volume._kernels import Array, Lanes, lanes_of
from solvers.finite_volume.diffusion._newton_kernels import (
    NEWTON_ROUND_OFF,
    UNDAMPED,
    has_converged,
    relaxation,
)
from solvers.finite_volume.diffusion.face_means import FaceFlux, FaceMean
from solvers.finite_volume.diffusion.newton import Reaction, Stage, StageSolution
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE
from solvers.grids import CellGrid


@dataclass(frozen=True, eq=False)
class FaceDiffusion:
    """∇·(k ∇u) on rows; attributes as in ``DiffusionTerm``."""

    law: Any
    grid: CellGrid
    sides: Any
    face_mean: FaceMean

    def take(self, index: Array) -> "FaceDiffusion":
        """The term of some of the rows."""
        part = replace(self, law=self.law.take(index), sides=self.sides.take(index))
        part.__dict__["inverse"] = self.inverse
        return part

    def rate(self, u: Array, data: Array, t: Array) -> tuple[Array, Array]:
        """Rate ``(rows, cells)`` and fluxes through the sides ``(rows, 2d)``."""
        return self._account([face.value for face in self._linearise(self._field(u), data, t)])

    def radius(self, u: Array, data: Array, t: Array) -> Array:
        """Bound ``(rows,)`` of the spectral radius, by Gershgorin's circles of the columns."""
        total = np.zeros(len(u))
        for axis, face in enumerate(self._linearise(self._field(u), data, t, outer=True)):
            for part in (face.by_left, face.by_right):
                sizes = part.abs().movedim(1 + axis, -1)
                if self.sides.modes[2 * axis] != PERIODIC:
                    sizes[..., [0, -1]] *= 0.5
                total += 2.0 / self.grid.spacing[axis] * sizes.reshape(len(u), -1).amax(-1).numpy()
        return total

    def solve(self, stage: Stage, limit: int, reaction: Reaction) -> StageSolution:
        """Newton's method row by row."""
        rows = [np.array([row]) for row in range(len(stage.right))]
        terms = [self] if len(rows) == 1 else map(self.take, rows)
        parts = [
            term._solve_row(Stage(*(each[row] for each in stage)), limit, reaction, row)
            for term, row in zip(terms, rows, strict=True)
        ]
        return StageSolution(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _solve_row(self, stage: Stage, limit: int, reaction: Reaction, row: Array) -> StageSolution:
        """Newton's method for a row, the entry ``row (1,)`` of the reaction."""
        u, before, part, change, good, iteration = stage.guess, 0.0, 1.0, np.inf, False, 0
        produced = slope = delta = np.zeros_like(u)
        fluxes: list[Tensor] = []
        while not good and iteration < limit and (iteration == 0 or np.isfinite(change)):
            produced, slope = reaction.rates(u, row, stage)
            moved, fluxes = self._iterate(self._field(u), stage, (produced, slope), iteration >= UNDAMPED)
            delta, iteration = moved.reshape(1, -1).numpy(), iteration + 1
            change = float(np.abs(delta).mean())
            least = max(stage.allowed[0], NEWTON_ROUND_OFF * np.abs(u).mean())
            good = has_converged(change, before, least, iteration == 1, False)
            u = u + part * delta
            part, before = relaxation(part, iteration, change, before), change
        du, sides = self._account(fluxes)
        produced = produced + slope * delta
        flow = np.concatenate((sides, prod(self.grid.spacing) * produced.sum(1, keepdims=True)), 1)
        du = du + produced
        counts = np.array([good]), np.array([iteration]), np.array([change])
        return StageSolution(stage.right + stage.s[:, None] * du, du, flow, *counts)

    def _field(self, u: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(u)).reshape(-1, *self.grid.shape)

    def _linearise(self, field: Tensor, data: Array, t: Array, outer: bool = False) -> list[FaceFlux]:
        """Fluxes and derivatives on the faces of every axis ``(rows, *faces)``.

        At a side the derivative by the inner cell includes that of the state on the side; ``outer`` keeps both apart.
        """
        faces = []
        for axis in range(self.grid.dimension):
            dim = 1 + axis
            ends = self._ends(field, data, axis)
            states = torch.cat((ends[0], field, ends[1]), dim)
            face = self._between(states, t, axis)
            face = FaceFlux(*(part.clone() for part in (face.value, face.by_left, face.by_right)))
            for end in (0, 1):
                self._close(face, data, axis, end, outer)
            faces.append(face)
        return faces

    def _between(self, states: Tensor, t: Array, axis: int) -> FaceFlux:
        """Fluxes between neighbours along an axis, of states with those beyond its ends."""
        if not self.law.varies_in_space:
            return self.face_mean.along(self.law, states, self.inverse[axis], 1 + axis)
        left, right = (states.narrow(1 + axis, start, states.shape[1 + axis] - 1) for start in (0, 1))
        return self.face_mean.flux(self.law.at(t, axis), left, right, self.inverse[axis])

    @cached_property
    def inverse(self) -> list[Tensor]:
        """Inverse distances of the states on both sides of the faces of every axis."""
        every = []
        for axis, (n, h) in enumerate(zip(self.grid.shape, self.grid.spacing, strict=True)):
            inverse = torch.full((n + 1,), 1.0 / h, dtype=torch.float64)
            inverse[[0, -1]] *= 1.0 if self.sides.modes[2 * axis] == PERIODIC else 2.0
            every.append(inverse.reshape(-1, *[1] * (self.grid.dimension - axis - 1)))
        return every

    def linearise_tile(
        self, u: Any, info: Any, flux: Any, by_left: Any, by_right: Any, _: Any, count: int, width: int
    ) -> None:
        """Fluxes and derivatives along one axis, as a kernel; see ``Medium.faces``."""
        lanes = lanes_of(info, width)
        face = self._of(lanes)._between(torch.from_numpy(lanes.read(u, count, width)), lanes.times, 0)
        for pointer, values in ((flux, face.value), (by_left, face.by_left), (by_right, face.by_right)):
            lanes.write(pointer, values.detach().numpy(), width)

    def _of(self, lanes: Lanes) -> "FaceDiffusion":
        """The term of the rows in some lanes."""
        if not np.array_equal(lanes.rows, self._last[0]):
            self._last[:] = lanes.rows, self.take(lanes.rows)
        return self._last[1]

    @cached_property
    def _last(self) -> list[Any]:
        """The rows of the last tile, and the term of them."""
        return [np.arange(self.law.rows), self]

    def _close(self, face: FaceFlux, data: Array, axis: int, end: int, outer: bool) -> None:
        """Applies the mode of a side to its faces."""
        side, at = 2 * axis + end, -end
        value, by_outer, by_inner = (
            part.select(1 + axis, at)
            for part in (
                (face.value, face.by_left, face.by_right) if end == 0 else (face.value, face.by_right, face.by_left)
            )
        )
        mode = self.sides.modes[side]
        if mode == PERIODIC:
            return
        if mode == STATE:
            if not outer:
                by_inner += self._pull(side, by_inner.ndim) * by_outer
                by_outer.zero_()
            return
        by_outer.zero_()
        by_inner.zero_()
        value.zero_()
        if mode == GIVEN_FLUX:
            value += self._datum(data, side, value.shape)

    def _ends(self, field: Tensor, data: Array, axis: int) -> tuple[Tensor, Tensor]:
        """States beyond the first and the last cells of an axis, with that axis of size 1."""
        dim, ends = 1 + axis, []
        for end in (0, 1):
            side = 2 * axis + end
            edge = field.select(dim, -end)
            if self.sides.modes[side] == PERIODIC:
                edge = field.select(dim, end - 1)
            elif self.sides.modes[side] == STATE:
                edge = self._datum(data, side, edge.shape) + self._pull(side, edge.ndim) * edge
            ends.append(edge.unsqueeze(dim))
        return ends[0], ends[1]

    def _datum(self, data: Array, side: int, shape: torch.Size) -> Tensor:
        part = data[:, self.sides.offsets[side] : self.sides.offsets[side + 1]]
        return torch.from_numpy(np.ascontiguousarray(part)).reshape(shape)

    def _pull(self, side: int, axes: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.sides.pull[:, side])).reshape(-1, *[1] * (axes - 1))

    def _iterate(self, field: Tensor, stage: Stage, source: Any, outer: bool) -> tuple[Tensor, list[Tensor]]:
        """One Newton step by the source and its derivative: change of the cells, and linearised fluxes on every axis.

        ``outer`` drops the derivatives of the states on the sides.
        """
        faces = self._linearise(field, stage.data, stage.t, outer)
        s = torch.from_numpy(stage.s)
        for axis, face in enumerate(faces):
            bound = (0.5 / self.grid.dimension * self.grid.spacing[axis]) / s.reshape(-1, *[1] * (field.ndim - 2))
            if self.sides.modes[2 * axis] != PERIODIC:
                first, last = face.by_right.select(1 + axis, 0), face.by_left.select(1 + axis, -1)
                first.copy_(torch.minimum(first, bound))
                last.copy_(torch.maximum(last, -bound))
        du, _ = self._account([face.value for face in faces])
        residual = stage.right - field.reshape(len(du), -1).numpy() + stage.s[:, None] * (du + source[0])
        residual = self._solve_sparse(faces, stage.s, residual, 1.0 - stage.s[:, None] * source[1])
        delta = torch.from_numpy(residual).reshape(field.shape)
        return delta, [self._advanced(face, delta, axis) for axis, face in enumerate(faces)]

    def _advanced(self, face: FaceFlux, delta: Tensor, axis: int) -> Tensor:
        """Linearised flux F + L δ_left + R δ_right along one axis."""
        dim = 1 + axis
        first, last = delta.narrow(dim, 0, 1), delta.narrow(dim, delta.shape[dim] - 1, 1)
        if self.sides.modes[2 * axis] != PERIODIC:
            first, last = torch.zeros_like(first), torch.zeros_like(last)
        left, right = torch.cat((last, delta), dim), torch.cat((delta, first), dim)
        return face.value + face.by_left * left + face.by_right * right

    def _account(self, fluxes: list[Tensor]) -> tuple[Array, Array]:
        """Rate and fluxes through the sides from fluxes on faces."""
        rows, d = fluxes[0].shape[0], self.grid.dimension
        change = torch.zeros((rows, *self.grid.shape), dtype=torch.float64)
        sides = np.empty((rows, 2 * d))
        for axis, (flux, h) in enumerate(zip(fluxes, self.grid.spacing, strict=True)):
            change -= flux.diff(dim=1 + axis) / h
            for end in (0, 1):
                through = np.ascontiguousarray(flux.select(1 + axis, -end).reshape(rows, -1).numpy())
                sides[:, 2 * axis + end] = prod(self.grid.spacing) / h * through.sum(1)
        return change.reshape(rows, -1).numpy(), sides

    def _solve_sparse(self, faces: list[FaceFlux], s: Array, right: Array, diagonal: Array) -> Array:
        """δ of the rows by sparse elimination; to the diagonal come the fluxes."""
        shape, count = self.grid.shape, prod(self.grid.shape)
        cells = np.arange(count).reshape(shape)
        places, entries = [(cells, cells)], []
        for axis, face in enumerate(faces):
            scale = (s / self.grid.spacing[axis]).reshape(-1, *[1] * len(shape))
            by_left, by_right = scale * face.by_left.numpy(), scale * face.by_right.numpy()
            n, start = shape[axis], 0 if self.sides.modes[2 * axis] == PERIODIC else 1
            upper = by_left.take(range(1, n + 1), 1 + axis) - by_right.take(range(n), 1 + axis)
            diagonal += upper.reshape(len(s), -1)
            behind, ahead = cells.take(range(start, n), axis), np.roll(cells, 1, axis).take(range(start, n), axis)
            places += [(behind, ahead), (ahead, behind)]
            inner = range(start, n)
            entries += [-by_left.take(inner, 1 + axis), by_right.take(inner, 1 + axis)]
        rows, columns = (np.concatenate([place[k].reshape(-1) for place in places]) for k in (0, 1))
        values = np.concatenate([diagonal, *(entry.reshape(len(s), -1) for entry in entries)], 1)
        delta = np.full_like(right, np.nan)
        for b, value in enumerate(values):
            if np.isfinite(value).all() and np.isfinite(right[b]).all():
                matrix = csc_matrix((value, (rows, columns)), shape=(count, count))
                matrix.eliminate_zeros()
                delta[b] = splu(matrix, permc_spec="MMD_AT_PLUS_A").solve(right[b])
        return delta
