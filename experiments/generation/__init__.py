"""Generated fields under exact laws.

generate_stokes              Stokes' second problem: no law, the initial value, the boundary value (Cheng et al. 2025)
generate_stokes_fields       the same of a flow on fields, whose velocity is an FNO, as published flows are
generate_heat                the heat equation: initial value and mass (Utkarsh et al. 2025)
generate_reaction_diffusion  initial value, and a nonlinear mass with an unknown inflow (after Utkarsh et al. 2025)
generate_burgers             initial value, mass, and steps of Godunov's scheme (after Utkarsh et al. 2025)
generate_stefan              the Stefan problem: initial value and mass, within bounds
generate_porous_medium       the porous medium equation: initial value and mass, within bounds
generate_gpme                random profiles in random media: a few noisy values, totals, and bounds

The study of each is of the number of evaluations that its samplers need. That of generate_stokes-disturbed has laws
whose values no field of the flow has.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import pi

from experiments.generation import laws
from experiments.generation.cases import FIELD_SIZES, RANDOM_SIZES, SCHEME_SIZES, SMALL_SIZES, Condition, Published
from experiments.generation.experiment import GenerationExperiment
from experiments.generation.families import (
    BURGERS,
    HEAT,
    POROUS_MEDIUM,
    RANDOM_MEDIA,
    REACTION_DIFFUSION,
    STEFAN,
    STOKES,
)
from experiments.generation.observed import ObservedExperiment
from experiments.generation.posterior import Seen
from experiments.generation.ranges import RangeStudy
from experiments.generation.studies import DisturbedStudy, StepsStudy
from experiments.generation.told import Told


def _initial_and_mass(parameter: str, value: float) -> tuple[Condition, Condition]:
    """The initial value, which is the same for all fields, without and with the mass of one of them."""
    alone = Condition(key="initial", label="initial value", law=laws.initial, resample=5, most=512)
    mass = replace(
        alone,
        key="initial-mass",
        label=f"initial value and mass of {parameter} = {value:g}",
        fixed=(value,),
        law=laws.initial_and_mass,
    )
    return alone, mass


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
_HEAT = (
    Condition(
        key="initial-mass",
        label="initial value φ = π/4 and mass",
        fixed=(None, pi / 4),
        law=laws.initial_and_mean,
        resample=1,
    ),
)
_REACTION_DIFFUSION = (
    Condition(
        key="initial-mass",
        label="initial value a = 0.2 and nonlinear mass",
        fixed=(0.2, None),
        law=laws.initial_and_reaction,
        resample=5,
        most=128,
    ),
)
_BURGERS = (
    Condition(
        key="initial-mass",
        label="initial value p = 0.4 and mass of b = 0.6",
        fixed=(0.4, 0.6),
        law=laws.initial_and_mean,
        resample=5,
        most=512,
    ),
    Condition(
        key="initial-inflow-flux",
        label="initial value p = 0.4, constant inflow and five steps",
        fixed=(0.4, None),
        law=laws.initial_inflow_and_flux,
        resample=5,
        most=64,
    ),
)
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
EXPERIMENTS: Mapping[str, GenerationExperiment] = {
    entry.name: entry
    for entry in (
        GenerationExperiment(name="generate_stokes", problem=STOKES, conditions=_STOKES),
        GenerationExperiment(name="generate_stokes_fields", problem=STOKES, conditions=_STOKES, sizes=FIELD_SIZES),
        GenerationExperiment(name="generate_heat", problem=HEAT, conditions=_HEAT),
        GenerationExperiment(
            name="generate_reaction_diffusion",
            problem=REACTION_DIFFUSION,
            conditions=_REACTION_DIFFUSION,
            sizes=SCHEME_SIZES,
        ),
        GenerationExperiment(name="generate_burgers", problem=BURGERS, conditions=_BURGERS, sizes=SCHEME_SIZES),
        GenerationExperiment(
            name="generate_stefan", problem=STEFAN, conditions=_initial_and_mass("u*", 0.6), sizes=SMALL_SIZES
        ),
        GenerationExperiment(
            name="generate_porous_medium",
            problem=POROUS_MEDIUM,
            conditions=_initial_and_mass("m", 3.0),
            sizes=SMALL_SIZES,
        ),
    )
}
OBSERVED: Mapping[str, ObservedExperiment] = {
    "generate_gpme": ObservedExperiment(
        name="generate_gpme", problem=RANDOM_MEDIA, conditions=_RANDOM_MEDIA, sizes=RANDOM_SIZES
    )
}
"""Fields of many parameters."""


_NEAR, _DEEP = (0.6, 0.08), (0.4, 0.2)
_POINTS = tuple(
    Condition(key=key, label=label, seen=Seen(places=places, parameters=(6.0, 5.0), deviation=deviation))
    for key, label, places, deviation in (
        ("near", "a value near the wall ± 0.02", (_NEAR,), 0.02),
        ("deep", "a value far from it ± 0.02", (_DEEP,), 0.02),
        ("three", "three values ± 0.05", ((0.2, 0.05), (0.6, 0.1), (0.9, 0.2)), 0.05),
    )
)
STEPS: Mapping[str, StepsStudy] = {
    name: StepsStudy(name=f"{name}-study", flows=entry, more=_POINTS if name == "generate_stokes" else ())
    for name, entry in EXPERIMENTS.items()
}
"""Errors over the number of evaluations, by the experiment whose flow is used."""
DISTURBED = DisturbedStudy(name="generate_stokes-disturbed", flows=EXPERIMENTS["generate_stokes"])
"""Laws whose values no field of the flow has."""
RANGES = RangeStudy(
    flows=tuple(EXPERIMENTS[f"generate_{name}"] for name in ("stokes", "heat", "stefan", "porous_medium"))
)
"""How often a law is said to be out of range."""
STUDIES: Mapping[str, StepsStudy | DisturbedStudy | RangeStudy] = {
    **STEPS,
    DISTURBED.name: DISTURBED,
    RANGES.name: RANGES,
}

__all__ = [
    "DISTURBED",
    "EXPERIMENTS",
    "OBSERVED",
    "RANGES",
    "STEPS",
    "STUDIES",
    "DisturbedStudy",
    "GenerationExperiment",
    "StepsStudy",
]
