"""Heat through the surface of the oceans, whose mean over a strip is what the water below it stores.

Climatological months on 46 latitudes × 72 longitudes by Esbensen and Kushnir (1981), as NOAA's Ferret ships them in
``esku_heat_budget.cdf``; in the public domain. ``ocean.npz`` has, in hundredths, net heat flux downwards (FDH), sea
surface temperature (SST), cloud cover (CLD), wind speed (SPD) and the decimal logarithm of the number of observations
(KFDH).

The law is that of a closed budget: the mean over an area is ρ c h ∂T/∂t, so that its mean over the year is zero. In
these data all seas together gain 5.4 W/m² over the year, and single strips much more or less, as currents carry heat.
"""

from dataclasses import dataclass
from math import pi
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from experiments.observations.parts import Observed, Problem, Series, regressed

FILE = Path(__file__).with_name("ocean.npz")
LATITUDES = (10.0, 46.0)
"""Ends of a strip, north or south."""
WELL = 2.0
"""Decimal logarithm of the observations that every cell of a strip has in every month, at least."""
HEAT_CAPACITY, DEPTH = 4.1e6, 50.0
"""Of sea water, J/(m³ K), and of the layer that stores the heat, metres: what textbooks take."""
MONTH = 365.25 * 86400 / 12
STRETCH, PARTS = 30, (0, 0, 1, 2)
"""Degrees of longitude that go to one part together: training twice, validation, test, and so on around the globe."""
APART = 15
"""Degrees of longitude, within which strips are not independent."""


@dataclass(frozen=True)
class OceanHeat(Problem):
    """Net heat flux into the cells of a strip from 10° to 46° in one month, in W/m²; row: their mean by area."""

    key = "ocean"
    label = "ocean heat, W/m²"

    @override
    def observed(self, files: Path | None) -> Observed:
        maps = read()
        month = torch.arange(12)
        halves = [_strips(maps, south, (month + 6 * south) % 12) for south in (False, True)]
        seen, truth, stored, longitude, south = (torch.cat(both) for both in zip(*halves, strict=True))
        rows = _areas(maps)[_latitudes(maps, south=False)][None]
        rows = rows / rows.sum()
        part = torch.tensor(PARTS)[longitude.long() // STRETCH % len(PARTS)]
        order = (360 * part + longitude).argsort(stable=True)
        ends = part.bincount().cumsum(dim=0).tolist()
        block = 2 * (longitude.long() // APART) + south
        black_box = regressed(seen[order], truth[order])
        target = (stored @ rows.mT)[order]
        series = Series(black_box, truth[order], target, block[order], (ends[0], ends[1], ends[2]))
        return series.observed(rows)


def read() -> dict[str, Tensor]:
    """Maps ``(12, 46, 72)``, NaN on land and under ice; edges of latitudes ``(47,)``, longitudes ``(72,)``."""
    with np.load(FILE) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    for name, values in arrays.items():
        if not values.is_floating_point():
            known = values > torch.iinfo(values.dtype).min
            arrays[name] = torch.where(known, values.double() / 100, torch.nan)
    return arrays


def _areas(maps: dict[str, Tensor]) -> Tensor:
    """Of the cells, by latitude, up to a factor."""
    return maps["edges"].deg2rad().sin().diff()


def _latitudes(maps: dict[str, Tensor], *, south: bool) -> Tensor:
    """Indices of a strip's cells, towards the pole."""
    middle = (maps["edges"][1:] + maps["edges"][:-1]) / 2 * (-1 if south else 1)
    inside = ((middle >= LATITUDES[0]) & (middle <= LATITUDES[1])).nonzero()[:, 0]
    return inside.flip(0) if south else inside


def _strips(maps: dict[str, Tensor], south: bool, season: Tensor) -> tuple[Tensor, ...]:
    """Of one hemisphere, by longitude and month: what is seen, the flux, what is stored, longitude, hemisphere."""
    cells = _latitudes(maps, south=south)
    well = (maps["log10_count"][:, cells] >= WELL).all(dim=0).all(dim=0)

    def of(values: Tensor) -> Tensor:
        """``(strips, n)``"""
        return values[:, cells][:, :, well].permute(2, 0, 1).flatten(0, 1)

    temperature = maps["surface_temperature"]
    stored = HEAT_CAPACITY * DEPTH * (temperature.roll(-1, dims=0) - temperature.roll(1, dims=0)) / (2 * MONTH)
    phase = pi / 6 * season[:, None] * torch.tensor([1.0, 2.0], dtype=torch.float64)
    phases = torch.cat([phase.sin(), phase.cos()], dim=1).repeat(int(well.sum()), 1)
    seen = [phases, *(of(maps[name]) for name in ("surface_temperature", "cloud_cover", "wind_speed"))]
    longitude = maps["longitude"][well].repeat_interleave(12)
    return torch.cat(seen, dim=1), of(maps["net_heat"]), of(stored), longitude, torch.full_like(longitude, south).long()
