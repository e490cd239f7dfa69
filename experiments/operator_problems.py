"""The boundary-condition experiments: which versions of its problem each has in each preset."""

from dataclasses import replace

from experiments.errors import UnknownNameError
from experiments.experiment import Durations, Experiment, Preset, RunOptions
from experiments.operator_config import SHORT_EXTENSION, OperatorCase, many_steps, single_step, sized
from experiments.operator_run import Cases, chosen_cases, operator_experiment
from solvers import Neumann
from solvers.problems import boundary_problems as problems

STOKES_VISCOSITIES = (0.1, 0.02, 0.005, 0.002, 0.001)
BURGERS_VISCOSITIES = (0.1, 0.05, 0.02, 0.005, 0.001)
VORTICITY_UNIT = 8.0  # the vorticity on the walls is some tens of lid speeds over side lengths


def _stokes(preset: Preset) -> tuple[OperatorCase, ...]:
    viscosities = STOKES_VISCOSITIES if preset == "paper" else (0.02,)
    return tuple(
        version(problems.stokes(viscosity), f"{viscosity:g}", f"ν={viscosity:g}")
        for viscosity in viscosities
        for version in (single_step, many_steps)
    )


def _burgers_dirichlet(preset: Preset) -> tuple[OperatorCase, ...]:
    viscosities = BURGERS_VISCOSITIES if preset == "paper" else (0.02,)
    return tuple(
        version(problems.burgers_dirichlet(viscosity), f"{viscosity:g}", f"ν={viscosity:g}")
        for viscosity in viscosities
        for version in (single_step, many_steps)
    )


def _heat_neumann(preset: Preset) -> tuple[OperatorCase, ...]:
    problem = problems.heat_neumann()
    short = (single_step(problem), many_steps(problem))
    return short if preset == "smoke" else (*short, many_steps(problem, "long", final=problem.final_times[1]))


def _wave_neumann(preset: Preset) -> tuple[OperatorCase, ...]:
    one = many_steps(problems.wave_neumann(), "one-mode", "mode (1, 1)")
    return (one,) if preset == "smoke" else (one, many_steps(problems.wave_neumann(modes=4), "16-modes", "16 modes"))


def _burgers_periodic(preset: Preset) -> tuple[OperatorCase, ...]:  # noqa: ARG001 - the same versions in each
    problem = problems.burgers_periodic()
    return single_step(problem), many_steps(problem)


def _cavity(preset: Preset) -> tuple[OperatorCase, ...]:  # noqa: ARG001 - the same version in each
    return (replace(many_steps(problems.cavity(), unit=VORTICITY_UNIT), extension=SHORT_EXTENSION),)


def _heat_independent(preset: Preset) -> tuple[OperatorCase, ...]:
    values, gradients = problems.heat_independent(), problems.heat_independent(Neumann())
    constant = (
        single_step(values, "values", "values", independent=True),
        single_step(gradients, "gradients", "gradients", independent=True),
    )
    if preset == "smoke":
        return constant
    values, gradients = (problems.heat_independent(side, harmonics=4) for side in (None, Neumann()))
    return (
        *constant,
        many_steps(values, "values", "varying values", independent=True),
        many_steps(gradients, "gradients", "varying gradients", independent=True),
    )


def _in_sizes_of_the_preset(cases: Cases) -> Cases:
    return lambda preset: tuple(sized(case, preset) for case in cases(preset))


CASES: dict[str, Cases] = {
    name: _in_sizes_of_the_preset(cases)
    for name, cases in {
        "stokes": _stokes,
        "burgers_dirichlet": _burgers_dirichlet,
        "heat_neumann": _heat_neumann,
        "wave_neumann": _wave_neumann,
        "burgers_periodic": _burgers_periodic,
        "cavity": _cavity,
        "heat_independent": _heat_independent,
    }.items()
}
"""From the preset to the versions of every experiment, in the sizes of the preset."""


def boundary_cases(name: str, options: RunOptions) -> tuple[OperatorCase, ...]:
    """The versions of a boundary-condition experiment that a user's options stand for.

    Args:
        name: Name of the experiment.
        options: Preset and names of cases.

    Raises:
        UnknownNameError: If there is no such experiment or case.
    """
    if name not in CASES:
        raise UnknownNameError(f"There is no boundary-condition experiment '{name}'. Known: {', '.join(CASES)}.")
    return chosen_cases(CASES[name](options.preset), options)


_SUMMARIES = {
    "stokes": "Stokes' second problem: fluid above an oscillating plate, values given at both ends",
    "burgers_dirichlet": "viscous Burgers: a travelling wave, values given at both ends",
    "heat_neumann": "heat between an insulator and a heater: gradients given at both ends",
    "wave_neumann": "standing waves on a square whose walls reflect: zero normal derivatives",
    "burgers_periodic": "Burgers on a circle from Gaussian random fields",
    "cavity": "vorticity in a lid-driven cavity from an impulsive start, values given on four walls",
    "heat_independent": "heat whose boundary data are independent of the initial field",
}
_DURATIONS: dict[str, Durations] = {
    "stokes": {"smoke": "10 s", "laptop": "60 min", "paper": "22000 min", "reproduce": "7 s"},
    "burgers_dirichlet": {"smoke": "15 s", "laptop": "60 min", "paper": "22000 min", "reproduce": "8 s"},
    "heat_neumann": {"smoke": "15 s", "laptop": "90 min", "paper": "9000 min", "reproduce": "9 s"},
    "wave_neumann": {"smoke": "15 s", "laptop": "40 min", "paper": "8000 min", "reproduce": "16 s"},
    "burgers_periodic": {"smoke": "15 s", "laptop": "50 min", "paper": "4000 min", "reproduce": "12 s"},
    "cavity": {"smoke": "10 s", "laptop": "20 min", "paper": "4000 min", "reproduce": "31 s"},
    "heat_independent": {"smoke": "15 s", "laptop": "140 min", "paper": "9000 min", "reproduce": "11 s"},
}
EXPERIMENTS: dict[str, Experiment] = {
    name: operator_experiment(name, _SUMMARIES[name], _DURATIONS[name], cases) for name, cases in CASES.items()
}
