"""Where results and weights of experiments ship from, and how they get there: shared by all kinds of experiments."""

import sys
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from boon import BoonError
from experiments.errors import DataFileError, ExperimentError, NotShippedError
from experiments.runs import Run
from experiments.storage import checksum, read_object, write_bytes, write_json

ROOT = Path(str(resources.files("experiments")))


def shipped_results(experiment: str) -> tuple[Path, dict[str, Any]]:
    """The file of an experiment's stored results and what it holds.

    Raises:
        NotShippedError: If none ship yet.
        DataFileError: If the file is damaged.
    """
    path = ROOT / "results" / f"{experiment}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.json"))) or "none"
        raise NotShippedError(
            f"No results of experiment '{experiment}' ship with this version of the library (those that do: {known}); "
            f"make them by python -m experiments run {experiment} --preset laptop."
        )
    return path, read_object(path)


def no_results(path: Path, error: Exception) -> DataFileError:
    """The error for a file that holds JSON but no results."""
    return DataFileError(f"'{path}' does not hold results of an experiment ({error}); restore it.")


def write_shipped(experiment: str, content: Mapping[str, Any], kind: str, files: Mapping[str, Path]) -> None:
    """Puts results and weights where they ship from.

    Args:
        experiment: Name of the experiment.
        content: Its results, as JSON can hold them.
        kind: Name of the folder of weights.
        files: Where every file of weights lies now, by its shipped name.

    Raises:
        DataFileError: If a file would replace one that the results of another experiment are from.
    """
    _leave_those_of_others(experiment, files)
    folder = ROOT / "weights" / kind
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / "results").mkdir(exist_ok=True)
    for name, source in files.items():
        write_bytes(folder / name, source.read_bytes())
    write_json(ROOT / "results" / f"{experiment}.json", content)


def _leave_those_of_others(experiment: str, files: Mapping[str, Path]) -> None:
    own = {name: checksum(file) for name, file in files.items()}
    for path in sorted((ROOT / "results").glob("*.json")):
        weights = read_object(path).get("weights", {})
        sums = weights if isinstance(weights, dict) else {entry["file"]: entry["sha256"] for entry in weights}
        changed = [name for name, checked in own.items() if sums.get(name, checked) != checked]
        if path.stem != experiment and changed:
            raise DataFileError(
                f"'{changed[0]}' of {experiment} differs from the file of that name that the results of {path.stem} "
                "are from. Ship both from one output folder, in which they share the training."
            )


def shipped_weights(kind: str, name: str, sha256: str | None, whose: str, command: str) -> Path:
    """A file of weights that ships.

    Args:
        kind: Name of the folder of weights.
        name: Name of the file.
        sha256: Its checksum; None if the results do not know it.
        whose: Which weights they are, for the message.
        command: What trains them.

    Raises:
        NotShippedError: If it is not there.
        DataFileError: If it is damaged.
    """
    path = ROOT / "weights" / kind / name
    if sha256 is None or not path.is_file():
        raise NotShippedError(
            f"The weights {whose} are missing in {path.parent}; install the library again or train it by {command}."
        )
    if checksum(path) != sha256:
        raise DataFileError(f"'{path}' is damaged: its checksum is not that of the results; restore it.")
    return path


def finished_metrics(run: Run) -> tuple[Path, dict[str, Any]]:
    """The file of a finished run's metrics and what it holds.

    Raises:
        DataFileError: If the run is not finished.
    """
    path = run.folder / "metrics.json"
    if not path.is_file():
        raise DataFileError(
            f"'{path}' is missing: finish the run before it ships (python -m experiments run {run.name})."
        )
    return path, read_object(path)


def trained_file(folder: Path, experiment: str) -> Path:
    """The weights in the folder of a training.

    Raises:
        DataFileError: If they are missing.
    """
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise DataFileError(f"'{path}' is missing: train it again (python -m experiments run {experiment}).")
    return path


def run_program(program: Callable[[], object]) -> None:
    """Runs a program that ships something; its errors end it with their text and status 2."""
    try:
        program()
    except (ExperimentError, BoonError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
