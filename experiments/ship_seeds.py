"""Puts the table of a finished sweep where the library ships it from; ``experiments.summary`` writes it into the docs.

python -m experiments sweep stefan --seeds 0 1 2 --preset laptop --networks anp --out results
python -m experiments.ship_seeds stefan --seeds 0 1 2 --preset laptop --networks anp --out results
"""

from pathlib import Path
from typing import Any

import tyro

from experiments.errors import DataFileError, InvalidArgumentError
from experiments.registry import experiment
from experiments.shipping import ROOT, run_program
from experiments.storage import read_object, write_json
from experiments.sweep import SweepJob, SweepOptions
from experiments.sweep_table import SeedTable, seed_table
from experiments.tables import rows_from_json

FOLDER = ROOT / "results" / "seeds"


def ship_seeds(name: str, options: SweepOptions) -> Path:
    """Copies the rows of a sweep, and how and where each of its runs was made.

    Args:
        name: The experiment.
        options: Those of the sweep.

    Returns:
        The file that ships.

    Raises:
        UnknownNameError: If there is no such experiment.
        InvalidArgumentError: If the preset is not the laptop's, whose numbers ship.
        DataFileError: If a run is not finished.
    """
    if options.preset != ("laptop",):
        raise InvalidArgumentError("Tables over seeds ship from the laptop preset; add --preset laptop.")
    (preset,) = options.preset
    jobs = [SweepJob(experiment=experiment(name), seed=seed, preset=preset, options=options) for seed in options.seeds]
    runs = {job.seed: _metrics(job) for job in jobs}
    table = seed_table(name, preset, {job.seed: rows_from_json(runs[job.seed], job.record) for job in jobs})
    made = [
        {"seed": seed, **{key: content[key] for key in ("networks", "environment") if key in content}}
        for seed, content in runs.items()
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    write_json(path, {**table.as_json(), "rows": [row.as_json() for row in table.rows], "runs": made})
    return path


def shipped_seeds(name: str, folder: Path | None = None) -> SeedTable | None:
    """The table over seeds that ships with an experiment, or None.

    Args:
        name: The experiment.
        folder: Where such tables lie; by default that of the library.

    Raises:
        DataFileError: If its file is damaged.
    """
    path = (folder or FOLDER) / f"{name}.json"
    if not path.is_file():
        return None
    content = read_object(path)
    try:
        return SeedTable(name, content["preset"], tuple(content["seeds"]), rows_from_json(content, path))
    except (KeyError, TypeError) as error:
        raise DataFileError(f"'{path}' does not hold a table over seeds ({error}); restore it.") from error


def _metrics(job: SweepJob) -> dict[str, Any]:
    content = job.metrics()
    if content is None:
        raise DataFileError(f"The run '{job.label}' is not finished; finish the sweep before it ships.")
    return content


def main(name: tyro.conf.Positional[str], options: tyro.conf.OmitArgPrefixes[SweepOptions]) -> None:
    """Ships the table over seeds of an experiment.

    Args:
        name: Name of the experiment.
        options: Those of the sweep.
    """
    print(ship_seeds(name, options))


if __name__ == "__main__":
    run_program(lambda: tyro.cli(main))
