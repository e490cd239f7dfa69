"""Probabilistic predictions that obey conservation laws exactly."""

from probconserv.constraints import LinearConstraint, integral
from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    IncompatibleQueryError,
    InvalidArgumentError,
    ProbConservError,
)
from probconserv.gp import GPConfig, GPSurrogate
from probconserv.layer import ProbConserv
from probconserv.mixture import Mixture
from probconserv.posterior import Posterior
from probconserv.prediction import Prediction
from probconserv.surrogate import Context, Query, Surrogate
from probconserv.update import condition, from_samples

__all__ = [
    "Context",
    "ConvergenceError",
    "DependentConstraintsError",
    "GPConfig",
    "GPSurrogate",
    "IncompatibleQueryError",
    "InvalidArgumentError",
    "LinearConstraint",
    "Mixture",
    "Posterior",
    "Prediction",
    "ProbConserv",
    "ProbConservError",
    "Query",
    "Surrogate",
    "condition",
    "from_samples",
    "integral",
]
