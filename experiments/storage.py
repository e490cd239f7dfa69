"""Files that are whole or not there: atomic writes, and arrays whose damage is noticed by a checksum."""

import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from filelock import FileLock, Timeout

from experiments.errors import DataFileError, OutputFolderError
from experiments.hdf5_columns import HDF5_ERRORS, own_datasets

Arrays = dict[str, np.ndarray]
_READABLE = 0o644  # temporary files are for their owner only


def writable_folder(folder: Path) -> Path:
    """Creates a folder and proves by a small file that it can be written.

    Args:
        folder: The folder, created with its parents.

    Returns:
        The same folder.

    Raises:
        OutputFolderError: If it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OutputFolderError(
            f"The output folder '{folder}' cannot be written ({error.strerror}); give another one with --out."
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: a reader sees the old content or the new one, never a part.

    Args:
        path: The file; its folder must exist.
        content: Everything it shall hold.

    Raises:
        OutputFolderError: If the folder cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(_READABLE)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputFolderError(
            f"'{path}' cannot be written ({error.strerror}); give another folder with --out."
        ) from error


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


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Lets one process at a time make a file; others wait here, and then look whether it is there.

    The lock is the operating system's where it has locks, so that a killed process does not leave it behind.

    Args:
        path: The file; its folder is created.

    Raises:
        OutputFolderError: If the folder cannot be written or has no locks.
    """
    lock = FileLock(writable_folder(path.parent) / f".{path.name}.lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Another process makes '{path}'; waiting for it.", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise OutputFolderError(f"'{path}' cannot be locked ({error}); give another folder with --out.") from error
    try:
        yield
    finally:
        lock.release()


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksum_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
