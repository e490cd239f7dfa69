"""Corrected uncertainty for a surrogate used outside the range it was trained on.

A surrogate trained on some parameters is overconfident on others. For fields with fronts it then predicts the right
profile at a slightly wrong position; ``displaced`` adds that uncertainty. ``Tempered``, ``ContextCalibrated`` and
``NoisyContext`` are the usual alternatives.
"""

from probconserv.calibration.displacement import displaced
from probconserv.calibration.variance import (
    ContextCalibrated,
    NoisyContext,
    Tempered,
    scaled,
    standardised_squares,
    variance_factor,
)

__all__ = [
    "ContextCalibrated",
    "NoisyContext",
    "Tempered",
    "displaced",
    "scaled",
    "standardised_squares",
    "variance_factor",
]
