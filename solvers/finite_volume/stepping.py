"""Time stepping: explicit strong-stability-preserving Runge–Kutta, implicit Euler and TR-BDF2 with step control.

A stepper proposes the time-averaged face fluxes F̄ of a step; only ``advance`` changes the state, u ← u − Δt ∇·F̄, and
adds Δt F̄ on the sides to the time-integrated boundary flux. The total therefore balances to round-off with every
stepper, whatever the tolerance of its Newton iteration.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.finite_volume._semi_discretisation import DiffusiveScheme, Fluxes, Scheme, divergence, side_fluxes
from solvers.finite_volume.newton import Newton, Stage, StageSolution, solve_stage

_FLOOR = 1e-12
_GROWTH = 5.0
_SAFETY = 0.9


@dataclass
class State:
    """State of an integration; ``advance`` updates it.

    Attributes:
        u: Cell averages ``(*batch, *space)``.
        time: Time.
        boundary_flux: Time-integrated flux through every side since the start ``(*batch, 2d)``.
        scale: Size of the solution per batch entry ``(*batch,)``: the largest |u| so far, boundary values included.
        step: Step to try next.
        memory: Data that the stepper keeps from the last step, None at the start.
    """

    u: Tensor
    time: float
    boundary_flux: Tensor
    scale: Tensor
    step: float
    memory: Any = None


@dataclass(frozen=True)
class Attempt:
    """Result of a trial step.

    Attributes:
        accepted: Whether the step is accepted.
        factor: Ratio of the next step to this one.
        fluxes: Time-averaged face fluxes F̄ along every axis (empty if not accepted).
        memory: Data that the stepper keeps.
        residual: Newton residual, or ratio of error or speed to the allowed one.
    """

    accepted: bool
    factor: float
    fluxes: Fluxes
    memory: Any
    residual: float


class Stepper(ABC):
    """A time-stepping method."""

    first_fraction: float

    @abstractmethod
    def attempt(self, scheme: Any, state: State, step: float) -> Attempt:
        """Computes a trial step without changing the state.

        Args:
            scheme: Law, grid and boundary conditions.
            state: Current state.
            step: Time step Δt.

        Returns:
            The attempt.
        """


@dataclass(frozen=True)
class SSPRK3(Stepper):
    """Third-order strong-stability-preserving Runge–Kutta method (Shu and Osher 1988), explicit.

    Args:
        courant: Fraction of a cell that the fastest signal of the batch may cross in a step, in (0, 1].

    Raises:
        InvalidArgumentError: If the Courant number is outside (0, 1].
    """

    courant: float = 0.5

    first_fraction = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.courant <= 1:
            raise InvalidArgumentError(f"courant must be in (0, 1], got {self.courant}.")

    def attempt(self, scheme: Scheme, state: State, step: float) -> Attempt:
        first, rate = state.memory or scheme.fluxes(state.u, state.time)
        kept = (first, rate)
        if not step * rate <= self.courant * (1 + 1e-9):
            factor = self.courant / (step * rate) if 0 < rate < inf else 0.5
            return Attempt(accepted=False, factor=factor, fluxes=(), memory=kept, residual=step * rate)
        slope = divergence(first, scheme.grid)
        second, second_rate = scheme.fluxes(state.u - step * slope, state.time + step)
        slope += divergence(second, scheme.grid)
        third, third_rate = scheme.fluxes(state.u - 0.25 * step * slope, state.time + 0.5 * step)
        crossed = step * max(second_rate, third_rate)
        if not crossed <= 1.0:
            return Attempt(accepted=False, factor=0.5, fluxes=(), memory=kept, residual=crossed)
        mean = tuple((a + b + 4.0 * c) / 6.0 for a, b, c in zip(first, second, third, strict=True))
        factor = min(_GROWTH, self.courant / (step * rate)) if rate > 0 else _GROWTH
        return Attempt(accepted=True, factor=factor, fluxes=mean, memory=None, residual=crossed)


@dataclass(frozen=True)
class BackwardEuler(Stepper):
    """Implicit Euler, first order; monotone, so it creates no new extrema with the integral mean.

    Args:
        tolerance: Estimated error of a step, as mean |error| over the size of the solution; ``inf`` for no control.
        largest_step: Upper bound of the step.
        newton: Stopping criterion of Newton's iteration.

    Raises:
        InvalidArgumentError: If the tolerance or the largest step is not positive.
    """

    tolerance: float = 1e-3
    largest_step: float = inf
    newton: Newton = field(default_factory=Newton)

    first_fraction = 1e-4

    def __post_init__(self) -> None:
        _check_control(self.tolerance, self.largest_step)

    def attempt(self, scheme: DiffusiveScheme, state: State, step: float) -> Attempt:
        if step > self.largest_step * (1 + 1e-9):
            return _too_long(self.largest_step / step, state)
        before, guess = _history(scheme, state, step)
        stage = Stage(state.u, step, state.time + step, state.scale)
        solution = solve_stage(scheme, stage, guess, self.newton)
        if not solution.converged:
            return _newton_failed(solution, state)
        change = tuple(0.5 * (b - a) for a, b in zip(before, solution.fluxes, strict=True))
        error = _error_ratio(change, scheme, state, step) / self.tolerance
        return _controlled(error, 1 / 2, solution.fluxes, (solution.fluxes, state.u, step))


@dataclass(frozen=True)
class TRBDF2(Stepper):
    """Trapezoid then BDF2 in one step (Bank et al. 1985): second order, L-stable, error by an embedded third order.

    With γ = 2 − √2, d = γ/2, w = √2/4: u₂ = u + Δt d (f₁ + f₂), u₃ = u + Δt (w f₁ + w f₂ + d f₃), as in Hosea and
    Shampine, Appl. Numer. Math. 20, 1996.

    Args:
        tolerance: Estimated error of a step, as mean |error| over the size of the solution; ``inf`` for no control.
        largest_step: Upper bound of the step.
        newton: Stopping criterion of Newton's iteration.

    Raises:
        InvalidArgumentError: If the tolerance or the largest step is not positive.
    """

    tolerance: float = 1e-3
    largest_step: float = inf
    newton: Newton = field(default_factory=Newton)

    first_fraction = 1e-4

    def __post_init__(self) -> None:
        _check_control(self.tolerance, self.largest_step)

    def attempt(self, scheme: DiffusiveScheme, state: State, step: float) -> Attempt:
        if step > self.largest_step * (1 + 1e-9):
            return _too_long(self.largest_step / step, state)
        gamma = 2.0 - 2.0**0.5
        d, w = 0.5 * gamma, 2.0**0.5 / 4.0
        first, guess = _history(scheme, state, gamma * step)
        slope = divergence(first, scheme.grid)
        stage = Stage(state.u - step * d * slope, step * d, state.time + gamma * step, state.scale)
        middle = solve_stage(scheme, stage, guess, self.newton)
        if not middle.converged:
            return _newton_failed(middle, state)
        slope += divergence(middle.fluxes, scheme.grid)
        stage = Stage(state.u - step * w * slope, step * d, state.time + step, state.scale)
        end = solve_stage(scheme, stage, state.u + (middle.u - state.u) / gamma, self.newton)
        if not end.converged:
            return _newton_failed(end, state)
        stages = tuple(zip(first, middle.fluxes, end.fluxes, strict=True))
        mean = tuple(w * (a + b) + d * c for a, b, c in stages)
        a_part, b_part, c_part = w - (1.0 - w) / 3.0, w - (3.0 * w + 1.0) / 3.0, d - d / 3.0
        error = _error_ratio(tuple(a_part * a + b_part * b + c_part * c for a, b, c in stages), scheme, state, step)
        return _controlled(error / self.tolerance, 1 / 3, mean, (end.fluxes, state.u, step))


def advance(
    scheme: Scheme, stepper: Stepper, state: State, target: float, report: Callable[[float], None] | None = None
) -> None:
    """Integrates a state to a target time.

    Args:
        scheme: Law, grid and boundary conditions.
        stepper: Time-stepping method.
        state: State, changed in place.
        target: Time to reach; the last step ends there.
        report: Called with the length of every accepted step.

    Raises:
        SolverDivergedError: If a step fails at the smallest step, 10⁻¹² of the time span.
    """
    floor = _FLOOR * max(abs(target), target - state.time)
    while state.time < target:
        step, lands = _landing(state.step, target - state.time)
        attempt = stepper.attempt(scheme, state, step)
        u = state.u - step * divergence(attempt.fluxes, scheme.grid) if attempt.accepted else state.u
        if attempt.accepted and bool(torch.isfinite(u).all()):
            state.boundary_flux = state.boundary_flux + step * side_fluxes(attempt.fluxes, scheme.grid)
            state.u, state.memory = u, attempt.memory
            state.time = target if lands else state.time + step
            state.step = max(attempt.factor * step, state.step if step < state.step else 0.0)
            state.scale = torch.maximum(state.scale, u.abs().amax(tuple(range(-scheme.grid.dimension, 0))))
            if report is not None:
                report(step)
            continue
        state.step = step * min(attempt.factor, 0.5 if attempt.accepted else 1.0)
        state.memory = attempt.memory if not attempt.accepted else None
        if state.step < floor:
            raise SolverDivergedError(
                f"{type(stepper).__name__} failed at time {state.time:.6g} with step {step:.3g} (smallest allowed "
                f"{floor:.3g}), residual {attempt.residual:.3g}. Use more cells or smoother data; for a discontinuous "
                "conductivity take IntegralMean() or the explicit SSPRK3()."
            )


def _landing(step: float, remaining: float) -> tuple[float, bool]:
    """The next step, without a tiny one before the target, and whether it ends at the target."""
    if step >= remaining * (1 - 1e-9):
        return remaining, True
    return min(step, 0.5 * remaining), False


def _history(scheme: DiffusiveScheme, state: State, ahead: float) -> tuple[Fluxes, Tensor]:
    """Fluxes at the state's time and a guess of u at a later time, extrapolated from the last step."""
    if state.memory is None:
        return tuple(face.value for face in scheme.linearise(state.u, state.time)), state.u
    fluxes, earlier, step = state.memory
    return fluxes, state.u + (ahead / step) * (state.u - earlier)


def _error_ratio(fluxes: Fluxes, scheme: Scheme, state: State, step: float) -> float:
    """Largest over the batch of mean |Δt ∇·F|/scale."""
    space = tuple(range(-scheme.grid.dimension, 0))
    error = step * divergence(fluxes, scheme.grid).abs().mean(space)
    return float((error / state.scale).max())


def _controlled(error: float, exponent: float, fluxes: Fluxes, memory: Any) -> Attempt:
    if not isfinite(error):
        return Attempt(accepted=False, factor=0.5, fluxes=(), memory=None, residual=error)
    factor = min(_GROWTH, max(0.2, _SAFETY * error**-exponent)) if error > 0 else _GROWTH
    if error > 1.0:
        return Attempt(accepted=False, factor=min(factor, _SAFETY), fluxes=(), memory=None, residual=error)
    return Attempt(accepted=True, factor=factor, fluxes=fluxes, memory=memory, residual=error)


def _newton_failed(solution: StageSolution, state: State) -> Attempt:
    return Attempt(accepted=False, factor=0.5, fluxes=(), memory=state.memory, residual=solution.residual)


def _too_long(factor: float, state: State) -> Attempt:
    return Attempt(accepted=False, factor=factor, fluxes=(), memory=state.memory, residual=0.0)


def _check_control(tolerance: float, largest_step: float) -> None:
    if not (tolerance > 0 and largest_step > 0):
        raise InvalidArgumentError(f"tolerance and largest_step must be positive, got {tolerance} and {largest_step}.")
