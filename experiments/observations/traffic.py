"""Traffic on a road between two detectors, whose counts say how the number of vehicles changes.

Density and flow on US-101 from the trajectories of NGSIM, 104 stretches of 20 ft, 540 steps of 5 s, as the repository
Allan-Avila/Highway-Traffic-Dynamics-KMD-Code has them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from experiments.errors import DataFileError
from experiments.observations.parts import Observed, Problem, Series, given

CHECKSUMS = {
    "NGSIM_US101_Density_Data.txt.gz": "7d1027d07c2ab1f9065854c2e6aa495f970fef22cb49636fa6c45b005d50e653",
    "NGSIM_US101_Flow_Data.txt.gz": "688ccb00da5c477e3762a6a550faee2d1827745f5225638dc5003b34334cd129",
}
"""SHA-256 of the files of density and flow."""
WHENCE = "the repository Allan-Avila/Highway-Traffic-Dynamics-KMD-Code"
STRETCHES, STEPS = 104, 540
LENGTH, SECONDS = 20.0, 5.0
"""Of a stretch in feet, and of a step."""
DETECTORS = (12, 92)
"""Stretches where density and flow are seen at every step; the field is what lies between."""
LAGS = (0, 1, 2, 4, 8, 12)
"""Steps before the present one whose densities and flows at the detectors the black box sees."""
COUNTED = 24
"""Steps after which the vehicles between the detectors are counted; in between, the law adds what the detectors see."""
VALIDATION, TEST = 288, 384
"""The first steps of the parts."""


@dataclass(frozen=True)
class Traffic(Problem):
    """Vehicles per 1,000 feet on the stretches between the detectors; row: their number.

    It was known at the last count, and has changed by the flow in at one detector minus the flow out at the other;
    ramps are not seen.
    """

    non_negative = True

    @property
    @override
    def key(self) -> str:
        return "traffic"

    @property
    @override
    def label(self) -> str:
        return "traffic, 1/1,000 ft"

    @override
    def observed(self, files: Path | None) -> Observed:
        density, flow = (_read(given(files, name, WHENCE, checksum)) for name, checksum in CHECKSUMS.items())
        first, last = DETECTORS
        field = 1e3 * density[:, first + 1 : last]
        rows = torch.full((1, field.shape[1]), 1e-3 * LENGTH, dtype=torch.float64)
        inside = (field @ rows.mT)[:, 0]
        gained = SECONDS * (flow[:, first] - flow[:, last])
        gained = torch.cat([gained.new_zeros(1), (gained[1:] + gained[:-1]) / 2]).cumsum(dim=0)
        start = torch.arange(STEPS) // COUNTED * COUNTED
        target = inside[start] + gained - gained[start]
        seen = torch.cat([1e3 * density[:, DETECTORS], flow[:, DETECTORS]], dim=1)
        usual = torch.arange(LAGS[-1], STEPS)
        inputs = torch.cat([seen[usual - lag] for lag in LAGS], dim=1)
        ends = (VALIDATION - LAGS[-1], TEST - LAGS[-1], STEPS - LAGS[-1])
        return Series(inputs, field[usual], target[usual, None], usual // COUNTED, ends).observed(rows)


def _read(path: Path) -> Tensor:
    """Steps in rows, stretches in columns."""
    try:
        values = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise DataFileError(
            f"'{path}' cannot be read as a table of numbers ({error}); get it from {WHENCE}."
        ) from error
    if values.shape != (STRETCHES, STEPS) or not np.isfinite(values).all():
        raise DataFileError(f"'{path}' must have {STRETCHES} × {STEPS} finite numbers, got {values.shape}.")
    return torch.from_numpy(values.T.copy())
