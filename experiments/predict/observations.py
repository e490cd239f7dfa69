"""A user's observations: columns t, x, u and boundary fluxes from CSV or HDF5, checked."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.errors import DataFileError
from solvers.hdf5_columns import read_columns

REQUIRED = ("t", "x", "u")


@dataclass(frozen=True)
class Observations:
    """Observed values of one field, and fluxes at the same times.

    Args:
        columns: Equally long, finite columns ``(n,)`` by name: ``t``, ``x``, ``u`` and the fluxes.
    """

    columns: dict[str, np.ndarray]
    source: Path
    unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shapes = {name: column.shape for name, column in self.columns.items()}
        shape = shapes["u"]
        if len(set(shapes.values())) != 1 or len(shape) != 1 or shape[0] < 2:
            raise DataFileError(f"'{self.source}' needs columns of one length, at least 2 rows; got {shapes}.")
        for name, column in self.columns.items():
            bad = np.flatnonzero(~np.isfinite(column))
            if bad.size:
                raise DataFileError(
                    f"'{self.source}': column {name} holds NaN or infinity in {bad.size} rows, first in data row "
                    f"{bad[0] + 1}; drop or repair them."
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


def read_observations(path: Path, fluxes: Sequence[str] = ()) -> Observations:
    """Reads the columns t, x, u and the named fluxes from CSV (with a header line) or HDF5.

    HDF5 holds data sets of numbers at the top of the file: columns of one length, or ``u`` (t, n) with ``t`` (t,) and
    ``x`` (n,) on a product grid, where fluxes have length t. Each may also have the shape of u, as ``meshgrid`` gives
    it. All other columns, groups, texts and scalars are not read.

    Raises:
        DataFileError: If the file is missing, damaged, of another kind, lacks a column, or its content fails the
            checks.
    """
    reader = {".csv": _read_csv, ".h5": _read_hdf5, ".hdf5": _read_hdf5}.get(path.suffix.lower())
    if reader is None:
        raise DataFileError(f"'{path}' must end in .csv, .h5 or .hdf5.")
    if not path.is_file():
        raise DataFileError(f"There is no file '{path}'.")
    return reader(path, (*REQUIRED, *fluxes))


def _read_csv(path: Path, names: Sequence[str]) -> Observations:
    """Rows of numbers; read line by line, so that an error can name the line of a fault."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"'{path}' is no CSV file with a header line ({error}).") from error
    if not lines:
        raise DataFileError(f"'{path}' is empty; it needs a header line with t, x, u and rows of numbers.")
    header = [name.strip() for name in lines.pop(0)[1]]
    _require_commas(path, header)
    unused, table = _unused(path, header, names), []
    for line, row in lines:
        try:
            cells = dict(zip(header, row, strict=True))
            table.append([float(cells[name]) for name in names])
        except ValueError as error:
            raise DataFileError(
                f"'{path}', line {line}: needs {len(header)} cells with numbers in {', '.join(names)}, got "
                f"{','.join(row)[:200]!r}."
            ) from error
    columns = np.array(table).reshape(-1, len(names)).T
    return Observations(dict(zip(names, columns, strict=True)), path, unused)


def _require_commas(path: Path, header: Sequence[str]) -> None:
    """Refuses a header that is one name for lack of commas."""
    separator = next((each for each in (";", "\t", "|", " ") if each in header[0]), "")
    if len(header) == 1 and separator:
        raise DataFileError(
            f"'{path}' must have commas between its columns and points in its numbers, got the header "
            f"{header[0][:200]!r}; replace {separator!r} by commas."
        )


def _read_hdf5(path: Path, names: Sequence[str]) -> Observations:
    """Columns of one length, arrays of one shape, or a product grid (t, x), whose rows are written out."""
    try:
        stored = read_columns(path)
    except ValueError as error:
        raise DataFileError(f"'{path}' is damaged or no HDF5 file of numbers ({error}).") from error
    unused, columns = _unused(path, list(stored), names), {name: stored[name] for name in names}
    shape = columns["u"].shape
    if len(shape) == 2:
        for name, column in columns.items():
            if column.shape not in (shape, shape[1:] if name == "x" else shape[:1]):
                raise DataFileError(f"Data set '{name}' {column.shape} does not fit u {shape} = (t, x).")
            along_t = column.ndim == 1 and name != "x"
            columns[name] = np.broadcast_to(column[:, None] if along_t else column, shape).flatten()
    return Observations(columns, path, unused)


def _unused(path: Path, present: Sequence[str], needed: Sequence[str]) -> tuple[str, ...]:
    """The columns that are not needed, if every needed one is there, once."""
    counts = Counter(present)
    for name in needed:
        if counts[name] != 1:
            problem = "has more than one column" if counts[name] else "lacks the column"
            why, rest = ", which is required", ""
            if name not in REQUIRED:
                why = ", which --flux-left or --flux-right names"
                rest = " A flux is a number or the name of a column; no other word has a meaning."
            raise DataFileError(f"'{path}' {problem} {name}{why}; it has {', '.join(counts)[:200] or 'none'}.{rest}")
    return tuple(name or "(no name)" for name in counts if name not in needed)
