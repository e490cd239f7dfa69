"""Which versions of its problem each experiment has, and the sizes of the presets.

``smoke`` takes seconds. On problems of the papers ``laptop`` takes on one core a minute or two a training, five to ten
on the square; ``paper`` has the samples, nodes, widths, modes, batches and numbers of steps of Saad et al. 2023.

Hard problems have many modes, thin layers, two phases, random flows or several unknowns. Boundary data are random apart
from the other inputs; the walls of the basin and of neuraloperator's set have none. ``laptop`` takes one to three
minutes a training on one core; ``paper`` has twice the width and four times the steps.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from experiments.boundary.cases import BoundaryCase, BoundarySizes, NetworkSizes, Versions, trained
from experiments.boundary.sources import ClosedFormSource, DarcyFiles, RecipeSource
from experiments.experiment import Preset
from solvers import Dirichlet, Neumann
from solvers.problems import boundary_problems as problems
from solvers.problems.boundary_samples import BoundaryProblem
from solvers.problems.operator_problems import OPERATOR_PROBLEMS

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
    kind, when = "multi", f"{times} times, t ≤ {final:g}"
    if times == 1:
        kind, when = "single", f"t = {problem.single_time:g}"
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


_SMALL_CELLS = {1: {"intervals": 32, "refinement": 4}, 2: {"intervals": 16, "refinement": 2}}
"""Of the smoke preset, by the number of axes."""
_RATE = 3e-3
_HARD_SMOKE = trained(
    20, _RATE, NetworkSizes(width=8, modes=4, depth=2), samples=24, validation=8, test=4, nodes=33, batch=8, seeds=1
)
_HARD_ON_INTERVAL = {"samples": 1200, "validation": 200, "test": 200, "batch": 20, "seeds": 3}
_HARD_ON_SQUARE = {"samples": 600, "validation": 100, "test": 100, "batch": 20, "seeds": 2, "nodes": 33}
_ON_PLANE = NetworkSizes(width=32, modes=8)
_LAPTOP: dict[str, BoundarySizes] = {
    "viscous_burgers": trained(2500, _RATE, NetworkSizes(width=32, modes=24), **_HARD_ON_INTERVAL, nodes=257),
    "reaction_diffusion": trained(2500, _RATE, NetworkSizes(width=32), **_HARD_ON_INTERVAL, nodes=129),
    "darcy": trained(1500, _RATE, _ON_PLANE, **_HARD_ON_SQUARE | {"samples": 1200, "validation": 200, "test": 200}),
    "advection_diffusion": trained(1500, _RATE, _ON_PLANE, **_HARD_ON_SQUARE),
    "basin": trained(1500, _RATE, _ON_PLANE, **_HARD_ON_SQUARE),
    "darcy_small": trained(
        2000, _RATE, _ON_PLANE, **_HARD_ON_SQUARE | {"samples": 1000, "validation": 100, "test": 50, "nodes": 17}
    ),
}
_LEVEL, _STILL = (Neumann(0.0), Neumann(0.0)), (Dirichlet(0.0), Dirichlet(0.0))
_WALLS = ((_LEVEL, _LEVEL), (_STILL, _LEVEL), (_LEVEL, _STILL))
_FINAL_TIMES = {"viscous_burgers": 0.5, "reaction_diffusion": 0.5, "darcy": None, "advection_diffusion": 1.0}


def sizes_of(name: str, preset: Preset, axes: int) -> BoundarySizes:
    """Samples, network and training of a problem."""
    sizes = _LAPTOP[name]
    if preset == "smoke":
        return replace(_HARD_SMOKE, nodes=17 if axes == 2 else 33)
    if preset == "laptop":
        return sizes
    training = replace(sizes.training, steps=4 * sizes.training.steps, validate_every=4 * sizes.training.validate_every)
    return replace(sizes, training=training, network=replace(sizes.network, width=2 * sizes.network.width))


def source_of(name: str, preset: Preset) -> RecipeSource:
    """Samples of a problem, of deviations from rest in the basin."""
    problem = OPERATOR_PROBLEMS[name]
    if preset == "smoke":
        recipe = replace(problem.recipe, **_SMALL_CELLS[problem.dimension])
        problem = replace(problem, recipe=recipe)  # pyright: ignore[reportArgumentType]
    walls = {"walls": _WALLS, "rest": (1.0, 0.0, 0.0)} if name == "basin" else {}
    return RecipeSource(problem=problem, **walls)


def _single(name: str, preset: Preset) -> tuple[BoundaryCase, ...]:
    """One operator from the start to a later time, or from a medium to the steady field."""
    source, final = source_of(name, preset), _FINAL_TIMES.get(name, 1.0)
    return (
        BoundaryCase(
            key="single",
            label="steady" if final is None else f"t = {final:g}",
            source=source,
            final_time=final,
            independent=name != "basin",
            given=name != "basin",
            sizes=sizes_of(name, preset, source.problem.dimension),
        ),
    )


def _darcy_small(preset: Preset) -> tuple[BoundaryCase, ...]:
    """Trained on 16 × 16 points, tested on these and on 32 × 32."""
    sizes = sizes_of("darcy_small", preset, 2)
    trained_on = BoundaryCase(key="single-16", label="16 × 16 points", source=DarcyFiles(), given=False, sizes=sizes)
    finer = replace(
        trained_on,
        key="single-32",
        label="32 × 32 points, trained on 16 × 16",
        sizes=replace(sizes, nodes=33),
        trained_on=trained_on,
    )
    return trained_on, finer


HARD: dict[str, Versions] = {
    **{name: partial(_single, name) for name in OPERATOR_PROBLEMS},
    "darcy_small": _darcy_small,
}
"""From the preset to the cases of every hard problem."""
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
