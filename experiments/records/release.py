"""The release: results and weights that come with the library, and the manifest that names every file of them.

    manifest.json    data versions; SHA-256 of every file of weights
    results/NAME/    run.json and scores.csv.gz, as in the folder of a run; over_seeds.csv: means over seeds whose
                     scores per function were not stored
    weights/         safetensors, as ``load_pretrained`` and ``load_operator`` read them

``python -m experiments.maintain release NAME`` puts a finished run here.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from experiments.errors import DataFileError, NotReleasedError
from experiments.options import CATALOGUE
from experiments.records.run import FILE, Run, read_run
from experiments.records.storage import checksum, read_object, write_bytes, write_json

ROOT = Path(str(resources.files("experiments")))


def manifest(root: Path = ROOT) -> dict[str, Any]:
    """The manifest: ``data_versions`` and ``weights`` (SHA-256 by file).

    Args:
        root: Folder of the release, here and below.

    Raises:
        DataFileError: If it is missing or damaged.
    """
    return _read_manifest(root / "manifest.json")


@cache
def _read_manifest(path: Path) -> dict[str, Any]:
    content = read_object(path)
    missing = {"data_versions", "weights"} - content.keys()
    if missing:
        raise DataFileError(f"'{path}' lacks {', '.join(sorted(missing))}; restore it from the repository.")
    return content


def data_version(family: str) -> int:
    """Version of the data of a problem; 0 for problems that are not in the manifest, such as a user's."""
    return int(manifest()["data_versions"].get(family, 0))


def released_names(root: Path = ROOT) -> list[str]:
    """Experiments with released results, in the order of the catalogue, others last."""
    order = list(CATALOGUE)
    found = [file.parent.name for file in root.glob(f"results/*/{FILE}")]
    return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))


def released_results(experiment: str, root: Path = ROOT) -> Run:
    """The released results of an experiment.

    Raises:
        NotReleasedError: If there are none.
        DataFileError: If a file is damaged.
    """
    folder = root / "results" / experiment
    if not (folder / FILE).is_file():
        raise NotReleasedError(
            f"There are no released results of '{experiment}' (there are of {', '.join(released_names(root)) or 'none'}"
            f"); python -m experiments run {experiment} --preset laptop makes them."
        )
    return read_run(folder)


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


def write_release(released: Sequence[tuple[Run, Mapping[str, Path]]], root: Path = ROOT) -> list[Path]:
    """Puts runs and weights where they are released from, and enters the weights in the manifest.

    Files of weights are given by their path below ``experiments/weights``. Returns the files that were written.

    Raises:
        DataFileError: If a file would replace one that the results of an experiment that is not among them are from;
            nothing is written then.
    """
    content, sums = manifest(root), dict[str, str]()
    for _, weights in released:
        sums |= {file: checksum(path) for file, path in weights.items()}
    _check_shared([run.experiment for run, _ in released], sums, root)
    files = list[Path]()
    for run, weights in released:
        for file, path in weights.items():
            target = root / "weights" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, path.read_bytes())
        files += run.write(root / "results" / run.experiment)
    write_json(root / "manifest.json", content | {"weights": content["weights"] | sums})
    _read_manifest.cache_clear()
    return [*files, root / "manifest.json"]


def _check_shared(together: Sequence[str], sums: Mapping[str, str], root: Path) -> None:
    """Refuses weights that would replace a file of an experiment that is not released with them."""
    before = manifest(root)["weights"]
    for other in (name for name in released_names(root) if name not in together):
        used = read_object(root / "results" / other / FILE)["weights"]
        changed = [file for file in used if sums.get(file, before[file]) != before[file]]
        if changed:
            names = " ".join([*together, other])
            raise DataFileError(
                f"'{changed[0]}' differs from the file of that name that the results of {other} are from; release both "
                f"from one output folder, in which they use the same training: release {names}."
            )
