"""Puts rows and weights of a finished laptop run where the library ships them from, for ``reproduce``.

python -m experiments.ship_fields combined --out results
"""

from pathlib import Path

import tyro

from experiments.field_config import SIZES, FieldSizes
from experiments.field_experiments import study_of
from experiments.field_run import run_config
from experiments.field_shipping import FieldResults, shipped_name, write_field_results
from experiments.field_study import FieldStudy, groups
from experiments.runs import Run
from experiments.shipping import finished_metrics, run_program, trained_file
from experiments.storage import checksum
from experiments.tables import rows_from_json


def ship(study: FieldStudy, sizes: FieldSizes, out: Path, seed: int = 0) -> FieldResults:
    """Copies what ships of a finished run.

    Args:
        study: The experiment.
        sizes: The sizes of the run.
        out: Folder of all stored runs.
        seed: Seed of the run.

    Returns:
        What ships now.

    Raises:
        DataFileError: If the run is not finished, or a file of weights is missing.
    """
    own = groups(study, sizes, seed)
    run = Run(study.name, run_config(study, sizes, seed, own), out)
    path, content = finished_metrics(run)
    trainings = [training for group in own if group.number == 0 for training in group.trainings]
    files = {shipped_name(training): trained_file(training.folder(out), study.name) for training in trainings}
    results = FieldResults(
        experiment=study.name,
        preset="laptop",
        seed=seed,
        rows=tuple(rows_from_json(content, path)),
        trainings=content["trainings"],
        weights={name: checksum(file) for name, file in files.items()},
        environment=content["environment"],
    )
    write_field_results(results, files)
    return results


def main(name: tyro.conf.Positional[str], out: Path = Path("results"), seed: int = 0) -> None:
    """Ships the rows and the weights of an experiment.

    Args:
        name: Name of the experiment.
        out: Folder of all stored runs.
        seed: Seed of the run.
    """
    for file in ship(study_of(name), SIZES["laptop"], out, seed).weights:
        print(file)


if __name__ == "__main__":
    run_program(lambda: tyro.cli(main))
