"""Columns of an HDF5 file, read in a separate process: damaged files can crash the HDF5 library itself.

``read_columns`` runs this file as a program, which prints the columns to standard output; it imports nothing of this
package, so that it starts fast.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path

import h5py
import numpy as np

_HDF5_ERRORS = (OSError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)  # of h5py for damaged files
_NUMBERS_PER_BYTE = 129  # HDF5's usual compression packs at most 1,032 bytes into one


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The data sets of numbers at the top of a file; scalars, texts and groups are passed over.

    Args:
        path: An HDF5 file.

    Returns:
        Arrays by name, float64; they may be written to.

    Raises:
        ValueError: If the file is damaged, declares more numbers than it can hold, or has values elsewhere.
    """
    if not h5py.is_hdf5(path):
        raise ValueError("it does not begin like one")
    # -P: modules beside this file must not be imported in place of others of the same name.
    finished = subprocess.run([sys.executable, "-P", __file__, str(path)], capture_output=True, check=False)
    if finished.returncode:
        raise ValueError(finished.stderr.decode(errors="replace").strip() or "the HDF5 library crashed on it")
    header, _, body = finished.stdout.partition(b"\n")
    columns, start = {}, 0
    for name, shape in json.loads(header):
        columns[name] = np.frombuffer(body, dtype=float, count=prod(shape), offset=start).reshape(shape).copy()
        start += columns[name].nbytes
    return columns


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """The data sets at the top of an HDF5 file, which must have their values in the file itself.

    HDF5 can point to values in any other file; a file from elsewhere could so show what its reader alone may see.
    """
    datasets = {}
    for name in file:
        item = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        if item is None or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
            raise ValueError(f"'{name}' is a link or has its values in another file; store the values in the file")
        if isinstance(item, h5py.Dataset):
            datasets[name] = item
    return datasets


def _check_size(datasets: Mapping[str, h5py.Dataset], size: int) -> None:
    """Refuses a file that declares far more numbers than it can hold, before memory is taken for them.

    A chunk counts whole, however few of its numbers are in the data set: the library unpacks all of it.
    """
    largest = max((max(int(dataset.size or 0), prod(dataset.chunks or ())) for dataset in datasets.values()), default=0)
    if len(datasets) * largest > _NUMBERS_PER_BYTE * size:
        raise ValueError(f"it declares {len(datasets)} columns of up to {largest} numbers in {size} bytes")


def _print_columns(path: Path) -> None:
    with h5py.File(path, "r") as file:
        numbers = {
            name: dataset
            for name, dataset in _datasets(file).items()
            if dataset.ndim > 0 and dataset.dtype.kind in "fiu"
        }
        _check_size(numbers, path.stat().st_size)
        columns = {name: np.asarray(dataset, dtype=float) for name, dataset in numbers.items()}
    sys.stdout.buffer.write(json.dumps([(name, array.shape) for name, array in columns.items()]).encode() + b"\n")
    for array in columns.values():
        sys.stdout.buffer.write(array.tobytes())


if __name__ == "__main__":
    try:
        _print_columns(Path(sys.argv[1]))
    except _HDF5_ERRORS as problem:
        sys.exit(str(problem) or type(problem).__name__)
