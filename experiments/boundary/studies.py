"""When boundary corrections pay: few samples, boundary values out of range, other grids, disturbed inputs, rollouts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.boundary.cases import BoundaryCase, BoundarySizes, Versions
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.methods import (
    CHANNELS,
    CIRCLE,
    DEFAULT,
    FNO,
    PRESCRIPTION,
    RESIDUAL,
    WITHOUT_SCHUR,
    WITHOUT_SCHUR_CHANNELS,
    Method,
    methods,
)
from experiments.boundary.sources import ClosedFormSource, RecipeSource, Source, StepSource
from experiments.boundary.versions import HARD, VERSIONS
from experiments.disturbance import DISTURBANCES
from experiments.experiment import Preset
from solvers.problems.boundary_samples import BoundaryProblem, Uniform

Outside = Mapping[str, Source]
"""Sources of test samples with boundary values that no training sample has, by what tables call them."""
COUNTS: dict[Preset, tuple[int, ...]] = {"smoke": (20, 40), "laptop": (50, 100, 200, 500), "paper": (50, 100, 200, 500)}
VALIDATION = 10  # one sample in ten
BEYOND = ((1.0, 1.5), (1.5, 2.0))
"""Sizes of the data of sides in units of the largest in training."""
ROLLOUT = 20  # steps to t = 1
TRAJECTORIES = {"smoke": (2, 1), "laptop": (200, 20), "paper": (400, 40)}
"""For training and validation, by preset; twice as many in one dimension."""


def study_cases(
    base: BoundaryCase, fewer: Mapping[int, BoundarySizes], outside: Outside, grids: Sequence[int]
) -> tuple[BoundaryCase, ...]:
    """Operators of a case on fewer samples, outside the training range, on other grids, with disturbed inputs.

    ``fewer`` has the sizes by what counts as the number of samples; all of ``base`` are the last of them.
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


def disturbed_beside(base: BoundaryCase) -> tuple[BoundaryCase, ...]:
    """A further case of a problem as it is and with every disturbance, for the study of another one."""
    other = replace(base, trained_on=base)
    plain = replace(other, key=f"{base.key}-clean")
    return plain, *(
        replace(each, key=f"{base.key}-{each.key}", label=f"{base.label}, {each.label}") for each in disturbed(other)
    )


def rolled_out(base: BoundaryCase, steps: StepSource, trajectories: tuple[int, int]) -> BoundaryCase:
    """An operator of single steps, applied one after the other to the end of the trajectories.

    ``trajectories`` are the numbers of those for training and validation.
    """
    training, validation = (count * steps.steps for count in trajectories)
    sizes = replace(base.sizes, samples=training + validation, validation=validation)
    single = replace(base, key="step", label="single steps", source=steps, sizes=sizes, final_time=steps.final_time)
    return replace(
        base,
        key="rollout",
        label=f"{steps.steps} steps to t = {steps.final_time:g}",
        source=steps.trajectories,
        times=steps.steps,
        trained_on=single,
        rollout=True,
        final_time=steps.final_time,
    )


def with_samples(sizes: BoundarySizes, samples: int, validation: int) -> BoundarySizes:
    """Sizes with another number of training samples, the validation set included."""
    return replace(sizes, samples=samples, validation=validation, batch=min(sizes.batch, samples - validation))


def hard_methods(case: BoundaryCase) -> tuple[Method, ...]:
    """Three methods of a problem: the best FNO of equal information, elimination, the default.

    Without boundary data the first is the FNO on the circle, or output prescription where an axis is not periodic, and
    where elimination is not defined the plain FNO stands in.
    """
    rows = {method.key: method for method in methods(case)}
    equal = next(key for key in (CHANNELS, CIRCLE, PRESCRIPTION) if key in rows)
    eliminated = next(key for key in (WITHOUT_SCHUR_CHANNELS, WITHOUT_SCHUR, FNO) if key in rows)
    return tuple(method for key, method in rows.items() if key in (equal, eliminated, DEFAULT))


def sides_methods(case: BoundaryCase) -> tuple[Method, ...]:
    """Those of a hard problem, and the default with a loss that sees the sides."""
    rows = {method.key for method in hard_methods(case)} | {RESIDUAL}
    return tuple(method for method in methods(case) if method.key in rows)


def outside_of(
    source: ClosedFormSource, parameters: Sequence[str], symbol: str, *intervals: tuple[float, float]
) -> Outside:
    """The same problem with parameters from intervals that no training sample comes from."""

    def changed(low: float, high: float) -> BoundaryProblem:
        problem = source.problem
        for name in parameters:
            problem = problem.with_distribution(name, Uniform(low, high))
        return problem

    return {f"{symbol} in [{low:g}, {high:g}]": replace(source, problem=changed(low, high)) for low, high in intervals}


def _of_version(
    problem: str,
    key: str,
    methods_of: Callable[..., Sequence[Method]] = sides_methods,
    outside: tuple[Any, ...] | None = None,
    few: bool = False,
    beside: str | None = None,
) -> BoundaryExperiment:
    """The study of one version of a problem.

    ``outside`` are the parameters, the symbol and the intervals of ``outside_of``; ``few`` trains operators on fewer
    samples too; ``beside`` names a further version whose inputs are disturbed as well.
    """

    def versions(preset: Preset) -> tuple[BoundaryCase, ...]:
        cases = {case.key: case for case in VERSIONS[problem](preset)}
        base = cases[key]
        assert isinstance(base.source, ClosedFormSource)
        counts = COUNTS[preset] if few else COUNTS[preset][-1:]
        fewer = {count: with_samples(base.sizes, count, max(1, count // VALIDATION)) for count in counts}
        beyond = outside_of(base.source, *outside) if outside else {}
        further = () if beside is None else disturbed_beside(cases[beside])
        return *study_cases(base, fewer, beyond, _around(base.sizes.nodes)), *further

    return _study(problem, versions, methods_of)


def _around(nodes: int) -> tuple[int, ...]:
    """Half as many nodes, one less, one more, twice and four times as many."""
    return (nodes + 1) // 2, nodes - 1, nodes + 1, _finer(nodes), _finer(_finer(nodes))


def _finer(nodes: int) -> int:
    """Nodes at about half the distance; those of the coarser grid among them if their number is odd."""
    return 2 * nodes - nodes % 2


def _of_hard(name: str) -> BoundaryExperiment:
    """The study of a hard problem; validation sets are beside the numbers of samples."""

    def versions(preset: Preset) -> tuple[BoundaryCase, ...]:
        base = HARD[name](preset)[0]
        source, sizes, nodes = base.source, base.sizes, base.sizes.nodes
        parts = {count: max(1, count // VALIDATION) for count in (() if preset == "smoke" else (50, 100, 200))}
        fewer = {count: with_samples(sizes, count + part, part) for count, part in parts.items()}
        fewer[sizes.samples - sizes.validation] = sizes
        outside, rollouts = {}, []
        if isinstance(source, RecipeSource) and base.given:
            outside = {
                f"sides in [{low:g}, {high:g}] × training": replace(
                    source,
                    problem=replace(source.problem, beyond=(low, high)),  # pyright: ignore[reportArgumentType]
                )
                for low, high in BEYOND
            }
        if isinstance(source, RecipeSource) and source.problem.recipe.times:
            training, validation = (count * (3 - base.axes) for count in TRAJECTORIES[preset])
            steps = StepSource(trajectories=replace(source, whole=True), steps=ROLLOUT)
            rollouts = [rolled_out(base, steps, (training, validation))]
        grids = _around(nodes) if base.axes == 1 else (_finer(nodes),)
        return *study_cases(base, fewer, outside, grids), *rollouts

    return _study(name, versions, hard_methods)


def _study(problem: str, versions: Versions, methods_of: Callable[..., Sequence[Method]]) -> BoundaryExperiment:
    subject = "few samples, values out of range, other grids, disturbed inputs"
    return BoundaryExperiment(
        name=f"{problem}-study",
        problem=problem,
        versions=versions,
        methods_of=methods_of,
        subject=f"{subject}, rollouts" if problem in HARD else subject,
    )


STUDIES: dict[str, BoundaryExperiment] = {
    entry.problem: entry
    for entry in (
        _of_version(
            "heat_independent",
            "single-values",
            outside=(("left", "right"), "values", (1.0, 2.0), (2.0, 3.0)),
            few=True,
            beside="single-gradients",
        ),
        _of_version("burgers_dirichlet", "single-0.02", outside=(("left",), "u_L", (1.5, 1.75), (1.75, 2.0))),
        _of_version("stokes", "single-0.02", outside=(("frequency",), "ω", (4.0, 4.25), (4.25, 4.5))),
        _of_version("heat_neumann", "single"),
        _of_version("burgers_periodic", "single", hard_methods),
        *map(_of_hard, HARD),
    )
}
"""By problem: those of the papers on an interval, with fewer samples for one whose boundary data are independent of the
initial field, and the hard ones."""
