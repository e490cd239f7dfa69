"""Conservation experiments in sizes that run in a second, and cases without files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.conservation import EXPERIMENTS, ConservationExperiment
from experiments.conservation.cases import Case, Sizes
from probconserv.surrogates.gp import GPConfig
from solvers.problems import Problem
from solvers.problems.conservation import STEFAN

SIZES = Sizes(functions=23, points=41, samples=400, curve_times=4)
TINY = Sizes(functions=4, points=41, samples=20, curve_functions=2, curve_times=3, cells=40, output_times=20)


def case(problem: Problem = STEFAN, parameter: float = 0.6, **changes: Any) -> Case:
    """A case on closed-form data."""
    settings = {"sizes": SIZES, "data": "exact", "seed": 0, "gp": GPConfig(), "data_version": 0}
    return Case(problem=problem, parameter=parameter, data_folder=Path("unused"), **{**settings, **changes})


def tiny(name: str, **changes: Any) -> ConservationExperiment:
    """An experiment of few functions whose networks are trained for two steps."""
    entry = EXPERIMENTS[name]
    assert entry.networks is not None
    plan = replace(entry.networks, steps=2, members=2)
    return replace(entry, **{"sizes": {"smoke": TINY}, "networks": plan, "gp": GPConfig(steps=5), **changes})
