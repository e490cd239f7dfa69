"""The experiments on generated fields: one trained flow per problem and seed, all samplers, exact references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments.experiment import Preset, RunContext, Stored, Table, Training
from experiments.generation.cases import SIZES, Case, Condition, Sizes
from experiments.generation.figures import draw_moments
from experiments.generation.methods import Method, methods_of
from experiments.generation.problem import GenerationProblem
from experiments.generation.scoring import score_method
from experiments.generation.training import train_flow, training_of
from experiments.records.record import Arrays, Over, Record, Source
from experiments.records.release import data_version


def draws_of(cases: Sequence[Case]) -> str:
    """Numbers of draws of the cases."""
    return " or ".join(str(count) for count in dict.fromkeys(case.draws for case in cases))


@dataclass(frozen=True, kw_only=True)
class GenerationExperiment:
    """Draws of a flow under laws that it was not trained for, against the exact conditional distribution."""

    name: str
    problem: GenerationProblem
    conditions: tuple[Condition, ...]
    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=self.data_version,
            cases=self.cases,
            methods=methods_of,
            score=self.score,
            seeds=self.seeds,
            trainings=self.trainings,
            train=train_flow,
            figures=draw_first,
            headline=self.headline,
            published=self.published,
            reference=lambda _: "unconstrained",
            redraws=lambda method: method.redraws,
            over=Over.GROUPS,
        )

    @property
    def data_version(self) -> int:
        """Version of its data."""
        return data_version(self.name)

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

    def seeds(self, case: Case, _context: RunContext) -> range:
        return range(case.sizes.groups)

    def trainings(self, _case: Case, method: Method, seed: int, context: RunContext) -> list[Training]:
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

    def headline(self, case: Case, _records: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """All rows; true draws, the sampling floor, last."""
        truth, *samplers = (method.key for method in methods_of(case))
        bounded = ("outside",) if self.problem.bounds is not None else ()
        return (*samplers, truth), ("mean_error", "deviation_error", "law_residual", *bounded)


def draw_first(case: Case, stored: Stored, _: RunContext) -> dict[str, Figure]:
    """Moments of the first group's draws."""
    shown = {method: arrays for (method, seed), arrays in stored.items() if seed == 0}
    methods = [method for method in methods_of(case) if method.key in shown]
    return {"moments": draw_moments(case, methods, shown)} if methods else {}
