"""How often a flow says that a law is out of its range: laws of fields in the range, and of fields beyond it."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from typing_extensions import override

from experiments.experiment import Experiment, Preset, RunContext, Style, Training
from experiments.generation.experiment import GenerationExperiment
from experiments.generation.laws import trapezoid
from experiments.generation.methods import Method
from experiments.generation.studies import BEYOND
from experiments.plots import CONSERVED
from experiments.records.record import Arrays
from experiments.stages import take_released
from probconserv import LinearConstraint
from probconserv.surrogates.flow.particles import FEW
from probconserv.training import random_seed

COUNTS: Mapping[Preset, tuple[int, int]] = {"smoke": (4, 2), "laptop": (75, 15), "paper": (75, 15)}
"""Laws in the range and beyond it, of every problem."""
NOISE = 0.02
"""Deviation of noise, where a law has some, relative to that of the fields."""


@dataclass(frozen=True, kw_only=True)
class RangeCase:
    """Laws of one to three values or a total, exact or with noise, of fields in the range of a flow or beyond it."""

    flows: GenerationExperiment
    beyond: bool
    count: int
    nodes: int

    @property
    def key(self) -> str:
        return f"{self.flows.problem.name}-{'beyond' if self.beyond else 'inside'}"

    @property
    def label(self) -> str:
        return f"{self.flows.problem.label}, {self.count} laws {'beyond the' if self.beyond else 'in'} range"

    @property
    def config(self) -> dict[str, Any]:
        return {**self.flows.problem.description, "beyond": self.beyond, "count": self.count, "nodes": self.nodes}

    def law(self, number: int, deviation: Tensor) -> LinearConstraint:
        """Law ``number``; the deviation is that of the fields."""
        generator = Generator().manual_seed(random_seed(number, self.beyond, 0))
        u, (_, points) = self._field(generator), self.flows.problem.axes(self.nodes)
        values, noisy = number % 4, number % 8 >= 4
        rows = torch.zeros(max(values, 1), *u.shape, dtype=u.dtype)
        if values:
            rows.flatten(1)[range(values), torch.randperm(u.numel(), generator=generator)[:values]] = 1.0
        else:
            rows[0, -1] = trapezoid(points)
        rows = rows.flatten(1)
        noise = (NOISE * noisy * deviation) ** 2 * rows.square().sum(dim=-1)
        return LinearConstraint(rows.to_sparse(), rows @ u.flatten(), noise)

    def _field(self, generator: Generator) -> Tensor:
        """A field of random parameters, one of which is a tenth of its range below or up to a half above it."""
        problem = self.flows.problem
        low, high = torch.tensor(problem.ranges, dtype=torch.float64).T
        parameters = low + (high - low) * torch.rand(len(low), dtype=low.dtype, generator=generator)
        if self.beyond:
            which, side = (int(torch.randint(most, (), generator=generator)) for most in (len(low), 2))
            width = float(high[which] - low[which])
            above = high[which] + width * (BEYOND + (0.5 - BEYOND) * torch.rand((), generator=generator))
            parameters[which] = above if side else low[which] - BEYOND * width
        return problem.fields(parameters[None], self.nodes)[0]


FLOW = Method(key="flow", label="flow", style=Style(CONSERVED))
"""The only row."""


@dataclass(frozen=True, kw_only=True)
class RangeStudy(Experiment):
    """``FlowMatching.evidence`` of laws whose fields a flow knows, and of others."""

    name: str = "generate_ranges"
    flows: tuple[GenerationExperiment, ...]

    overview_leads = False
    shown = ("flagged", "few_ancestors")

    @property
    def data_version(self) -> int:
        return self.flows[0].data_version

    @override
    def title(self, cases: Sequence[RangeCase]) -> str:
        return "Laws of fields in the range of a flow and beyond it: fractions that are named"

    def cases(self, context: RunContext) -> list[RangeCase]:
        preset = context.options.preset
        return [
            RangeCase(flows=flows, beyond=bool(beyond), count=count, nodes=flows.sizes[preset].nodes)
            for beyond, count in enumerate(COUNTS[preset])
            for flows in self.flows
        ]

    def methods(self, case: RangeCase) -> tuple[Method, ...]:  # noqa: ARG002
        return (FLOW,)

    @override
    def seeds(self, case: RangeCase, context: RunContext) -> range:
        return range(1)

    @override
    def trainings(self, case: RangeCase, method: Method, seed: int, context: RunContext) -> list[Training]:
        return [case.flows.training(seed, context)]

    @override
    def train(self, training: Training, context: RunContext) -> None:
        """Takes the released weights of the laptop's flow, or trains one."""
        if not take_released(training, context):
            self.flows[0].train(training, context)

    @override
    def score(self, case: RangeCase, method: Method, seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
        flow = case.flows.training(seed, context).config.load(weights[0])
        deviation = flow.covariance().diagonal().mean().sqrt()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of values that no field has, which are among the laws
            found = [flow.evidence(case.law(number, deviation), seed=number) for number in range(case.count)]
        return {
            "flagged": np.array([not each.in_range for each in found], dtype=float),
            "few_ancestors": np.array([each.in_range and each.ancestors < FEW for each in found], dtype=float),
        }
