"""Fields given scattered observations: a flow of generation against the black boxes of conservation.

generate_stefan-prediction         the Stefan problem
generate_porous_medium-prediction  the porous medium equation
"""

from experiments.prediction.study import STUDIES, PredictionStudy

__all__ = ["STUDIES", "PredictionStudy"]
