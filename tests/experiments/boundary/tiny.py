"""Boundary-condition experiments in sizes that train in milliseconds."""

from dataclasses import replace
from pathlib import Path

from experiments.boundary import EXPERIMENTS
from experiments.boundary.cases import BoundaryCase, BoundarySizes, NetworkSizes
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.problems import PROBLEMS
from experiments.boundary.samples import CellSource, RecipeSource, Source
from experiments.experiment import RunContext, RunOptions
from probconserv.training import TrainingConfig

_SHORT = TrainingConfig(steps=6, peak_rate=1e-2, validate_every=3, checkpoint_every=2, precision="32-true")
SIZES = BoundarySizes(
    samples=8,
    validation=2,
    test=3,
    nodes=17,
    network=NetworkSizes(width=4, modes=3, depth=2),
    training=replace(_SHORT, weight_decay=1e-4),
    batch=4,
    seeds=1,
)


def tiny(case: BoundaryCase, time_modes: int = 0) -> BoundaryCase:
    """A case in tiny sizes, with 3 output times where there are 25, and coarse reference solutions."""
    times, source = min(case.times, 3), case.source
    modes = time_modes if times > 1 else 0
    network = replace(SIZES.network, order=case.sizes.network.order, time_modes=modes)
    nodes = 9 if case.axes == 2 else SIZES.nodes
    if isinstance(source, CellSource):
        source = replace(source, nodes=_coarse(source.nodes, nodes))
    source = _coarse(source, nodes)
    return replace(case, source=source, times=times, sizes=replace(SIZES, nodes=nodes, network=network))


def _coarse(source: Source, nodes: int) -> Source:
    """A source with coarse reference solutions; a closed form has none."""
    if not isinstance(source, RecipeSource):
        return source
    recipe = replace(source.problem.recipe, intervals=nodes - 1, refinement=2)
    return replace(source, problem=replace(source.problem, recipe=recipe))


def tiny_cases(name: str, time_modes: int = 0) -> tuple[BoundaryCase, ...]:
    """All versions of a problem."""
    return tuple(tiny(case, time_modes) for case in PROBLEMS[name].cases("laptop"))


def one(name: str, key: str, time_modes: int = 0) -> BoundaryCase:
    """One version by its key."""
    return next(case for case in tiny_cases(name, time_modes) if case.key == key)


def tiny_experiment(*cases: BoundaryCase, of: BoundaryExperiment = EXPERIMENTS["stokes"]) -> BoundaryExperiment:
    """An experiment with other cases."""
    return replace(of, versions=lambda _: cases)


def context(out: Path) -> RunContext:
    """A run without progress bars."""
    return RunContext(options=RunOptions(out=out), progress=False)
