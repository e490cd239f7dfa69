"""Corrected uncertainty for a surrogate used outside the range it was trained on.

A surrogate trained on some parameters is overconfident on others. For fields with fronts it then predicts the right
profile at a slightly wrong position; ``displaced`` adds that uncertainty. ``Tempered``, ``ContextCalibrated`` and
``NoisyContext`` are the usual alternatives.
"""

from probconserv.calibration.by_law import displaced_by_law
from probconserv.calibration.conformal import ConformalBand, fit_band
from probconserv.calibration.displacement import displaced
from probconserv.calibration.marginals import (
    calibration_error,
    cumulative_probability,
    marginal_crps,
    marginal_log_likelihood,
)
from probconserv.calibration.variance import (
    ContextCalibrated,
    NoisyContext,
    Tempered,
    scaled,
    standardised_squares,
    variance_factor,
)

__all__ = [
    "ConformalBand",
    "ContextCalibrated",
    "NoisyContext",
    "Tempered",
    "calibration_error",
    "cumulative_probability",
    "displaced",
    "displaced_by_law",
    "fit_band",
    "marginal_crps",
    "marginal_log_likelihood",
    "scaled",
    "standardised_squares",
    "variance_factor",
]
