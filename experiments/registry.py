"""All experiments and benchmarks by name; an experiment is imported when it is asked for."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments.errors import InvalidArgumentError, unknown_name
from experiments.options import CATALOGUE, REGISTERED, Durations, Listed

if TYPE_CHECKING:
    from experiments.experiment import Table

ALL = "all"
"""The word that ``run`` and ``reproduce`` take for all experiments."""
BENCHMARKS: dict[str, str] = {
    "update": "the ProbConserv update against the dense form, code by hand, SciPy and copying",
    "solver": "reference solutions at equal error beside LSODA and a bare loop",
}
_registered: dict[str, "Table"] = {}


def require_known(name: str) -> None:
    """Raises UnknownNameError, with the closest name, if there is no experiment of this name."""
    if name not in CATALOGUE:
        raise unknown_name("experiment", name, CATALOGUE)


def table(name: str) -> "Table":
    """The declaration of the experiment of this name."""
    if name in _registered:
        return _registered[name]
    require_known(name)
    module, _, group = CATALOGUE[name].home.partition(":")
    entries = getattr(importlib.import_module(f"experiments.{module}"), group).values()
    return next(entry.table for entry in entries if entry.name == name)


def families() -> dict[str, list[Listed]]:
    """Experiments to list, by family."""
    grouped: dict[str, list[Listed]] = {}
    for entry in CATALOGUE.values():
        grouped.setdefault(entry.family, []).append(entry)
    return grouped


def register(entry: "Table", summary: str = "", durations: Durations | None = None) -> None:
    """Adds an experiment to those of ``python -m experiments``, for this process.

    A script that registers one and then calls ``experiments.cli.main()`` is the command line with it. One that was
    registered before under the same name gives way.

    Args:
        entry: Its declaration, for instance ``ConservationExperiment(problem, ...).table``.
        summary: One line for ``list``.
        durations: How long each preset takes, for ``list``.

    Raises:
        InvalidArgumentError: If an experiment of the library has its name.
    """
    if entry.name in CATALOGUE and entry.name not in _registered:
        raise InvalidArgumentError(f"There is another experiment '{entry.name}'; choose another name.")
    _registered[entry.name] = entry
    CATALOGUE[entry.name] = Listed(family=REGISTERED, name=entry.name, summary=summary, durations=durations or {})


def benchmark(name: str) -> Callable[[], dict[str, Any]]:
    """The benchmark of this name: a function that runs it."""
    if name not in BENCHMARKS:
        raise unknown_name("benchmark", name, BENCHMARKS)
    return importlib.import_module(f"experiments.benchmarks.{name}").run
