"""Configs of the experiments as frozen values, and the presets that fill them."""

from dataclasses import dataclass, field
from typing import Any

import probconserv
import solvers
from experiments.checks import require_at_least
from experiments.errors import InvalidArgumentError
from experiments.experiment import Data, Preset, RunOptions
from experiments.runs import source_digest
from probconserv.surrogates.gp import GPConfig

DECIDING_MODULES = ("conservation", "evaluation", "methods", "shift")


def scoring_source() -> str:
    """Digest of the code that decides scores: the solvers, the update, and the experiments' own evaluation."""
    return source_digest(probconserv, solvers, modules=DECIDING_MODULES)


@dataclass(frozen=True, kw_only=True)
class ConservationConfig:
    """Everything that decides the result of a conservation experiment.

    Args:
        problem: Name of the problem.
        data: Where the context points come from.
        seed: Seed of everything random.
        functions: Test functions per parameter.
        places: Equally spaced places of the domain at which predictions are scored.
        samples: Posterior samples per function for the energy score and the shock position.
        curve_functions: Test functions in the curves over time.
        curve_times: Times in the curves over time.
        cells: Cells of the finite-volume grid.
        output_times: Output times of the finite-volume solution, from which context times are drawn.
        gp: The Gaussian process.
        networks: Identity of every neural process, by name: digest of its training, or checksum of weights that ship.
        source: Digest of the code that scores are computed by; another version's scores are not read back.

    Raises:
        InvalidArgumentError: If a number is too small.
    """

    problem: str
    data: Data
    seed: int
    functions: int = 50
    places: int = 201
    samples: int = 500
    curve_functions: int = 5
    curve_times: int = 21
    cells: int = 800
    output_times: int = 400
    gp: GPConfig
    networks: dict[str, str] = field(default_factory=dict)
    source: str = field(default_factory=scoring_source)

    def __post_init__(self) -> None:
        require_at_least(self, functions=2, places=3, samples=2, curve_functions=1, curve_times=2)
        require_at_least(self, cells=8, output_times=10)
        if self.curve_functions > self.functions:
            raise InvalidArgumentError(
                f"curve_functions must not exceed functions = {self.functions}, got {self.curve_functions}."
            )


SIZES: dict[Preset, dict[str, Any]] = {
    "smoke": {"functions": 50, "samples": 200, "cells": 200, "output_times": 200, "curve_times": 11},
    "laptop": {},
    "paper": {"cells": 1600, "output_times": 1000},
}


def conservation_config(
    problem: str, options: RunOptions, data: Data, gp: GPConfig, networks: dict[str, str]
) -> ConservationConfig:
    """The config that a user's options stand for.

    Args:
        problem: Name of the problem.
        options: Preset and seed.
        data: Where context points come from.
        gp: The Gaussian process that suits the problem.
        networks: Identities of the neural processes.

    Returns:
        The config.
    """
    return ConservationConfig(
        problem=problem, data=data, seed=options.seed, gp=gp, networks=networks, **SIZES[options.preset]
    )
