"""Puts rows and weights of a finished laptop run where the library ships them from, for ``reproduce``.

python -m experiments.ship_operators stokes --out results
"""

import sys
from pathlib import Path

import tyro

from experiments.errors import DataFileError, ExperimentError
from experiments.experiment import RunOptions
from experiments.operator_config import OperatorCase
from experiments.operator_methods import DEFAULT_NAME, methods
from experiments.operator_problems import boundary_cases
from experiments.operator_run import run_config
from experiments.operator_shipping import ShippedResults, ShippedWeights, best_baseline, write_results
from experiments.runs import Run
from experiments.storage import checksum, read_json
from experiments.tables import Row
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
        DataFileError: If the run is not finished.
    """
    run = Run(name, run_config(name, cases, seed), out)
    path = run.folder / "metrics.json"
    if not path.is_file():
        raise DataFileError(f"'{path}' is missing: finish the run before it ships (python -m experiments run {name}).")
    rows = tuple(Row.from_json(row) for row in read_json(path)["rows"])
    place = Place(experiment=name, out=out, data_seed=seed)
    entries, files = [], {}
    for case in cases:
        own = [row for row in rows if row.parameter == case.label]
        shipped = ("FNO", best_baseline(own), DEFAULT_NAME)
        for method in (method for method in methods(case) if method.name in shipped):
            training = operator_training(case, method, seed, seed)
            source = place.folder(case, training) / "weights.safetensors"
            file = f"{name}-{case.name}-{slug(method.name)}.safetensors"
            files[file] = source
            entries.append(
                ShippedWeights(case=case.name, method=method.name, seed=seed, file=file, sha256=checksum(source))
            )
    results = ShippedResults(
        experiment=name,
        preset="laptop",
        rows=rows,
        weights=tuple(entries),
        environment=read_json(run.folder / "environment.json"),
    )
    write_results(results, files)
    return results


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
    try:
        tyro.cli(main)
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
