"""The climb of the dual to the nearest field, by semismooth Newton steps (Qi & Sun 1993).

Rows that share no point have a compiled search for one number each. The dual of the remaining ones is concave with a
piecewise linear gradient, G u(λ) − b: a step leads to the solution on the present piece, and the last step corrects the
free points until the rows hold to round-off.
"""

import numpy as np
import torch
from torch import Tensor

from probconserv._linalg.rows import as_sparse_rows
from probconserv.errors import ConvergenceError
from probconserv.inequalities._region import Region, times

_STEPS, _CUTS = 400, 60
_PLAIN = 30  # Newton steps without proximal terms; a few are needed
_PULL = 1e-2  # proximal terms, of a row's stiffness
_INCREASE = 0.5  # least increase of the dual in a step, of that which its largest curvature ensures
_CLOSE = 1e-14  # relative residual at which the last corrections take over
_STALLED = 8  # steps without progress after which rounding is taken to hide it
_CORRECTIONS = 3
_SEARCHES = 20  # each leaves ε of the values before it, and ε²¹ is below the least number
_RIDGE = 1e-12  # of a row's stiffness, for Newton steps where rows depend on each other or have no free point
_SETTLED = 1e-6  # relative residual that the last corrections may be left with when the steps are over
_TOLERANCE = 1e-12  # of a row's residual relative to |b| + Σ|w u|


class Ascent:
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
        """The nearest fields, and which rows hold with equality and, if tracked, are independent.

        Where the rounding of the given fields hides what a row misses, as of a total that is nearly 0, the search goes
        on from what it found, with the rounding of that: until the rows hold, or nothing moves any more.
        """
        u, goal, force = self.projected()
        search, before = self, self.x
        for _ in range(_SEARCHES):
            if search.worst <= _TOLERANCE or torch.equal(u, before):
                break
            search, before = Ascent(self.region, u, goal), u
            u = search.projected()[0]
        search.check()
        return u, self.region.independent(u, force) if tracked and self.far > 1 else force

    def projected(self) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest fields, the right-hand sides that their rows shall have, and which rows hold with equality."""
        climbs = self.far and not self.searched
        u, multiplier = self.climb() if climbs else self.evaluate(self.x)
        force = ~self.bounded | (multiplier > 0)
        if climbs:
            u, multiplier = self.corrected(u, multiplier, force)
        return u, self.target + self.region.noise * multiplier, force

    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """u and the multipliers of the near rows, or of a single one, from z ``(s, p, n)``."""
        region = self.region
        if not (self.near or self.searched or region.length):
            return torch.minimum(torch.maximum(z, region.lower), region.upper), z[..., :0]
        u, multiplier, self.worst = _searched(region, z, self.target, self.searched)
        return u, multiplier

    def climb(self) -> tuple[Tensor, Tensor]:
        """u and the multipliers of all rows at the top of the dual.

        Newton's steps with the ridge of Levenberg and Marquardt; for fields that do not converge, as on corners with
        more rows than points, those of the proximal method of multipliers (Rockafellar 1976): the dual less
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
            if bool((going & (stalled >= _STALLED)).any()):
                going = going & ((stalled < _STALLED) | ~self.is_resolved(u, multiplier))
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
            shift = self.region.metric * times(step, self.region.far)
            fraction, u, close = self.along((z, shift), multiplier, (step, longest), residual)
            z, stepped = z - fraction[..., None] * shift, multiplier + fraction[..., None] * step
            gone = self.bounded[self.near :] & (stepped <= 4 * torch.finfo(z.dtype).eps * multiplier.abs())
            multiplier = torch.where(gone, 0.0, stepped)
            ridge = torch.where(fraction < 0.2, (10 * ridge).clamp(1e-8, 1.0), (0.1 * ridge).clamp_min(_RIDGE))
        else:
            worst = float(self.residual(u, multiplier)[1].max())
            if not worst <= _SETTLED:
                raise ConvergenceError(
                    f"The nearest field was not found in {_STEPS} steps, which miss its conditions by {worst:.3g} "
                    "(relative to |b| + Σ|w u|): no field meets law and inequalities together, or they nearly "
                    "contradict each other. Check right-hand sides, bounds, and means and variances of the prior."
                )
        return u, torch.cat([close, multiplier], dim=-1)

    def residual(self, u: Tensor, multiplier: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of the dual, G u − σ²λ − b − E (λ − λ₀) of the far rows, and the largest misses of optimality
        relative to |b| + Σ|G u|, without E and with it."""
        rows, goal = self.region.far, self.target[..., self.near :]
        residual = times(u, rows.mT) - goal - self.region.noise[..., self.near :] * multiplier
        size = times(self.scale(u), rows.abs().mT) + goal.abs()
        size = size.clamp_min(torch.finfo(u.dtype).tiny)
        pulled = residual - self.pull * (multiplier - self.centre)
        loose = self.bounded[self.near :] & (multiplier == 0)
        missed, near = (torch.where(loose, r.clamp_min(0.0), r.abs()) for r in (residual, pulled))
        return (
            pulled,
            (missed / size).amax(dim=-1),
            (near / (size + (self.pull * multiplier).abs().amax(-1, True))).amax(-1),
        )

    def is_resolved(self, u: Tensor, multiplier: Tensor) -> Tensor:
        """Whether far rows are missed by no more than rounding of the given fields ``(s, p)``, at bounds as well."""
        rows, bounded = self.region.far, self.bounded[self.near :]
        goal = self.target[..., self.near :] + self.region.noise[..., self.near :] * multiplier
        missed = times(u, rows.mT) - goal
        missed = torch.where(bounded & (multiplier == 0), missed.clamp_min(0.0), missed.abs())
        return (missed <= _TOLERANCE * times(torch.maximum(u.abs(), self.x.abs()), rows.abs().mT)).all(dim=-1)

    def scale(self, u: Tensor) -> Tensor:
        """The size of the numbers whose rounding is in u ``(s, p, n)``."""
        inside = (u > self.region.lower) & (u < self.region.upper)
        return torch.where(inside, torch.maximum(u.abs(), self.x.abs()), u.abs())

    def direction(
        self, at: tuple[Tensor, Tensor, Tensor], multipliers: tuple[Tensor, Tensor], residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A direction of ascent with λ ≥ 0 for inequalities, and how far it leads: Newton's step, bent at λ = 0."""
        (z, u, ridge), (close, multiplier) = at, multipliers
        bounded, ridges = self.bounded[self.near :], ridge[..., None] * self.stiffness[..., self.near :]
        # Near rows are solved for, and only what is exact of them leaves the far rows their residual.
        near = self.floor[..., : self.near].expand(*ridges.shape[:-1], self.near)
        floor = torch.cat([near, ridges + self.pull], dim=-1)
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
        """The fraction of the step after which the dual has increased enough, with u and multipliers there.

        Along the step the dual is concave: its slope falls from a to e at a fraction t, by L = pᵀ (G V Gᵀ + σ² + E) p
        a unit at most. Where e < 0 it has then increased by (a − e)²/2L + e t at least, a²/2L at the top of a parabola.
        Asking for a part of the latter makes the climb converge (Zoutendijk 1970), whereas steps that may decrease it
        can go round in circles. Between a/2L and a/L, which halving reaches, a step increases it by 3a²/8L.
        """
        (z, shift), (step, longest) = start, way
        far, slope = slice(self.near, None), (step * residual).sum(dim=-1)
        curvature = (shift * times(step, self.region.far)).sum(dim=-1)
        curvature = curvature + ((self.region.noise[..., far] + self.pull) * step.square()).sum(dim=-1)
        fraction, u, close = longest.clamp_max(1.0), z, z
        for _ in range(_CUTS):
            u, close = self.evaluate(z - fraction[..., None] * shift)
            there = (step * self.residual(u, multiplier + fraction[..., None] * step)[0]).sum(dim=-1)
            increase = (slope - there).square() + 2 * curvature * fraction * there
            over = (there < 0) & (increase < _INCREASE * slope.square())
            if not bool(over.any()):
                break
            fraction = torch.where(over, fraction * (slope / (slope - there)).clamp(0.0, 0.5), fraction)
        return fraction, u, close

    def corrected(self, u: Tensor, multiplier: Tensor, force: Tensor) -> tuple[Tensor, Tensor]:
        """Moves the free points until the rows in force hold to round-off; with the multipliers of this."""
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
        size = size.maximum(self.target.abs())  # the noise of a row may make its goal round-off
        self.worst = float((missed / size.clamp_min(tiny)).max())
        return u, multiplier

    def check(self) -> None:
        """Raises ConvergenceError unless the rows hold."""
        if not self.worst <= _TOLERANCE:
            raise ConvergenceError(
                f"The law is missed by {self.worst:.3g} of |b| + Σ|w u| (required {_TOLERANCE:g}): no field meets law "
                "and inequalities together, or the prior is further from them than float64 resolves. Check the "
                "right-hand sides and the bounds, means and variances of the prior."
            )


def _searched(region: Region, z: Tensor, target: Tensor, single: bool) -> tuple[Tensor, Tensor, float]:
    """The compiled search for the multiplier of every near row, of a single row, or of none if fields are ordered."""
    from probconserv.inequalities._kernels import project_rows

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


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.numpy())
