"""Fields given scattered observations: a flow of generation against the black boxes of conservation.

generate_stefan-prediction         the Stefan problem
generate_porous_medium-prediction  the porous medium equation
"""

from collections.abc import Mapping
from dataclasses import replace

from experiments.conservation import EXPERIMENTS as CONSERVATION
from experiments.generation import EXPERIMENTS as GENERATION
from experiments.prediction.study import PredictionStudy

__all__ = ["STUDIES", "PredictionStudy"]


def _prediction(name: str, parameters: tuple[float, ...]) -> PredictionStudy:
    base = CONSERVATION[name]
    problem = replace(base.problem, test_parameters=parameters)
    return PredictionStudy(
        name=f"generate_{name}-prediction", base=replace(base, problem=problem), flows=GENERATION[f"generate_{name}"]
    )


STUDIES: Mapping[str, PredictionStudy] = {
    entry.name: entry
    for entry in (
        _prediction("stefan", (0.6, 0.65, 0.52, 0.5, 0.73, 0.75)),
        _prediction("porous_medium", (1.0, 3.0, 6.0, 0.7, 8.0)),
    )
}
"""Prediction from scattered observations, with parameters in the training range of the flow, below it and above it."""
