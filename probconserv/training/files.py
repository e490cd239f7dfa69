"""Output folders and atomic writing."""

import tempfile
from pathlib import Path

from probconserv.errors import OutputFolderError
from solvers.tensor_files import write_atomically


def writable_folder(folder: Path) -> Path:
    """Creates a folder with its parents and checks with a small file that it can be written.

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

    Raises:
        OutputFolderError: If the folder cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OutputFolderError(f"'{path}' cannot be written ({error.strerror}); choose another folder.") from error
