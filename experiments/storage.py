"""Files that are whole or not there: atomic writes, and arrays whose damage is noticed by a checksum."""

import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from experiments.errors import DataFileError
from experiments.hdf5_columns import HDF5_ERRORS, own_datasets
from probconserv.training.files import alone_with as alone_with
from probconserv.training.files import writable_folder as writable_folder
from probconserv.training.files import write_bytes as write_bytes

Arrays = dict[str, np.ndarray]


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically, keys in the given order, indented for reading."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataFileError: If it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataFileError(f"'{path}' cannot be read as JSON ({error}); delete it and run again.") from error


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
        DataFileError: If it is missing, no JSON, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataFileError(f"'{path}' must hold a JSON object, got {type(content).__name__}; delete it and run again.")
    return content


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any] | None = None) -> None:
    """Writes arrays as HDF5, and beside it ``<name>.sha256`` with the checksum of the file.

    Args:
        path: The file, ending in ``.h5``.
        arrays: Data sets by name.
        attributes: Attributes of the file: numbers and strings that say what the arrays are (units, grid location).
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update(dict(attributes or {}))
        for name, array in arrays.items():
            file.create_dataset(name, data=np.asarray(array), track_times=False)
    content = buffer.getvalue()
    write_bytes(_checksum_path(path), hashlib.sha256(content).hexdigest().encode())
    write_bytes(path, content)


def read_arrays(path: Path) -> Arrays:
    """Reads what ``write_arrays`` wrote.

    Raises:
        DataFileError: If the file or its checksum is missing, or the file is damaged or holds other things than arrays
            of numbers.
    """
    try:
        content = path.read_bytes()
        expected = _checksum_path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"'{path}' or its checksum cannot be read ({error}).") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataFileError(f"'{path}' is damaged: its checksum is {found[:12]}…, but {expected[:12]}… was written.")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            datasets = own_datasets(file)
            odd = [name for name, dataset in datasets.items() if dataset.dtype.kind not in "fiub" or dataset.chunks]
            if odd or sum(dataset.nbytes for dataset in datasets.values()) > len(content):
                raise DataFileError(f"'{path}' holds more than plain arrays of numbers; delete it and run again.")
            return {name: np.asarray(dataset) for name, dataset in datasets.items()}
    except DataFileError:
        raise
    except HDF5_ERRORS as error:
        raise DataFileError(f"'{path}' is no HDF5 file of arrays ({error}); delete it and run again.") from error


def cached_arrays(path: Path, build: Callable[[], Arrays], attributes: Mapping[str, Any] | None = None) -> Arrays:
    """Reads arrays if they are there and whole; builds and stores them otherwise.

    A damaged file is named on standard error and rebuilt. Of several processes that want the file one builds it.

    Args:
        path: The file, ending in ``.h5``.
        build: Makes the arrays.
        attributes: As in ``write_arrays``.

    Returns:
        The arrays, read or built.
    """
    with suppress(DataFileError):
        return read_arrays(path)
    with alone_with(path):
        if path.exists():
            try:
                return read_arrays(path)
            except DataFileError as error:
                print(f"{error} It is built again.", file=sys.stderr)
        arrays = build()
        write_arrays(path, arrays, attributes)
    return arrays


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksum_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
