"""The search for the field nearest to a given one on {g(u) = 0}, which every use of a nonlinear law shares.

From a point p a step goes to the minimiser of ½ |p − c|² on the law linearised there (Gauss–Newton),

    t = c − Σ Jᵀ (J Σ Jᵀ)⁻¹ (g(p) + J (c − p)),   |a|² = aᵀ Σ⁻¹ a,

as far as the merit ½ |p − c|² + ν |g|₁ falls (Han 1977). Points are the fields themselves, with Jacobians of few
entries and c the given field, or the coordinates y ~ N(0, I) of a prediction, with c = 0.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from probconserv._linalg.rows import SparseRows

_HALVINGS = 12
_CLOSE = 1e-3  # error below which rounding decides whether the merit falls


@dataclass(frozen=True, kw_only=True, eq=False)
class Iterate:
    """A point of a search, and where the next step leads.

    Args:
        point: p ``(*batch, r)``.
        residual: g ``(*batch, k)``.
        rows: J ``(*batch, k, r)``.
        target: t ``(*batch, r)``.
        multipliers: λ = (J Σ Jᵀ)⁻¹ (g + J (c − p)) ``(*batch, k)``, up to its sign; None where t is not final.
        error: How far the point is from an end ``(*batch,)``.
    """

    point: Tensor
    residual: Tensor
    rows: Tensor | SparseRows
    target: Tensor
    multipliers: Tensor | None
    error: Tensor

    @property
    def step(self) -> Tensor:
        """t − p."""
        return self.target - self.point


class Space(ABC):
    """Points, their law and their metric; ``centre`` is c."""

    centre: Tensor

    @abstractmethod
    def at(self, point: Tensor) -> Iterate:
        """The law linearised at a point, and the step from there."""

    @abstractmethod
    def violation(self, point: Tensor) -> Tensor:
        """|g|₁ ``(*batch,)``."""

    @abstractmethod
    def product(self, first: Tensor, second: Tensor) -> Tensor:
        """aᵀ Σ⁻¹ b of changes ``(*batch,)``."""


class Newton(ABC):
    """Steps by second derivatives, where Gauss–Newton's are slow."""

    @abstractmethod
    def better(self, at: Iterate) -> Iterate | None:
        """A point much nearer to an end, if there is a way to one that is faster than steps."""

    @abstractmethod
    def bent(self, at: Iterate, length: Tensor) -> Iterate:
        """The point with another step, if the last one was cut to this length."""


def search(space: Space, start: Tensor, tolerance: float, iterations: int, newton: Newton | None = None) -> Iterate:
    """Runs the iteration from a start, for all batch entries together, until all meet the tolerance.

    Args:
        space: Points and law.
        start: p ``(*batch, r)``.
        tolerance: Of the error.
        iterations: Largest number of steps.
        newton: Further steps.

    Returns:
        The last iterate; its error may exceed the tolerance.
    """
    at = space.at(start)
    weight, length = torch.zeros_like(at.error), torch.ones_like(at.error)
    for _ in range(iterations):
        if at.multipliers is not None and bool((at.error <= tolerance).all()):
            break
        better = None if newton is None else newton.better(at)
        if better is not None:
            at = better
            continue
        at = at if newton is None else newton.bent(at, length)
        if at.multipliers is not None:
            weight = torch.maximum(weight, 1.1 * at.multipliers.abs().amax(dim=-1))
        length = _length(space, at, weight)
        if newton is not None and bool(((length <= 0.5**_HALVINGS) | (at.error <= tolerance)).all()):
            break  # no entry that is left can descend
        at = space.at(at.point + length[..., None] * at.step)
    return at


def _length(space: Space, at: Iterate, weight: Tensor) -> Tensor:
    """Largest of 1, ½, ¼ … for which the merit falls, 1 for steps that are small ``(*batch,)``."""
    change, step, violation = at.point - space.centre, at.step, weight * at.residual.abs().sum(dim=-1)
    merit = 0.5 * space.product(change, change) + violation
    slope = space.product(change, step) - violation  # along the step the violation falls by itself to first order
    accepted, length = at.error <= _CLOSE, torch.ones_like(merit)
    for _ in range(_HALVINGS):
        if bool(accepted.all()):
            break
        trial = at.point + length[..., None] * step
        change = trial - space.centre
        value = 0.5 * space.product(change, change) + weight * space.violation(trial)
        accepted = accepted | (value <= merit + 1e-4 * length * slope + 1e-12 * merit.abs())
        length = torch.where(accepted, length, 0.5 * length)
    return length
