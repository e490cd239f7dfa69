"""Which benchmarks have a table in a document, and what must hold of the document before they start."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.benchmarks import page as tables
from experiments.benchmarks import scaling_page
from experiments.errors import InvalidArgumentError
from experiments.storage import writable_folder

WRITERS: Mapping[str, Callable[[dict[str, Any], Path], list[Path]]] = {
    **dict.fromkeys(tables.TABLES, tables.write),
    "scaling": scaling_page.write,
}
"""What rewrites the part of a document that belongs to a benchmark."""


def require_document(name: str, page: Path) -> None:
    """Checks that a benchmark has a table and that a document can take it.

    Raises:
        InvalidArgumentError: If the benchmark has no table, or the document is not there.
        OutputFolderError: If the document cannot be written.
        DataFileError: If the document is no text, or lacks the marks of the benchmark.
    """
    if name not in WRITERS or not page.is_file():
        *names, last = WRITERS
        raise InvalidArgumentError(
            f"--page needs the benchmark {', '.join(names)} or {last} and a file, got {name} and '{page}'."
        )
    writable_folder(page.parent)
    tables.between_marks(page, name, "")
