"""The combined experiments in sizes that train in milliseconds."""

from dataclasses import replace

from experiments.combined import EXPERIMENTS
from experiments.combined.experiment import CombinedExperiment
from experiments.combined.fields import FieldProblem
from experiments.combined.networks import Network
from experiments.combined.problems import Sizes, cases_of
from probconserv.training import TrainingConfig

PROBLEMS = {problem.name: problem for entry in EXPERIMENTS.values() for problem in entry.problems}
_TRAINING = TrainingConfig(steps=4, peak_rate=1e-2, validate_every=2, checkpoint_every=2, precision="32-true")
_GRID = {"nodes": 17, "times": 3, "refinement": 2, "width": 4, "modes": 3, "depth": 2}
_NUMBERS = {"samples": 6, "validation": 2, "test": 3, "batch": 3, "members": 2, "groups": 2}
SIZES = Sizes(training=_TRAINING, **_GRID, **_NUMBERS)


def tiny_problem(name: str) -> FieldProblem:
    """A problem on the grid of the tiny sizes."""
    return cases_of(PROBLEMS[name], SIZES)[0].problem


def shrunk(network: Network) -> Network:
    """A network in the tiny sizes."""
    return replace(network, width=SIZES.width, modes=SIZES.modes, depth=SIZES.depth)


def tiny(name: str, *problems: str, steps: int = 4) -> CombinedExperiment:
    """An experiment with some of its problems and one shift each."""
    entry, sizes = EXPERIMENTS[name], replace(SIZES, training=replace(SIZES.training, steps=steps))
    chosen = [problem for problem in entry.problems if not problems or problem.name in problems]
    shifted_once = tuple(replace(problem, intervals=problem.intervals[:2]) for problem in chosen)
    return replace(entry, problems=shifted_once, sizes={"smoke": sizes})
