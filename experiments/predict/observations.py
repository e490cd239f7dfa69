"""A user's observations: times, positions, values and boundary fluxes from CSV or HDF5, checked."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np

from experiments.errors import DataFileError
from solvers.hdf5_columns import read_columns

REQUIRED = ("t", "x", "u")
_SEPARATORS = (";", "\t")
"""Of columns, in addition to commas."""
_FLUX = "--flux-left or --flux-right names (a flux is a number or a column; no other word has a meaning)"


@dataclass(frozen=True)
class Observations:
    """Observed values of one field, and fluxes at the same times.

    Args:
        columns: Equally long, finite columns ``(n,)`` by name: ``t``, ``x``, ``u`` and the fluxes.
        names: What the file calls ``t``, ``x`` and ``u``, where it is something else.
        left_out: Rows of the file that lack a number and are left out.
    """

    columns: dict[str, np.ndarray]
    source: Path
    unused: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    left_out: int = 0

    def __post_init__(self) -> None:
        shapes = {name: column.shape for name, column in self.columns.items()}
        shape = shapes["u"]
        if len(set(shapes.values())) != 1 or len(shape) != 1 or shape[0] < 2:
            raise DataFileError(f"'{self.source}' needs columns of one length, at least 2 rows; got {shapes}.")
        for name, column in self.columns.items():
            bad = np.flatnonzero(~np.isfinite(column))
            if bad.size:
                raise DataFileError(
                    f"'{self.source}': column {self.names.get(name, name)} holds no number, NaN or infinity in "
                    f"{bad.size} rows, first in data row {bad[0] + 1}; repair them, or leave them out: --skip-missing."
                )

    @property
    def points(self) -> np.ndarray:
        """Points (t, x) ``(n, 2)``."""
        return np.stack((self.columns["t"], self.columns["x"]), axis=-1)

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A flux as increasing times ``(t,)`` and values ``(t,)``; each time must have one value."""
        times, first, inverse = np.unique(self.columns["t"], return_index=True, return_inverse=True)
        values = self.columns[name][first]
        if not np.array_equal(values[inverse], self.columns[name]):
            raise DataFileError(
                f"'{self.source}': column '{name}' has different values at one time; a flux through an end depends on "
                "t only."
            )
        return times, values


def read_observations(
    path: Path, fluxes: Sequence[str] = (), names: Mapping[str, str] | None = None, skip_missing: bool = False
) -> Observations:
    """Reads the columns t, x, u and the named fluxes from CSV (with a header line) or HDF5.

    CSV has commas between its columns, or semicolons or tabs, and then numbers may have decimal commas. HDF5 holds data
    sets of numbers at the top of the file: columns of one length, or ``u`` (t, n) with ``t`` (t,) and ``x`` (n,) on a
    product grid, where fluxes have length t. Each may also have the shape of u, as ``meshgrid`` gives it. All other
    columns, groups, texts and scalars are not read.

    Args:
        path: The file.
        fluxes: Columns of fluxes.
        names: What the file calls ``t``, ``x`` and ``u``, where it is something else.
        skip_missing: Leaves out rows in which one of these columns has no number, NaN or infinity.

    Raises:
        DataFileError: If the file is missing, damaged, of another kind, lacks a column, or its content fails the
            checks.
    """
    reader = {".csv": _read_csv, ".h5": _read_hdf5, ".hdf5": _read_hdf5}.get(path.suffix.lower())
    if reader is None:
        raise DataFileError(f"'{path}' must end in .csv, .h5 or .hdf5.")
    if not path.is_file():
        raise DataFileError(f"There is no file '{path}'.")
    called = {name: (names or {}).get(name, name) for name in REQUIRED} | {name: name for name in fluxes}
    read, unused = reader(path, tuple(called.values()))
    columns, left_out = {name: read[there] for name, there in called.items()}, 0
    if skip_missing and len({column.shape for column in columns.values()}) == 1:
        whole = np.all([np.isfinite(column) for column in columns.values()], axis=0)
        columns, left_out = {name: column[whole] for name, column in columns.items()}, int((~whole).sum())
    return Observations(columns, path, unused, called, left_out)


def _read_csv(path: Path, names: Sequence[str]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The columns, NaN where a cell is empty, and those not used.

    Read line by line, so that an error can name the line of a fault.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = next((each for each in _SEPARATORS if each in file.readline()), ",")
            file.seek(0)
            reader = csv.reader(file, delimiter=separator)
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"'{path}' is no CSV file with a header line ({error}).") from error
    if not lines:
        raise DataFileError(f"'{path}' is empty; it needs a header line with t, x, u and rows of numbers.")
    header = [name.strip() for name in lines.pop(0)[1]]
    unused, table = _unused(path, header, names), []
    for line, row in lines:
        try:
            cells = dict(zip(header, row, strict=True))
            table.append([_number(cells[name], separator) for name in names])
        except ValueError as error:
            commas = "" if separator != "," else " Decimal commas need semicolons or tabs between the columns."
            raise DataFileError(
                f"'{path}', line {line}: needs {len(header)} cells with numbers in {', '.join(names)}, got "
                f"{separator.join(row)[:200]!r}.{commas if len(row) > len(header) else ''}"
            ) from error
    columns = np.array(table, dtype=float).reshape(-1, len(names)).T
    return dict(zip(names, columns, strict=True)), unused


def _number(cell: str, separator: str) -> float:
    """The number in a cell, NaN where it is empty; a decimal comma is read where commas separate no columns."""
    cell = cell.strip()
    return float(cell if separator == "," else cell.replace(",", ".")) if cell else float("nan")


def _read_hdf5(path: Path, names: Sequence[str]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Columns of one length, arrays of one shape, or a product grid (t, x), whose rows are written out."""
    try:
        stored = read_columns(path)
    except ValueError as error:
        raise DataFileError(f"'{path}' is damaged or no HDF5 file of numbers ({error}).") from error
    unused, columns = _unused(path, list(stored), names), {name: stored[name] for name in names}
    place, value = names[1:3]
    shape = columns[value].shape
    if len(shape) == 2:
        for name, column in columns.items():
            if column.shape not in (shape, shape[1:] if name == place else shape[:1]):
                raise DataFileError(f"Data set '{name}' {column.shape} does not fit {value} {shape} = (t, x).")
            along_t = column.ndim == 1 and name != place
            columns[name] = np.broadcast_to(column[:, None] if along_t else column, shape).flatten()
    return columns, unused


def _unused(path: Path, present: Sequence[str], needed: Sequence[str]) -> tuple[str, ...]:
    """The columns that are not needed, if every needed one is there, once."""
    counts = Counter(present)
    for required, name in zip_longest(REQUIRED, needed):
        if counts[name] != 1:
            problem = "has more than one column" if counts[name] else "lacks the column"
            why = "is required; --columns {required}=NAME says what it is called" if required else _FLUX
            given = ", ".join(counts)[:200] or "none"
            raise DataFileError(f"'{path}' {problem} {name}, which {why.format(required=required)}; it has {given}.")
    return tuple(name or "(no name)" for name in counts if name not in needed)
