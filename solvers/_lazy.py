"""Packages that import a public name when it is first used.

``__init__.pyi`` beside a package's ``__init__.py`` is the one list of its names: type checkers read it, and
``lazy_names`` takes from it which module defines each name. ``import boon`` then loads no solver, and what one solver
needs is loaded with that solver.
"""

import ast
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable
from typing import Any

RENAMED: dict[str, str] = {
    "probconserv": """
        balance: total_over_time   baselines: project_uniformly   calibration: displaced
        calibration.conformal: ConformalBand fit_band
        calibration.marginals: calibration_error cumulative_probability marginal_crps marginal_log_likelihood
        calibration.variance: ContextCalibrated NoisyContext standardised_squares Tempered variance_factor
        constraints: boundary_gradient quadrature_variance smoothness stacked_integrals
        errors: ConvergenceError DataFileError DependentConstraintsError IncompatibleQueryError
        InfeasibleConstraintError InvalidArgumentError LibraryError ProbConservError=LibraryError
        SamplingInterruptedError WeightsError=DataFileError
        fields: block_means condition_fields FieldLayout level_totals region_totals sphere_areas
        fields.laws: block_budgets divergence flux_budgets FluxLayout   fields.prediction: FieldPrediction
        fitted.covariance: FittedCovariance   fitted.law: FittedLaw
        inequalities.inequality: Inequality JoinedConstraint   inequalities.projected: Projected
        inequalities.truncated: Truncated   law_evidence: Evidence evidence
        nonlinear.deprecated: condition_nonlinear nonlinear_mode   nonlinear.mode: NonlinearMode
        nonlinear.projection: project   posterior: Posterior   prediction: Prediction
        rollout.diagnosis: Diagnosis RolloutBand   rollout.rollout: Rollout   rollout.run: RolloutState Trajectory
        sampling: draw   surrogates.anp: ANPConfig   surrogates.fitting: FitOptions FunctionSet LearntLaw
        surrogates.flow: conditioned eci KarhunenLoeve Latent pcfm ResidualVelocity SamplingOptions twisted
        unconstrained   surrogates.flow.observations: DrawnFields   surrogates.flow.particles: Draws Particles
        surrogates.flow.tasks: SamplingTask   surrogates.gp: GPConfig   surrogates.operator: GaussianOperator
        surrogates.surrogate: Surrogate   training.checkpoint: TrainingState   training.config: one_cycle
        training.distributed: first_before_others launched Ranks say_once   training.loop: pushforward random_seed
    """,
    "boon": """
        conditions.functionals: Boundary prescribe
        errors: BoonError=LibraryError DataFileError IncompatibleCornersError InvalidArgumentError LibraryError
        MissingBoundaryError SingularKernelError StoredOperatorError=DataFileError TooManyModesError
        TrainedWeightsWarning   scores: BoundaryError   slopes: slope_error   storage: Operator
        transforms: DomainFourier FourierTransform NodeFourier
    """,
    "solvers": """
        data_files.field_set: collect FieldSet   data_files.files: export Layout load PDEBench TheWell
        errors: BoundarySamplingError DataFileError InvalidArgumentError LibraryError SolverDivergedError
        SolverError=LibraryError   finite_volume.convection.schemes: Constant
        finite_volume.diffusion.face_means: ArithmeticMean HarmonicMean IntegralMean
        finite_volume.laws.coefficients: FaceVelocity   finite_volume.laws.laws: Transport
        finite_volume.solve: Solution Work   grids: Grid   problems: cavity Problem PROBLEMS spectral
        problems.conservation: ADVECTION BURGERS DIFFUSION POROUS_MEDIUM STEFAN
        problems.operator_problems.problem: OperatorProblem Recipe restrict
        problems.operator_problems.samples: join load_samples operator_samples OperatorSamples
        problems.operator_problems.standard: AdvectionDiffusion Basin Darcy ReactionDiffusion ViscousBurgers
        random_fields: log_normal two_phase   steady.linear: ConjugateGradients Direct Jacobi Multigrid
        steady.solve: node_values SteadySolution   systems.laws: HLL HLLC   systems.pointwise: PointFunctions
        systems.solution: SystemSolution
    """,
}
"""New places of names of release 0.3: modules of each package with the names (``old=new``) that they hold.

Until 0.5 every package above the module gives them, too, with a deprecation.
"""

REMOVED: dict[str, str] = {
    "boon.CosineConfig": "Let an FNO predict changes, FNOConfig(increment=...), and train it by probconserv.Emulator.",
    "boon.CosineFNO": "Let an FNO predict changes, FNOConfig(increment=...), and train it by probconserv.Emulator.",
    "boon.noise_gain": "Write (N(a + noise) - N(a)).norm() / noise.norm().",
    "boon.FNOVelocity": "Wrap boon.FNO, with the time as channels.",
    "probconserv.calibration.displaced_by_law": "Copy experiments/conservation/displacement.py.",
    "probconserv.surrogates.flow.FieldLatent": "Write a Latent of fields as in docs/guides/generated_fields.md.",
    "probconserv.surrogates.flow.ResidualFieldVelocity": "Take any module on fields as the velocity.",
    "probconserv.surrogates.flow.smooth_noise": "Write Latent.noise.",
    "probconserv.tools.ExactField": "Build the field around the network as in docs/guides/other_tools.md.",
    "probconserv.tools.boundary_flux": "Assemble the row with scikit-fem as in docs/guides/other_tools.md.",
    "probconserv.tools.mesh_total": "Assemble the row with scikit-fem as in docs/guides/other_tools.md.",
    "probconserv.training.process_group": "Start the processes with torchrun; train joins them itself.",
    "solvers.LinearSolver": "Pass a function of matrix and right-hand sides as solver of solve_steady.",
    "solvers.Preconditioner": "Pass a function of the matrix as preconditioner of ConjugateGradients.",
    "solvers.BackwardEuler": "TRBDF2() has second order and the same stability.",
    "solvers.Newton": "Steppers choose the accuracy of Newton's method themselves.",
    "solvers.WENO": "Take MUSCL(), the default, on more cells.",
    "solvers.power": "max(u, 0.0) ** m is compiled as well.",
}
"""Public names that only release 0.3 has, there and in the packages above, and what to use instead."""


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The ``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports its names on first use.

    ``package.module`` works without an import of its own, too.

    Args:
        package: The package's ``__name__``. Its ``__init__.pyi`` holds lines ``from module import name as name``.

    Returns:
        The three, to be assigned in the package's ``__init__.py``.
    """
    stub = pkgutil.get_data(package, "__init__.pyi")
    assert stub is not None, package
    imports = [line for line in ast.parse(stub).body if isinstance(line, ast.ImportFrom)]
    modules = {name.name: str(line.module) for line in imports for name in line.names}
    former = renamed_names(package)
    removed = {old.rpartition(".")[2]: text for old, text in REMOVED.items() if old.startswith(f"{package}.")}
    namespace = vars(sys.modules[package])

    def load(name: str) -> Any:
        if name in former and name not in modules:
            return _renamed(package, name, *former[name])
        if name in removed:  # an AttributeError would lose its text in ``from package import name``
            raise ImportError(
                f"{package}.{name} left the library with release 0.4: {removed[name]} Release 0.3 has it."
            )
        try:
            if name in modules:
                namespace[name] = getattr(importlib.import_module(modules[name]), name)
                return namespace[name]
            if not name.startswith("_"):
                return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
        except AttributeError as error:  # Python would say no more than that the name cannot be imported.
            raise ImportError(f"{package}.{name} cannot be imported: {error}") from error
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*namespace, *modules})

    return load, names, sorted(modules)


def renamed_names(package: str) -> dict[str, tuple[str, str]]:
    """The module and the name, there, of every name that ``RENAMED`` has in modules below the package."""
    top, names, module = package.partition(".")[0], {}, ""
    for word in RENAMED.get(top, "").split():
        if word.endswith(":"):
            module = f"{top}.{word[:-1]}"
        elif module.startswith(f"{package}."):
            old, _, new = word.partition("=")
            names[old] = (module, new or old)
    return names


def _renamed(package: str, old: str, module: str, name: str) -> Any:
    """The object that an old name stands for, with a warning at the line outside the package that imports it."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back and frame.f_globals["__name__"] in (__name__, package):
        level, frame = level + 1, frame.f_back
    text = f"{package}.{old} is {name} of {module} since release 0.4; the old name goes with 0.5."
    warnings.warn(text, DeprecationWarning, stacklevel=level)
    return getattr(importlib.import_module(module), name)
