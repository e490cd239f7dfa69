"""Which versions of its problem each experiment has, and the sizes of the presets."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from experiments.boundary.cases import SHORT_EXTENSION, BoundaryCase, BoundarySizes, NetworkSizes
from experiments.experiment import Preset
from probconserv.training import TrainingConfig
from solvers import Neumann
from solvers.problems import boundary_problems as problems
from solvers.problems.boundary_samples import BoundaryProblem

Versions = Callable[[Preset], tuple[BoundaryCase, ...]]
VORTICITY_UNIT = 8.0  # the vorticity on the walls is some tens of lid speeds over side lengths


def _training(steps: int, peak_rate: float) -> TrainingConfig:
    return TrainingConfig(
        steps=steps, peak_rate=peak_rate, weight_decay=1e-4, validate_every=max(1, steps // 20), precision="32-true"
    )


_SMOKE = BoundarySizes(
    samples=40,
    validation=8,
    test=8,
    nodes=33,
    network=NetworkSizes(width=12, modes=6, depth=2),
    training=_training(40, 3e-3),
    batch=8,
    seeds=1,
)
_LAPTOP = BoundarySizes(network=NetworkSizes(width=32), training=_training(5000, 3e-3))
_LAPTOP_SQUARE = BoundarySizes(
    samples=220,
    validation=20,
    test=50,
    nodes=50,
    network=NetworkSizes(width=32, modes=8),
    training=_training(2500, 3e-3),
    batch=10,
    seeds=1,
)
_PAPER_SINGLE = BoundarySizes(test=100, nodes=500, training=_training(12_500, 3e-3))
_PAPER_MULTI = BoundarySizes(
    samples=1000,
    validation=100,
    nodes=500,
    network=NetworkSizes(width=32, modes=12, time_modes=12),
    training=_training(25_000, 1e-3),
)
_PAPER_SQUARE = replace(
    _PAPER_MULTI,
    nodes=50,
    network=NetworkSizes(width=20, modes=8, time_modes=8),
    training=_training(50_000, 1e-3),
    batch=10,
    seeds=1,
)


def sized(case: BoundaryCase, preset: Preset) -> BoundaryCase:
    """A case with the sizes of a preset; the unit and the stencil's order of the case stay.

    Args:
        case: The case.
        preset: ``smoke`` (seconds), ``laptop`` (on one core a minute or two a training, five to ten on the square) or
            ``paper`` (the samples, nodes, widths, modes, batches and numbers of steps of Saad et al. 2023).
    """
    square = len(case.problem.conditions) == 2
    paper = _PAPER_SQUARE if square else _PAPER_SINGLE if case.times == 1 else _PAPER_MULTI
    small = replace(_SMOKE, nodes=17, samples=20, batch=4) if square else _SMOKE
    sizes = {"smoke": small, "laptop": _LAPTOP_SQUARE if square else _LAPTOP, "paper": paper}[preset]
    kept = case.sizes.network
    network = replace(sizes.network, unit=kept.unit, order=kept.order)
    return replace(case, sizes=replace(sizes, network=network))


def single_step(problem: BoundaryProblem, key: str = "", label: str = "", independent: bool = False) -> BoundaryCase:
    """The version with one output time, in the laptop's sizes.

    Args:
        problem: The problem.
        key: Distinguishes it from other versions of the same kind in file names.
        label: Distinguishes it from them in tables.
        independent: As in ``BoundaryCase``.
    """
    return BoundaryCase(
        key=f"single-{key}".rstrip("-"),
        label=f"{label}, single step to t = {problem.single_time:g}".removeprefix(", "),
        problem=problem,
        independent=independent,
        sizes=_LAPTOP,
    )


def many_steps(
    problem: BoundaryProblem, key: str = "", label: str = "", independent: bool = False, final: float | None = None
) -> BoundaryCase:
    """The version with 25 output times, in the laptop's sizes.

    Args:
        problem: The problem.
        key: As for ``single_step``; so are ``label`` and ``independent``.
        label: See there.
        independent: See there.
        final: Last output time; None for the problem's usual one.
    """
    square = len(problem.conditions) == 2
    return BoundaryCase(
        key=f"multi-{key}".rstrip("-"),
        label=f"{label}, 25 times to t = {final or problem.final_times[0]:g}".removeprefix(", "),
        problem=problem,
        times=25,
        final_time=final,
        independent=independent,
        few_methods=square,
        sizes=_LAPTOP_SQUARE if square else _LAPTOP,
    )


def _by_viscosity(problem: Callable[[float], BoundaryProblem], viscosities: Sequence[float]) -> Versions:
    def versions(preset: Preset) -> tuple[BoundaryCase, ...]:
        return tuple(
            version(problem(viscosity), f"{viscosity:g}", f"ν={viscosity:g}")
            for viscosity in (viscosities if preset == "paper" else (0.02,))
            for version in (single_step, many_steps)
        )

    return versions


def _heat_neumann(preset: Preset) -> tuple[BoundaryCase, ...]:
    problem = problems.heat_neumann()
    short = (single_step(problem), many_steps(problem))
    return short if preset == "smoke" else (*short, many_steps(problem, "long", final=problem.final_times[1]))


def _wave_neumann(preset: Preset) -> tuple[BoundaryCase, ...]:
    one = many_steps(problems.wave_neumann(), "one-mode", "mode (1, 1)")
    return (one,) if preset == "smoke" else (one, many_steps(problems.wave_neumann(modes=4), "16-modes", "16 modes"))


def _burgers_periodic(preset: Preset) -> tuple[BoundaryCase, ...]:  # noqa: ARG001 - the same versions in each
    problem = problems.burgers_periodic()
    return single_step(problem), many_steps(problem)


def _cavity(preset: Preset) -> tuple[BoundaryCase, ...]:  # noqa: ARG001 - the same version in each
    case = many_steps(problems.cavity())
    network = replace(case.sizes.network, unit=VORTICITY_UNIT)
    return (replace(case, extension=SHORT_EXTENSION, sizes=replace(case.sizes, network=network)),)


def _heat_independent(preset: Preset) -> tuple[BoundaryCase, ...]:
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


_CASES: dict[str, Versions] = {
    "stokes": _by_viscosity(problems.stokes, (0.1, 0.02, 0.005, 0.002, 0.001)),
    "burgers_dirichlet": _by_viscosity(problems.burgers_dirichlet, (0.1, 0.05, 0.02, 0.005, 0.001)),
    "heat_neumann": _heat_neumann,
    "wave_neumann": _wave_neumann,
    "burgers_periodic": _burgers_periodic,
    "cavity": _cavity,
    "heat_independent": _heat_independent,
}
VERSIONS: dict[str, Versions] = {
    name: lambda preset, cases=cases: tuple(sized(case, preset) for case in cases(preset))
    for name, cases in _CASES.items()
}
"""From the preset to the versions of every problem, in the sizes of the preset."""
