"""All experiments and benchmarks by name."""

import importlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from experiments import boundary, combined, conservation, fields, generation
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.sources import DarcyFiles
from experiments.checks import unknown_name
from experiments.errors import InvalidArgumentError
from experiments.experiment import Experiment, RunOptions

FAMILIES: dict[str, Mapping[str, Experiment]] = {
    "conservation laws": conservation.EXPERIMENTS,
    "boundary conditions": {name: entry for name, entry in boundary.EXPERIMENTS.items() if name not in boundary.HARD},
    "hard problems of operators": {name: boundary.EXPERIMENTS[name] for name in boundary.HARD},
    "both at once": combined.EXPERIMENTS,
    "laws of fields": fields.EXPERIMENTS,
    "generated fields": generation.EXPERIMENTS,
}
EXPERIMENTS: dict[str, Experiment] = {name: entry for family in FAMILIES.values() for name, entry in family.items()}
STUDIES: dict[str, Experiment] = {**boundary.STUDIES, **conservation.STUDIES, **generation.STUDIES}
"""Studies by the problem they are of."""
CHOICES: dict[str, Experiment] = dict(boundary.CHOICES)
"""Choices of the default correction by the problem they are made on."""
TUNINGS: dict[str, Experiment] = dict(boundary.TUNINGS)
"""Tunings of all methods by the problem they are made on."""
READER = DarcyFiles().name
"""The problem whose experiments read files that other people made; those that users register may."""
BENCHMARKS: dict[str, str] = {
    "update": "the ProbConserv update against the dense form, and against copying",
    "solver": "equal error beside LSODA, FiPy, py-pde (half an hour; extra 'bench')",
    "large": "one function on up to a million cells: seconds and memory",
    "boon": "a training step of a corrected operator against the plain one",
    "inequality": "non-negative fields with a total against least squares",
    "fields": "laws with many rows on fields against pooling, SciPy and cvxpylayers",
    "projection": "a nonlinear law of 700 rows on fields, against PCFM's dense Jacobians",
    "anp": "a training step of the neural process against explicit attention",
    "scaling": "time and memory of update and solver as sizes grow",
    "orders": "observed orders of the finite volumes (two minutes)",
}


def experiment(name: str) -> Experiment:
    """The experiment of this name, one of ``EXPERIMENTS`` or a study, choice or tuning by its full name.

    Raises:
        UnknownNameError: If there is none; names the closest one.
    """
    others = (*STUDIES.values(), *CHOICES.values(), *TUNINGS.values())
    return _entry("experiment", name, EXPERIMENTS, {entry.name: entry for entry in others})


def study(name: str) -> Experiment:
    """The study of a problem; raises UnknownNameError if there is none."""
    return _entry("study of", name, STUDIES)


def choice(name: str) -> Experiment:
    """The choice of the default on a problem; raises UnknownNameError if there is none."""
    return _entry("choice on", name, CHOICES)


def tuning(name: str) -> Experiment:
    """The tuning of all methods on a problem; raises UnknownNameError if there is none."""
    return _entry("tuning on", name, TUNINGS)


def command_of(entry: Experiment) -> str:
    """The command that makes an experiment, with the name that it takes: ``study stefan`` for its calibration."""
    for command, entries in (("study", STUDIES), ("choose", CHOICES), ("tune", TUNINGS)):
        for name, each in entries.items():
            if each.name == entry.name:
                return f"{command} {name}"
    return f"run {entry.name}"


def families() -> dict[str, dict[str, Experiment]]:
    """Experiments by family, with those that were registered last."""
    grouped = {family: dict(entries) for family, entries in FAMILIES.items()}
    listed = {name for entries in grouped.values() for name in entries}
    registered = {name: entry for name, entry in EXPERIMENTS.items() if name not in listed}
    return {**grouped, "registered": registered} if registered else grouped


def refuse_idle(options: RunOptions, *entries: Experiment) -> None:
    """Raises InvalidArgumentError if ``--files`` or ``--makers`` is given and plays no part in the experiments."""
    registered, names = families().get("registered", {}), ", ".join(entry.name for entry in entries)
    if any(entry.name in registered for entry in entries):
        return
    if options.files is not None and not any(getattr(entry, "problem", None) == READER for entry in entries):
        raise InvalidArgumentError(f"--files means nothing for {names}: only {READER} reads files; leave it out.")
    if options.makers > 1 and not any(isinstance(entry, BoundaryExperiment) for entry in entries):
        raise InvalidArgumentError(
            f"--makers means nothing for {names}: only samples of operators under conditions have makers; leave it out."
        )


def register(entry: Experiment) -> None:
    """Adds an experiment to those of ``python -m experiments``, for this process.

    A script that registers one and then calls ``experiments.cli.main()`` is the command line with it.

    Args:
        entry: The experiment, for instance a ``ConservationExperiment`` of your problem.

    Raises:
        InvalidArgumentError: If another experiment has its name.
    """
    if EXPERIMENTS.get(entry.name, entry) != entry:
        raise InvalidArgumentError(f"There is another experiment '{entry.name}'; choose another name.")
    EXPERIMENTS[entry.name] = entry


def benchmark(name: str) -> Callable[[], dict[str, Any]]:
    """The benchmark of this name: a function that runs it.

    Raises:
        UnknownNameError: If there is none; names the closest one.
    """
    _entry("benchmark", name, BENCHMARKS)
    return importlib.import_module(f"experiments.benchmarks.{name}").run


def _entry(kind: str, name: str, *entries: Mapping[str, Any]) -> Any:
    for group in entries:
        if name in group:
            return group[name]
    listed, *others = entries
    raise unknown_name(kind, name, listed, further=itertools.chain(*others))
