"""Notes on the training in every file of weights, whatever model it holds."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from experiments.errors import DataFileError
from solvers.tensor_files import decode_tensors


def read_notes(path: Path) -> dict[str, Any]:
    """How the weights of a file were trained.

    Returns:
        ``training`` (its config), ``seconds``, ``steps``, ``last`` (last entry of the history), ``environment``; and
        ``data_version``, which files of release 0.1 lack.

    Raises:
        DataFileError: If the file is missing, damaged, or says nothing of a training.
    """
    try:
        notes = json.loads(decode_tensors(path.read_bytes())[1]["notes"])
        last = notes["last"] if "last" in notes else notes["history"][-1]
        known = {key: notes[key] for key in ("training", "seconds", "environment")}
        known |= {key: notes[key] for key in notes.keys() & {"data_version"}}
        return {**known, "steps": last["step"], "last": last}
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise DataFileError(f"'{path}' holds no weights with notes of a training ({error}); train it again.") from error


def training_entries(made: Iterable[tuple[dict[str, Any], Path]]) -> list[dict[str, Any]]:
    """Names of trainings with how long they took, as the files of their weights note it; many may have one file."""
    notes_of, entries = cache(read_notes), []
    for names, path in made:
        if not path.exists():  # a training that failed, where the experiment allows that
            continue
        notes = notes_of(path)
        took = {"seconds": notes["seconds"], "steps": notes["steps"]}
        entries.append(names | took | {"processor": notes["environment"]["machine"]["processor"]})
    return entries


def is_whole(path: Path) -> bool:
    """Whether a file of weights is there and matches its checksum."""
    try:
        read_notes(path)
    except DataFileError:
        return False
    return True
