"""All experiments and benchmarks by name."""

import difflib
import importlib
from collections.abc import Callable, Iterable
from typing import Any

from experiments import advection, burgers_shock, diffusion, field_experiments, operator_problems, porous_medium, stefan
from experiments.errors import InvalidArgumentError, UnknownNameError
from experiments.experiment import Experiment
from experiments.ship_studies import with_study

_CONSERVATION = (diffusion, porous_medium, stefan, advection, burgers_shock)
EXPERIMENTS: dict[str, Experiment] = {
    **{module.EXPERIMENT.name: module.EXPERIMENT for module in _CONSERVATION},
    **{name: with_study(entry) for name, entry in operator_problems.EXPERIMENTS.items()},
    **field_experiments.EXPERIMENTS,
}
BENCHMARKS: dict[str, str] = {
    "update": "the ProbConserv update against the dense n×n form, and at n = 10⁷ against copying the arrays",
    "solver": "1,000 porous medium functions in one batch against FiPy solving one (needs the extra 'bench')",
    "boon": "a training step of a boundary-corrected operator against the plain one, at the authors' sizes",
    "inequality": "non-negative fields with a given total against non-negative least squares, slice by slice",
    "anp": "a training step of the neural process against explicit attention in float32; time to the paper's accuracy",
    "scaling": "time and memory of the update and the solver as points, constraints, batch and cells grow",
    "orders": "observed orders of the finite volumes over 100 to 800 cells (about half an hour)",
}


def experiment(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        UnknownNameError: If there is none; names the closest ones.
    """
    if name not in EXPERIMENTS:
        raise UnknownNameError(_unknown("experiment", name, EXPERIMENTS))
    return EXPERIMENTS[name]


def register(own: Experiment) -> None:
    """Adds an experiment of one's own to those of ``python -m experiments``, for this process.

    A script that registers one and then calls ``experiments.commands.main()`` is the command line with it.

    Args:
        own: The experiment, for instance from ``conservation_experiment``.

    Raises:
        InvalidArgumentError: If another experiment has its name.
    """
    if EXPERIMENTS.get(own.name, own) != own:
        raise InvalidArgumentError(f"There is another experiment '{own.name}'; give yours a name of its own.")
    EXPERIMENTS[own.name] = own


def benchmark(name: str) -> Callable[[], dict[str, Any]]:
    """The benchmark of this name: a function that runs it.

    Raises:
        UnknownNameError: If there is none; names the closest ones.
    """
    if name not in BENCHMARKS:
        raise UnknownNameError(_unknown("benchmark", name, BENCHMARKS))
    return importlib.import_module(f"experiments.benchmarks.{name}").run


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"There is no {kind} '{name}'.{hint} Known: {', '.join(known)}."
