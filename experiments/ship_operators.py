"""Puts rows and weights of a finished laptop run where the library ships them from, for ``reproduce``.

python -m experiments.ship_operators stokes --out results
"""

from pathlib import Path
from typing import Any

import tyro

import boon
from experiments.experiment import RunOptions
from experiments.operator_config import OperatorCase
from experiments.operator_methods import DEFAULT_NAME, Method, methods
from experiments.operator_problems import boundary_cases
from experiments.operator_run import over_seeds, run_config, seeds
from experiments.operator_shipping import (
    ShippedResults,
    ShippedTraining,
    ShippedWeights,
    TrainingSizes,
    best_baseline,
    write_results,
)
from experiments.runs import Run
from experiments.shipping import finished_metrics, run_program, trained_file
from experiments.storage import checksum
from experiments.tables import rows_from_json
from experiments.train_operator import Place, operator_training, slug


def ship(name: str, cases: tuple[OperatorCase, ...], out: Path, seed: int = 0) -> ShippedResults:
    """Copies what ships of a finished run.

    Args:
        name: Name of the experiment.
        cases: Its cases.
        out: Folder of all stored runs.
        seed: Seed of the run.

    Returns:
        What ships now.

    Raises:
        DataFileError: If the run is not finished, or a file of weights is missing.
    """
    run = Run(name, run_config(name, cases, seed), out)
    path, content = finished_metrics(run)
    rows = tuple(rows_from_json(content, path))
    place = Place(experiment=name, out=out, data_seed=seed)
    entries, files = [], {}
    for case in cases:
        own = [row for row in rows if row.parameter == case.label]
        shipped = ("FNO", best_baseline(own), DEFAULT_NAME)
        for method in (method for method in methods(case) if method.name in shipped):
            source = _weights(case, method, place, seed)
            file = f"{name}-{case.name}-{slug(method.name)}.safetensors"
            files[file] = source
            entries.append(
                ShippedWeights(case=case.name, method=method.name, seed=seed, file=file, sha256=checksum(source))
            )
    results = ShippedResults(
        experiment=name,
        preset="laptop",
        rows=rows,
        trainings=tuple(_training(case, method, place) for case in cases for method in methods(case)),
        weights=tuple(entries),
        environment=content["environment"],
    )
    write_results(results, files)
    return results


def _weights(case: OperatorCase, method: Method, place: Place, seed: int) -> Path:
    folder = place.folder(case, operator_training(case, method, place.data_seed, seed))
    return trained_file(folder, place.experiment)


def _training(case: OperatorCase, method: Method, place: Place) -> ShippedTraining:
    """How the operators of a row were trained, from the notes in their files."""
    paths = [_weights(case, method, place, seed) for seed in seeds(case, place.data_seed)]
    notes = [boon.read_notes(path) for path in paths]
    return ShippedTraining(
        parameter=case.label,
        method=method.name,
        seconds=over_seeds([note["seconds"] for note in notes]),
        processors=tuple(dict.fromkeys(note["environment"]["machine"]["processor"] for note in notes)),
        sizes=_sizes(notes[0]["training"], case.sizes.test, len(notes)),
    )


def _sizes(config: dict[str, Any], test: int, count: int) -> TrainingSizes:
    data, network = config["samples"]["config"], config["network"]
    return TrainingSizes(
        samples=data["samples"] - config["validation"],
        validation=config["validation"],
        test=test,
        nodes=data["nodes"],
        width=network["width"],
        modes=network["modes"],
        depth=network["depth"],
        steps=config["training"]["steps"],
        batch=config["batch"],
        seeds=count,
    )


def main(name: tyro.conf.Positional[str], out: Path = Path("results"), seed: int = 0) -> None:
    """Ships the rows and the weights of an experiment.

    Args:
        name: Name of the experiment.
        out: Folder of all stored runs.
        seed: Seed of the run.
    """
    for entry in ship(name, boundary_cases(name, RunOptions(preset="laptop")), out, seed).weights:
        print(entry.file)


if __name__ == "__main__":
    run_program(lambda: tyro.cli(main))
