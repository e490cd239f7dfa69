"""Surface air temperature over North America, 1860–2099, as the package iris-sample-data holds it.

Annual means of one run of a climate model under the A1B scenario, on 37 latitudes × 49 longitudes.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import h5py
import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from experiments.errors import DataFileError, MissingPackageError
from experiments.observations.downscaling import Years, interpolate
from experiments.observations.parts import Observed, Part, Problem
from probconserv.fields import block_means

ROWS, COLUMNS, YEARS = 36, 48, 240
"""Sizes of the cropped map: the last latitude and longitude are dropped, so that blocks fit."""
FACTOR = 4
"""Points of a block along each axis."""
VALIDATION, TEST = 150, 180
"""The first years of the parts, after 1860."""
TOGETHER = 5
"""Years of a block: in the validation the black box's CRPS has an autocorrelation below 2/√n from the next year on."""
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


@dataclass(frozen=True)
class Temperatures(Problem):
    """Annual means over North America, in kelvins; rows are the means over blocks of 4 × 4 points.

    Args:
        scenario: Of the test years 2040 to 2099; training and validation are of A1B.
    """

    key: str = field(default="temperature", compare=False)
    label: str = field(default="temperature, K", compare=False)
    scenario: str = "A1B"

    @override
    def observed(self, files: Path | None) -> Observed:
        series = torch.cat([temperature()[:TEST], temperature(self.scenario)[TEST:]])
        rows = block_means(torch.zeros(ROWS // FACTOR, COLUMNS // FACTOR), FACTOR).rows

        def part(fitted: int, first: int, last: int) -> Part:
            """Years predicted with the mean error of the first ones."""
            order = torch.arange(YEARS)
            predicted = interpolate(Years(series, order[:fitted], order[first:last], FACTOR)).scored.flatten(1)
            truth = series[first:last].flatten(1)
            return Part(predicted, truth, truth @ rows.mT, order[first:last] // TOGETHER)

        return Observed(
            rows=rows,
            training=part(VALIDATION, 0, VALIDATION),
            validation=part(VALIDATION, VALIDATION, TEST),
            known=part(TEST, 0, TEST),
            test=part(TEST, TEST, YEARS),
        )
