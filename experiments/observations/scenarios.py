"""Temperatures from their means over blocks, in the scenario that methods learnt from and in another one."""

from dataclasses import dataclass
from pathlib import Path

import torch
from typing_extensions import override

from experiments.observations.downscaling import Years, interpolate
from experiments.observations.parts import Observed, Part, Problem
from experiments.observations.temperature import COLUMNS, ROWS, YEARS, temperature
from probconserv import block_means

FACTOR = 4
"""Points of a block along each axis."""
VALIDATION, TEST = 150, 180
"""The first years of the parts, after 1860."""
TOGETHER = 5
"""Years of a stretch, within which they are not independent."""


@dataclass(frozen=True)
class Temperatures(Problem):
    """Annual means over North America, in kelvins; rows are the means over blocks of 4 × 4 points.

    Args:
        scenario: Of the test years 2040 to 2099; training and validation are of A1B.
    """

    scenario: str = "A1B"

    @property
    @override
    def key(self) -> str:
        return f"temperature-{self.scenario}".removesuffix("-A1B").lower()

    @property
    @override
    def label(self) -> str:
        return "temperature, K" + ("" if self.scenario == "A1B" else f", scenario {self.scenario}")

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
