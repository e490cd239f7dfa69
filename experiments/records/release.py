"""The release: results and weights that come with the library, and the manifest that names every file of them.

    manifest.json    data versions; SHA-256 of every file of weights; preset, seed and machine of every experiment
    results/NAME/    records.csv (means), scores.csv.gz (per function and seed), trainings.json, description.json
    weights/         safetensors, as ``load_pretrained`` and ``load_operator`` read them

``python -m experiments.maintain release NAME`` puts a finished run here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import DataFileError, NotReleasedError
from experiments.records.description import FILE, Description, read_description
from experiments.records.storage import checksum, read_object, write_bytes, write_json
from experiments.records.store import read_records, read_scores, write_records, write_scores

ROOT = Path(str(resources.files("experiments")))


@dataclass(frozen=True, kw_only=True)
class ReleasedResults:
    """The results of one experiment that come with the library.

    Args:
        trained_version: Version of the data that its networks were trained on.
        scored_version: Version of the data that its records were scored on, which ``reproduce`` compares on.
        scores: Scores per function and seed of the seed that is shown, and of others where they were stored.
        trainings: Case, method, seed, seconds, steps and processor of every training.
        weights: Released files of weights, below ``experiments/weights``.
    """

    experiment: str
    preset: str
    seed: int
    trained_version: int
    scored_version: int
    records: pd.DataFrame
    scores: pd.DataFrame
    trainings: pd.DataFrame
    weights: list[str]
    environment: dict[str, Any]
    description: Description


def manifest(root: Path = ROOT) -> dict[str, Any]:
    """The manifest: ``data_versions``, ``weights`` (SHA-256 by file) and ``experiments``.

    Args:
        root: Folder of the release, here and below.

    Raises:
        DataFileError: If it is missing or damaged.
    """
    return _read_manifest(root / "manifest.json")


@cache
def _read_manifest(path: Path) -> dict[str, Any]:
    content = read_object(path)
    missing = {"data_versions", "weights", "experiments"} - content.keys()
    if missing:
        raise DataFileError(f"'{path}' lacks {', '.join(sorted(missing))}; restore it from the repository.")
    return content


def data_version(family: str) -> int:
    """Version of the data of a problem; 0 for problems that are not in the manifest, such as a user's."""
    return int(manifest()["data_versions"].get(family, 0))


def released_results(experiment: str, root: Path = ROOT) -> ReleasedResults:
    """The released results of an experiment.

    Raises:
        NotReleasedError: If there are none.
        DataFileError: If a file is damaged.
    """
    entries = manifest(root)["experiments"]
    if experiment not in entries:
        raise NotReleasedError(
            f"There are no released results of '{experiment}' (there are of {', '.join(sorted(entries)) or 'none'}); "
            f"python -m experiments run {experiment} --preset laptop makes them."
        )
    folder = root / "results" / experiment
    trainings = pd.read_json(folder / "trainings.json", orient="records", dtype=False)
    return ReleasedResults(
        experiment=experiment,
        records=read_records(folder / "records.csv"),
        scores=read_scores(folder / "scores.csv.gz"),
        trainings=trainings,
        description=read_description(folder),
        **entries[experiment],
    )


def released_weights(name: str, root: Path = ROOT) -> Path:
    """A released file of weights.

    Raises:
        NotReleasedError: If it is not part of the release, or of this installation.
        DataFileError: If its checksum is not that of the manifest.
    """
    path, expected = root / "weights" / name, manifest(root)["weights"].get(name)
    if expected is None:
        raise NotReleasedError(
            f"The weights '{name}' are not part of the release; python -m experiments run makes them."
        )
    if not path.is_file():
        raise NotReleasedError(f"The weights '{name}' are in the repository, but not in this installation.")
    if checksum(path) != expected:
        raise DataFileError(f"'{path}' is damaged: its checksum is not that of the manifest; restore the file.")
    return path


def write_release(released: Sequence[tuple[ReleasedResults, Mapping[str, Path]]], root: Path = ROOT) -> list[Path]:
    """Puts results and weights where they are released from, and enters them in the manifest.

    Files of weights are given by their path below ``experiments/weights``. Returns the files that were written.

    Raises:
        DataFileError: If a file would replace one that the results of an experiment that is not among them are from;
            nothing is written then.
    """
    content, sums = manifest(root), dict[str, str]()
    for _, weights in released:
        sums |= {file: checksum(path) for file, path in weights.items()}
    _check_shared([results.experiment for results, _ in released], sums, content)
    files, keys = list[Path](), ("preset", "seed", "trained_version", "scored_version", "weights", "environment")
    for results, weights in released:
        folder = root / "results" / results.experiment
        folder.mkdir(parents=True, exist_ok=True)
        write_records(folder / "records.csv", results.records)
        write_scores(folder / "scores.csv.gz", results.scores)
        write_bytes(folder / "trainings.json", (results.trainings.to_json(orient="records", indent=1) + "\n").encode())
        write_json(folder / FILE, results.description.as_json())
        for file, path in weights.items():
            target = root / "weights" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, path.read_bytes())
        content["experiments"][results.experiment] = {key: getattr(results, key) for key in keys}
        files += [folder / file for file in ("records.csv", "scores.csv.gz", "trainings.json", FILE)]
    content["weights"].update(sums)
    write_json(root / "manifest.json", content)
    _read_manifest.cache_clear()
    return [*files, root / "manifest.json"]


def _check_shared(together: Sequence[str], sums: Mapping[str, str], content: Mapping[str, Any]) -> None:
    """Refuses weights that would replace a file of an experiment that is not released with them."""
    for other, entry in content["experiments"].items():
        before = {file: content["weights"][file] for file in entry["weights"]}
        changed = [file for file, old in before.items() if sums.get(file, old) != old]
        if other not in together and changed:
            names = " ".join([*together, other])
            raise DataFileError(
                f"'{changed[0]}' differs from the file of that name that the results of {other} are from; release both "
                f"from one output folder, in which they use the same training: release {names}."
            )
