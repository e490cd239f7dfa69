"""A user's observations: columns t, x, u and boundary fluxes from CSV or HDF5, checked."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.errors import DataFileError
from experiments.hdf5_columns import read_columns

Columns = dict[str, np.ndarray]
FIELD = ("t", "x", "u")
"""Columns that every file has."""


@dataclass(frozen=True)
class Observations:
    """Observed values of one field, and fluxes at the same times.

    Args:
        columns: Equally long columns ``(n,)`` by name: ``t``, ``x``, ``u`` and the fluxes.
        source: The file, for error messages.
        unused: Names of the columns of the file that are not used.

    Raises:
        DataFileError: If a column has more than one axis, lengths differ, there are fewer than two rows, or an entry
            is not finite.
    """

    columns: Columns
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
        """A flux as increasing times and values.

        Args:
            name: Its column.

        Returns:
            Times ``(t,)`` and values ``(t,)``.

        Raises:
            DataFileError: If the column has two values at one time.
        """
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

    HDF5 holds data sets of numbers of one length, or ``t`` (t,), ``x`` (n,) and ``u`` (t, n) on a product grid, where
    fluxes have length t. All other columns, texts and scalars are not read.

    Args:
        path: File ending in .csv, .h5 or .hdf5.
        fluxes: Names of the flux columns.

    Returns:
        The checked observations.

    Raises:
        DataFileError: If the file is missing, damaged, of another kind, lacks a column, or its content fails the
            checks.
    """
    readers = {".csv": _read_csv, ".h5": _read_hdf5, ".hdf5": _read_hdf5}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataFileError(f"'{path}' must end in .csv, .h5 or .hdf5.")
    if not path.is_file():
        raise DataFileError(f"There is no file '{path}'.")
    return reader(path, (*FIELD, *fluxes))


def _read_csv(path: Path, names: Sequence[str]) -> Observations:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"'{path}' is no CSV file with a header line ({error}).") from error
    if not lines:
        raise DataFileError(f"'{path}' is empty; it needs a header line with t, x, u and rows of numbers.")
    (_, header), *rows = lines
    header = [name.strip() for name in header]
    unused = _unused(path, header, names)
    table = []
    for line, row in rows:
        try:
            cells = dict(zip(header, row, strict=True))
            table.append([float(cells[name]) for name in names])
        except ValueError as error:
            raise DataFileError(
                f"'{path}', line {line}: needs {len(header)} cells with numbers in {', '.join(names)}, got "
                f"{','.join(row)[:200]!r}."
            ) from error
    columns = np.array(table).reshape(-1, len(names))
    return Observations(dict(zip(names, columns.T, strict=True)), path, unused)


def _read_hdf5(path: Path, names: Sequence[str]) -> Observations:
    try:
        stored = read_columns(path)
    except ValueError as error:
        raise DataFileError(f"'{path}' is damaged or no HDF5 file of numbers ({error}).") from error
    unused = _unused(path, list(stored), names)
    columns = {name: stored[name] for name in names}
    return Observations(_flattened(columns) if columns["u"].ndim == 2 else columns, path, unused)


def _unused(path: Path, present: Sequence[str], needed: Sequence[str]) -> tuple[str, ...]:
    """The columns that are not needed, if every needed one is there, once."""
    counts = Counter(present)
    for name in needed:
        if counts[name] != 1:
            problem = "has more than one column" if counts[name] else "lacks the column"
            raise DataFileError(
                f"'{path}' {problem} {name}; it has {', '.join(counts)[:200] or 'none'}. Columns t, x and u are "
                "required, and a flux is a number or the name of a column."
            )
    return tuple(name or "(no name)" for name in counts if name not in needed)


def _flattened(columns: Mapping[str, np.ndarray]) -> Columns:
    """Rows of a product grid: every data set of t or x repeated along the other axis."""
    times, points = columns["u"].shape
    flat = {}
    for name, column in columns.items():
        if name == "u":
            flat[name] = column.ravel()
        elif name == "x" and column.shape == (points,):
            flat[name] = np.tile(column, times)
        elif name != "x" and column.shape == (times,):
            flat[name] = np.repeat(column, points)
        else:
            raise DataFileError(f"Data set '{name}' {column.shape} does not fit u {columns['u'].shape} = (t, x).")
    return flat
