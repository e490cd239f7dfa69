"""Atomic writing: a file is there completely or not at all."""

import os
import tempfile
from pathlib import Path

_READABLE = 0o644  # temporary files are readable for their owner only


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new one, never a part.

    Args:
        path: The file; its folder must exist.
        content: All bytes of the file.

    Raises:
        OSError: If the folder cannot be written.
    """
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
