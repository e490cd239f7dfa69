"""The problems: solutions of few random parameters, in closed form, of a scheme, or of our solver."""

import numpy as np
import torch
from torch import Tensor

from experiments import media
from experiments.generation.problems import GenerationProblem, Points
from solvers import CellGrid, Diffusion, Logistic, Neumann, solve
from solvers.problems import exact

FRONT = 0.02
"""Width of the initial front of Burgers' equation."""
DIFFUSIVITY, RATE = 0.01, 1.0
"""ν and ρ of reaction and diffusion."""

BUMPS, OTHERS, CELLS = (3, 6), 22, 48
"""Bumps of a random profile, numbers that say all but the conductivity, and cells at most."""


def _stokes(t: Tensor, y: Tensor, k: Tensor, omega: Tensor) -> Tensor:
    return 2 * torch.exp(-k * y) * torch.cos(k * y - omega * t)


def _heat(t: Tensor, x: Tensor, diffusivity: Tensor, phase: Tensor) -> Tensor:
    return torch.exp(-diffusivity * t) * torch.sin(x + phase)


def _stefan(t: Tensor, x: Tensor, threshold: Tensor) -> Tensor:
    # The similarity constant of a parameter is searched for once, not at every point.
    return torch.cat([exact.stefan(t, x, float(value))[None] for value in threshold.flatten()])


def _burgers(t: Tensor, x: Tensor, front: Tensor, inflow: Tensor) -> Tensor:
    """Godunov's scheme with a step from each time to the next, for values in [0, 1]: the wind blows from the left."""
    ratio = float(t[1] - t[0]) / float(x[1] - x[0])
    u, sides = torch.sigmoid((front - x) / FRONT)[:, 0], inflow[:, 0]
    values = [u]
    for _ in range(len(t) - 1):
        u = u - ratio * (0.5 * torch.cat([sides, u], dim=-1).square()).diff(dim=-1)
        values.append(u)
    return torch.stack(values, dim=1)


def _reaction_diffusion(t: Tensor, x: Tensor, phase: Tensor, inflow: Tensor) -> Tensor:
    u = 0.4 + 0.3 * torch.cos(2 * torch.pi * (x - phase))[:, 0]
    sides = (Neumann(flux=inflow[:, 0, 0]), Neumann(flux=0.0))
    times, grid = t.flatten(), CellGrid(0.0, 1.0, len(x))
    solution = solve(Diffusion(DIFFUSIVITY), grid, sides, u, times[1:], source=Logistic(RATE))
    return torch.cat([u[:, None], solution.values], dim=1)


def _random_media(t: Tensor, x: Tensor, *uniform: Tensor) -> Tensor:
    """Of 3 to 6 bumps, two inflows, an exponent, and a random number for the conductivity of every cell."""
    numbers = torch.cat(uniform, dim=-1)[:, 0]
    few, many = BUMPS
    centre, width, height = numbers[:, : 3 * many].reshape(-1, 3, many, 1).unbind(dim=1)
    number, first, second, exponent, *_ = numbers[:, 3 * many :, None, None].unbind(dim=1)
    start = media.profiles(x, few + ((many - few + 1) * number).floor(), centre, width, height)
    normals = torch.special.ndtri(numbers[:, OTHERS : OTHERS + len(x)])
    conductivity = media.conductivities(normals, x, roughness=0.7, length=0.15)
    flux = 2.5 * torch.stack([first, second])[..., 0, 0].square()
    grid = CellGrid(0.0, 1.0, len(x))
    return media.flows_through(grid, t.flatten(), start, 1 + exponent[:, 0, 0], conductivity, flux)


STOKES = GenerationProblem(
    name="stokes", label="Stokes' second problem", ranges=((2.0, 20.0), (2.0, 8.0)), modes=24, solution=_stokes
)
"""u = 2 e^(−k y) cos(k y − ω t), k in [2, 20] and ω in [2, 8] (Cheng et al. 2025)."""
HEAT = GenerationProblem(
    name="heat",
    label="heat equation",
    ranges=((1.0, 5.0), (0.0, np.pi)),
    lengths=(1.0, 2 * np.pi),
    points=Points.CIRCLE,
    modes=8,
    solution=_heat,
)
"""u = e^(−α t) sin(x + φ) with period 2π, α in [1, 5] and φ in [0, π] (Utkarsh et al. 2025)."""
STEFAN = GenerationProblem(
    name="stefan",
    label="Stefan problem",
    ranges=((0.55, 0.7),),
    lengths=(0.1, 1.0),
    bounds=(0.0, 1.0),
    modes=24,
    solution=_stefan,
)
"""Melting with the threshold u* in [0.55, 0.7] (Hansen et al. 2023; Cheng et al. 2025)."""
POROUS_MEDIUM = GenerationProblem(
    name="porous_medium",
    label="porous medium equation",
    ranges=((1.0, 6.0),),
    bounds=(0.0, np.inf),
    modes=6,
    solution=exact.porous_medium,
)
"""u = (m max(t − x, 0))^(1/m), m in [1, 6] (Hansen et al. 2023; Cheng et al. 2025)."""
BURGERS = GenerationProblem(
    name="burgers",
    label="Burgers' equation",
    ranges=((0.2, 0.6), (0.0, 1.0)),
    lengths=(0.6, 1.0),
    points=Points.CELLS,
    bounds=(0.0, 1.0),
    modes=24,
    solution=_burgers,
)
"""Godunov's scheme from 1/(1 + e^((x − p)/0.02)), p in [0.2, 0.6], with the value b in [0, 1] on the left side (after
Utkarsh et al. 2025)."""
REACTION_DIFFUSION = GenerationProblem(
    name="reaction_diffusion",
    label="reaction and diffusion",
    ranges=((0.0, 0.5), (0.0, 0.05)),
    points=Points.CELLS,
    bounds=(0.0, np.inf),
    modes=10,
    solution=_reaction_diffusion,
)
"""u_t = 0.01 u_xx + u (1 − u) from 0.4 + 0.3 cos 2π(x − a), a in [0, ½], with a flux g in [0, 0.05] through the left
side and none through the right one (after Utkarsh et al. 2025); finite volumes."""
RANDOM_MEDIA = GenerationProblem(
    name="gpme",
    label="random porous medium",
    ranges=((0.0, 1.0),) * (OTHERS + CELLS),
    lengths=(0.08, 1.0),
    points=Points.CELLS,
    bounds=(0.0, np.inf),
    modes=48,
    times=16,
    solution=_random_media,
)
"""u_t = (k uᵐ u_x)_x from random bumps with random inflows and k, as the member *inflow* of ``gpme``, of 70 uniform
numbers; finite volumes."""
