"""The nearest field to a given one that meets rows, bounds and an order, in the metric of a diagonal Σ, by its dual.

    minimise ½ Σ_i (u_i − x_i)²/v_i   subject to   G u = b,  A u ≤ c,  lower ≤ u ≤ upper,  u in order

The minimiser is u(λ) with the multipliers λ of the rows. Rows that share no point have a compiled search for one number
each; the dual of the remaining ones is concave with a piecewise linear gradient, G u(λ) − b, which semismooth Newton
steps climb (Qi & Sun 1993). With the points at a bound, the pools of the order and the rows that hold fixed, the
minimiser is the solution of one linear system: a step leads to the solution on the present piece, the last step
corrects the free points until the rows hold to round-off, and derivatives are those of the piece on which the field
lies, which is what the implicit function theorem gives.

All of it is one operation of torch, which ``torch.compile`` and ``torch.export`` record. It runs on the CPU.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from probconserv._linalg.rows import Rows, SparseRows, as_sparse_rows
from probconserv.errors import ConvergenceError
from solvers.recording import are_readable, are_recorded

_log = logging.getLogger(__name__)
_STEPS, _CUTS = 400, 60
_PLAIN = 30  # Newton steps without proximal terms; a few are needed
_PULL = 1e-2  # proximal terms, of a row's stiffness
_CLOSE = 1e-14  # relative residual at which the last corrections take over
_STALLED = 8  # steps without progress after which rounding is taken to hide it
_CORRECTIONS = 3
_FEW = 8  # rows whose products are formed once for all fields
_RIDGE = 1e-12  # of a row's stiffness, for Newton steps where rows depend on each other or have no free point
_DEPENDENT = 1e-12  # pivot relative to the row's own below which a row depends on others
_TOLERANCE = 1e-12  # of a row's residual relative to |b| + Σ|w u|


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

    def nearest(self, x: Tensor, target: Tensor) -> Tensor:
        """The nearest fields to x ``(s, *batch, n)`` with right-hand sides ``(s, *batch, k)``; differentiable.

        Raises:
            InfeasibleConstraintError: If no field meets rows and inequalities together.
            ConvergenceError: If float64 does not resolve the scales.
        """
        entries = x if self.near is None else self.near.entries
        parts = (x, target, self.metric, self.lower, self.upper, entries, self.far, self.noise)
        tracked = (torch.is_grad_enabled() and any(part.requires_grad for part in parts)) or not are_primal(*parts)
        u, force = self.solved(x, target, tracked)
        if tracked:
            smooth = self.piece(x, u, target, force)[1]
            u = u + (smooth - smooth.detach())
        return u

    def piece(
        self, x: Tensor, u: Tensor, target: Tensor, force: Tensor, floor: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Multipliers ``(s, *batch, k)`` and the field as smooth functions of the data, on the piece of ``u``.

        Args:
            x: The fields.
            u: Fields whose points at a bound and whose pools stay as they are.
            target: Right-hand sides.
            force: Which rows hold with equality and are independent ``(s, *batch, k)``.
            floor: The least stiffness of a row ``(*batch, k)``, where rows may depend on each other.
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
        far = _times(u, self.far.mT)
        return far if self.near is None else torch.cat([self.near.functional(u[..., None, :])[..., 0, :], far], dim=-1)

    def sizes(self, u: Tensor, target: Tensor) -> Tensor:
        """|b| + Σ|G u|, whose rounding every residual has."""
        far = _times(u.abs(), self.far.abs().mT)
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
        """What multipliers of the far rows take off the free points."""
        if piece.rates is None:
            return piece.loose * _times(multipliers, self.far)
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
        """Which of the rows in force do not depend on rows before them, with the points at a bound those of ``u``."""
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
        for index in poor.nonzero():
            counted[tuple(index)] &= torch.from_numpy(_independent_rows(matrix[tuple(index)].numpy()))
        force[..., near:] = counted
        return force

    def stiffness(self) -> Tensor:
        """diag(G diag(v) Gᵀ) + σ² ``(*batch, k)``, as if every point were free."""
        own = _times(self.metric[None], self.far.square().mT)[0]
        if self.near is not None:
            near = self.near.gram(self.metric)
            own = torch.cat([near.expand(*own.shape[:-1], near.shape[-1]), own.expand(*near.shape[:-1], -1)], dim=-1)
        return own + self.noise

    def solved(self, x: Tensor, target: Tensor, tracked: bool) -> tuple[Tensor, Tensor]:
        """The nearest fields, and which rows hold with equality and, if tracked, are independent."""
        batch, n = x.shape[1:-1], x.shape[-1]

        def flat(values: Tensor, axes: int) -> Tensor:
            own = values.shape[values.ndim - axes :]
            if values.ndim == axes:
                return values.detach()[None]
            return values.detach().expand(*batch, *own).reshape(batch.numel(), *own)

        row, column, entries = x.new_zeros(0, dtype=torch.int64), x.new_zeros(0, dtype=torch.int64), x.new_zeros(0)
        if self.near is not None:
            sparse = as_sparse_rows(self.near)
            row, column, entries = sparse.row, sparse.column, sparse.entries
        recorded = not are_readable(x, target) or are_recorded(x, target)
        u, force = (nearest_field if recorded else _nearest)(
            x.detach().reshape(x.numel() // n, n),
            target.detach().reshape(x.numel() // n, target.shape[-1]),
            flat(self.metric, 1),
            flat(torch.stack(torch.broadcast_tensors(self.lower, self.upper), dim=-2), 2),
            [row, column, flat(entries, 1)],
            flat(self.far, 2),
            flat(self.noise, 1),
            self.bounded,
            self.length,
            tracked,
        )
        return u.reshape(x.shape), force.reshape(target.shape)


class _Piece(NamedTuple):
    """Of one piece: the field without rows, the free points, values at bounds, the free variances; with an order also
    the far rows at free points and −du/dλ of them, else None."""

    mean: Tensor
    free: Tensor
    held: Tensor
    loose: Tensor
    loads: Tensor | None = None
    rates: Tensor | None = None


def _nearest(
    x: Tensor,
    target: Tensor,
    metric: Tensor,
    bounds: Tensor,
    near: list[Tensor],
    far: Tensor,
    noise: Tensor,
    bounded: Tensor,
    length: int,
    tracked: bool,
) -> tuple[Tensor, Tensor]:
    """Projections of fields ``(f, n)``, and the rows in force ``(f, k)``; parameters may have fewer entries p.

    Args:
        x: Fields.
        target: b ``(f, k)``.
        metric: v ``(p, n)``, p a divisor of f, for this and every other parameter.
        bounds: Lower and upper ``(p, 2, n)``.
        near: Row and point of every entry ``(entries,)`` and the entries ``(p, entries)`` of rows that share no point.
        far: The other rows ``(p, far, n)``.
        noise: σ² ``(p, k)``.
        bounded: Which rows are inequalities ``(k,)``.
        length: See ``Region``.
        tracked: Whether rows in force are to be independent, as derivatives need.
    """
    device = x.device
    x, target, metric, bounds, far, noise, bounded = (
        values.cpu() for values in (x, target, metric, bounds, far, noise, bounded)
    )
    row, column, entries = (values.cpu() for values in near)
    rows = None
    if target.shape[-1] > far.shape[-2]:
        count = target.shape[-1] - far.shape[-2]
        entries = entries[0] if len(entries) == 1 else entries
        rows = SparseRows(rows=count, points=x.shape[-1], row=row, column=column, entries=entries, is_disjoint=True)
    region = Region(
        metric=metric,
        lower=bounds[:, 0],
        upper=bounds[:, 1],
        near=rows,
        far=far,
        noise=noise,
        bounded=bounded,
        length=length,
    )
    batch = max(len(values) for values in (metric, bounds, far, noise, entries if entries.ndim > 1 else metric))
    fields = tuple(values.reshape(len(x) // batch, batch, values.shape[-1]) for values in (x, target))
    u, force = _Ascent(region, *fields).run(tracked)
    return u.reshape(x.shape).to(device), force.reshape(target.shape).to(device)


nearest_field = torch.library.custom_op("probconserv::nearest_field", _nearest, mutates_args=())


@nearest_field.register_fake
def _(x: Tensor, target: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(target, dtype=torch.bool)


@nearest_field.register_vmap
def _(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
    """One call for every entry of the batch."""

    def entry(argument: Any, axis: Any, i: int) -> Any:
        if isinstance(argument, list):
            return [entry(part, own, i) for part, own in zip(argument, axis, strict=True)]
        return argument if axis is None else argument.select(axis, i)

    results = [
        nearest_field(*(entry(*pair, i) for pair in zip(arguments, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0, 0)


class _Ascent:
    """The climb of the dual of many fields.

    Args:
        region: Rows, bounds and order ``(p, …)`` on the CPU, without derivatives.
        x: Fields ``(s, p, n)``.
        target: b ``(s, p, k)``.
    """

    def __init__(self, region: Region, x: Tensor, target: Tensor) -> None:
        self.region, self.x, self.target = region, x, target
        self.near, self.far = region.near_rows, region.far.shape[-2]
        self.bounded = region.bounded
        self.searched = not self.near and self.far == 1  # a single row has a compiled search
        self.worst = 0.0
        if self.far and not self.searched:
            self.stiffness = region.stiffness()
            self.floor = _RIDGE * self.stiffness

    def run(self, tracked: bool) -> tuple[Tensor, Tensor]:
        """The nearest fields, and which rows hold with equality and, if tracked, are independent."""
        region = self.region
        if self.searched or not self.far:
            u, multiplier = self.evaluate(self.x)
            force = ~self.bounded | (multiplier > 0)
            self.check(self.worst)
        else:
            u, multiplier = self.climb()
            force = ~self.bounded | (multiplier > 0)
            u = self.corrected(u, multiplier, force)
        return u, region.independent(u, force) if tracked and self.far > 1 else force

    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """u and the multipliers of the near rows, or of a single one, from z ``(s, p, n)``."""
        region = self.region
        if not (self.near or self.searched or region.length):
            return torch.minimum(torch.maximum(z, region.lower), region.upper), z[..., :0]
        u, multiplier, self.worst = _searched(region, z, self.target, self.searched)
        return u, multiplier

    def climb(self) -> tuple[Tensor, Tensor]:
        """u and the multipliers of all rows at the top of the dual.

        Newton's steps with the ridge of Levenberg and Marquardt; for fields that do not settle, as on corners with more
        rows than points, those of the proximal method of multipliers (Rockafellar 1976): the dual less
        ½ (λ − λ₀)ᵀ E (λ − λ₀), whose top is well-conditioned and becomes the next λ₀.
        """
        z, multiplier = self.x, torch.zeros_like(self.target[..., self.near :])
        u, close = self.evaluate(z)
        best, stalled = torch.full_like(z[..., 0], torch.inf), torch.zeros_like(z[..., 0])
        ridge, self.pull, self.centre = torch.full_like(best, _RIDGE), torch.zeros_like(multiplier), multiplier
        for iteration in range(_STEPS):
            residual, error, nearer = self.residual(u, multiplier)
            stalled = torch.where(error < 0.5 * best, 0.0, stalled + 1)
            best = torch.minimum(best, error)
            going = (error > _CLOSE) & ((stalled < _STALLED) | (error > _TOLERANCE))
            if not bool(going.any()):
                break
            if iteration == _PLAIN:
                again, ridge = going[..., None], torch.full_like(best, _RIDGE)
                self.pull = torch.where(again, _PULL * self.stiffness[..., self.near :], 0.0)
                z, multiplier = torch.where(again, self.x, z), torch.where(again, 0.0, multiplier)
                u, close = self.evaluate(z)
                residual = self.residual(u, multiplier)[0]
            elif iteration > _PLAIN:
                reached = (nearer <= (0.1 * error).clamp_min(_CLOSE))[..., None]
                self.centre = torch.where(reached, multiplier, self.centre)
                self.pull = torch.where(reached, 0.1 * self.pull, self.pull)
                residual = self.residual(u, multiplier)[0]
            step, longest = self.direction((z, u, ridge), (close, multiplier), residual)
            step = torch.where(going[..., None], step, 0.0)
            shift = self.region.metric * _times(step, self.region.far)
            fraction, u, close = self.along((z, shift), multiplier, (step, longest), residual)
            z, moved = z - fraction[..., None] * shift, multiplier + fraction[..., None] * step
            gone = self.bounded[self.near :] & (moved <= 4 * torch.finfo(z.dtype).eps * multiplier.abs())
            multiplier = torch.where(gone, 0.0, moved)
            ridge = torch.where(fraction < 0.2, (10 * ridge).clamp(1e-8, 1.0), (0.1 * ridge).clamp_min(_RIDGE))
        return u, torch.cat([close, multiplier], dim=-1)

    def residual(self, u: Tensor, multiplier: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of the dual, G u − σ²λ − b − E (λ − λ₀) of the far rows, and the largest misses of optimality
        relative to |b| + Σ|G u|, without E and with it."""
        rows, goal = self.region.far, self.target[..., self.near :]
        residual = _times(u, rows.mT) - goal - self.region.noise[..., self.near :] * multiplier
        size = _times(self.scale(u), rows.abs().mT) + goal.abs()
        size = size.clamp_min(torch.finfo(u.dtype).tiny)
        pulled = residual - self.pull * (multiplier - self.centre)
        loose = self.bounded[self.near :] & (multiplier == 0)
        missed, near = (torch.where(loose, r.clamp_min(0.0), r.abs()) for r in (residual, pulled))
        return (
            pulled,
            (missed / size).amax(dim=-1),
            (near / (size + (self.pull * multiplier).abs().amax(-1, True))).amax(-1),
        )

    def scale(self, u: Tensor) -> Tensor:
        """The size of the numbers whose rounding is in u ``(s, p, n)``."""
        inside = (u > self.region.lower) & (u < self.region.upper)
        return torch.where(inside, torch.maximum(u.abs(), self.x.abs()), u.abs())

    def direction(
        self, at: tuple[Tensor, Tensor, Tensor], multipliers: tuple[Tensor, Tensor], residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A direction of ascent with λ ≥ 0 for inequalities, and how far it leads: Newton's step, bent at λ = 0."""
        (z, u, ridge), (close, multiplier) = at, multipliers
        bounded, floor = self.bounded[self.near :], ridge[..., None] * self.stiffness
        floor = torch.cat([floor[..., : self.near], floor[..., self.near :] + self.pull], dim=-1)
        taken = ~self.bounded[: self.near] | (close > 0)
        stop = bounded & (multiplier == 0)
        counted = ~(stop & (residual <= 0))
        goal = self.region.noise[..., self.near :] * multiplier + self.pull * (multiplier - self.centre)
        goal = self.target + torch.cat([torch.zeros_like(close), goal], dim=-1)
        while True:
            force = torch.cat([taken, counted], dim=-1)
            step = self.region.piece(z, u, goal, force, floor)[0][..., self.near :]
            blocked = stop & counted & (step < 0)
            if not bool(blocked.any()):
                break
            counted = counted & ~blocked
        falls = bounded & (step < 0)
        bent = torch.where(falls, torch.maximum(step, -multiplier), step)
        ratio = torch.where(falls, -multiplier / torch.where(falls, step, 1.0), torch.inf).amin(dim=-1)
        use = (bent * residual).sum(dim=-1) >= 0.1 * (step * residual).sum(dim=-1)
        longest = torch.where(use, torch.where(falls.any(dim=-1), 1.0, torch.inf), ratio)
        return torch.where(use[..., None], bent, step), longest

    def along(
        self, start: tuple[Tensor, Tensor], multiplier: Tensor, way: tuple[Tensor, Tensor], residual: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The fraction of the step after which the dual does not yet fall steeply, with u and multipliers there."""
        (z, shift), (step, longest) = start, way
        slope = (step * residual).sum(dim=-1)
        fraction, u, close = longest.clamp_max(1.0), z, z
        for _ in range(_CUTS):
            u, close = self.evaluate(z - fraction[..., None] * shift)
            there = (step * self.residual(u, multiplier + fraction[..., None] * step)[0]).sum(dim=-1)
            over = there < -0.5 * slope.abs()
            if not bool(over.any()):
                break
            fraction = torch.where(over, fraction * (slope / (slope - there)).clamp(0.0, 0.5), fraction)
        return fraction, u, close

    def corrected(self, u: Tensor, multiplier: Tensor, force: Tensor) -> Tensor:
        """Moves the free points until the rows in force hold to round-off."""
        region, tiny, missed, goal = self.region, torch.finfo(u.dtype).tiny, self.target, self.target
        for correction in range(_CORRECTIONS + 1):
            goal = self.target + region.noise * multiplier
            missed = torch.where(force, (region.functional(u) - goal).abs(), 0.0)
            error = missed / region.sizes(u, goal).clamp_min(tiny)
            if correction == _CORRECTIONS or bool((error <= 2 * torch.finfo(u.dtype).eps).all()):
                break
            change, field = region.piece(u, u, goal, force, self.floor)
            multiplier = multiplier + change
            u = torch.minimum(torch.maximum(field, region.lower), region.upper)
        missed = torch.where(force, missed, (region.functional(u) - self.target).clamp_min(0.0))
        size = region.sizes(u, goal).maximum(0.01 * region.sizes(self.scale(u), goal))
        self.check(float((missed / size.clamp_min(tiny)).max()))
        return u

    def check(self, worst: float) -> None:
        """Raises ConvergenceError unless the rows hold."""
        if not worst <= _TOLERANCE:
            raise ConvergenceError(
                f"The law is missed by {worst:.3g} of |b| + Σ|w u| (required {_TOLERANCE:g}): no field meets law and "
                "inequalities together, or the prior is further from them than float64 resolves. Check the right-hand "
                "sides and the bounds, means and variances of the prior."
            )


def _searched(region: Region, z: Tensor, target: Tensor, single: bool) -> tuple[Tensor, Tensor, float]:
    """The compiled search for the multiplier of every near row, of a single row, or of none if fields are ordered."""
    from probconserv.inequalities._kernels import project_rows

    _say_if_compiled(project_rows)
    n, k = z.shape[-1], region.near_rows
    if region.near is not None:
        sparse = as_sparse_rows(region.near)
        starts, column, entries = sparse.starts, sparse.column.numpy(), sparse.entries.reshape(-1, len(sparse.row))
    else:
        k, starts, column = 1, np.array([0, n]), np.arange(n)
        entries = region.far[:, 0] if single else z.new_zeros(1, n)
    least = torch.where(region.bounded[:k], 0.0, -torch.inf) if single or region.near is not None else z.new_zeros(1)
    goal = target[..., :k] if single or region.near is not None else torch.zeros_like(z[..., :1])
    noise = region.noise[..., :k] if single or region.near is not None else z.new_zeros(1)
    law = torch.stack(torch.broadcast_tensors(goal, noise, least), dim=-2).reshape(-1, 3, k)
    bounds = torch.stack(torch.broadcast_tensors(region.lower, region.upper), dim=-2)
    u, multiplier = np.empty((z.numel() // n, n)), np.empty((z.numel() // n, k))
    worst = project_rows(
        _array(z.reshape(-1, n)),
        _array(region.metric),
        _array(bounds),
        _array(law),
        (starts, column, _array(entries)),
        region.length,
        (u, multiplier),
    )
    found = torch.from_numpy(multiplier).reshape(*z.shape[:-1], k)
    if not single and region.near is None:
        found = found[..., :0]
    return torch.from_numpy(u).reshape(z.shape), found, float(worst)


def _say_if_compiled(kernel: Any) -> None:
    """Says so in one line where the first call compiles."""
    folder = Path(kernel.stats.cache_path)
    if not kernel.signatures and not any(folder.glob("_kernels.project_rows-*.nbi")):
        _log.warning("Compiling the projection onto inequalities, once: three seconds or so, then kept in %s.", folder)


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.numpy())


def are_primal(*tensors: Tensor) -> bool:
    """Whether no transformation of ``torch.func`` and no forward derivative is under way."""
    if torch.compiler.is_compiling():
        return True
    return not are_recorded(*tensors) and all(forward_ad.unpack_dual(tensor).tangent is None for tensor in tensors)


def _times(u: Tensor, matrix: Tensor) -> Tensor:
    """Vectors ``(s, *batch, i)`` times matrices ``(*batch, i, j)`` or ``(i, j)``, without copies of the matrices."""
    return u @ matrix if matrix.ndim == 2 else (u.movedim(0, -2) @ matrix).movedim(-2, 0)


def _gram(rows: Tensor, metric: Tensor) -> Tensor:
    """G diag(metric) Gᵀ ``(s, *batch, k, k)`` for metrics ``(s, *batch, n)``."""
    k = rows.shape[-2]
    if k <= _FEW:
        pairs = (rows[..., :, None, :] * rows[..., None, :, :]).flatten(-3, -2)
        return _times(metric, pairs.mT).unflatten(-1, (k, k))
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


def _independent_rows(matrix: np.ndarray) -> np.ndarray:
    """Which rows of a matrix with unit scale do not depend on rows before them, by Cholesky's factorisation."""
    chol, kept = np.zeros_like(matrix), np.zeros(len(matrix), dtype=bool)
    for j in range(len(matrix)):
        column = matrix[j:, j] - chol[j:, :j] @ chol[j, :j]
        kept[j] = column[0] > _DEPENDENT
        if kept[j]:
            chol[j:, j] = column / np.sqrt(column[0])
    return kept
