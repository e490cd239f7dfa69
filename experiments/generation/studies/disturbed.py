"""Laws whose values are noisy, rounded, or those of a field outside of the flow's training range."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from experiments.disturbance import Disturbance
from experiments.experiment import RunContext
from experiments.generation.cases import Case, Condition
from experiments.generation.experiment import draws_of
from experiments.generation.methods import Method, methods_of
from experiments.generation.problems import Fixed
from experiments.generation.scoring import score_method
from experiments.generation.studies.flow_study import FlowStudy
from experiments.records.record import Arrays
from probconserv import LinearConstraint

DISTURBANCES = (
    *(Disturbance(noise=level) for level in (0.001, 0.01, 0.05)),
    Disturbance(rounding="bfloat16"),
)
"""Of the values of a law."""
_SUBJECT = "laws whose values are noisy, rounded or out of range"
BEYOND = 0.1
"""How far outside of its range a parameter is, relative to the width of the range."""


@dataclass(frozen=True, kw_only=True)
class DisturbedStudy(FlowStudy):
    """All rows of an experiment with linear laws, under laws that no field of the flow meets, on one flow.

    Errors are those against the fields without the disturbance. The noise is not told.
    """

    def title(self, cases: Sequence[Case]) -> str:
        return f"{self.flows.problem.label}: {_SUBJECT}; {draws_of(cases)} draws of one flow on {cases[0].sizes.nodes}²"

    @cached_property
    def conditions(self) -> list[Condition]:
        """Every law as it is, disturbed, and with its parameter outside of the range."""
        laws = [condition for condition in self.flows.conditions if condition.law is not None]
        return [each for law in laws for each in (law, *_disturbed(law), *self._outside(law))]

    def cases(self, context: RunContext) -> list[Case]:
        sizes = super().cases(context)[0].sizes
        return [Case(problem=self.flows.problem, condition=condition, sizes=sizes) for condition in self.conditions]

    def methods(self, case: Case) -> tuple[Method, ...]:
        return methods_of(case)

    def score(self, case: Case, method: Method, seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No field that the flow knows has the values of this law")
            return score_method(case, method, seed, list(weights), context.options.seed)

    def reference(self, case: Case) -> str:
        return self.flows.reference(case)

    def headline(self, case: Case, records: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.flows.headline(case, records)

    def _outside(self, condition: Condition) -> Iterator[Condition]:
        """The fixed parameters below and above their ranges, one after the other."""
        for column, value in enumerate(condition.fixed):
            low, high = self.flows.problem.ranges[column]
            for side, beyond in (("below", low - BEYOND * (high - low)), ("above", high + BEYOND * (high - low))):
                if value is not None:
                    fixed: Fixed = (*condition.fixed[:column], beyond, *condition.fixed[column + 1 :])
                    label = condition.label.replace(f"{value:g}", f"{beyond:.3g}")
                    key = f"{condition.key}-{side}-{column}"
                    yield replace(condition, key=key, label=f"{label}, out of range", fixed=fixed)


def _disturbed(condition: Condition) -> Iterator[Condition]:
    for disturbance in DISTURBANCES:

        def law(u, times, points, disturbance=disturbance):  # type: ignore[no-untyped-def]
            assert condition.law is not None
            exact = condition.law(u, times, points)
            assert isinstance(exact, LinearConstraint)
            return replace(exact, b=disturbance(exact.b[None, None])[0, 0])

        key = disturbance.label.replace(" %", "").replace(" ", "-")
        yield replace(condition, key=f"{condition.key}-{key}", label=f"{condition.label}, {disturbance.label}", law=law)
