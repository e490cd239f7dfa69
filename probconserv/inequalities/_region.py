"""Rows, bounds and an order with a metric, and the linear system of the piece on which a field lies.

With the points at a bound, the pools of the order and the rows that hold fixed, the nearest field is the solution of
one linear system, and a smooth function of the data.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from probconserv._linalg.rank import independent_rows
from probconserv._linalg.rows import Rows

_FEW = 8  # rows whose products are formed once for all fields
_DEPENDENT = 1e-12  # pivot relative to the row's own below which a row depends on others


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """Rows, bounds and an order with a metric; all float64, points line by line if fields are ordered.

    Args:
        metric: v ``(*batch, n)``.
        lower: Lower bounds ``(*batch, n)`` or ``(n,)``, increasing along lines; those of points without variance equal.
        upper: Upper bounds, likewise.
        near: Rows that share no point, or None.
        far: The other rows ``(*batch, far, n)``.
        noise: σ² ``(*batch, k)`` of all rows, the near ones first.
        bounded: Which rows are inequalities A u ≤ c ``(k,)``.
        length: Points of a line along which fields increase; 0 for no order. Then there are no near rows.
    """

    metric: Tensor
    lower: Tensor
    upper: Tensor
    near: Rows | None
    far: Tensor
    noise: Tensor
    bounded: Tensor
    length: int = 0

    def piece(
        self, x: Tensor, u: Tensor, target: Tensor, force: Tensor, floor: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Multipliers ``(s, *batch, k)`` and the field as smooth functions of the data, on the piece of ``u``.

        Points at a bound and pools stay those of ``u``; rows in ``force`` ``(s, *batch, k)`` hold with equality. A
        ``floor`` is the least stiffness of a row ``(*batch, k)``, where rows may depend on each other.
        """
        near = self.near_rows
        piece = self._free(x, u)
        field = torch.where(piece.free, piece.mean, piece.held)
        excess = self.functional(field) - target
        multipliers = excess[..., :0]
        stiffness, cross, inverse = self._stiffness(piece, force, floor)
        if self.far.shape[-2]:
            reduced = excess[..., near:]
            if near:
                reduced = reduced - (cross @ (inverse * excess[..., :near])[..., None])[..., 0]
            multipliers = _solve(stiffness, reduced, force[..., near:])
            field = field - self._change(piece, multipliers)
        if self.near is not None:
            missed = excess[..., :near]
            if self.far.shape[-2]:
                missed = missed - (multipliers[..., None, :] @ cross)[..., 0, :]
            close = inverse * missed
            field = self.near.subtract(field[..., None, :], piece.loose, close[..., None, :])[..., 0, :]
            multipliers = torch.cat([close, multipliers], dim=-1)
        return multipliers, torch.where(piece.free, field, piece.held)

    @property
    def near_rows(self) -> int:
        """Number of near rows."""
        return 0 if self.near is None else self.near.shape[-2]

    def functional(self, u: Tensor) -> Tensor:
        """All rows of fields ``(s, *batch, n)``, ``(s, *batch, k)``."""
        far = times(u, self.far.mT)
        return far if self.near is None else torch.cat([self.near.functional(u[..., None, :])[..., 0, :], far], dim=-1)

    def sizes(self, u: Tensor, target: Tensor) -> Tensor:
        """|b| + Σ|G u|, whose rounding every residual has."""
        far = times(u.abs(), self.far.abs().mT)
        if self.near is not None:
            near = self.near.mapped(torch.abs).functional(u.abs()[..., None, :])[..., 0, :]
            far = torch.cat([near, far], dim=-1)
        return target.abs() + far

    def _stiffness(self, piece: "_Piece", force: Tensor, floor: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """S of the far rows without what the near ones take up, far rows times near ones, and 1/S of the near ones."""
        near = self.near_rows
        noise = self.noise[..., near:] if floor is None else self.noise[..., near:] + floor[..., near:]
        if piece.loads is None or piece.rates is None:
            gram = _gram(self.far, piece.loose)
        else:
            gram = piece.loads @ piece.rates.mT
        stiffness = gram + torch.diag_embed(noise)
        if self.near is None:
            return stiffness, stiffness, stiffness
        own = self.near.gram(piece.loose) + self.noise[..., :near]
        own = own if floor is None else torch.maximum(own, floor[..., :near])
        counted = force[..., :near] & (own > 0)
        inverse = torch.where(counted, 1.0 / torch.where(counted, own, 1.0), 0.0)
        if not self.far.shape[-2]:
            return stiffness, stiffness, inverse
        cross = self.near.functional(piece.loose[..., None, :] * self.far)
        return stiffness - (cross * inverse[..., None, :]) @ cross.mT, cross, inverse

    def _change(self, piece: "_Piece", multipliers: Tensor) -> Tensor:
        """Shift of the free points by multipliers of the far rows."""
        if piece.rates is None:
            return piece.loose * times(multipliers, self.far)
        return (multipliers[..., None, :] @ piece.rates)[..., 0, :]

    def _free(self, x: Tensor, u: Tensor) -> "_Piece":
        """The piece of ``u``."""
        at_lower = u <= self.lower
        free = ~(at_lower | (u >= self.upper))
        held = torch.where(at_lower, self.lower, torch.where(free, 0.0, self.upper))
        if not self.length:
            return _Piece(x, free, held, torch.where(free, self.metric, 0.0))
        first = torch.arange(1, u.shape[-1], device=u.device) % self.length == 0
        steps = ((u.diff() != 0) | first).cumsum(dim=-1)
        pool = torch.cat([torch.zeros_like(steps[..., :1]), steps], dim=-1)
        stuck = _pooled((~free).to(x), pool)
        held = _pooled(held, pool) / stuck.clamp_min(1.0)
        free = stuck == 0
        precision = torch.where(free, 1.0 / torch.where(free, self.metric, 1.0), 0.0)
        total = torch.where(free, _pooled(precision, pool), 1.0)
        mean = _pooled(precision * x, pool) / total
        loads = torch.where(free[..., None, :], self.far, 0.0)
        rates = _pooled(loads, pool[..., None, :].expand(loads.shape)) / total[..., None, :]
        return _Piece(mean, free, held, torch.where(free, self.metric, 0.0), loads, rates)

    def independent(self, u: Tensor, force: Tensor) -> Tensor:
        """Mask of active rows that do not depend on rows before them, with the points at a bound those of ``u``."""
        near = self.near_rows
        force = force.clone()
        if self.near is not None:
            loose = torch.where((u > self.lower) & (u < self.upper), self.metric, 0.0)
            force[..., :near] &= self.near.gram(loose) + self.noise[..., :near] > 0
        stiffness = self._stiffness(self._free(u, u), force, None)[0]
        own = self.stiffness()[..., near:].expand(stiffness.shape[:-1])
        counted = force[..., near:] & (stiffness.diagonal(dim1=-2, dim2=-1) > _DEPENDENT * own)
        scale = torch.where(counted, own.clamp_min(torch.finfo(u.dtype).tiny).rsqrt(), 0.0)
        matrix = scale[..., None] * stiffness * scale[..., None, :] + torch.diag_embed((~counted).to(u))
        chol, info = torch.linalg.cholesky_ex(matrix)
        poor = (info > 0) | (chol.diagonal(dim1=-2, dim2=-1).square() <= _DEPENDENT).any(dim=-1)
        counted[poor] &= independent_rows(matrix[poor], _DEPENDENT)
        force[..., near:] = counted
        return force

    def stiffness(self) -> Tensor:
        """diag(G diag(v) Gᵀ) + σ² ``(*batch, k)``, as if every point were free."""
        own = times(self.metric[None], self.far.square().mT)[0]
        if self.near is not None:
            near = self.near.gram(self.metric)
            own = torch.cat([near.expand(*own.shape[:-1], near.shape[-1]), own.expand(*near.shape[:-1], -1)], dim=-1)
        return own + self.noise


class _Piece(NamedTuple):
    """Of one piece: the field without rows, the free points, values at bounds, the free variances; with an order also
    the far rows at free points and −du/dλ of them, else None."""

    mean: Tensor
    free: Tensor
    held: Tensor
    loose: Tensor
    loads: Tensor | None = None
    rates: Tensor | None = None


def times(u: Tensor, matrix: Tensor) -> Tensor:
    """Vectors ``(s, *batch, i)`` times matrices ``(*batch, i, j)`` or ``(i, j)``, without copies of the matrices."""
    return u @ matrix if matrix.ndim == 2 else (u.movedim(0, -2) @ matrix).movedim(-2, 0)


def _gram(rows: Tensor, metric: Tensor) -> Tensor:
    """G diag(metric) Gᵀ ``(s, *batch, k, k)`` for metrics ``(s, *batch, n)``."""
    k = rows.shape[-2]
    if k <= _FEW:
        pairs = (rows[..., :, None, :] * rows[..., None, :, :]).flatten(-3, -2)
        return times(metric, pairs.mT).unflatten(-1, (k, k))
    return torch.stack([(rows * part[..., None, :]) @ rows.mT for part in metric])


def _solve(matrix: Tensor, goal: Tensor, counted: Tensor) -> Tensor:
    """Solves a system without the rows and columns that do not count, for which the result is 0."""
    goal = torch.where(counted, goal, 0.0)
    if goal.shape[-1] == 1:
        return goal / torch.where(counted & (matrix[..., 0] > 0), matrix[..., 0], 1.0)
    both = counted[..., :, None] & counted[..., None, :]
    return torch.linalg.solve(torch.where(both, matrix, torch.eye(goal.shape[-1]).to(matrix)), goal)


def _pooled(values: Tensor, pool: Tensor) -> Tensor:
    """The sum of the values over the pool of every point."""
    return torch.zeros_like(values).scatter_add(-1, pool, values).gather(-1, pool)
