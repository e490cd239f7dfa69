"""``export`` writes a set of solutions to an HDF5 file that others' loaders read; ``load`` reads it back."""

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from solvers.data_files.field_set import CATEGORIES, FieldSet, collect
from solvers.data_files.layouts import Layout, PDEBench
from solvers.errors import DataFileError, InvalidArgumentError
from solvers.finite_volume.solve import Solution
from solvers.grids import CellGrid, Grid, NodeGrid
from solvers.steady.solve import SteadySolution
from solvers.systems.solution import SystemSolution
from solvers.tensor_files import replacing

_METADATA = "probconserv_boon"
_FORMAT = 1
_HDF5_ERRORS = (OSError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)  # of h5py for damaged files


def export(
    data: FieldSet | Solution | SteadySolution | SystemSolution, path: str | Path, layout: Layout | None = None
) -> None:
    """Writes samples to an HDF5 file, completely or not at all.

    Beside the layout's own data sets, the file has the attributes ``equation``, ``boundary``, ``seed`` and ``versions``
    and a text ``probconserv_boon`` with what ``load`` needs, checksums among it. The layouts store 32-bit numbers
    unless told otherwise.

    Args:
        data: A ``FieldSet``, or a solution, for which ``collect`` makes one without further details.
        path: The file; its folder must exist. A file that is there is replaced.
        layout: ``PDEBench()`` by default, or ``TheWell()``.

    Raises:
        InvalidArgumentError: If data or layout have another type, or the layout has no place for an array.
        OSError: If the folder cannot be written.
    """
    layout = PDEBench() if layout is None else layout
    if isinstance(data, Solution | SteadySolution | SystemSolution):
        data = collect(data)
    if not isinstance(data, FieldSet):
        raise InvalidArgumentError(f"data must be a FieldSet or a solution, got {type(data).__name__}; see collect.")
    if not isinstance(layout, Layout):
        raise InvalidArgumentError(f"layout must be PDEBench() or TheWell(), got {layout!r}.")
    with replacing(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        _describe(file, data, layout.write(file, data), layout)


def load(path: str | Path) -> FieldSet:
    """Reads a file that ``export`` wrote, in whichever layout.

    Args:
        path: The file. Read files of your own only: the HDF5 library may crash on one that is made to damage.

    Returns:
        The samples, float64; rounded to 32 bits if they were stored so.

    Raises:
        DataFileError: If the file is damaged or not by ``export``; the text names it.
        OSError: If there is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with h5py.File(path, "r") as file:
            text = file[_METADATA][()] if _METADATA in file else None  # pyright: ignore[reportIndexIssue]
            if not isinstance(text, bytes):
                raise DataFileError(f"{path} was not written by export: it has no text {_METADATA!r}.")
            if hashlib.sha256(text).hexdigest() != file[_METADATA].attrs["sha256"]:
                raise ValueError("its text does not have its checksum")
            return _read(file, json.loads(text))
    except DataFileError:
        raise
    except _HDF5_ERRORS as problem:
        raise DataFileError(f"{path} is damaged ({problem}); write it again.") from problem


def _describe(file: h5py.File, data: FieldSet, paths: dict[str, dict[str, str]], layout: Layout) -> None:
    """Writes the attributes and the text that ``load`` needs."""
    grid = data.grid
    metadata: dict[str, Any] = {
        "format": _FORMAT,
        "layout": type(layout).__name__,
        "grid": {"location": grid.location, "low": grid.low, "high": grid.high, "count": grid.count},
        "times": data.times.tolist(),
        "paths": paths,
        "checksums": {path: _checksum(_numbers(file, path)) for places in paths.values() for path in places.values()},
        "boundary": data.boundary,
        "equation": data.equation,
        "seed": data.seed,
        "versions": dict(data.versions),
    }
    text = json.dumps(metadata)
    file[_METADATA] = text
    file[_METADATA].attrs["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    file.attrs["equation"] = data.equation
    file.attrs["seed"] = "" if data.seed is None else data.seed
    file.attrs["boundary"] = json.dumps(data.boundary)
    file.attrs["versions"] = json.dumps(dict(data.versions))


def _read(file: h5py.File, metadata: dict[str, Any]) -> FieldSet:
    if metadata["format"] != _FORMAT:
        raise ValueError(f"its format is {metadata['format']}, this version reads {_FORMAT}")
    extent = metadata["grid"]
    kind: type[Grid] = {"cell": CellGrid, "node": NodeGrid}[extent["location"]]
    arrays = {
        category: {
            name: _read_array(file, path, metadata["checksums"][path])
            for name, path in metadata["paths"].get(category, {}).items()
        }
        for category in CATEGORIES
    }
    return FieldSet(
        grid=kind(extent["low"], extent["high"], extent["count"]),  # pyright: ignore[reportCallIssue]
        times=torch.tensor(metadata["times"], dtype=torch.float64),
        boundary=tuple((first, last) for first, last in metadata["boundary"]),
        equation=metadata["equation"],
        seed=metadata["seed"],
        versions=metadata["versions"],
        **arrays,
    )


def _read_array(file: h5py.File, path: str, checksum: str) -> Tensor:
    numbers = _numbers(file, path)
    if _checksum(numbers) != checksum:
        raise ValueError(f"{path!r} does not have its checksum")
    return torch.from_numpy(numbers).to(torch.float64)


def _numbers(file: h5py.File, path: str) -> np.ndarray:
    dataset = file[path]
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"{path!r} is not a data set")
    return np.asarray(dataset[()])


def _checksum(numbers: np.ndarray) -> str:
    described = f"{numbers.dtype.str} {numbers.shape}".encode()
    return hashlib.sha256(described + np.ascontiguousarray(numbers).tobytes()).hexdigest()
