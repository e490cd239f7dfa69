"""Cost of reference solutions: ours at equal error beside scipy's LSODA and a bare loop, on one core.

Every method takes the fastest of its settings whose L1 error against the exact cell averages is within 10 % of a
target, 15 % above the spatial error of the cells. All use one core; seconds are per function, without compilation.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.integrate import odeint

from experiments.benchmarks.baselines import CELLS, SYSTEMS, rkl2_loop
from experiments.benchmarks.measure import compared, report
from experiments.benchmarks.shocks import pairs
from experiments.errors import LibraryError
from experiments.stages import one_thread
from solvers import ESDIRK4, RKL2, SSPRK3, TRBDF2, CellGrid, DiffusiveLaw, Dirichlet, Neumann, PorousMedium, solve
from solvers.finite_volume.solve import Solution
from solvers.finite_volume.steppers.steppers import Stepper
from solvers.problems import Problem, exact
from solvers.problems.conservation import BURGERS, DIFFUSION, POROUS_MEDIUM, STEFAN

TOLERANCES = (1e-2, 3e-3, 2e-3, 1e-3, 5e-4, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
DIFFUSIVE: list[list[Stepper]] = [[method(tolerance) for tolerance in TOLERANCES] for method in (TRBDF2, ESDIRK4, RKL2)]
CONVECTIVE: list[list[Stepper]] = [[SSPRK3(courant) for courant in (1.0, 0.8, 0.5, 0.25)]]
"""Steppers for either kind of law, each with growing accuracy."""
SPREAD = 0.05
RELATIVE = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6)
RATIOS = (1.0, 0.1, 0.01)
"""Relative tolerances of LSODA, and its absolute tolerances as fractions of them."""
_FLOOR, _MOST_ODE_STEPS = 1e-11, 10**6
SIDES, START, END, CONSTANT = (64, 128, 256), 0.05, 0.2, 0.1
"""Cells an axis of Barenblatt's solution, and its time and size."""
STEPS, MOST_STEPS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128), 1024
"""Steps of the bare loop that are tried, and those that leave the spatial error alone."""
MARGIN, ALLOWED = 1.15, 1.1
"""The target error is MARGIN × the spatial error of the common cells; a setting suffices within ALLOWED × it."""
LIMIT, REPEATS, SHORT = 20.0, 5, 0.5
"""A ladder ends at a function that takes LIMIT seconds; runs of less than SHORT seconds are repeated."""
_SLOWER = 3.0


class Attempt(NamedTuple):
    """A setting of a method: what it is called, and what it computes, values ``(functions, t, *cells)``."""

    setting: str
    action: Callable[[], np.ndarray]


class Measured(NamedTuple):
    """A setting's seconds per function and L1 error, and whether the error suffices."""

    setting: str
    seconds: float
    error: float
    suffices: bool


Ladder = Iterable[Attempt]
"""Settings of one kind, from the cheapest to the most accurate."""


def run(
    functions: int = 256, looped: int = 16, planes: tuple[int, ...] = SIDES, limit: float = LIMIT
) -> dict[str, Any]:
    """Compares single functions, a batch in one call beside others one after another,
    shocks with a bare loop, and Barenblatt's solution.

    Args:
        functions: Functions of a batch, whose parameters spread by 5 % each way.
        looped: Of them, those that LSODA solves one after another, and whose errors count.
        planes: Cells an axis in two dimensions.
        limit: Seconds per function at which no more accurate settings of a method are tried.
    """
    entries: list[dict[str, Any]] = []
    for case in cases():
        batch = case.spread(functions)
        entries.append(_beside_lsoda(f"{case.name}, one function", case, case, limit))
        some = batch.every(functions // looped)
        entries.append(_beside_lsoda(f"{case.name}, one of {functions} in a call", batch, some, limit))
    entries += [_beside_loop(*pair) for pair in pairs()]
    compilers = ", ".join(f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite"))
    return report("solver", [*entries, *(_plane(cells, limit) for cells in planes)], compilers)


def fastest(
    ladders: Sequence[Ladder], error: Callable[[np.ndarray], float], floor: float, limit: float = LIMIT
) -> Measured:
    """The fastest setting whose error suffices, else the most accurate one.

    A ladder is climbed until its settings take thrice the time of the fastest that suffices, or ``limit`` seconds.
    ``floor`` is the spatial error of the common cells.
    """
    measured: list[Measured] = []
    for ladder in ladders:
        for number, (setting, action) in enumerate(ladder):
            if number == 0:
                action()  # which may compile
            seconds, values = timed(action)
            seconds, size = seconds / len(values), error(values)
            if np.isfinite(size):
                measured.append(Measured(setting, seconds, size, size <= ALLOWED * MARGIN * floor))
            enough = min((each.seconds for each in measured if each.suffices), default=np.inf)
            if seconds > min(limit, _SLOWER * enough):
                break
    if not measured:
        raise LibraryError("No setting of a method gave finite values, so there is nothing to compare with.")
    return min(measured, key=lambda each: (not each.suffices, each.seconds if each.suffices else each.error))


def timed(action: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Shortest processor seconds of an action, and its result: one run, or five if they are short.

    Processor time, since every method runs on one core: other work on the machine then counts little.
    """
    seconds, result = np.inf, np.empty(0)
    for _ in range(REPEATS):
        started = time.process_time()
        result = action()
        seconds = min(seconds, time.process_time() - started)
        if seconds > SHORT:
            break
    return seconds, result


def case_of(name: str, ours: Measured, baseline: str, theirs: Measured, floor: float) -> dict[str, Any]:
    """A case with the errors beside the seconds."""
    errors = {"L1 error": ours.error, "target L1": MARGIN * floor, "baseline L1 error": theirs.error}
    return compared(name, ours.seconds, baseline, theirs.seconds, **errors, setting=ours.setting)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Functions of one problem with neighbouring parameters; the L1 error is a mean over them, times and cells."""

    name: str
    problem: Problem
    parameters: tuple[float, ...]
    times: tuple[float, ...]

    def grid(self, cells: int = CELLS) -> CellGrid:
        """Cells of the problem's interval."""
        return CellGrid(*self.problem.domain, cells)

    def initial(self, parameter: float) -> np.ndarray:
        """Exact initial cell averages ``(cells,)``, new memory."""
        return self.problem.initial(self.grid(), parameter).numpy().copy()

    def every(self, stride: int) -> "Case":
        """Every ``stride``-th of these functions."""
        return replace(self, parameters=self.parameters[::stride])

    def error(self, values: np.ndarray) -> float:
        """L1 error of values ``(functions, t, cells)`` on any number of cells; of more functions than the case has,
        evenly spaced ones count."""
        parameters, times = (torch.tensor(each, dtype=torch.float64) for each in (self.parameters, self.times))
        exact = self.problem.averages(times, self.grid(values.shape[-1]), parameters[:, None])
        return float(np.abs(values[:: -(-len(values) // len(parameters))] - exact.numpy()).mean())

    def spread(self, functions: int) -> "Case":
        """The same with parameters up to 5 % below and above."""
        (centre,) = self.parameters
        parameters = centre * np.linspace(1.0 - SPREAD, 1.0 + SPREAD, functions)
        return replace(self, parameters=tuple(parameters.tolist()))


def cases() -> list[Case]:
    """The six problems, one function each."""
    stefan_times = tuple(np.arange(1, 21) / 200)
    return [
        *(
            Case(name=f"PME m = {m:g}", problem=POROUS_MEDIUM, parameters=(m,), times=(POROUS_MEDIUM.test_time,))
            for m in POROUS_MEDIUM.test_parameters
        ),
        Case(name="Stefan u* = 0.6", problem=STEFAN, parameters=(0.6,), times=stefan_times),
        Case(name="diffusion k = 1", problem=DIFFUSION, parameters=(1.0,), times=(DIFFUSION.test_time,)),
        Case(name="Burgers a = 3", problem=BURGERS, parameters=(3.0,), times=(BURGERS.test_time,)),
    ]


def solution(case: Case, **options: Any) -> Callable[[], Solution]:
    """A solver of all functions of a case in one call, on one thread."""
    parameters = torch.tensor(case.parameters, dtype=torch.float64)
    problem, grid = case.problem, case.grid()
    law, boundary, initial = problem.law(parameters), problem.boundary(parameters), problem.initial(grid, parameters)

    def run() -> Solution:
        with one_thread():
            return solve(law, grid, boundary, initial, case.times, **options)

    return run


def ours(case: Case) -> list[Ladder]:
    """The default, then every stepper that suits the law."""
    diffusive = isinstance(case.problem.law(case.parameters[0]), DiffusiveLaw)
    return own_ladders(lambda **options: solution(case, **options), DIFFUSIVE if diffusive else CONVECTIVE)


def own_ladders(prepare: Callable[..., Callable[[], Solution]], steppers: list[list[Stepper]]) -> list[Ladder]:
    """The default, called by the stepper that it chose, then the steppers given; ``prepare`` takes options of solve."""
    chosen = prepare()().work
    names = [type(stepper).__name__ for stepper in chosen.steppers]
    default = _attempt(f"default, {' and '.join(names)}", prepare())
    return [[default], *([_attempt(_name(each), prepare(stepper=each)) for each in ladder] for ladder in steppers)]


def _name(stepper: Stepper) -> str:
    accuracy = getattr(stepper, "courant" if isinstance(stepper, SSPRK3) else "tolerance")
    return f"{type(stepper).__name__}({accuracy:g})"


def _attempt(setting: str, run: Callable[[], Solution]) -> Attempt:
    return Attempt(setting, lambda: run().values.numpy())


def _beside_lsoda(name: str, case: Case, looped: Case, limit: float) -> dict[str, Any]:
    """Functions in one call beside those that LSODA solves one after another."""
    floor = looped.error(integration(looped, _FLOOR, 0.1 * _FLOOR)())
    mine = fastest(ours(case), looped.error, floor, limit)
    return case_of(name, mine, "LSODA", fastest(lsoda(looped), looped.error, floor, limit), floor)


def _beside_loop(name: str, mine: Callable[[], np.ndarray], loop: Callable[[], np.ndarray]) -> dict[str, Any]:
    """A solution by steps of one rule beside a bare loop, and the mean difference of the two."""
    difference = float(np.abs(mine() - loop()).mean())
    with one_thread():
        return compared(name, timed(mine)[0], "bare loop", timed(loop)[0], difference=difference)


def lsoda(case: Case) -> list[Ladder]:
    """A ladder for every ratio of the two tolerances."""
    names = [
        [(f"rtol {rtol:.0e}, atol {ratio * rtol:.0e}", rtol, ratio * rtol) for rtol in RELATIVE] for ratio in RATIOS
    ]
    return [[Attempt(name, integration(case, *tolerances)) for name, *tolerances in ladder] for ladder in names]


def integration(case: Case, relative: float, absolute: float) -> Callable[[], np.ndarray]:
    """A solver for cell averages ``(functions, t, cells)``, one function after another."""
    system, spacing = SYSTEMS[case.problem.name], case.grid().spacing[0]
    starts = [case.initial(parameter)[system.order] for parameter in case.parameters]
    options = {"rtol": relative, "atol": absolute, "ml": system.band, "mu": system.band, "mxstep": _MOST_ODE_STEPS}

    def run() -> np.ndarray:
        values = np.empty((len(starts), len(case.times), CELLS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a failure shows in the error
            for row, start, parameter in zip(values, starts, case.parameters, strict=True):
                states = odeint(system.rate, start, (0.0, *case.times), (parameter, spacing), tfirst=True, **options)
                row[:, system.order] = states[1:]
        return values

    return run


def barenblatt(cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell averages ``(cells, cells)`` on the quarter [0, 1]² of m = 2 at the start and at the end, by 5 × 5 points."""
    fine = CellGrid((0.0, 0.0), (1.0, 1.0), (5 * cells, 5 * cells)).points
    fields = (exact.barenblatt(time, fine, 2.0, CONSTANT) for time in (START, END))
    first, last = (field.reshape(cells, 5, cells, 5).mean((1, 3)).numpy() for field in fields)
    return first, last


def _plane(cells: int, limit: float) -> dict[str, Any]:
    """Barenblatt's solution on ``cells`` cells an axis."""
    start, end = barenblatt(cells)

    def error(values: np.ndarray) -> float:
        return float(np.abs(values[0] - end).mean())

    floor = error(rkl2_loop(start, END - START, MOST_STEPS)[None])
    loop = [Attempt(f"{n} steps", lambda n=n: rkl2_loop(start, END - START, n)[None]) for n in STEPS]
    theirs = fastest([loop], error, floor, limit)
    mine = fastest(ours_on_plane(start), error, floor, limit)
    return case_of(f"Barenblatt m = 2, {cells}²", mine, "RKL2 loop", theirs, floor)


def ours_on_plane(start: np.ndarray) -> list[Ladder]:
    """The default and the steppers of ours from a start to the end."""
    grid, wall = CellGrid((0.0, 0.0), (1.0, 1.0), start.shape), (Neumann(flux=0.0), Dirichlet(0.0))
    law, initial = PorousMedium(2.0), torch.from_numpy(start)

    def prepare(**options: Any) -> Callable[[], Solution]:
        def run() -> Solution:
            with one_thread():
                return solve(law, grid, [wall, wall], initial, [END], start=START, **options)

        return run

    return own_ladders(prepare, DIFFUSIVE)
