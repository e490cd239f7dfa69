"""The Euler equations of gas dynamics."""

from dataclasses import dataclass

import numpy as np

from solvers._arguments import check_positive_number
from solvers._compiled import compiled
from solvers.errors import InvalidArgumentError
from solvers.systems.pointwise import PointFunctions, PointwiseLaw, State


@dataclass(frozen=True)
class Euler(PointwiseLaw):
    """An ideal gas in one or two axes: density ρ, momentum ρv along every axis and energy E.

    ρ_t + ∇·(ρv) = 0,  (ρv)_t + ∇·(ρ v⊗v + p I) = 0,  E_t + ∇·((E + p) v) = 0 with the pressure
    p = (γ − 1)(E − ½ρ|v|²). Density and pressure are positive.

    Args:
        gamma: γ > 1, the ratio of specific heats.

    Raises:
        InvalidArgumentError: If gamma is not one finite number above 1.
    """

    gamma: float = 1.4

    def __post_init__(self) -> None:
        check_positive_number(self.gamma, "Euler: gamma")
        if self.gamma <= 1:
            raise InvalidArgumentError(f"Euler: gamma must be above 1, the ratio of specific heats, got {self.gamma}.")

    def components(self, dimension: int) -> tuple[str, ...]:
        if dimension > 2:
            raise InvalidArgumentError(f"Euler has one or two space axes, got {dimension}.")
        return ("density", *("mx", "my")[:dimension], "energy")

    def functions(self, dimension: int) -> PointFunctions:
        return PointFunctions(
            flux=(line_flux, plane_flux)[dimension - 1],
            eigenvalues=gas_speeds,
            admissible=gas_exists,
            reflect=(line_mirror, plane_mirror)[dimension - 1],
            parameters=(float(self.gamma),),
        )


@compiled
def pressure(u: State, gamma: float) -> float:
    """(γ − 1)(E − ½ρ|v|²)."""
    momentum_squared = u[1] * u[1] if len(u) == 3 else u[1] * u[1] + u[2] * u[2]
    return (gamma - 1.0) * (u[-1] - 0.5 * momentum_squared * (1.0 / u[0]))


@compiled
def line_flux(u: State, axis: int, gamma: float) -> State:  # noqa: ARG001 - one signature for any number of axes
    speed, p = u[1] * (1.0 / u[0]), pressure(u, gamma)
    return u[1], u[1] * speed + p, (u[2] + p) * speed


@compiled
def plane_flux(u: State, axis: int, gamma: float) -> State:
    speed, p = u[1 + axis] * (1.0 / u[0]), pressure(u, gamma)
    along = p if axis == 0 else 0.0
    return u[0] * speed, u[1] * speed + along, u[2] * speed + (p - along), (u[3] + p) * speed


@compiled
def gas_speeds(u: State, axis: int, gamma: float) -> State:
    """Slowest and fastest wave."""
    volume = 1.0 / u[0]
    speed, sound = u[1 + axis] * volume, np.sqrt(gamma * pressure(u, gamma) * volume)
    return speed - sound, speed + sound


@compiled
def gas_exists(u: State, gamma: float) -> bool:
    """Whether density and pressure are positive."""
    return u[0] > 0.0 and pressure(u, gamma) > 0.0


@compiled
def line_mirror(u: State, axis: int, gamma: float) -> State:  # noqa: ARG001 - one signature for any number of axes
    return u[0], -u[1], u[2]


@compiled
def plane_mirror(u: State, axis: int, gamma: float) -> State:  # noqa: ARG001 - one signature for all laws
    return (u[0], -u[1], u[2], u[3]) if axis == 0 else (u[0], u[1], -u[2], u[3])
