"""Traffic on a road between two detectors, whose counts say how the number of vehicles changes.

Density and flow on US-101 from the trajectories of NGSIM, 104 stretches of 20 ft, 540 steps of 5 s, as the repository
Allan-Avila/Highway-Traffic-Dynamics-KMD-Code has them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from experiments.errors import DataFileError
from experiments.observations.parts import Observed, Problem, Series, given, regressed
from experiments.observations.regression import ridge
from probconserv import Rollout
from solvers import CellGrid

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
"""Steps after which the vehicles between the detectors are counted; in between, the law adds what the detectors see.

They are a block too: in the validation the black boxes' CRPS has an autocorrelation below 2/√n from 13 steps on.
"""
VALIDATION, TEST = 288, 384
"""The first steps of the parts."""
SINCE = "seconds since the count"


@dataclass(frozen=True)
class Traffic(Problem):
    """Vehicles per 1,000 feet on the stretches between the detectors; row: their number.

    It was known at the last count, and has changed by the flow in at one detector minus the flow out at the other;
    ramps are not seen: at a steady rate they add as much as time has gone by since the count.
    """

    key = "traffic"
    label = "traffic, 1/1,000 ft"
    non_negative = True
    covariates = (SINCE,)

    @override
    def observed(self, files: Path | None) -> Observed:
        road, usual = read(files), torch.arange(LAGS[-1], STEPS)
        field = road.field[usual]
        black_box = regressed(torch.cat([road.seen[usual - lag] for lag in LAGS], dim=1), field)
        ends = (VALIDATION - LAGS[-1], TEST - LAGS[-1], STEPS - LAGS[-1])
        series = Series(black_box, field, road.target[usual], usual // COUNTED, ends, since_count(usual))
        return series.observed(road.rows)


@dataclass(frozen=True)
class TrafficAhead(Problem):
    """The same from a counted field on, step by step until the next one, by a regression of what a step changes.

    Args:
        balanced: Whether every step meets the balance of what the detectors see.
    """

    key: str = field(default="traffic-ahead", compare=False)
    label: str = field(default="two minutes ahead", compare=False)
    balanced: bool = False
    non_negative = True
    covariates = (SINCE,)

    @override
    def observed(self, files: Path | None) -> Observed:
        road = read(files)
        windows = torch.arange(STEPS // COUNTED * COUNTED).unflatten(0, (-1, COUNTED))
        usual = windows[:, 1:].flatten()
        around = torch.cat([road.seen[1:], road.seen[:-1]], dim=1)
        inputs, fields = torch.cat([road.field[:-1], around], dim=1), road.field[windows][:, :, None]
        grid, times = CellGrid(0.0, 1e-3 * LENGTH * fields.shape[-1], fields.shape[-1]), SECONDS * torch.arange(COUNTED)
        (first, last), seen = road.flow[windows].split(1, dim=-1), around[windows[:, :-1]]

        def black_box(fitted: Tensor, penalty: float) -> Tensor:
            step = usual[fitted] - 1
            deviation = inputs[step].std(dim=0)
            change = ridge(inputs[step] / deviation, road.field[step + 1] - road.field[step], penalty)

            def operator(field: Tensor, seen: Tensor) -> Tensor:
                return field + change(torch.cat([field[:, 0], seen], dim=-1) / deviation)[:, None]

            if not self.balanced:
                ahead = [fields[:, 0]]
                for number in range(COUNTED - 1):
                    ahead.append(operator(ahead[-1], seen[:, number]))
                return torch.cat(ahead[1:], dim=1).flatten(0, 1)
            return (
                Rollout(operator, grid)(fields[:, 0], times, seen, fluxes=[(first, last)])
                .fields[:, 1:, 0]
                .flatten(0, 1)
            )

        ends = [count * (COUNTED - 1) // COUNTED for count in (VALIDATION, TEST, windows.numel())]
        parts = (ends[0], ends[1], ends[2])
        block = usual // COUNTED
        series = Series(black_box, road.field[usual], road.target[usual], block, parts, since_count(usual))
        return series.observed(road.rows)


def since_count(steps: Tensor) -> Tensor:
    """Seconds since the last count ``(steps, 1)``."""
    return SECONDS * (steps % COUNTED).double()[:, None]


class Road(NamedTuple):
    """The records.

    Attributes:
        field: Density between the detectors, per 1,000 ft, at every step.
        flow: At both detectors, per second.
        seen: Densities and flows at the detectors.
        rows: Row of the number of vehicles.
        target: That number by the last count and the flows since.
    """

    field: Tensor
    flow: Tensor
    seen: Tensor
    rows: Tensor
    target: Tensor


def read(files: Path | None) -> Road:
    """The record in the folder of ``--files``."""
    density, flow = (_read(given(files, name, WHENCE, checksum)) for name, checksum in CHECKSUMS.items())
    first, last = DETECTORS
    field, flow = 1e3 * density[:, first + 1 : last], flow[:, DETECTORS]
    rows = torch.full((1, field.shape[1]), 1e-3 * LENGTH, dtype=torch.float64)
    gained = SECONDS * (flow[:, 0] - flow[:, 1])
    gained = torch.cat([gained.new_zeros(1), (gained[1:] + gained[:-1]) / 2]).cumsum(dim=0)
    start = torch.arange(STEPS) // COUNTED * COUNTED
    target = (field @ rows.mT)[start, 0] + gained - gained[start]
    return Road(field, flow, torch.cat([1e3 * density[:, DETECTORS], flow], dim=1), rows, target[:, None])


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
