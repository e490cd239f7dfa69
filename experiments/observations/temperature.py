"""Surface air temperature over North America, 1860–2099, as the package iris-sample-data holds it.

Annual means of one run of a climate model under the A1B scenario, on 37 latitudes × 49 longitudes.
"""

from functools import lru_cache
from importlib import import_module
from pathlib import Path

import h5py
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.errors import DataFileError, MissingPackageError

ROWS, COLUMNS, YEARS = 36, 48, 240
"""What is kept: the last latitude and longitude are dropped, so that blocks fit."""
_FILE, _VARIABLE = "{}_north_america.nc", "air_temperature"


@lru_cache(maxsize=2)
def temperature(scenario: str = "A1B") -> Float[Tensor, "years rows columns"]:
    """The series in kelvins, ``(240, 36, 48)``, float64; rows go north, columns east.

    ``E1`` is the scenario of early reductions of emissions.

    Raises:
        MissingPackageError: If the package is not installed.
        DataFileError: If its file cannot be read.
    """
    try:
        folder = Path(import_module("iris_sample_data").path)
    except ImportError as error:
        raise MissingPackageError(
            "this needs the temperatures of the package iris-sample-data, which is not installed; "
            "pip install iris-sample-data, or pip install '.[climate]' in a clone of the library."
        ) from error
    return read_series(folder / _FILE.format(scenario))


def read_series(path: Path) -> Float[Tensor, "years rows columns"]:
    """The kept part of a series in a netCDF file."""
    try:
        with h5py.File(path) as file:
            values = torch.from_numpy(file[_VARIABLE][:])  # type: ignore[index]
    except (OSError, KeyError) as error:
        raise DataFileError(
            f"'{path}' cannot be read as a file with {_VARIABLE} ({error}); install iris-sample-data 2.5 again."
        ) from error
    if tuple(values.shape) != (YEARS, ROWS + 1, COLUMNS + 1):
        raise DataFileError(
            f"'{path}' must hold {_VARIABLE} of the shape {(YEARS, ROWS + 1, COLUMNS + 1)}, got {tuple(values.shape)}; "
            "install iris-sample-data 2.5."
        )
    return values[:, :ROWS, :COLUMNS].double()
