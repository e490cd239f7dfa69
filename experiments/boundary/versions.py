"""Which versions of its problem each experiment has, and the sizes of the presets.

``smoke`` takes seconds, ``laptop`` on one core a minute or two a training, five to ten on the square; ``paper`` has the
samples, nodes, widths, modes, batches and numbers of steps of Saad et al. 2023.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from experiments.boundary.cases import BoundaryCase, NetworkSizes, Versions, trained
from experiments.boundary.hard import HARD
from experiments.boundary.sources import ClosedFormSource
from experiments.experiment import Preset
from solvers import Neumann
from solvers.problems import boundary_problems as problems
from solvers.problems.boundary_samples import BoundaryProblem

MANY = 25  # output times of versions with several


_SMALL, _SQUARE = NetworkSizes(width=12, modes=6, depth=2), {"nodes": 50, "batch": 10, "seeds": 1}
_SMOKE = trained(40, 3e-3, _SMALL, samples=40, validation=8, test=8, nodes=33, batch=8, seeds=1)
_PAPER_NETWORK = NetworkSizes(width=32, modes=12, time_modes=12)
_PAPER_SQUARE = NetworkSizes(width=20, modes=8, time_modes=8)
_ON_INTERVAL = {
    "smoke": _SMOKE,
    "laptop": trained(2500, 3e-3, NetworkSizes(width=32)),
    "paper": trained(25_000, 1e-3, _PAPER_NETWORK, samples=1000, validation=100, nodes=500),
}
_ON_SQUARE = {
    "smoke": replace(_SMOKE, nodes=17, samples=20, batch=4),
    "laptop": trained(1500, 3e-3, NetworkSizes(width=32, modes=8), samples=220, validation=20, test=50, **_SQUARE),
    "paper": trained(50_000, 1e-3, _PAPER_SQUARE, samples=1000, validation=100, **_SQUARE),
}
_SINGLE = _ON_INTERVAL | {"paper": trained(12_500, 3e-3, NetworkSizes(), test=100, nodes=500)}


def _case(
    preset: Preset, problem: BoundaryProblem, times: int, key: str = "", label: str = "", **options: Any
) -> BoundaryCase:
    """A version with one or more output times; key and label tell it from others of as many."""
    square, final = len(problem.conditions) == 2, options.get("final_time") or problem.final_times[0]
    kind, when = "multi", f"{times} times to t = {final:g}"
    if times == 1:
        kind, when = "single", f"single step to t = {problem.single_time:g}"
    return BoundaryCase(
        key=f"{kind}-{key}".rstrip("-"),
        label=f"{label}, {when}".removeprefix(", "),
        source=ClosedFormSource(problem),
        times=times,
        sizes=(_ON_SQUARE if square else _SINGLE if times == 1 else _ON_INTERVAL)[preset],
        **options,
    )


def _both(preset: Preset, problem: BoundaryProblem, *names: str) -> tuple[BoundaryCase, ...]:
    """Single step and many times."""
    return tuple(_case(preset, problem, times, *names) for times in (1, MANY))


def _notebook(
    preset: Preset, problem: BoundaryProblem, nodes: int, final_time: float, setting: str = ""
) -> tuple[BoundaryCase, ...]:
    """The set-up of a notebook of Saad et al. that prints an error of theirs."""
    if preset == "smoke":
        return ()
    label = f"{setting}{nodes} nodes"
    case = _case(preset, problem, MANY, "notebook", label, final_time=final_time, published=True)
    return (replace(case, sizes=replace(case.sizes, nodes=nodes)),)


def _burgers_dirichlet(preset: Preset) -> tuple[BoundaryCase, ...]:
    """With the case of the best number of Saad et al. on a laptop as well: in their sizes, one seed."""
    versions = _by_viscosity(problems.burgers_dirichlet, 0.1, 0.05, 0.02, 0.005, 0.001)(preset)
    if preset != "laptop":
        return versions
    best = _case("paper", problems.burgers_dirichlet(0.1), 1, "paper", "ν=0.1, 500 nodes, 500 epochs", published=True)
    return *versions, replace(best, sizes=replace(best.sizes, seeds=1))


def _by_viscosity(problem: Callable[[float], BoundaryProblem], *viscosities: float) -> Versions:
    def versions(preset: Preset) -> tuple[BoundaryCase, ...]:
        chosen = viscosities if preset == "paper" else (0.02,)
        return tuple(case for ν in chosen for case in _both(preset, problem(ν), f"{ν:g}", f"ν={ν:g}"))

    return versions


def _stokes(preset: Preset) -> tuple[BoundaryCase, ...]:
    viscosities = _by_viscosity(problems.stokes, 0.1, 0.02, 0.005, 0.002, 0.001)
    return *viscosities(preset), *_notebook(preset, problems.stokes(0.1), 500, 1.2, "ν=0.1, ")


def _heat_neumann(preset: Preset) -> tuple[BoundaryCase, ...]:
    problem = problems.heat_neumann()
    long = () if preset == "smoke" else (_case(preset, problem, MANY, "long", final_time=problem.final_times[1]),)
    notebook = _notebook(preset, problem, 1024, problem.final_times[0])
    return *_both(preset, problem), *long, *notebook


def _wave_neumann(preset: Preset) -> tuple[BoundaryCase, ...]:
    one, many = problems.wave_neumann(), problems.wave_neumann(modes=4)
    cases = _case(preset, one, MANY, "one-mode", "mode (1, 1)"), _case(preset, many, MANY, "16-modes", "16 modes")
    return cases[:1] if preset == "smoke" else cases


def _cavity(preset: Preset) -> tuple[BoundaryCase, ...]:
    return (_case(preset, problems.cavity(), MANY),)


def _burgers_periodic(preset: Preset) -> tuple[BoundaryCase, ...]:
    """On a laptop with twice the steps of the others: its initial fields are random, no map of a few parameters."""
    versions = _both(preset, problems.burgers_periodic())
    if preset != "laptop":
        return versions
    longer = trained(5000, 3e-3, NetworkSizes(width=32))
    return tuple(replace(case, sizes=longer) for case in versions)


def _heat_independent(preset: Preset) -> tuple[BoundaryCase, ...]:
    kinds = ((1, 0, ""), (MANY, 4, "varying "))
    return tuple(
        _case(preset, problems.heat_independent(side, harmonics), times, key, varying + key, independent=True)
        for times, harmonics, varying in kinds[: 1 if preset == "smoke" else 2]
        for key, side in (("values", None), ("gradients", Neumann()))
    )


VERSIONS: dict[str, Versions] = {
    "stokes": _stokes,
    "burgers_dirichlet": _burgers_dirichlet,
    "heat_neumann": _heat_neumann,
    "wave_neumann": _wave_neumann,
    "burgers_periodic": _burgers_periodic,
    "cavity": _cavity,
    "heat_independent": _heat_independent,
    **HARD,
}
"""From the preset to the versions of every problem."""
