"""Tables that benchmarks write between two marks of a document, and checks before one starts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import DataFileError, InvalidArgumentError
from experiments.records.storage import writable_folder, write_bytes
from experiments.report.documents import fill
from experiments.report.tables import markdown

_TIMED = ("case", "seconds", "baseline", "baseline_seconds", "ratio")


def require_document(name: str, page: Path) -> None:
    """Raises LibraryError unless a benchmark has a table and a document can take it."""
    if name not in TABLES or not page.is_file():
        *names, last = TABLES
        raise InvalidArgumentError(
            f"--page needs the benchmark {', '.join(names)} or {last} and a file, got {name} and '{page}'."
        )
    writable_folder(page.parent)
    between_marks(page, name, "")


def write(result: Mapping[str, Any], page: Path) -> None:
    """Rewrites the part of a document between the marks of a benchmark."""
    name = result["benchmark"]
    write_bytes(page, between_marks(page, name, TABLES[name](result)).encode())


def between_marks(page: Path, name: str, content: str) -> str:
    """The text of a document with new content between the marks of a benchmark."""
    begin = f"<!-- {name}: written by python -m experiments bench {name} --page docs/speed.md -->"
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"'{page}' cannot be read as a document ({error}); give another --page.") from error
    return fill(text, begin, f"<!-- end of {name} -->", content, f"'{page}'")


def timed(result: Mapping[str, Any]) -> str:
    """Seconds of every case and of its baseline, their ratio, and what else was measured of all.

    ``--json`` has the rest.
    """
    cases = result["cases"]
    everywhere = [key for key in cases[0] if all(key in case for case in cases) and key not in _TIMED]
    rows = []
    for case in cases:
        ours, theirs, ratio = _seconds(case["seconds"]), _seconds(case["baseline_seconds"]), f"{case['ratio']:.3g}"
        rows.append([case["case"], ours, case["baseline"], theirs, ratio, *(_plain(case[key]) for key in everywhere)])
    table = pd.DataFrame(rows, columns=["ours", "seconds", "baseline", "seconds of it", "ratio", *everywhere])
    return "\n\n".join([_machine(result), markdown(table)])


def _machine(result: Mapping[str, Any]) -> str:
    return f"Machine: {result['machine']}."


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def _plain(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = dict.fromkeys(("update", "solver"), timed)
"""Functions that make the table of a benchmark."""
