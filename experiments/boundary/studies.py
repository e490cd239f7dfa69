"""When boundary corrections pay: few samples, boundary values out of range, other grids, disturbed inputs, rollouts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.boundary.cases import BoundaryCase, BoundarySizes, Versions, coarser, finer
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.figures import draw_case
from experiments.boundary.hard import HARD
from experiments.boundary.methods import (
    CHANNELS,
    CIRCLE,
    DEFAULT,
    FNO,
    PAPER,
    PAPER_CHANNELS,
    PRESCRIPTION,
    RESIDUAL,
    Method,
    methods,
)
from experiments.boundary.sample_figures import draw_sample
from experiments.boundary.sources import ClosedFormSource, RecipeSource, Source, StepSource
from experiments.boundary.versions import VERSIONS
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study changes.

    Args:
        within: Whether the validation set counts among them, one in ten; else it is as large beside them.
        rollout: Source of single steps; None for no rollouts.
    """

    counts: Sequence[int]
    within: bool = True
    outside: Outside
    grids: Sequence[int]
    rollout: StepSource | None = None


def study_cases(base: BoundaryCase, plan: Plan, trajectories: tuple[int, int] = (200, 20)) -> tuple[BoundaryCase, ...]:
    """Operators of a case on fewer samples, outside the training range, on other grids, with disturbed inputs.

    All training samples of ``base`` are the last of the counts; ``trajectories`` are for training and validation of
    single steps.
    """
    cases, other = [], replace(base, trained_on=base)
    for count in plan.counts:
        label = f"{count} samples"
        trained_on = replace(base, sizes=_fewer(base, count, plan.within))
        cases.append(replace(base, key=f"samples-{count}", label=label, trained_on=trained_on))
    for number, (label, source) in enumerate(plan.outside.items()):
        cases.append(replace(other, key=f"outside-{number}", label=label, source=source))
    for nodes in plan.grids:
        sizes = replace(base.sizes, nodes=nodes)
        names = {"key": f"nodes-{nodes}", "label": f"{nodes} nodes"}
        cases.append(replace(other, **names, sizes=sizes))
    rollouts = [] if plan.rollout is None else [_rollout(base, plan.rollout, trajectories)]
    return *cases, *disturbed(other), *rollouts


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


def _fewer(base: BoundaryCase, count: int, within: bool) -> BoundarySizes:
    """Sizes with another number of training samples; all of them are the sizes of the case."""
    sizes, validation = base.sizes, max(1, count // VALIDATION)
    if not within and count == sizes.samples - sizes.validation:
        return sizes
    samples = count if within else count + validation
    return replace(sizes, samples=samples, validation=validation, batch=min(sizes.batch, samples - validation))


def _rollout(base: BoundaryCase, steps: StepSource, trajectories: tuple[int, int]) -> BoundaryCase:
    """An operator of single steps, applied one after the other to the end of the trajectories."""
    training, validation = (count * steps.steps for count in trajectories)
    sizes = replace(base.sizes, samples=training + validation, validation=validation)
    final = {"final_time": steps.final_time}
    single = replace(base, key="step", label="single steps", source=steps, sizes=sizes, **final)
    return replace(
        base,
        key="rollout",
        label=f"{steps.steps} steps to t = {steps.final_time:g}",
        source=steps.trajectories,
        times=steps.steps,
        trained_on=single,
        rollout=True,
        **final,
    )


def hard_methods(case: BoundaryCase) -> tuple[Method, ...]:
    """Three methods of a problem: the best FNO of equal information, the paper's form, the default.

    Without boundary data the first is the FNO on the circle, or output prescription where an axis is not periodic, and
    where the paper's form is not defined the plain FNO stands in.
    """
    rows = {method.key: method for method in methods(case)}
    equal = next(key for key in (CHANNELS, CIRCLE, PRESCRIPTION) if key in rows)
    paper = next(key for key in (PAPER_CHANNELS, PAPER, FNO) if key in rows)
    return tuple(method for key, method in rows.items() if key in (equal, paper, DEFAULT))


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
        beyond = outside_of(base.source, *outside) if outside else {}
        plan = Plan(counts=counts, outside=beyond, grids=_around(base.sizes.nodes))
        return *study_cases(base, plan), *(() if beside is None else disturbed_beside(cases[beside]))

    return _study(problem, versions, methods_of)


def _around(nodes: int) -> tuple[int, ...]:
    """Half as many nodes, one less, one more, twice and four times as many."""
    return coarser(nodes), nodes - 1, nodes + 1, finer(nodes), finer(finer(nodes))


def _of_hard(name: str) -> Versions:
    """From the preset to the cases of the study of a hard problem."""

    def versions(preset: Preset) -> tuple[BoundaryCase, ...]:
        base = HARD[name](preset)[0]
        source, sizes = base.source, base.sizes
        nodes = sizes.nodes
        fewer = () if preset == "smoke" else (50, 100, 200)
        outside, rollout = {}, None
        if isinstance(source, RecipeSource):
            if base.given:
                outside = {
                    f"sides in [{low:g}, {high:g}] × training": beyond(source, (low, high)) for low, high in BEYOND
                }
            if source.problem.recipe.times:
                rollout = StepSource(trajectories=replace(source, whole=True), steps=ROLLOUT)
        plan = Plan(
            counts=(*fewer, sizes.samples - sizes.validation),
            within=False,
            outside=outside,
            grids=_around(nodes) if base.axes == 1 else (finer(nodes),),
            rollout=rollout,
        )
        training, validation = TRAJECTORIES[preset]
        return study_cases(base, plan, (training * (3 - base.axes), validation * (3 - base.axes)))

    return versions


def beyond(source: RecipeSource, sizes: tuple[float, float]) -> RecipeSource:
    """The same problem with larger data of the sides than any in training, by factors between the two ``sizes``."""
    return replace(source, problem=replace(source.problem, beyond=sizes))  # pyright: ignore[reportArgumentType]


def _study(problem: str, versions: Versions, methods_of: Callable[..., Sequence[Method]]) -> BoundaryExperiment:
    subject = "few samples, values out of range, other grids, disturbed inputs"
    hard = problem in HARD
    return BoundaryExperiment(
        name=f"{problem}-study",
        problem=problem,
        versions=versions,
        methods_of=methods_of,
        subject=f"{subject}, rollouts" if hard else subject,
        figures_of=draw_sample if hard else draw_case,
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
        *(_study(name, _of_hard(name), hard_methods) for name in HARD),
    )
}
"""By problem: those of the papers on an interval, with fewer samples for one whose boundary data are independent of the
initial field, and the hard ones."""
