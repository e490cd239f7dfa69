"""Probabilistic predictions that obey conservation laws exactly."""

from probconserv.balance import conservation, local_conservation, total_over_time
from probconserv.baselines import project_uniformly
from probconserv.calibration import displaced
from probconserv.constraints import (
    LinearConstraint,
    boundary_gradient,
    boundary_value,
    integral,
    smoothness,
    stacked_integrals,
)
from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    IncompatibleQueryError,
    InfeasibleConstraintError,
    InvalidArgumentError,
    ProbConservError,
    WeightsError,
)
from probconserv.evidence import Evidence, evidence
from probconserv.fields import FieldLayout
from probconserv.inequalities.inequality import Bounded, Inequality, JoinedConstraint, Monotone, NonNegative
from probconserv.inequalities.projected import Projected
from probconserv.inequalities.truncated import Truncated
from probconserv.layer import ProbConserv
from probconserv.mixture import Mixture
from probconserv.nonlinear import condition_nonlinear
from probconserv.posterior import Posterior
from probconserv.prediction import Prediction
from probconserv.sampling import draw
from probconserv.surrogates.anp import ANP, ANPConfig
from probconserv.surrogates.ensemble import Ensemble
from probconserv.surrogates.gp import GPConfig, GPSurrogate
from probconserv.surrogates.operator import GaussianOperator
from probconserv.surrogates.surrogate import Context, Query, Surrogate
from probconserv.update import condition, from_samples, truncate

__all__ = [
    "ANP",
    "ANPConfig",
    "Bounded",
    "Context",
    "ConvergenceError",
    "DependentConstraintsError",
    "Ensemble",
    "Evidence",
    "FieldLayout",
    "GPConfig",
    "GPSurrogate",
    "GaussianOperator",
    "IncompatibleQueryError",
    "Inequality",
    "InfeasibleConstraintError",
    "InvalidArgumentError",
    "JoinedConstraint",
    "LinearConstraint",
    "Mixture",
    "Monotone",
    "NonNegative",
    "Posterior",
    "Prediction",
    "ProbConserv",
    "ProbConservError",
    "Projected",
    "Query",
    "Surrogate",
    "Truncated",
    "WeightsError",
    "boundary_gradient",
    "boundary_value",
    "condition",
    "condition_nonlinear",
    "conservation",
    "displaced",
    "draw",
    "evidence",
    "from_samples",
    "integral",
    "local_conservation",
    "project_uniformly",
    "smoothness",
    "stacked_integrals",
    "total_over_time",
    "truncate",
]
