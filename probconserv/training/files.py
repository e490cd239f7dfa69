"""Output folders, atomic writing, and locks between processes."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from probconserv.errors import OutputFolderError
from solvers.files import write_atomically


def writable_folder(folder: Path) -> Path:
    """Creates a folder and checks with a small file that it can be written.

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
            f"The output folder '{folder}' cannot be written ({error.strerror}); choose another one."
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically.

    Args:
        path: The file; its folder must exist.
        content: All bytes of the file.

    Raises:
        OutputFolderError: If the folder cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OutputFolderError(f"'{path}' cannot be written ({error.strerror}); choose another folder.") from error


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Lets one process at a time make a file; the others wait, and then check whether it exists.

    The operating system releases the lock of a process that is killed.

    Args:
        path: The file; its folder is created.

    Raises:
        OutputFolderError: If the folder cannot be written or has no locks.
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
    """Whether the lock was to be had within so many seconds; −1 waits for it."""
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    except OSError as error:
        raise OutputFolderError(f"'{path}' cannot be locked ({error}); choose another folder.") from error
    return True
