"""Results and weights of the experiments on operators under both constraints that ship with the library.

``experiments/results/<experiment>.json`` holds the rows of a finished run and how its operators were trained;
``experiments/weights/fields/`` the operators of its first group. Experiments that share a training share its file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boon
from experiments.field_study import Group
from experiments.operator_run import over_seeds
from experiments.shipping import no_results, shipped_results, shipped_weights, write_shipped
from experiments.tables import Row, rows_from_json
from experiments.train_field import FieldTraining


@dataclass(frozen=True, kw_only=True)
class FieldResults:
    """What ships of one experiment.

    Args:
        experiment: Name of the experiment.
        preset: Preset of the run.
        seed: Seed of the run.
        rows: Its table.
        trainings: How the operators of every row were trained, see ``training_times``.
        weights: Checksum of every operator that ships, by its file.
        environment: Machine and versions of the run.
    """

    experiment: str
    preset: str
    seed: int
    rows: tuple[Row, ...]
    trainings: list[dict[str, Any]]
    weights: dict[str, str]
    environment: dict[str, Any]


def read_field_results(experiment: str) -> FieldResults:
    """The stored results of an experiment.

    Raises:
        NotShippedError: If none ship yet.
        DataFileError: If the file is damaged.
    """
    path, content = shipped_results(experiment)
    rows = tuple(rows_from_json(content, path))
    try:
        return FieldResults(**{**content, "rows": rows})
    except TypeError as error:
        raise no_results(path, error) from error


def write_field_results(results: FieldResults, files: Mapping[str, Path]) -> None:
    """Puts results and weights where they ship from.

    Args:
        results: The results.
        files: Where every file of weights lies now, by its shipped name.
    """
    content = {**vars(results), "rows": [row.as_json() for row in results.rows]}
    write_shipped(results.experiment, content, "fields", files)


def shipped_name(training: FieldTraining) -> str:
    """Name of the file of a training's operator."""
    return f"{training.data['problem']}-{training.network.name}-{training.training.seed}.safetensors"


def shipped_file(results: FieldResults, training: FieldTraining) -> Path:
    """The file of an operator that ships.

    Raises:
        NotShippedError: If it is not there.
        DataFileError: If it is damaged.
    """
    name = shipped_name(training)
    whose, command = f"'{name}' of {results.experiment}", f"python -m experiments run {results.experiment}"
    return shipped_weights("fields", name, results.weights.get(name), whose, command)


def training_times(own: Sequence[Group], files: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """How the operators of every row were trained, as JSON can hold it.

    Args:
        own: The groups.
        files: Weights by the key of their group.

    Returns:
        For every case and method: ``parameter`` (the case), ``method``, ``seconds`` of a training (mean and standard
        error), ``processors``, ``sizes`` (``steps``, ``batch``, ``samples``, ``nodes``, ``trainings``).
    """
    entries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for group in own:
        notes = [boon.read_notes(path) for path in files[group.key]]
        entries.setdefault((group.case.name, group.method.name), []).extend(notes)
    found = []
    for (case, method), notes in entries.items():
        config = notes[0]["training"]
        sizes = {
            "steps": config["training"]["steps"],
            "batch": config["batch"],
            "samples": config["samples"],
            "nodes": config["data"]["nodes"],
            "trainings": len(notes),
        }
        processors = dict.fromkeys(str(note["environment"]["machine"]["processor"]) for note in notes)
        seconds = over_seeds([float(note["seconds"]) for note in notes])
        entry = {"parameter": case, "method": method, "seconds": seconds, "processors": list(processors)}
        found.append({**entry, "sizes": sizes})
    return found
