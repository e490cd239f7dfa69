"""Files that are whole or not there: atomic writes, locks, and arrays whose damage is noticed by a checksum."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from experiments.errors import DataFileError, OutputFolderError
from probconserv.training.files import writable_folder as writable_folder
from probconserv.training.files import write_bytes as write_bytes
from solvers.tensor_files import encode_tensors, parse_tensors

Arrays = dict[str, np.ndarray]


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically, keys in the given order, indented for reading."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataFileError(f"'{path}' cannot be read as JSON ({error}); delete it and run again.") from error
    if not isinstance(content, dict):
        raise DataFileError(f"'{path}' must hold a JSON object, got {type(content).__name__}; delete it and run again.")
    return content


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], notes: Mapping[str, str] | None = None) -> None:
    """Writes arrays, and texts that say what they are (units, grid location), as safetensors with a checksum."""
    tensors = {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}
    write_bytes(path, encode_tensors(tensors, notes or {}))


def read_arrays(path: Path) -> Arrays:
    """Reads what ``write_arrays`` wrote."""
    try:
        file = parse_tensors(path.read_bytes())
        arrays = {name: file.tensors[name].numpy() for name in sorted(file.tensors)}
    except (OSError, TypeError, ValueError) as error:
        raise DataFileError(f"'{path}' is damaged or no file of arrays ({error}).") from error
    if file.mismatch or "checksum" not in file.metadata:
        raise DataFileError(f"'{path}' is damaged: {file.mismatch or 'it has no checksum'}.")
    return arrays


def cached_arrays(path: Path, build: Callable[[], Arrays], notes: Mapping[str, str] | None = None) -> Arrays:
    """Reads arrays if they are there and whole; builds and stores them otherwise.

    A damaged file is named on standard error and rebuilt. Of several processes that want the file one builds it.
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
        write_arrays(path, arrays, notes)
    return arrays


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Lets one process at a time make a file; the others wait, and then check whether it exists.

    The operating system releases the lock of a process that is killed.
    """
    lock = _lock_of(path)
    if not _acquired(lock, path, timeout=0):
        print(f"Another process makes '{path}'; waiting for it.", file=sys.stderr)
        _acquired(lock, path, timeout=-1)
    try:
        yield
    finally:
        lock.release()


def is_taken(path: Path) -> bool:
    """Whether another process has the file to itself now; arguments and errors are those of ``alone_with``."""
    lock = _lock_of(path)
    if not _acquired(lock, path, timeout=0):
        return True
    lock.release()
    return False


def _lock_of(path: Path) -> FileLock:
    return FileLock(writable_folder(path.parent) / f".{path.name}.lock")


def _acquired(lock: FileLock, path: Path, timeout: float) -> bool:
    """Whether the lock was to be had within the seconds of the timeout; −1 waits for it."""
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    except OSError as error:
        raise OutputFolderError(f"'{path}' cannot be locked ({error}); choose another folder.") from error
    return True
