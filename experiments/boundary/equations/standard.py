"""The boundary-condition problems: equations, conditions, random inputs and reference solutions, by name.

All quantities are dimensionless. Functions build problems with options (viscosity, type of boundary data);
``BOUNDARY_PROBLEMS`` has the standard ones by name. Source: Saad et al. 2023. Its appendix was not available in full;
``reconstructed`` lists the settings that we had to choose.
"""

from collections.abc import Callable
from dataclasses import replace
from math import pi
from numbers import Integral

import torch
from torch import Tensor

from experiments.boundary.equations import exact
from experiments.boundary.equations.cavity import solve_cavity
from experiments.boundary.equations.exact import Harmonics
from experiments.boundary.equations.problem import (
    BoundaryProblem,
    Fields,
    Normal,
    Parameter,
    Parameters,
    SidePairs,
    Uniform,
)
from experiments.boundary.equations.spectral import evaluate, random_field, solve_periodic_burgers
from solvers.conditions import Dirichlet, Neumann, Periodic
from solvers.errors import InvalidArgumentError
from solvers.grids import NodeGrid

_FLOWS_TOGETHER = 50  # memory: 26 times of 99 × 99 nodes, twice
_FIELD_MODES = 128
_INITIAL_MODES = 10
_DIFFUSIVITY = 0.02


def stokes(viscosity: float = 0.02) -> BoundaryProblem:
    """Stokes' second problem at a viscosity; the paper's series has ν = 0.1, 0.02, 0.005, 0.002, 0.001."""
    return BoundaryProblem(
        name="stokes",
        equation="u_t = ν u_yy",
        conditions=((Dirichlet(), Dirichlet()),),
        parameters=(Parameter(name="frequency", symbol="ω", distribution=Uniform(3.0, 4.0)),),
        fields=_closed_form(lambda t, y, frequency: exact.stokes(t, y, frequency, viscosity)),
        constants={"viscosity": viscosity},
        single_time=2.0,
        final_times=(2.0,),
        reconstructed="range of ω, values of ν, output times",
    )


def burgers_dirichlet(viscosity: float = 0.02) -> BoundaryProblem:
    """Viscous Burgers' travelling wave; the paper's series has ν = 0.1, 0.05, 0.02, 0.005, 0.001."""
    return BoundaryProblem(
        name="burgers_dirichlet",
        equation="u_t + (u²/2)_x = ν u_xx",
        conditions=((Dirichlet(), Dirichlet()),),
        parameters=(
            Parameter(name="left", symbol="u_L", distribution=Uniform(1.0, 1.5)),
            Parameter(name="right", symbol="u_R", distribution=Uniform(-0.5, 0.0)),
        ),
        fields=_closed_form(lambda t, x, left, right: exact.burgers_wave(t, x, left, right, viscosity)),
        constants={"viscosity": viscosity},
        single_time=0.5,
        final_times=(0.5,),
        reconstructed="ranges of u_L and u_R, values of ν, output times",
    )


def _closed_form(solution: Callable[..., Tensor]) -> Fields:
    """The fields of a problem from u(t, x, **parameters), one number each."""

    def fields(parameters: Parameters, grid: NodeGrid, times: Tensor) -> tuple[Tensor, Tensor]:
        start, later = ({p: each[at] for p, each in parameters.items()} for at in ((..., None), (..., None, None)))
        return solution(0.0, grid.points, **start), solution(times[:, None], grid.points, **later)

    return fields


def heat_neumann(diffusivity: float = 0.01, heater: float = 5.0) -> BoundaryProblem:
    """Heat between an insulator and a heater."""

    def fields(parameters: Parameters, grid: NodeGrid, times: Tensor) -> tuple[Tensor, Tensor]:
        omega = parameters["frequency"][:, None, None]
        later = exact.heat_insulator(times[:, None], grid.points, omega, diffusivity, heater)
        return torch.cos(pi * omega[..., 0] * grid.points), later

    def gradients(parameters: Parameters, times: Tensor) -> SidePairs:
        warm = exact.heater_gradient(times, heater).expand(len(parameters["frequency"]), -1)
        return ((torch.zeros_like(warm), warm),)

    return BoundaryProblem(
        name="heat_neumann",
        equation="u_t = k u_xx + Uπ(x²/2) cos πt",
        conditions=((Neumann(), Neumann()),),
        parameters=(Parameter(name="frequency", symbol="ω", distribution=Uniform(2.01, 3.99)),),
        fields=fields,
        gradients=gradients,
        constants={"diffusivity": diffusivity, "heater": heater},
        single_time=0.5,
        final_times=(0.5, 2.0),
    )


def wave_neumann(modes: int | None = None) -> BoundaryProblem:
    """Standing waves on the unit square with zero normal derivative at the walls.

    Args:
        modes: None for the paper's single mode (1, 1) with amplitude in [3, 4]; a number for all modes with
            m, n < modes, amplitudes in [−1, 1].

    Raises:
        InvalidArgumentError: If the number of modes is no integer of at least 1.
    """
    if modes is not None and (not isinstance(modes, Integral) or modes < 1):
        raise InvalidArgumentError(f"modes of wave_neumann must be an integer of at least 1, or None, got {modes!r}.")

    def fields(parameters: Parameters, grid: NodeGrid, times: Tensor) -> tuple[Tensor, Tensor]:
        x, y = grid.axes[0][:, None], grid.axes[1]
        amplitudes = parameters["amplitude"]
        if modes is None:
            amplitudes = torch.nn.functional.pad(amplitudes[:, None, None], (1, 0, 1, 0))
        start = exact.wave(0.0, x, y, amplitudes[:, None, None])
        return start, exact.wave(times[:, None, None], x, y, amplitudes[:, None, None, None])

    amplitude = Parameter(name="amplitude", symbol="A", distribution=Uniform(3.0, 4.0))
    if modes is not None:
        amplitude = replace(amplitude, distribution=Uniform(-1.0, 1.0), shape=(modes, modes))
    return BoundaryProblem(
        name="wave_neumann" if modes is None else "wave_neumann_modes",
        equation="u_tt = c² ∇²u",
        conditions=((Neumann(), Neumann()),) * 2,
        parameters=(amplitude,),
        fields=fields,
        gradients=_still_walls,
        constants={"speed": 1.0},
        single_time=2.0,
        final_times=(2.0,),
        reconstructed="range of the amplitude, output times",
    )


def _still_walls(parameters: Parameters, times: Tensor) -> SidePairs:
    still = torch.zeros(len(parameters["amplitude"]), len(times), 1, dtype=torch.float64)
    return ((still, still), (still, still))


def burgers_periodic(viscosity: float = 0.1) -> BoundaryProblem:
    """Periodic Burgers from Gaussian random fields, truncated to 128 wave numbers."""

    def fields(parameters: Parameters, grid: NodeGrid, times: Tensor) -> tuple[Tensor, Tensor]:
        start = random_field(parameters["noise"])
        later = solve_periodic_burgers(start, times, viscosity)
        return _closed(evaluate(start, grid.points)), _closed(evaluate(later, grid.points))

    return BoundaryProblem(
        name="burgers_periodic",
        equation="u_t + (u²/2)_x = ν u_xx",
        conditions=((Periodic(), Periodic()),),
        parameters=(Parameter(name="noise", symbol="ξ", distribution=Normal(), shape=(2, _FIELD_MODES + 1)),),
        fields=fields,
        constants={"viscosity": viscosity},
        single_time=1.0,
        final_times=(1.0,),
        reconstructed="value of ν, output times",
    )


def cavity(viscosity: float = 0.01, refinement: int = 2) -> BoundaryProblem:
    """Vorticity in the lid-driven cavity, Re = lid speed/ν, from t = 0.08 after the impulsive start.

    Solved with ``refinement`` times as many intervals, of which every ``refinement``-th node is kept. The vorticity is
    infinite at the upper corners; these nodes are set to the mean of the two neighbouring wall nodes.
    """
    start = 0.08

    def fields(parameters: Parameters, grid: NodeGrid, times: Tensor) -> tuple[Tensor, Tensor]:
        nodes, outputs = refinement * (grid.count[0] - 1) + 1, torch.cat((times.new_tensor([start]), times))
        parts = [
            solve_cavity(lid, nodes, outputs, viscosity).vorticity[..., ::refinement, ::refinement].clone()
            for lid in parameters["lid_speed"].split(_FLOWS_TOGETHER)
        ]
        vorticity = torch.cat(parts)
        for corner, neighbour in ((0, 1), (-1, -2)):
            vorticity[..., corner, -1] = 0.5 * (vorticity[..., neighbour, -1] + vorticity[..., corner, -2])
        return vorticity[:, 0], vorticity[:, 1:]

    return BoundaryProblem(
        name="cavity",
        equation="ω_t + u ω_x + v ω_y = ν ∇²ω",
        conditions=((Dirichlet(), Dirichlet()),) * 2,
        parameters=(Parameter(name="lid_speed", symbol="U", distribution=Uniform(1.0, 1.5)),),
        fields=fields,
        constants={"viscosity": viscosity, "refinement": refinement},
        start=start,
        single_time=2.0,
        final_times=(2.0,),
        reconstructed="range of the lid speed",
    )


def heat_independent(side: Dirichlet | Neumann | None = None, harmonics: int = 0) -> BoundaryProblem:
    """Heat with random data at both ends that are independent of the random initial field; k = 0.02, up to t = 1.

    The initial field has sines (cosines for Neumann) with amplitudes ξₙ/n, n = 1 … 10, ξ standard normal. Data at
    each end are a constant in [−1, 1], or the series Σ_j (a_j cos πjt + b_j sin πjt)/(1 + j), j = 0 … harmonics, with
    a and b in [−1, 1].

    Args:
        side: ``Dirichlet()``, the default, or ``Neumann()``.
        harmonics: 0 for constants.

    Raises:
        InvalidArgumentError: If the number of harmonics is negative, or side is another condition or has a value.
    """
    if harmonics < 0:
        raise InvalidArgumentError(f"harmonics of heat_independent must be 0 or more, got {harmonics}.")
    side = Dirichlet() if side is None else side
    if not isinstance(side, Dirichlet | Neumann) or any(value is not None for value in vars(side).values()):
        raise InvalidArgumentError(
            f"side of heat_independent must be Dirichlet() or Neumann(), without a value since its data are random, "
            f"got {side!r}."
        )
    neumann = isinstance(side, Neumann)
    shape = (harmonics + 1, 2) if harmonics else ()
    left = Parameter(name="left", symbol="g_0", distribution=Uniform(-1.0, 1.0), shape=shape)
    return BoundaryProblem(
        name="heat_independent" + ("_neumann" if neumann else "") + ("_series" if harmonics else ""),
        equation="u_t = k u_xx",
        conditions=((Neumann(), Neumann()) if neumann else (Dirichlet(), Dirichlet()),),
        parameters=(
            Parameter(name="initial", symbol="ξ", distribution=Normal(), shape=(_INITIAL_MODES,)),
            left,
            replace(left, name="right", symbol="g_1"),
        ),
        fields=_heat(neumann),
        gradients=_end_gradients if neumann else None,
        constants={"diffusivity": _DIFFUSIVITY, "harmonics": harmonics},
        single_time=1.0,
        final_times=(1.0,),
    )


def _heat(neumann: bool) -> Fields:
    """The fields for data at both ends, gradients or values."""
    solution, series = (
        (exact.heat_neumann, exact.cosine_series) if neumann else (exact.heat_dirichlet, exact.sine_series)
    )

    def fields(parameters: Parameters, grid: NodeGrid, times: Tensor) -> tuple[Tensor, Tensor]:
        initial = torch.nn.functional.pad(
            parameters["initial"] / torch.arange(1, _INITIAL_MODES + 1), (int(neumann), 0)
        )
        left, right = (_end_data(parameters[name], axes=2) for name in ("left", "right"))
        later = solution(times[:, None], grid.points, initial[:, None, None], left, right, _DIFFUSIVITY)
        return series(grid.points, initial[:, None]), later

    return fields


def _end_gradients(parameters: Parameters, times: Tensor) -> SidePairs:
    left, right = (_end_data(parameters[name], axes=1).at(times) for name in ("left", "right"))
    return ((left, right),)


def _end_data(values: Tensor, axes: int) -> Harmonics:
    """Data at one end from parameters ``(batch,)`` or ``(batch, j, 2)``, with axes after the batch to broadcast."""
    if values.ndim == 1:
        return exact.constant(values.reshape(-1, *[1] * axes))
    j = torch.arange(values.shape[1], dtype=torch.float64)
    amplitudes = torch.complex(values[..., 0], -values[..., 1]) / (1 + j)
    return Harmonics(amplitudes.reshape(len(values), *[1] * axes, -1), pi * j)


def _closed(values: Tensor) -> Tensor:
    """The last node of a periodic axis repeats the first, not only up to rounding."""
    values[..., -1] = values[..., 0]
    return values


BOUNDARY_PROBLEMS = {
    problem.name: problem
    for problem in (
        stokes(),
        burgers_dirichlet(),
        heat_neumann(),
        wave_neumann(),
        wave_neumann(modes=4),
        burgers_periodic(),
        cavity(),
        heat_independent(),
        heat_independent(harmonics=4),
        heat_independent(Neumann()),
        heat_independent(Neumann(), harmonics=4),
    )
}
