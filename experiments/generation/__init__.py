"""Generated fields under exact laws.

generate_stokes   Stokes' second problem: no law, the initial value, the boundary value (Cheng et al. 2025)
generate_heat     the heat equation: initial value and mass (Utkarsh et al. 2025)
"""

from collections.abc import Mapping
from math import pi

from torch import Tensor

from experiments.generation.cases import Condition, Published
from experiments.generation.experiment import GenerationExperiment
from experiments.generation.problems import HEAT, STOKES, mean_rows, value_rows
from probconserv import LinearConstraint

_ALL = slice(None)


def _initial(u: Tensor) -> LinearConstraint:
    return value_rows(u, (0, _ALL))


def _boundary(u: Tensor) -> LinearConstraint:
    return value_rows(u, (_ALL, 0))


def _initial_and_mass(u: Tensor) -> LinearConstraint:
    return _initial(u) & mean_rows(u, first=1)


_STOKES = (
    Condition(key="free", label="no law", published=Published(mean=3.52e-3, deviation=1.92e-3)),
    Condition(
        key="initial",
        label="initial value, k = 5",
        fixed=(5.0, None),
        law=_initial,
        mixing=5,
        resample=5,
        published=Published(mean=1.89e-3, deviation=2.25e-3),
    ),
    Condition(
        key="boundary",
        label="boundary value, ω = 6",
        fixed=(None, 6.0),
        law=_boundary,
        resample=5,
        published=Published(mean=3.69e-4, deviation=1.10e-4),
    ),
)
_HEAT = (
    Condition(
        key="initial-mass",
        label="initial value φ = π/4 and mass",
        fixed=(None, pi / 4),
        law=_initial_and_mass,
        resample=1,
    ),
)
EXPERIMENTS: Mapping[str, GenerationExperiment] = {
    entry.name: entry
    for entry in (
        GenerationExperiment(
            name="generate_stokes",
            summary="fields of Stokes' second problem drawn under an initial or boundary value, against ECI and PCFM",
            durations={"smoke": "20 s", "laptop": "60 min", "paper": "3000 min", "reproduce": "5 min"},
            problem=STOKES,
            conditions=_STOKES,
        ),
        GenerationExperiment(
            name="generate_heat",
            summary="fields of the heat equation drawn under an initial value and mass, against ECI and PCFM",
            durations={"smoke": "15 s", "laptop": "40 min", "paper": "2000 min", "reproduce": "3 min"},
            problem=HEAT,
            conditions=_HEAT,
        ),
    )
}

__all__ = ["EXPERIMENTS", "GenerationExperiment"]
