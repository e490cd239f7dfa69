"""Downscaling in sizes that take seconds, without the package of temperatures."""

import torch
from torch import Tensor

from experiments.observations import DownscalingExperiment
from experiments.observations.downscaling import Sizes
from experiments.observations.regression import Ridge

FEW = Sizes(training=20, validation=6, shrinkages=(0.8, 0.3), ranks=(4, 2), ridges=(Ridge(1, 0.1), Ridge(1, 10.0)))


def series(years: int = 36, rows: int = 12, columns: int = 16) -> Tensor:
    """Fields around 280 that warm, with waves of random size and a pattern that coarse means do not resolve."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 3, rows), torch.linspace(0, 4, columns), indexing="ij")
    waves = torch.stack([torch.sin(a * x + b * y) for a, b in ((1, 0), (0, 1), (2, 1), (5, 4))]).double()
    sizes = torch.randn(years, len(waves), generator=generator, dtype=torch.float64)
    trend = torch.linspace(0, 3, years, dtype=torch.float64)[:, None, None]
    noise = 0.1 * torch.randn(years, rows, columns, generator=generator, dtype=torch.float64)
    return 280.0 + trend + torch.einsum("yk,kij->yij", sizes, waves) + noise


def tiny_downscaling() -> DownscalingExperiment:
    """Downscaling of the made-up series."""
    return DownscalingExperiment(series=series, sizes={"smoke": FEW})
