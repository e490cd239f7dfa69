"""When boundary corrections pay: operators of heat with few samples, out of range, on other grids, disturbed inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from experiments.boundary.cases import BoundaryCase, BoundarySizes
from experiments.boundary.disturbance import DISTURBANCES
from experiments.boundary.equations.problem import Uniform
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.methods import CHANNELS, DEFAULT, RESIDUAL, WITHOUT_SCHUR_CHANNELS, Method, methods
from experiments.boundary.problems import PROBLEMS
from experiments.boundary.samples import ClosedFormSource, Source
from experiments.experiment import Preset

PROBLEM = "heat_independent"
OUTSIDE = ((1.0, 2.0), (2.0, 3.0))
"""Boundary values that no training sample has."""
COUNTS: dict[Preset, tuple[int, ...]] = {"smoke": (20, 40), "laptop": (50, 100, 200, 500), "paper": (50, 100, 200, 500)}
VALIDATION = 10  # one sample in ten


def cases(preset: Preset) -> tuple[BoundaryCase, ...]:
    """Operators for given values in every test, and operators for given gradients on disturbed inputs."""
    base, gradients = PROBLEMS[PROBLEM].cases(preset)[:2]  # given values, and gradients, at one time
    fewer = {count: with_samples(base.sizes, count, max(1, count // VALIDATION)) for count in COUNTS[preset]}
    outside = {f"values in [{low:g}, {high:g}]": with_values(base.source, low, high) for low, high in OUTSIDE}
    other = replace(gradients, trained_on=gradients)
    disturbed_gradients = (
        replace(each, key=f"{gradients.key}-{each.key}", label=f"{gradients.label}, {each.label}")
        for each in disturbed(other)
    )
    clean = replace(other, key=f"{gradients.key}-clean")
    return *varied(base, fewer, outside, _around(base.sizes.nodes)), clean, *disturbed_gradients


def varied(
    base: BoundaryCase, fewer: Mapping[int, BoundarySizes], outside: Mapping[str, Source], grids: Sequence[int]
) -> tuple[BoundaryCase, ...]:
    """Operators of a case on fewer samples, outside the training range, on other grids, with disturbed inputs.

    ``fewer`` has the sizes by the number of samples, all of ``base`` last; ``outside`` sources by their labels.
    """
    cases, other = [], replace(base, trained_on=base)
    for count, sizes in fewer.items():
        trained_on = replace(base, sizes=sizes)
        cases.append(replace(base, key=f"samples-{count}", label=f"{count} samples", trained_on=trained_on))
    for number, (label, source) in enumerate(outside.items()):
        cases.append(replace(other, key=f"outside-{number}", label=label, source=source))
    for nodes in grids:
        sizes = replace(base.sizes, nodes=nodes)
        cases.append(replace(other, key=f"nodes-{nodes}", label=f"{nodes} nodes", sizes=sizes))
    return *cases, *disturbed(other)


def disturbed(case: BoundaryCase) -> tuple[BoundaryCase, ...]:
    """A case with every disturbance of its inputs."""
    return tuple(
        replace(case, key=each.rounding or f"noise-{each.noise:g}", label=each.label, disturbance=each)
        for each in DISTURBANCES
    )


def with_samples(sizes: BoundarySizes, samples: int, validation: int) -> BoundarySizes:
    """Sizes with another number of training samples, the validation set included."""
    return replace(sizes, samples=samples, validation=validation, batch=min(sizes.batch, samples - validation))


def with_values(source: Source, low: float, high: float) -> Source:
    """The problem with both boundary values from another interval."""
    assert isinstance(source, ClosedFormSource)
    problem = source.problem
    for side in ("left", "right"):
        problem = problem.with_distribution(side, Uniform(low, high))
    return replace(source, problem=problem)


def compared(case: BoundaryCase) -> tuple[Method, ...]:
    """The FNO of equal information, elimination, and the default, alone and with a loss that sees the sides."""
    keys = (CHANNELS, WITHOUT_SCHUR_CHANNELS, RESIDUAL, DEFAULT)
    return tuple(method for method in methods(case) if method.key in keys)


def _around(nodes: int) -> tuple[int, ...]:
    """Half as many nodes, one less, one more, twice and four times as many."""
    finer = 2 * nodes - nodes % 2  # those of the coarser grid among them if their number is odd
    return (nodes + 1) // 2, nodes - 1, nodes + 1, finer, 2 * finer - finer % 2


EXPERIMENTS: dict[str, BoundaryExperiment] = {
    "beyond_training": BoundaryExperiment(
        name="beyond_training",
        problem=PROBLEM,
        versions=cases,
        methods_of=compared,
        subject="few samples, values out of range, other grids, disturbed inputs",
    )
}
