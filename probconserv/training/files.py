"""Output folders and atomic writing."""

import tempfile
from pathlib import Path

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
