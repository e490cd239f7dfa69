"""Results and weights of the experiments on operators under both constraints that ship with the library.

``experiments/results/<experiment>.json`` holds the rows of a finished run and how its operators were trained;
``experiments/weights/fields/`` the operators of its first group. Experiments that share a training share its file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boon
from experiments.errors import DataFileError, NotShippedError
from experiments.field_study import Group
from experiments.operator_run import over_seeds
from experiments.operator_shipping import ROOT
from experiments.storage import checksum, read_object, write_bytes, write_json
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
    path = ROOT / "results" / f"{experiment}.json"
    if not path.is_file():
        raise NotShippedError(
            f"No results of experiment '{experiment}' ship with this version of the library; make them by "
            f"python -m experiments run {experiment} --preset laptop."
        )
    content = read_object(path)
    rows = tuple(rows_from_json(content, path))
    try:
        return FieldResults(**{**content, "rows": rows})
    except TypeError as error:
        raise DataFileError(f"'{path}' does not hold results of an experiment ({error}); restore it.") from error


def write_field_results(results: FieldResults, files: Mapping[str, Path]) -> None:
    """Puts results and weights where they ship from.

    Args:
        results: The results.
        files: Where every file of weights lies now, by its shipped name.
    """
    folder = ROOT / "weights" / "fields"
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / "results").mkdir(exist_ok=True)
    for name, source in files.items():
        write_bytes(folder / name, source.read_bytes())
    content = {**vars(results), "rows": [row.as_json() for row in results.rows]}
    write_json(ROOT / "results" / f"{results.experiment}.json", content)


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
    path = ROOT / "weights" / "fields" / name
    if name not in results.weights or not path.is_file():
        raise NotShippedError(
            f"The weights '{name}' of {results.experiment} are missing in {path.parent}; install the library again or "
            f"train it by python -m experiments run {results.experiment}."
        )
    if checksum(path) != results.weights[name]:
        raise DataFileError(f"'{path}' is damaged: its checksum is not that of the results; restore it.")
    return path


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
