"""Problems that are hard to learn: many modes, thin layers, two phases, random flows, several unknowns.

Boundary data are random apart from the other inputs; the walls of the basin and of neuraloperator's set have none.
``laptop`` takes about four minutes a training on one core; ``paper`` has twice the width and four times the steps.
"""

from dataclasses import replace
from functools import partial

from experiments.boundary.cases import BoundaryCase, BoundarySizes, NetworkSizes, Versions, trained
from experiments.boundary.sources import DarcyFiles, RecipeSource
from experiments.experiment import Preset
from solvers import Dirichlet, Neumann
from solvers.problems.operator_problems import OPERATOR_PROBLEMS

_SMALL_CELLS = {1: {"intervals": 32, "refinement": 4}, 2: {"intervals": 16, "refinement": 2}}
"""Of the smoke preset, by the number of axes."""
_RATE, _SMALL = 3e-3, NetworkSizes(width=8, modes=4, depth=2)
_SMOKE = trained(20, _RATE, _SMALL, samples=24, validation=8, test=4, nodes=33, batch=8, seeds=1)
_ON_INTERVAL = {"samples": 1200, "validation": 200, "test": 200, "batch": 20, "seeds": 3}
_ON_SQUARE = {"samples": 600, "validation": 100, "test": 100, "batch": 20, "seeds": 2, "nodes": 33}
_SQUARE = NetworkSizes(width=32, modes=8)
_LAPTOP: dict[str, BoundarySizes] = {
    "viscous_burgers": trained(5000, _RATE, NetworkSizes(width=32, modes=24), **_ON_INTERVAL, nodes=257),
    "reaction_diffusion": trained(5000, _RATE, NetworkSizes(width=32, modes=24), **_ON_INTERVAL, nodes=129),
    "darcy": trained(2000, _RATE, _SQUARE, **_ON_SQUARE | {"samples": 1200, "validation": 200, "test": 200}),
    "advection_diffusion": trained(2000, _RATE, _SQUARE, **_ON_SQUARE),
    "basin": trained(2000, _RATE, _SQUARE, **_ON_SQUARE),
    "darcy_small": trained(
        3000, _RATE, _SQUARE, **_ON_SQUARE | {"samples": 1000, "validation": 100, "test": 50, "nodes": 17}
    ),
}
_LEVEL, _STILL = (Neumann(0.0), Neumann(0.0)), (Dirichlet(0.0), Dirichlet(0.0))
_WALLS = ((_LEVEL, _LEVEL), (_STILL, _LEVEL), (_LEVEL, _STILL))
_FINAL_TIMES = {"viscous_burgers": 0.5, "reaction_diffusion": 0.5, "darcy": None, "advection_diffusion": 1.0}


def sizes_of(name: str, preset: Preset, axes: int) -> BoundarySizes:
    """Samples, network and training of a problem."""
    sizes = _LAPTOP[name]
    if preset == "smoke":
        return replace(_SMOKE, nodes=17 if axes == 2 else 33)
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
            label="steady" if final is None else f"single step to t = {final:g}",
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
"""From the preset to the cases of every problem."""
