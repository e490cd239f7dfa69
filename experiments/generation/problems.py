"""All generated fields, one problem after the other: solutions of random parameters, laws, and what is imposed.

generate_stokes              Stokes' second problem: no law, the initial value, the boundary value (Cheng et al. 2025)
generate_reaction_diffusion  initial value, and a nonlinear mass with an unknown inflow (after Utkarsh et al. 2025)
generate_stefan              the Stefan problem: initial value and mass, within bounds
generate_gpme                random profiles in random media: a few noisy values, totals, and bounds

All rows of the first three are ``METHODS``, of the last one ``TOLD_METHODS`` of ``methods.py``.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from experiments import media
from experiments.generation import laws
from experiments.generation.cases import RANDOM_SIZES, SCHEME_SIZES, SMALL_SIZES, Condition, Published
from experiments.generation.conditioning import Told
from experiments.generation.experiment import GenerationExperiment
from experiments.generation.observed import ObservedExperiment
from experiments.generation.problem import GenerationProblem
from probconserv import NonlinearLaw
from solvers import CellGrid, Diffusion, LeastCost, Logistic, Neumann, solve
from solvers.problems import exact


def _stokes(t: Tensor, y: Tensor, k: Tensor, omega: Tensor) -> Tensor:
    return 2 * torch.exp(-k * y) * torch.cos(k * y - omega * t)


STOKES = GenerationProblem(
    name="stokes", label="Stokes' second problem", ranges=((2.0, 20.0), (2.0, 8.0)), modes=24, solution=_stokes
)
"""u = 2 e^(−k y) cos(k y − ω t), k in [2, 20] and ω in [2, 8] (Cheng et al. 2025)."""
_STOKES = (
    Condition(key="free", label="no law", published=Published(mean=3.52e-3, deviation=1.92e-3)),
    Condition(
        key="initial",
        label="initial value, k = 5",
        fixed=(5.0, None),
        law=laws.initial,
        mixing=5,
        resample=5,
        published=Published(mean=1.89e-3, deviation=2.25e-3),
    ),
    Condition(
        key="boundary",
        label="boundary value, ω = 6",
        fixed=(None, 6.0),
        law=laws.left,
        resample=5,
        published=Published(mean=3.69e-4, deviation=1.10e-4),
    ),
)


DIFFUSIVITY, RATE = 0.01, 1.0
"""ν and ρ of reaction and diffusion."""


def _reaction_diffusion(t: Tensor, x: Tensor, phase: Tensor, inflow: Tensor) -> Tensor:
    u = 0.4 + 0.3 * torch.cos(2 * torch.pi * (x - phase))[:, 0]
    sides = (Neumann(flux=inflow[:, 0, 0]), Neumann(flux=0.0))
    times, grid = t.flatten(), CellGrid(0.0, 1.0, len(x))
    solution = solve(Diffusion(DIFFUSIVITY), grid, sides, u, times[1:], source=Logistic(RATE), stepper=LeastCost())
    return torch.cat([u[:, None], solution.values], dim=1)


def initial_and_reaction(u: Tensor, times: Tensor, points: Tensor) -> NonlinearLaw:
    """The initial value, and a mass that changes by the reaction and by an inflow, constant but unknown.

    With D_n = M_{n+1} − M_n − ∫∫ ρ u (1 − u), the double integral over cells and one step by the trapezoidal rule, the
    rows are D_n − D_{n−1} less the same of the true field, the error of the rule (3e-5 of D at 24 times).
    """
    shape, step = u.shape, float(times[1] - times[0])

    def balance(fields: Tensor) -> Tensor:
        v = fields.reshape(-1, *shape)
        growth = (RATE * v * (1 - v)).mean(dim=-1)
        gained = v.mean(dim=-1).diff(dim=-1) - 0.5 * step * (growth[:, 1:] + growth[:, :-1])
        return gained.diff(dim=-1)

    error = balance(u.flatten()[None])
    law = NonlinearLaw(residual_function=lambda fields: balance(fields) - error, points=u.numel())
    return law & laws.initial(u, times, points)


REACTION_DIFFUSION = GenerationProblem(
    name="reaction_diffusion",
    label="reaction and diffusion",
    ranges=((0.0, 0.5), (0.0, 0.05)),
    cells=True,
    bounds=(0.0, np.inf),
    modes=10,
    solution=_reaction_diffusion,
)
"""u_t = 0.01 u_xx + u (1 − u) from 0.4 + 0.3 cos 2π(x − a), a in [0, ½], with a flux g in [0, 0.05] through the left
side and none through the right one (after Utkarsh et al. 2025); finite volumes."""
_REACTION_DIFFUSION = (
    Condition(
        key="initial-mass",
        label="initial value a = 0.2 and nonlinear mass",
        fixed=(0.2, None),
        law=initial_and_reaction,
        resample=5,
        most=128,
    ),
)


def _stefan(t: Tensor, x: Tensor, threshold: Tensor) -> Tensor:
    # The similarity constant of a parameter is searched for once, not at every point.
    return torch.cat([exact.stefan(t, x, float(value))[None] for value in threshold.flatten()])


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
_STEFAN = (
    Condition(key="initial", label="initial value", law=laws.initial, resample=5, most=512),
    Condition(
        key="initial-mass",
        label="initial value and mass of u* = 0.6",
        fixed=(0.6,),
        law=laws.initial_and_mass,
        resample=5,
        most=512,
    ),
)


BUMPS, OTHERS, CELLS = (3, 6), 22, 48
"""Bumps of a random profile, numbers that say all but the conductivity, and cells at most."""


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


RANDOM_MEDIA = GenerationProblem(
    name="gpme",
    label="random porous medium",
    ranges=((0.0, 1.0),) * (OTHERS + CELLS),
    lengths=(0.08, 1.0),
    cells=True,
    bounds=(0.0, np.inf),
    modes=48,
    times=16,
    solution=_random_media,
)
"""u_t = (k uᵐ u_x)_x from random bumps with random inflows and k, as the member *inflow* of ``gpme``, of 70 uniform
numbers; finite volumes."""
_TOTAL = "the last total"
_RANDOM_MEDIA = (
    *(
        Told(key=f"{key}{count}", label=f"M = {count}{label}", values=count, totals=totals)
        for key, label, totals in (("values-", "", ()), ("values-total-", f" and {_TOTAL}", (-1,)))
        for count in (2, 5, 10, 20)
    ),
    Told(key="total", label=_TOTAL, totals=(-1,)),
    Told(key="totals", label="the first and the last total", totals=(0, -1)),
    Told(key="bounds", label="bounds alone"),
)


EXPERIMENTS: Mapping[str, GenerationExperiment | ObservedExperiment] = {
    "generate_stokes": GenerationExperiment(name="generate_stokes", problem=STOKES, conditions=_STOKES),
    "generate_reaction_diffusion": GenerationExperiment(
        name="generate_reaction_diffusion",
        problem=REACTION_DIFFUSION,
        conditions=_REACTION_DIFFUSION,
        sizes=SCHEME_SIZES,
    ),
    "generate_stefan": GenerationExperiment(
        name="generate_stefan", problem=STEFAN, conditions=_STEFAN, sizes=SMALL_SIZES
    ),
    "generate_gpme": ObservedExperiment(
        name="generate_gpme", problem=RANDOM_MEDIA, conditions=_RANDOM_MEDIA, sizes=RANDOM_SIZES
    ),
}
