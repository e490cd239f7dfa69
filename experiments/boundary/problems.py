"""The problems of the boundary-condition experiments: all of a case but its equation stands in its row here.

A row of ``PROBLEMS`` says what is given at the sides, and by preset the cases: their source of samples, output times,
sizes of samples, network and training, the methods that are compared (``methods.py`` says what each of them is), and
the settings that were chosen for some on the validation set. Equations and random inputs are in ``equations`` and in
``solvers.problems.operator_problems``.

``smoke`` takes seconds. On problems of the papers ``laptop`` takes on one core a minute or two a training, five to ten
on the square; ``paper`` has the samples, nodes, widths, modes, batches and numbers of steps of Saad et al. 2023. Hard
problems have many modes, thin layers, two phases, random flows or several unknowns; ``laptop`` takes one to three
minutes a training on one core, ``paper`` has twice the width and four times the steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from experiments.boundary.cases import BoundaryCase, BoundarySizes, NetworkSizes, Setting, Versions, trained
from experiments.boundary.equations import standard as closed
from experiments.boundary.equations.problem import BoundaryProblem
from experiments.boundary.methods import (
    BETWEEN_WALLS,
    CHANNELS,
    DEFAULT,
    ELIMINATION,
    FNO,
    IN_CELLS,
    ON_CIRCLE,
    ON_INTERVAL,
    ON_SQUARE,
    PACKAGE,
    PENALTY,
    PRESCRIPTION,
    PUBLISHED,
    UNET,
    WITH_GRADIENTS,
    WITHOUT_SCHUR,
    WITHOUT_SCHUR_CHANNELS,
)
from experiments.boundary.samples import CellSource, ClosedFormSource, RecipeSource
from experiments.experiment import Preset
from solvers import Dirichlet, Neumann
from solvers.problems.operator_problems import OPERATOR_PROBLEMS


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A row.

    Args:
        title: What figures call the problem.
        field: What figures call its field, which is dimensionless; the symbol stands last.
        coordinate: What figures call the axis.
        cases: From the preset to its cases.
    """

    title: str
    field: str = "u"
    coordinate: str = "x"
    cases: Versions


MANY = 25  # output times of cases with several
_SMALL = NetworkSizes(width=12, modes=6, depth=2)
_SMOKE = trained(40, 3e-3, _SMALL, samples=40, validation=8, test=8, nodes=33, batch=8, seeds=1)
_SQUARE = {"nodes": 50, "batch": 10, "seeds": 1}
_PAPER = {"samples": 1000, "validation": 100}
SEVERAL_TIMES = {
    "smoke": _SMOKE,
    "laptop": trained(2500, 3e-3, NetworkSizes(width=32)),
    "paper": trained(25_000, 1e-3, NetworkSizes(width=32, modes=12, time_modes=12), **_PAPER, nodes=500),
}
ONE_TIME = SEVERAL_TIMES | {"paper": trained(12_500, 3e-3, NetworkSizes(), test=100, nodes=500)}
SQUARE = {
    "smoke": replace(_SMOKE, nodes=17, samples=20, batch=4),
    "laptop": trained(1500, 3e-3, NetworkSizes(width=32, modes=8), samples=220, validation=20, test=50, **_SQUARE),
    "paper": trained(50_000, 1e-3, NetworkSizes(width=20, modes=8, time_modes=8), **_PAPER, **_SQUARE),
}
CIRCLE_LAPTOP = trained(5000, 3e-3, NetworkSizes(width=32))
"""Twice the steps of the others: initial fields are random, no map of a few parameters."""


def _case(
    preset: Preset,
    problem: BoundaryProblem,
    times: int,
    methods: Sequence[str],
    key: str = "",
    label: str = "",
    final_time: float | None = None,
    **options: Any,
) -> BoundaryCase:
    """A case of a closed form with one or more output times; key and label tell it from others of as many."""
    kind, when = "multi", f"{times} times, t ≤ {final_time or problem.final_times[0]:g}"
    if times == 1:
        kind, when = "single", f"t = {problem.single_time:g}"
    sizes = SQUARE if len(problem.conditions) == 2 else ONE_TIME if times == 1 else SEVERAL_TIMES
    return BoundaryCase(
        key=f"{kind}-{key}".rstrip("-"),
        label=f"{label}, {when}".removeprefix(", "),
        source=ClosedFormSource(problem),
        times=times,
        final_time=final_time,
        methods=tuple(methods),
        sizes=sizes[preset],
        **options,
    )


def _notebook(preset: Preset, problem: BoundaryProblem, nodes: int, final_time: float, setting: str = "") -> Any:
    """The set-up of a notebook of Saad et al. that prints an error of theirs; none in a trial."""
    case = _case(preset, problem, MANY, PUBLISHED, "notebook", f"{setting}{nodes} nodes", final_time)
    return () if preset == "smoke" else (replace(case, sizes=replace(case.sizes, nodes=nodes)),)


def _by_viscosity(preset: Preset, problem: Callable[[float], BoundaryProblem], *viscosities: float) -> Any:
    """One and many times of every viscosity, of ν = 0.02 alone but in the papers' sizes."""
    chosen, methods = viscosities if preset == "paper" else (0.02,), _with_elimination(preset, ON_INTERVAL)
    return tuple(_case(preset, problem(ν), times, methods, f"{ν:g}", f"ν={ν:g}") for ν in chosen for times in (1, MANY))


def _with_elimination(preset: Preset, methods: tuple[str, ...]) -> tuple[str, ...]:
    """Also BOON as published; not in a trial, which ends while some of the pivots that it divides by change sign."""
    return methods if preset == "smoke" else (*methods, ELIMINATION)


def _in_their_sizes(
    preset: Preset, problem: BoundaryProblem, setting: str, epochs: int = 500, nodes: int = 500, **options: Any
) -> tuple[BoundaryCase, ...]:
    """On a laptop the case in the sizes of Saad et al. as well: one output time, one seed."""
    if preset != "laptop":
        return ()
    label = f"{setting}{nodes} nodes, {epochs} epochs"
    case = _case("paper", problem, 1, PUBLISHED, "paper", label, **options)
    steps = case.sizes.training.steps * epochs // 500
    training = replace(case.sizes.training, steps=steps, validate_every=steps // 20)
    return (replace(case, sizes=replace(case.sizes, nodes=nodes, training=training, seeds=1)),)


def _stokes(preset: Preset) -> tuple[BoundaryCase, ...]:
    """The case in the papers' sizes has two fifths of their epochs."""
    cases = _by_viscosity(preset, closed.stokes, 0.1, 0.02, 0.005, 0.002, 0.001)
    problem = closed.stokes(0.1)
    return *cases, *_in_their_sizes(preset, problem, "ν=0.1, ", 200), *_notebook(preset, problem, 500, 1.2, "ν=0.1, ")


def _burgers_dirichlet(preset: Preset) -> tuple[BoundaryCase, ...]:
    """The case in the papers' sizes is that of the best number of Saad et al."""
    cases = _by_viscosity(preset, closed.burgers_dirichlet, 0.1, 0.05, 0.02, 0.005, 0.001)
    return *cases, *_in_their_sizes(preset, closed.burgers_dirichlet(0.1), "ν=0.1, ")


def _heat_neumann(preset: Preset) -> tuple[BoundaryCase, ...]:
    problem = closed.heat_neumann()
    methods = _with_elimination(preset, WITH_GRADIENTS)
    both = (_case(preset, problem, times, methods) for times in (1, MANY))
    long = _case(preset, problem, MANY, methods, "long", final_time=problem.final_times[1])
    notebook = _notebook(preset, problem, 1024, problem.final_times[0])
    shorter = () if preset == "smoke" else (long,)
    return *both, *shorter, *_in_their_sizes(preset, problem, ""), *notebook


def _wave_neumann(preset: Preset) -> tuple[BoundaryCase, ...]:
    one, many = closed.wave_neumann(), closed.wave_neumann(modes=4)
    first = _case(preset, one, MANY, ON_SQUARE, "one-mode", "mode (1, 1)")
    more = _case(preset, many, MANY, ON_SQUARE, "16-modes", "16 modes")
    return (first,) if preset == "smoke" else (first, more)


def _burgers_periodic(preset: Preset) -> tuple[BoundaryCase, ...]:
    problem = closed.burgers_periodic()
    cases = (_case(preset, problem, times, ON_CIRCLE, given=False) for times in (1, MANY))
    sized = (replace(case, sizes=CIRCLE_LAPTOP) if preset == "laptop" else case for case in cases)
    return *sized, *_in_their_sizes(preset, problem, "", nodes=128, given=False)


def _heat_independent(preset: Preset) -> tuple[BoundaryCase, ...]:
    kinds = ((1, 0, ""), (MANY, 4, "varying "))
    return tuple(
        _case(preset, closed.heat_independent(side, harmonics), times, methods, key, varying + key)
        for times, harmonics, varying in kinds[: 1 if preset == "smoke" else 2]
        for key, side, methods in (("values", None, ON_INTERVAL), ("gradients", Neumann(), WITH_GRADIENTS))
    )


_HARD_SMOKE = trained(
    20, 3e-3, NetworkSizes(width=8, modes=4, depth=2), samples=24, validation=8, test=4, nodes=33, batch=8, seeds=1
)
_SMOKE_CELLS = {1: {"intervals": 32, "refinement": 4}, 2: {"intervals": 16, "refinement": 2}}
"""Of reference solutions in a trial, by the number of axes."""
_HARD_INTERVAL = {"samples": 1200, "validation": 200, "test": 200, "seeds": 3}
_HARD_SQUARE = {"samples": 600, "validation": 100, "test": 100, "seeds": 2, "nodes": 33}
_ON_PLANE = NetworkSizes(width=32, modes=8)


def _random(
    name: str,
    preset: Preset,
    *,
    sizes: BoundarySizes,
    methods: Sequence[str],
    final_time: float | None,
    settings: Mapping[str, Setting],
    given: bool = True,
    **source: Any,
) -> tuple[BoundaryCase, ...]:
    """The case of a problem of ``OPERATOR_PROBLEMS``: from the start to a later time, or from a medium to the steady
    field. ``sizes`` are those of a laptop, ``source`` options of the ``RecipeSource``."""
    problem = OPERATOR_PROBLEMS[name]
    if preset == "smoke":
        recipe = replace(problem.recipe, **_SMOKE_CELLS[problem.dimension])
        problem = replace(problem, recipe=recipe)  # pyright: ignore[reportArgumentType]
        sizes = replace(_HARD_SMOKE, nodes=17 if problem.dimension == 2 else 33)
    if preset == "paper":
        steps, every = 4 * sizes.training.steps, 4 * sizes.training.validate_every
        training = replace(sizes.training, steps=steps, validate_every=every)
        sizes = replace(sizes, training=training, network=replace(sizes.network, width=2 * sizes.network.width))
    return (
        BoundaryCase(
            key="single",
            label="steady" if final_time is None else f"t = {final_time:g}",
            source=RecipeSource(problem=problem, **source),
            final_time=final_time,
            given=given,
            methods=tuple(methods),
            settings=settings,
            sizes=sizes,
        ),
    )


_LEVEL, _STILL = (Neumann(0.0), Neumann(0.0)), (Dirichlet(0.0), Dirichlet(0.0))
_SHORT, _LONG = {"padding": 0.125}, {"padding": 0.5}
_MLP = {"channel_mlp": 0.5}
_SHARE = {"share": 1.0}
_SLOW = Setting(rate=1 / 3)


def _darcy(preset: Preset) -> tuple[BoundaryCase, ...]:
    """Values at nodes, and averages over cells with small networks, one pair of them under conditions at nodes."""
    at_nodes = _random(
        "darcy",
        preset,
        sizes=trained(1500, 3e-3, _ON_PLANE, samples=1200, validation=200, test=200, seeds=2, nodes=33),
        methods=ON_SQUARE,
        final_time=None,
        settings={
            FNO: Setting(architecture=_LONG | _MLP),
            PACKAGE: Setting(architecture=_SHORT),
            CHANNELS: Setting(architecture=_LONG),
            WITHOUT_SCHUR: Setting(architecture=_SHORT),
            WITHOUT_SCHUR_CHANNELS: Setting(architecture=_LONG),
            DEFAULT: Setting(architecture=_LONG, correction=_SHARE),
        },
    )
    small = trained(500, 3e-3, NetworkSizes(width=16, modes=8, order=2), samples=500, validation=50, test=100, nodes=32)
    (other,) = _random("darcy", preset, sizes=small, methods=IN_CELLS, final_time=None, settings={})
    source = CellSource(nodes=other.source)
    return *at_nodes, replace(other, key="single-cells", label="averages over cells", source=source, cells=True)


PROBLEMS: dict[str, Problem] = {
    # values, which follow from the initial field
    "stokes": Problem(
        title="Stokes' second problem",
        field="velocity u",
        coordinate="y",
        cases=_stokes,
    ),
    # values, which follow from the initial field
    "burgers_dirichlet": Problem(
        title="Burgers, travelling wave",
        field="velocity u",
        cases=_burgers_dirichlet,
    ),
    # gradients, which follow from the initial field
    "heat_neumann": Problem(
        title="Heat between insulator and heater",
        field="temperature u",
        cases=_heat_neumann,
    ),
    # zero gradients on four walls
    "wave_neumann": Problem(
        title="Waves between reflecting walls",
        field="displacement u",
        cases=_wave_neumann,
    ),
    # periodic
    "burgers_periodic": Problem(title="Burgers on a circle", field="velocity u", cases=_burgers_periodic),
    # values on four walls
    "cavity": Problem(
        title="Lid-driven cavity",
        field="vorticity ω",
        cases=lambda preset: (_case(preset, closed.cavity(), MANY, ON_SQUARE),),
    ),
    # values, or gradients, that are independent of the initial field
    "heat_independent": Problem(
        title="Heat, independent boundary data",
        field="temperature u",
        cases=_heat_independent,
    ),
    # random values at both ends
    "viscous_burgers": Problem(
        title="Burgers, thin layers",
        field="velocity u",
        cases=partial(
            _random,
            "viscous_burgers",
            sizes=trained(2500, 3e-3, NetworkSizes(width=32, modes=24), **_HARD_INTERVAL, nodes=257),
            methods=ON_INTERVAL,
            final_time=0.5,
            settings={
                FNO: Setting(architecture=_LONG | _MLP),
                PACKAGE: Setting(architecture=_SHORT),
                CHANNELS: Setting(architecture=_LONG | _MLP),
                PRESCRIPTION: Setting(architecture=_LONG | _MLP),
                PENALTY: Setting(architecture=_LONG | _MLP),
                WITHOUT_SCHUR: Setting(architecture=_SHORT | _MLP),
                WITHOUT_SCHUR_CHANNELS: Setting(architecture=_SHORT | _MLP),
                DEFAULT: Setting(architecture=_LONG | _MLP, correction=_SHARE),
            },
        ),
    ),
    # a random value and a random gradient
    "reaction_diffusion": Problem(
        title="Growth in a random medium",
        field="density u",
        cases=partial(
            _random,
            "reaction_diffusion",
            sizes=trained(2500, 3e-3, NetworkSizes(width=32), **_HARD_INTERVAL, nodes=129),
            methods=WITH_GRADIENTS,
            final_time=0.5,
            settings={
                FNO: Setting(architecture=_LONG | _MLP),
                PACKAGE: Setting(architecture=_SHORT),
                CHANNELS: Setting(architecture=_SHORT),
                PRESCRIPTION: Setting(architecture=_LONG),
                PENALTY: Setting(architecture=_SHORT),
                WITHOUT_SCHUR: Setting(architecture=_SHORT | _MLP),
                WITHOUT_SCHUR_CHANNELS: Setting(architecture=_SHORT),
                DEFAULT: Setting(architecture=_SHORT, correction={"share": 0.5}),
            },
        ),
    ),
    # random values on two sides, random gradients on the others
    "darcy": Problem(
        title="Darcy flow, two materials",
        field="pressure u",
        cases=_darcy,
    ),
    # random values on two walls, zero gradients on the others
    "advection_diffusion": Problem(
        title="Heat in a random flow",
        field="temperature u",
        cases=partial(
            _random,
            "advection_diffusion",
            sizes=trained(1500, 3e-3, _ON_PLANE, **_HARD_SQUARE),
            methods=ON_SQUARE,
            final_time=1.0,
            settings={
                FNO: Setting(architecture=_SHORT | _MLP),
                UNET: _SLOW,
                PACKAGE: Setting(architecture=_SHORT),
                CHANNELS: Setting(architecture=_LONG),
                WITHOUT_SCHUR: Setting(architecture=_SHORT | _MLP),
                WITHOUT_SCHUR_CHANNELS: Setting(architecture=_SHORT),
                DEFAULT: Setting(architecture=_LONG, correction=_SHARE),
            },
        ),
    ),
    # four reflecting walls: each unknown has its conditions, with zero data
    "basin": Problem(
        title="Shallow water in a basin",
        field="elevation h − 1",
        cases=partial(
            _random,
            "basin",
            sizes=trained(1500, 3e-3, _ON_PLANE, **_HARD_SQUARE),
            methods=BETWEEN_WALLS,
            final_time=1.0,
            settings={
                **dict.fromkeys((FNO, PACKAGE, PRESCRIPTION, DEFAULT), Setting(architecture=_SHORT)),
                UNET: _SLOW,
            },
            given=False,
            walls=((_LEVEL, _LEVEL), (_STILL, _LEVEL), (_LEVEL, _STILL)),
            rest=(1.0, 0.0, 0.0),
        ),
    ),
}
"""By name."""
