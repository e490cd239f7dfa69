"""The experiments on generated fields: one trained flow per problem and seed, all samplers, exact references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from typing_extensions import override

from experiments.experiment import Experiment, Preset, RunContext, Stored, Training
from experiments.generation.cases import SIZES, Case, Condition, Sizes
from experiments.generation.figures import draw_moments
from experiments.generation.methods import Method, methods_of
from experiments.generation.problem import GenerationProblem
from experiments.generation.scoring import score_method
from experiments.generation.training import train_flow, training_of
from experiments.records.record import Arrays, Over, Record, Source


def draws_of(cases: Sequence[Case]) -> str:
    """Numbers of draws of the cases."""
    return " or ".join(str(count) for count in dict.fromkeys(case.draws for case in cases))


@dataclass(frozen=True, kw_only=True)
class GenerationExperiment(Experiment):
    """Draws of a flow under laws that it was not trained for, against the exact conditional distribution."""

    name: str
    problem: GenerationProblem
    conditions: tuple[Condition, ...]
    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)
    over: Over = Over.GROUPS

    def title(self, cases: Sequence[Case]) -> str:
        sizes = cases[0].sizes
        trainings = "one training" if sizes.groups == 1 else f"{sizes.groups} trainings"
        return (
            f"{self.problem.label}: {draws_of(cases)} drawn fields on {sizes.nodes}² against exact moments, "
            f"{sizes.steps} evaluations each; {trainings}"
        )

    def cases(self, context: RunContext) -> list[Case]:
        sizes = self.sizes[context.options.preset]
        return [Case(problem=self.problem, condition=condition, sizes=sizes) for condition in self.conditions]

    def methods(self, case: Case) -> tuple[Method, ...]:
        return methods_of(case)

    @override
    def redraws(self, method: Method) -> bool:
        return method.redraws

    @override
    def reference(self, case: Case) -> str:
        """The flow alone: training fields are given the law."""
        return "unconstrained"

    @override
    def seeds(self, case: Case, context: RunContext) -> range:
        return range(case.sizes.groups)

    @override
    def trainings(self, case: Case, method: Method, seed: int, context: RunContext) -> list[Training]:
        """The flow of a group, the same for all cases and samplers."""
        return [] if method.drawn is not None else [self.training(seed, context)]

    def training(self, group: int, context: RunContext) -> Training:
        """The training of the flow of a group."""
        sizes = self.sizes[context.options.preset]
        number = context.training_seed * sizes.groups + group
        return Training(
            key=f"flow-{number}",
            label=f"flow {number}, {self.problem.label}",
            folder=f"generation/{self.problem.name}",
            config=training_of(self.problem, sizes, number, context.options.device),
            data_version=self.data_version,
            release=None if group else f"generation/{self.problem.name}-flow-{number}.safetensors",
        )

    def train(self, training: Training, context: RunContext) -> None:
        train_flow(training, context)

    def score(self, case: Case, method: Method, seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
        return score_method(case, method, seed, list(weights), context.options.seed)

    def published(self, case: Case) -> list[Record]:
        """Scores that the notebook of ECI prints: its network, 256 draws against 512 references, once."""
        paper = case.condition.published
        if paper is None:
            return []
        method = "eci" if case.condition.law is not None else "unconstrained"
        errors = {"protocol_mean": paper.mean, "protocol_deviation": paper.deviation}
        return [
            Record(
                experiment=self.name,
                case=case.key,
                method=method,
                seed=None,
                score=score,
                mean=value,
                standard_error=None,
                source=Source.PUBLISHED,
                note="Cheng et al. 2025, notebook; their network",
            )
            for score, value in errors.items()
        ]

    @override
    def headline(self, case: Case, records: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """All rows; true draws, the sampling floor, last."""
        truth, *samplers = (method.key for method in self.methods(case))
        bounded = ("outside",) if self.problem.bounds is not None else ()
        return (*samplers, truth), ("mean_error", "deviation_error", "law_residual", *bounded)

    @override
    def figures(self, case: Case, stored: Stored, context: RunContext) -> dict[str, Figure]:
        shown = {method: arrays for (method, seed), arrays in stored.items() if seed == 0}
        methods = [method for method in self.methods(case) if method.key in shown]
        return {"moments": draw_moments(case, methods, shown)} if methods else {}
