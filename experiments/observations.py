"""A user's own data: columns t, x, u (and boundary fluxes) from CSV or HDF5, checked."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.errors import DataFileError
from experiments.hdf5_columns import read_columns

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Observations:
    """Observed field values of one function, and whatever other columns the file has.

    Args:
        columns: Equally long columns ``(n,)`` by name, among them ``t``, ``x`` and ``u``.
        source: The file, for error messages.

    Raises:
        DataFileError: If a column is missing or no column, lengths differ, there are fewer than two rows, or an entry
            is not finite.
    """

    columns: Columns
    source: Path

    def __post_init__(self) -> None:
        missing = [name for name in ("t", "x", "u") if name not in self.columns]
        if missing:
            raise DataFileError(
                f"'{self.source}' lacks the column {', '.join(missing)}; it needs t, x and u and has "
                f"{_shortened(self.columns) or 'none'}."
            )
        for name, column in self.columns.items():
            if column.ndim != 1:
                raise DataFileError(f"'{self.source}': '{name}' {column.shape} is no column; only u may have two axes.")
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) != 1 or min(lengths.values()) < 2:
            raise DataFileError(f"'{self.source}' needs columns of one length, at least 2 rows; got {lengths}.")
        for name, column in self.columns.items():
            bad = np.flatnonzero(~np.isfinite(column))
            if bad.size:
                raise DataFileError(
                    f"'{self.source}': column {name} holds NaN or infinity in {bad.size} rows, first in data row "
                    f"{bad[0] + 1}; drop or repair them."
                )

    @property
    def points(self) -> np.ndarray:
        """Places (t, x) ``(n, 2)``."""
        return np.stack((self.columns["t"], self.columns["x"]), axis=-1)

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A column that depends on time only, as increasing times and values.

        Args:
            name: The column.

        Returns:
            Times ``(t,)`` and values ``(t,)``.

        Raises:
            DataFileError: If there is no such column or it has two values at one time.
        """
        if name not in self.columns:
            raise DataFileError(f"'{self.source}' has no column '{name}'; it has {', '.join(self.columns)}.")
        times, first, inverse = np.unique(self.columns["t"], return_index=True, return_inverse=True)
        values = self.columns[name][first]
        if not np.array_equal(values[inverse], self.columns[name]):
            raise DataFileError(
                f"'{self.source}': column '{name}' has different values at one time; fluxes depend on t only."
            )
        return times, values


def read_observations(path: Path) -> Observations:
    """Reads columns from CSV (with a header line) or HDF5.

    HDF5 holds data sets of numbers of one length, or ``t`` (t,), ``x`` (n,) and ``u`` (t, n) on a product grid, where
    other data sets of length t are fluxes. Scalars and texts in the file are passed over.

    Args:
        path: File ending in .csv, .h5 or .hdf5.

    Returns:
        The checked observations.

    Raises:
        DataFileError: If the file is missing, damaged, of another kind, or its content fails the checks.
    """
    readers = {".csv": _read_csv, ".h5": _read_hdf5, ".hdf5": _read_hdf5}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataFileError(f"'{path}' must end in .csv, .h5 or .hdf5.")
    if not path.is_file():
        raise DataFileError(f"There is no file '{path}'.")
    return Observations(reader(path), path)


def _read_csv(path: Path) -> Columns:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"'{path}' is no CSV file with a header line ({error}).") from error
    if not lines:
        raise DataFileError(f"'{path}' is empty; it needs a header line with t, x, u and rows of numbers.")
    (_, header), *rows = lines
    names = [name.strip() for name in header]
    if len(set(names)) != len(names) or "" in names:
        raise DataFileError(f"'{path}': column names must be different and not empty, got {_shortened(names)}.")
    table = []
    for line, row in rows:
        try:
            table.append([float(cell) for _, cell in zip(names, row, strict=True)])
        except ValueError as error:
            raise DataFileError(
                f"'{path}', line {line}: needs {len(names)} numbers ({_shortened(names)}), got {','.join(row)[:200]!r}."
            ) from error
    columns = np.array(table).reshape(-1, len(names))
    return {name: columns[:, j] for j, name in enumerate(names)}


def _read_hdf5(path: Path) -> Columns:
    try:
        columns = read_columns(path)
    except ValueError as error:
        raise DataFileError(f"'{path}' is damaged or no HDF5 file of numbers ({error}).") from error
    return _flattened(columns) if columns.get("u", np.empty(0)).ndim == 2 else columns


def _shortened(names: Iterable[str]) -> str:
    """Names for a message, which a file without sense shall not fill."""
    text = ", ".join(names)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _flattened(columns: Mapping[str, np.ndarray]) -> Columns:
    """Rows of a product grid: every data set of t or x repeated along the other axis."""
    times, places = columns["u"].shape
    flat = {}
    for name, column in columns.items():
        if name == "u":
            flat[name] = column.ravel()
        elif name == "x" and column.shape == (places,):
            flat[name] = np.tile(column, times)
        elif name != "x" and column.shape == (times,):
            flat[name] = np.repeat(column, places)
        else:
            raise DataFileError(f"Data set '{name}' {column.shape} does not fit u {columns['u'].shape} = (t, x).")
    return flat
