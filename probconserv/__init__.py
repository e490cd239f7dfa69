"""Probabilistic predictions that obey conservation laws exactly."""

try:
    from solvers._lazy import lazy_names  # noqa: F401
except ImportError as error:  # a user's own package or module of that name
    from importlib.util import find_spec

    raise ImportError(
        f"{__name__} needs the package solvers that it is installed with, but Python finds "
        f"{getattr(find_spec('solvers'), 'origin', None)} first. Rename that file or folder, or start Python elsewhere."
    ) from error

from probconserv.balance import conservation, local_conservation, total_over_time
from probconserv.baselines import project_uniformly
from probconserv.calibration import ConformalBand, displaced, displaced_by_law, fit_band
from probconserv.constraints import (
    LinearConstraint,
    boundary_gradient,
    boundary_value,
    integral,
    quadrature_variance,
    smoothness,
    stacked_integrals,
)
from probconserv.covariance import FittedCovariance, fit_covariance
from probconserv.errors import (
    ConvergenceError,
    DataFileError,
    DependentConstraintsError,
    IncompatibleQueryError,
    InfeasibleConstraintError,
    InvalidArgumentError,
    LibraryError,
    SamplingInterruptedError,
)
from probconserv.errors import ProbConservError as ProbConservError
from probconserv.errors import WeightsError as WeightsError
from probconserv.fields.fluxes import FluxLayout, block_budgets, divergence, flux_budgets
from probconserv.fields.laws import block_means, level_totals, region_totals, sphere_areas
from probconserv.fields.layout import FieldLayout
from probconserv.fields.prediction import FieldPrediction, condition_fields
from probconserv.fitted_law import FittedLaw, fit_law
from probconserv.inequalities.inequality import Bounded, Inequality, JoinedConstraint, Monotone, NonNegative
from probconserv.inequalities.projected import Projected
from probconserv.inequalities.truncated import Truncated
from probconserv.law_evidence import Evidence, evidence
from probconserv.layer import ProbConserv
from probconserv.mixture import Mixture
from probconserv.nonlinear.law import NonlinearLaw
from probconserv.nonlinear.mode import NonlinearMode, condition_nonlinear, nonlinear_mode
from probconserv.nonlinear.projection import project
from probconserv.posterior import Posterior
from probconserv.prediction import Prediction
from probconserv.sampling import draw
from probconserv.surrogates.anp import ANP, ANPConfig
from probconserv.surrogates.empirical import EmpiricalGP
from probconserv.surrogates.ensemble import Ensemble
from probconserv.surrogates.fitting import FitOptions, FunctionSet, LearntLaw
from probconserv.surrogates.flow.drawn import DrawnFields
from probconserv.surrogates.flow.latent import FieldLatent, KarhunenLoeve, Latent, smooth_noise
from probconserv.surrogates.flow.matching import FlowMatching
from probconserv.surrogates.flow.network import ResidualFieldVelocity, ResidualVelocity
from probconserv.surrogates.flow.samplers import (
    SamplingOptions,
    SamplingTask,
    conditioned,
    eci,
    pcfm,
    unconstrained,
)
from probconserv.surrogates.gp import GPConfig, GPSurrogate
from probconserv.surrogates.operator import GaussianOperator
from probconserv.surrogates.surrogate import Context, Query, Surrogate
from probconserv.update import condition, from_samples, truncate

__all__ = [
    "ANP",
    "ANPConfig",
    "Bounded",
    "ConformalBand",
    "Context",
    "ConvergenceError",
    "DataFileError",
    "DependentConstraintsError",
    "DrawnFields",
    "EmpiricalGP",
    "Ensemble",
    "Evidence",
    "FieldLatent",
    "FieldLayout",
    "FieldPrediction",
    "FitOptions",
    "FittedCovariance",
    "FittedLaw",
    "FlowMatching",
    "FluxLayout",
    "FunctionSet",
    "GPConfig",
    "GPSurrogate",
    "GaussianOperator",
    "IncompatibleQueryError",
    "Inequality",
    "InfeasibleConstraintError",
    "InvalidArgumentError",
    "JoinedConstraint",
    "KarhunenLoeve",
    "Latent",
    "LearntLaw",
    "LibraryError",
    "LinearConstraint",
    "Mixture",
    "Monotone",
    "NonNegative",
    "NonlinearLaw",
    "NonlinearMode",
    "Posterior",
    "Prediction",
    "ProbConserv",
    "Projected",
    "Query",
    "ResidualFieldVelocity",
    "ResidualVelocity",
    "SamplingInterruptedError",
    "SamplingOptions",
    "SamplingTask",
    "Surrogate",
    "Truncated",
    "block_budgets",
    "block_means",
    "boundary_gradient",
    "boundary_value",
    "condition",
    "condition_fields",
    "condition_nonlinear",
    "conditioned",
    "conservation",
    "displaced",
    "displaced_by_law",
    "divergence",
    "draw",
    "eci",
    "evidence",
    "fit_band",
    "fit_covariance",
    "fit_law",
    "flux_budgets",
    "from_samples",
    "integral",
    "level_totals",
    "local_conservation",
    "nonlinear_mode",
    "pcfm",
    "project",
    "project_uniformly",
    "quadrature_variance",
    "region_totals",
    "smooth_noise",
    "smoothness",
    "sphere_areas",
    "stacked_integrals",
    "total_over_time",
    "truncate",
    "unconstrained",
]
