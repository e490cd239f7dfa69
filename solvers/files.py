"""Atomic writing: a file is there completely or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_READABLE = 0o644  # temporary files are readable for their owner only


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new one, never a part; see ``replacing``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, which takes the place of a file at the end; after an error the file stays as it was.

    Args:
        path: The file; its folder must exist.

    Raises:
        OSError: If the folder cannot be written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(_READABLE)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
