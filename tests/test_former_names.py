"""Public names of release 0.3: each is imported, or says where it is or what to use, and is on the page of changes."""

import importlib
import re
import warnings

import pytest

from tests.documents import DOCS

PAGE = (DOCS / "from_0_3_to_0_4.md").read_text(encoding="utf-8")
NAMES = {
    "boon": """
        BOON BoonError Boundary BoundaryError ChannelBOON Correction CosineConfig CosineFNO DataFileError
        DomainFourier Elimination FNO FNOConfig FNOVelocity FourierTransform IncompatibleCornersError
        InvalidArgumentError LibraryError MissingBoundaryError MixedTransform NodeFourier Normalised Operator
        Part Prescription SingularKernelError SmoothExtension StoredOperatorError TooManyModesError
        TrainedWeightsWarning boundary_channels boundary_error load noise_gain prescribe read_notes relative_l2
        save slope_error
    """,
    "probconserv": """
        ANP ANPConfig Bounded ConformalBand Context ConvergenceError DataFileError DependentConstraintsError
        DrawnFields EmpiricalGP Ensemble Evidence FieldLatent FieldLayout FieldPrediction FitOptions
        FittedCovariance FittedLaw FlowMatching FluxLayout FunctionSet GPConfig GPSurrogate GaussianOperator
        IncompatibleQueryError Inequality InfeasibleConstraintError InvalidArgumentError JoinedConstraint
        KarhunenLoeve Latent LearntLaw LibraryError LinearConstraint LinearInequality Mixture Monotone
        NonNegative NonlinearLaw NonlinearMode Posterior Prediction ProbConserv ProbConservError Projected Query
        ResidualFieldVelocity ResidualVelocity Rollout SamplingInterruptedError SamplingOptions SamplingTask
        Surrogate Truncated WeightsError block_budgets block_means boundary_gradient boundary_value condition
        condition_fields condition_nonlinear conditioned conservation displaced displaced_by_law divergence draw
        eci evidence fit_band fit_covariance fit_law flux_budgets from_samples integral level_totals
        local_conservation nonlinear_mode pcfm project project_uniformly quadrature_variance region_totals
        smooth_noise smoothness sphere_areas stacked_integrals total_over_time truncate twisted unconstrained
    """,
    "probconserv.calibration": """
        ConformalBand ContextCalibrated NoisyContext Tempered calibration_error cumulative_probability displaced
        displaced_by_law fit_band marginal_crps marginal_log_likelihood scaled standardised_squares
        variance_factor
    """,
    "probconserv.fields": """
        FieldLayout FieldPrediction FluxLayout block_budgets block_means condition_fields divergence
        flux_budgets level_totals region_totals sphere_areas
    """,
    "probconserv.rollout": """
        Diagnosis FluxModel Rollout RolloutBand RolloutState StepUpdate Trajectory with_errors
    """,
    "probconserv.surrogates.flow": """
        DrawnFields Draws FieldLatent KarhunenLoeve Latent Particles ResidualFieldVelocity ResidualVelocity
        SamplingOptions SamplingTask conditioned eci pcfm smooth_noise twisted unconstrained
    """,
    "probconserv.tools": """
        Atmosphere Budget ExactField SurrogateOnHub SurrogateRegressor area_fractions boundary_flux constrain
        mesh_total
    """,
    "probconserv.training": """
        Ranks StepContext Task TrainingConfig TrainingState first_before_others launched one_cycle process_group
        pushforward random_seed say_once train
    """,
    "solvers": """
        Advection ArithmeticMean BackwardEuler BoundarySamplingError Burgers CellGrid ConjugateGradients
        Constant ConvectionDiffusion ConvectiveLaw DataFileError Diffusion DiffusiveLaw Direct Dirichlet ESDIRK4
        Euler FaceVelocity Field FieldSet GaussianField Godunov Grid HLL HLLC HarmonicMean IntegralMean
        InvalidArgumentError Jacobi Layout LibraryError LinearSolver Logistic MUSCL Matern Multigrid Neumann
        Newton NodeGrid Outflow PDEBench PROBLEMS Periodic PointFunctions PointwiseLaw PorousMedium
        Preconditioner Problem RKL2 ReactionDiffusion Reflecting Robin Rusanov SSPRK3 ScalarLaw ShallowWater
        Solution SolverDivergedError SolverError Source SteadySolution Stefan SystemLaw SystemSolution TRBDF2
        TheWell Transport WENO Work align collect export load log_normal node_values power solve solve_steady
        solve_system two_phase
    """,
}
"""Names in the stubs of release 0.3."""


@pytest.mark.parametrize("package", NAMES)
def test_every_name_of_release_3_is_imported_or_says_what_to_use(package: str) -> None:
    module = importlib.import_module(package)
    for name in NAMES[package].split():
        refused = ""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                getattr(module, name)
            except ImportError as error:
                refused = str(error)
        assert not refused or refused.endswith("Release 0.3 has it."), name
        if refused or caught:
            assert re.search(rf"[`.]{name}`", PAGE), f"{package}.{name} is not on docs/from_0_3_to_0_4.md"


def test_names_are_where_the_page_sends_them() -> None:
    rows = re.findall(r"^\| (`.*) \| `([\w.]+)` \|$", PAGE.partition("## Names that moved")[2], flags=re.MULTILINE)
    assert len(rows) > 40
    for names, module in rows:
        for old, new in re.findall(r"`(\w+)`(?: \(`(\w+)`\))?", names):
            assert hasattr(importlib.import_module(module), new or old), old
