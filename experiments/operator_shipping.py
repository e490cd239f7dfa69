"""Results and weights of the boundary-condition experiments that ship with the library.

``experiments/results/<experiment>.json`` holds the rows of a finished run, says how the operators of every row were
trained, and names the operators that ship: of the first seed the FNO, the best baseline that sees the boundary values,
and BOON (default). Their files are ``experiments/weights/operators/<experiment>-<case>-<method>.safetensors``.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boon
from boon import BOON, FNO
from experiments.errors import NotShippedError
from experiments.operator_methods import BASELINES, DEFAULT_NAME
from experiments.shipping import no_results, shipped_results, shipped_weights, write_shipped
from experiments.tables import Row, Score, as_score, rows_from_json


@dataclass(frozen=True, kw_only=True)
class ShippedWeights:
    """One operator that ships.

    Args:
        case: Name of the case.
        method: Name of the method.
        seed: Seed of its training.
        file: Name of the file.
        sha256: Its checksum.
    """

    case: str
    method: str
    seed: int
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TrainingSizes:
    """Samples, network and steps of a training.

    Args:
        samples: Samples trained on.
        validation: Samples held out.
        test: Test samples of the row.
        nodes: Nodes along every axis of space.
        width: Channels of the hidden layers.
        modes: Frequencies kept along every axis of space.
        depth: Fourier layers.
        steps: Optimiser steps.
        batch: Samples a step.
        seeds: Trainings of the row.
    """

    samples: int
    validation: int
    test: int
    nodes: int
    width: int
    modes: int
    depth: int
    steps: int
    batch: int
    seeds: int


@dataclass(frozen=True, kw_only=True)
class ShippedTraining:
    """How the operators of one row were trained.

    Args:
        parameter: As in the row.
        method: As in the row.
        seconds: Wall time of a training on one thread, mean and standard error over seeds.
        processors: Processors of the machines.
        sizes: Samples, network and steps.
    """

    parameter: str
    method: str
    seconds: Score
    processors: tuple[str, ...]
    sizes: TrainingSizes

    @staticmethod
    def from_json(content: dict[str, Any]) -> "ShippedTraining":
        """The inverse of ``dataclasses.asdict`` through JSON."""
        seconds = as_score(content.pop("seconds"))
        sizes = TrainingSizes(**content.pop("sizes"))
        processors = tuple(content.pop("processors"))
        return ShippedTraining(seconds=seconds, processors=processors, sizes=sizes, **content)


@dataclass(frozen=True, kw_only=True)
class ShippedResults:
    """What ships of one experiment.

    Args:
        experiment: Name of the experiment.
        preset: Preset of the run.
        rows: Its table.
        trainings: How the operators of every row were trained.
        weights: The operators that ship.
        environment: Machine and versions of the run.
    """

    experiment: str
    preset: str
    rows: tuple[Row, ...]
    trainings: tuple[ShippedTraining, ...]
    weights: tuple[ShippedWeights, ...]
    environment: dict[str, Any]


def read_results(experiment: str) -> ShippedResults:
    """The stored results of an experiment.

    Raises:
        NotShippedError: If none ship yet.
        DataFileError: If the file is damaged.
    """
    path, content = shipped_results(experiment)
    try:
        rows = tuple(rows_from_json(content, path))
        del content["rows"]
        trainings = tuple(ShippedTraining.from_json(entry) for entry in content.pop("trainings"))
        weights = tuple(ShippedWeights(**entry) for entry in content.pop("weights"))
        return ShippedResults(rows=rows, trainings=trainings, weights=weights, **content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise no_results(path, error) from error


def write_results(results: ShippedResults, files: dict[str, Path]) -> None:
    """Puts results and weights where they ship from.

    Args:
        results: The results.
        files: Where every file of weights lies now, by its shipped name.
    """
    content = {
        "experiment": results.experiment,
        "preset": results.preset,
        "rows": [row.as_json() for row in results.rows],
        "trainings": [asdict(entry) for entry in results.trainings],
        "weights": [asdict(entry) for entry in results.weights],
        "environment": results.environment,
    }
    write_shipped(results.experiment, content, "operators", files)


def weights_path(entry: ShippedWeights) -> Path:
    """The file of an operator that ships.

    Raises:
        NotShippedError: If it is not there.
        DataFileError: If it is damaged.
    """
    whose = f"of '{entry.method}', '{entry.file}',"
    return shipped_weights("operators", entry.file, entry.sha256, whose, "python -m experiments run")


def load_pretrained_operator(experiment: str, case: str, method: str = DEFAULT_NAME) -> FNO | BOON:
    """A trained operator that ships: ``load_pretrained_operator("heat_independent", "single-values")``.

    Args:
        experiment: Name of the experiment.
        case: Name of its case.
        method: Name of the method.

    Returns:
        The operator, in evaluation mode. ``boon.read_notes`` of its file says how it was trained.

    Raises:
        NotShippedError: If no such operator ships; names those that do.
        DataFileError: If the file is damaged.
    """
    weights = read_results(experiment).weights
    for entry in weights:
        if (entry.case, entry.method) == (case, method):
            return boon.load(weights_path(entry)).eval()
    known = "; ".join(f"{entry.case}: {entry.method}" for entry in weights)
    raise NotShippedError(f"No weights ship for '{method}' of {experiment}, {case}. Known: {known}.")


def best_baseline(rows: Sequence[Row]) -> str:
    """The baseline of equal information with the lowest validation score among the rows of a case."""
    scores = {row.method: row.scores["validation"][0] for row in rows if row.method in BASELINES}
    return min(scores, key=lambda name: scores[name])
