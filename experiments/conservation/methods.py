"""The methods of a conservation table: which black box, and what is done to its prediction.

HardC projects onto the law, uniformly; ProbConserv conditions on it, in variants with smoothness, a quadrature variance
or inequalities. A mixture is treated component by component with equal weights kept, as Hansen et al. 2023 do with
their latent samples, unless the row says "by evidence".
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from torch.distributions import Normal

from experiments import plots
from experiments.conservation.cases import Case, Laws, tested_outside
from experiments.conservation.rivals import NARROW, WIDE, Inverted, functions_of
from experiments.experiment import Data, Style
from probconserv import ANP, Ensemble, GPSurrogate, Mixture, Monotone, NonNegative, condition, from_samples, truncate
from probconserv.baselines import project_uniformly
from probconserv.calibration import displaced, scaled
from probconserv.calibration.variance import ContextCalibrated, NoisyContext
from probconserv.constraints import second_difference_variance, smoothness
from probconserv.inequalities.inequality import Inequality
from probconserv.inequalities.projected import Projected
from probconserv.inequalities.truncated import Truncated
from probconserv.surrogates.surrogate import Surrogate
from solvers.problems import Problem

DRAWS_PER_COMPONENT = 10
"""Draws that mean and variance of a mixture under inequalities are taken from."""
CONTEXT_NOISE = 0.01
"""Standard deviation of the noise on the context, in the units of the field."""
EXTRAPOLATION = "extrapolation"
"""Name of the network that lacks a third of the training range."""
SMALL_EXTRAPOLATION = "extrapolation-small"
"""The same of the size of a member of the ensemble, for the calibration study."""

Distribution = MultivariateNormal | Mixture | Projected | Truncated
Transform = Callable[[Distribution, Laws], Distribution]


@dataclass(frozen=True)
class BlackBox:
    """Models without the law: (case, weights of the networks in their order) → surrogate."""

    networks: tuple[str, ...]
    build: Callable[[Case, Sequence[Path]], Surrogate]


def network(name: str, around: Callable[[ANP], Surrogate] = lambda anp: anp) -> BlackBox:
    return BlackBox((name,), lambda case, files: around(ANP.load(files[0], case.problem.name)))


def _ensemble(case: Case, files: Sequence[Path]) -> Surrogate:
    return Ensemble([ANP.load(file, case.problem.name) for file in files], own_variance=True, shrinkage=0.0)


GP = BlackBox((), lambda case, _: GPSurrogate(case.gp))
SEARCH = BlackBox((), lambda case, _: functions_of(case.problem, NARROW, case.seed))
EMPIRICAL = BlackBox((), lambda case, _: functions_of(case.problem, WIDE, case.seed))
INVERTED = BlackBox((), lambda case, _: Inverted(case))
NETWORK, SOFT, EXACT, AUTHORS = (network(name) for name in ("anp", "softc", "anp-exact", "anp-authors"))
CALIBRATED = network("anp", ContextCalibrated)
NOISY = network("anp", lambda anp: NoisyContext(anp, CONTEXT_NOISE, draws=5))


def bare(prior: Distribution, laws: Laws) -> Distribution:  # noqa: ARG001 - one signature for all transforms
    return prior


def hard(prior: Distribution, laws: Laws) -> Distribution:
    """The mean projected with the unit matrix for the covariance."""
    return project_uniformly(prior, laws.exact)


def conserved(prior: Distribution, laws: Laws) -> Distribution:
    return condition(prior, laws.exact, keep_weights=True)


def by_evidence(prior: Distribution, laws: Laws) -> Distribution:
    """Conditioned by Bayes' theorem: components that make the law likely gain weight."""
    return condition(prior, laws.exact)


def up_to_quadrature(prior: Distribution, laws: Laws) -> Distribution:
    """Conditioned on the law up to its quadrature error."""
    return condition(prior, laws.loose, keep_weights=True)


def smoothed(prior: Distribution, laws: Laws) -> Distribution:
    """Conditioned on small second differences, then on the law.

    Of a mixture the Gaussian with its moments is taken, since n − 2 rows for each of 100 components cost minutes.
    """
    gaussian = Normal(prior.mean, prior.variance.sqrt()) if isinstance(prior, Mixture) else prior
    return condition(condition(gaussian, smoothness(second_difference_variance(prior.variance))), laws.exact)


def displace(prior: Distribution, laws: Laws) -> Distribution:
    return displaced(prior, laws.points, laws.displacement)


def bounded_by(inequality: Inequality) -> Transform:
    """Conditioned on the law and inequalities together."""

    def transform(prior: Distribution, laws: Laws) -> Distribution:
        posterior = condition(prior, laws.exact & inequality, keep_weights=True)
        if isinstance(posterior, Mixture) and isinstance(posterior.components, Projected):
            return Mixture(posterior.components.with_draws(DRAWS_PER_COMPONENT), posterior.weights)
        return posterior

    return transform


def truncated(prior: Distribution, laws: Laws) -> Distribution:
    """The truncated Gaussian under the law and non-negativity.

    Of a mixture the Gaussian with its moments is taken, whose chain of draws is one and not one a component.
    """
    if isinstance(prior, Mixture):
        joined = from_samples(prior.components.mean, prior.components.variance.mean(dim=0))
        prior = MultivariateNormal(joined.mean, joined.lazy_covariance_matrix)  # no ensemble, whose laws are tested
    return truncate(prior, laws.exact & NonNegative())


@dataclass(frozen=True)
class Method:
    """One row of a table; that of the truth has no black box.

    It may need what the network ``extrapolation`` teaches, predict averages over cells, be followed over time, and be
    stored under the laws of control volumes as well (``local``), for a figure.
    """

    key: str
    label: str
    style: Style
    black_box: BlackBox | None = None
    transform: Transform = bare
    _: KW_ONLY
    extrapolates: bool = False
    on_cells: bool = False
    followed: bool = False
    local: bool = False

    information = ""

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks whose weights it takes."""
        boxes = () if self.black_box is None else self.black_box.networks
        return (*boxes, EXTRAPOLATION) if self.extrapolates else boxes


TRUTH = Method("truth", "truth", Style(plots.TRUTH, "--"))
DASHED, DASHED_BARE = Style(plots.CONSERVED, "--"), Style(plots.BARE, "--")


def methods(problem: Problem, data: Data, members: int) -> list[Method]:
    """The rows of a problem's table, for an ensemble of ``members``; 0 without networks."""
    rows = [
        TRUTH,
        Method("gp", "GP", Style(plots.GAUSSIAN_PROCESS), GP, followed=True),
        Method("hardc-gp", "HardC-GP", Style(plots.HARD, "--"), GP, hard, followed=True),
        Method("probconserv-gp", "ProbConserv-GP", DASHED, GP, conserved, followed=True, local=not members),
        Method("search", "search", Style(plots.GREY), SEARCH),
        Method("probconserv-search", "ProbConserv-search", Style(plots.GREY, "--"), SEARCH, conserved),
        Method("empirical", "EmpiricalGP", Style(plots.YELLOW), EMPIRICAL),
        Method("probconserv-empirical", "ProbConserv-EmpiricalGP", Style(plots.YELLOW, "--"), EMPIRICAL, conserved),
        Method("total-inverted", "total inverted", Style(plots.BLACK, ":"), INVERTED),
    ]
    if not members:
        return rows
    rows += _main(problem)
    if tested_outside(problem):
        rows += _outside_the_range()
    if data == "solver":
        for key, label, box in (
            ("anp-closed-form", "ANP, closed-form data", EXACT),
            ("anp-authors", "ANP, authors' settings", AUTHORS),
        ):
            rows.append(Method(key, label, DASHED_BARE, box))
            rows.append(Method(f"probconserv-{key}", f"ProbConserv-{label}", DASHED, box, conserved))
    box = BlackBox(tuple(f"member-{index}" for index in range(members)), _ensemble)
    cells = "ANP (cell averages)"
    return [
        *rows,
        Method("ensemble", "Ensemble", Style(plots.ENSEMBLE), box, followed=True),
        Method("probconserv-ensemble", "ProbConserv-Ensemble", DASHED, box, conserved, followed=True),
        Method("anp-cells", cells, DASHED_BARE, NETWORK, on_cells=True),
        Method("probconserv-anp-cells", f"ProbConserv-{cells}", DASHED, NETWORK, conserved, on_cells=True),
    ]


def _main(problem: Problem) -> list[Method]:
    """The paper's four methods, variants for any field, and the inequalities that this one meets."""
    rows = [
        Method("anp", "ANP", Style(plots.BARE), NETWORK, followed=True),
        Method("softc-anp", "SoftC-ANP", Style(plots.SOFT), SOFT, followed=True),
        Method("hardc-anp", "HardC-ANP", Style(plots.HARD), NETWORK, hard, followed=True),
        Method(
            "probconserv-anp", "ProbConserv-ANP", Style(plots.CONSERVED), NETWORK, conserved, followed=True, local=True
        ),
        _variant("by evidence", by_evidence, (0, (4, 2))),
        _variant("diffusion", smoothed, "--"),
        _variant("quadrature variance", up_to_quadrature, (0, (5, 1, 1, 1))),
    ]
    if problem.bounds is not None and torch.as_tensor(problem.bounds(problem.training_range[0])[0]).min() >= 0:
        rows.append(_variant("non-negative", bounded_by(NonNegative()), ":", followed=True))
        rows.append(_variant("truncated", truncated, (0, (1, 1, 4, 1))))
    if problem.monotone:
        rows.append(_variant("monotone", bounded_by(Monotone(decreasing=True) & NonNegative()), "-.", followed=True))
    return rows


def _outside_the_range() -> list[Method]:
    """Rows for networks that are over-sure outside their training range: our remedy, and the usual ones."""

    def tempered(prior: Distribution, laws: Laws) -> Distribution:
        return conserved(scaled(prior, laws.factor), laws)

    return [
        Method("anp-displaced", "ANP (displaced)", Style(plots.BARE, ":"), NETWORK, displace, extrapolates=True),
        _variant(
            "displaced", lambda prior, laws: conserved(displace(prior, laws), laws), (0, (2, 1)), extrapolates=True
        ),
        _variant("tempered", tempered, (0, (6, 2, 1, 2)), extrapolates=True),
        _variant("context-calibrated", conserved, (0, (1, 3)), CALIBRATED),
        _variant("noisy context", conserved, (0, (3, 1, 1, 1, 1, 1)), NOISY),
    ]


def _variant(name: str, transform: Transform, dashes: Any, black_box: BlackBox = NETWORK, **options: Any) -> Method:
    key, label = f"probconserv-anp-{name.replace(' ', '-')}", f"ProbConserv-ANP ({name})"
    return Method(key, label, Style(plots.CONSERVED, dashes), black_box, transform, **options)
