"""The methods of a conservation table: which black box, and what is done to its prediction.

    bare            the prediction as it is
    HardC           projected onto the law, uniformly
    ProbConserv     conditioned on the law, and its variants with smoothness, a quadrature variance or inequalities

A mixture is treated component by component, as Hansen et al. 2023 do with their latent samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from gpytorch.distributions import MultivariateNormal
from torch.distributions import Normal

from experiments.conservation.cases import ConservationCase, Laws, tested_outside
from experiments.experiment import Data, Style
from experiments.report import plots
from probconserv import ANP, Ensemble, GPSurrogate, Mixture, Monotone, NonNegative, Surrogate, condition, smoothness
from probconserv.baselines import project_uniformly
from probconserv.calibration import ContextCalibrated, NoisyContext, displaced, scaled
from probconserv.constraints import second_difference_variance
from probconserv.inequalities.inequality import Inequality
from probconserv.inequalities.projected import Projected
from solvers.problems import Problem

DRAWS_PER_COMPONENT = 10
"""Draws of every component that mean and variance of a mixture under inequalities are taken from: 1,000 of 100."""
CONTEXT_NOISE = 0.01
"""Standard deviation of the noise on the context, in the units of the field."""
EXTRAPOLATION = "extrapolation"
"""Name of the network that lacks a third of the training range."""

Distribution = MultivariateNormal | Mixture | Projected
Transform = Callable[[Distribution, Laws], Distribution]


@dataclass(frozen=True)
class BlackBox:
    """What predicts before a law is known.

    Args:
        networks: Names of the networks that it consists of.
        build: (case, files of weights in the order of the networks) → surrogate.
    """

    networks: tuple[str, ...]
    build: Callable[[ConservationCase, Sequence[Path]], Surrogate]


def network(name: str, around: Callable[[ANP], Surrogate] = lambda anp: anp) -> BlackBox:
    """A black box of one network, perhaps with something around it.

    Args:
        name: Name of the network.
        around: Network → surrogate.
    """
    return BlackBox((name,), lambda case, files: around(ANP.load(files[0], case.problem.name)))


def _ensemble(case: ConservationCase, files: Sequence[Path]) -> Surrogate:
    return Ensemble([ANP.load(file, case.problem.name) for file in files], own_variance=True)


GP = BlackBox((), lambda case, files: GPSurrogate(case.gp))  # noqa: ARG005
NETWORK, SOFT, EXACT = network("anp"), network("softc"), network("anp-exact")
CALIBRATED = network("anp", ContextCalibrated)
NOISY = network("anp", lambda anp: NoisyContext(anp, CONTEXT_NOISE, draws=5))


def bare(prior: Distribution, laws: Laws) -> Distribution:  # noqa: ARG001 - one signature for all transforms
    """The prediction itself."""
    return prior


def hard(prior: Distribution, laws: Laws) -> Distribution:
    """HardC: the mean projected with the identity for the covariance."""
    if isinstance(prior, Mixture):
        return Mixture(project_uniformly(prior.components, laws.exact), prior.weights)
    return project_uniformly(prior, laws.exact)


def conserved(prior: Distribution, laws: Laws) -> Distribution:
    """ProbConserv: conditioned on the law."""
    return condition(prior, laws.exact)


def smoothed(prior: Distribution, laws: Laws) -> Distribution:
    """ProbConserv (diffusion): conditioned on small second differences, then on the law.

    Of a mixture the Gaussian with its moments is taken, since n − 2 rows for each of 100 components cost minutes.
    """
    gaussian = Normal(prior.mean, prior.variance.sqrt()) if isinstance(prior, Mixture) else prior
    return condition(condition(gaussian, smoothness(second_difference_variance(prior.variance))), laws.exact)


def loosely_conserved(prior: Distribution, laws: Laws) -> Distribution:
    """ProbConserv (quadrature variance): conditioned on the law up to the error of the trapezoid rule."""
    return condition(prior, laws.loose)


def moved(prior: Distribution, laws: Laws) -> Distribution:
    """The prediction with its position along x uncertain."""
    return displaced(prior, laws.points, laws.displacement)


def moved_and_conserved(prior: Distribution, laws: Laws) -> Distribution:
    """ProbConserv (displaced): conditioned on the law after its position was made uncertain."""
    return condition(moved(prior, laws), laws.exact)


def tempered_and_conserved(prior: Distribution, laws: Laws) -> Distribution:
    """ProbConserv (tempered): conditioned on the law after its variance was scaled."""
    return condition(scaled(prior, laws.factor), laws.exact)


def bounded_by(inequality: Inequality) -> Transform:
    """ProbConserv under the law and inequalities together."""

    def transform(prior: Distribution, laws: Laws) -> Distribution:
        posterior = condition(prior, laws.exact & inequality)
        if isinstance(posterior, Mixture) and isinstance(posterior.components, Projected):
            return Mixture(posterior.components.with_draws(DRAWS_PER_COMPONENT), posterior.weights)
        return posterior

    return transform


NON_NEGATIVE, DECREASING = bounded_by(NonNegative()), bounded_by(Monotone(decreasing=True) & NonNegative())


@dataclass(frozen=True, kw_only=True)
class ConservationMethod:
    """One row of a table.

    Args:
        key: Name in files and options.
        label: Name in tables and figures.
        style: Colour and dashes in figures.
        black_box: What predicts; None for the truth.
        transform: What is done to its prediction.
        extrapolates: Whether it needs the displacement or the factor that the network ``extrapolation`` teaches.
        on_cells: Whether cell averages are predicted.
        followed: Whether it is followed over time.
        local: Whether its prediction under the laws of control volumes is stored as well, for a figure.
    """

    key: str
    label: str
    style: Style = Style()  # noqa: RUF009 - a frozen value
    black_box: BlackBox | None = None
    transform: Transform = bare
    extrapolates: bool = False
    on_cells: bool = False
    followed: bool = False
    local: bool = False

    information = ""

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks whose weights it takes."""
        if self.black_box is None:
            return ()
        return (*self.black_box.networks, *((EXTRAPOLATION,) if self.extrapolates else ()))


TRUTH = ConservationMethod(key="truth", label="truth", style=Style(plots.TRUTH, "--"))


def methods(problem: Problem, data: Data, members: int) -> list[ConservationMethod]:
    """The rows of a problem's table in their order.

    Args:
        problem: Its bounds, monotonicity and test parameters say which variants have a row.
        data: Where training functions come from; with ``solver`` a network on closed-form data has rows too.
        members: Number of the ensemble's networks; 0 where no networks are trained.
    """
    gp = [
        _row("gp", "GP", Style(plots.GAUSSIAN_PROCESS), GP, bare, followed=True),
        _row("hardc-gp", "HardC-GP", Style(plots.HARD, "--"), GP, hard, followed=True),
        _row("probconserv-gp", "ProbConserv-GP", Style(plots.CONSERVED, "--"), GP, conserved, followed=True),
    ]
    if not members:
        return [TRUTH, *gp[:2], replace(gp[2], local=True)]
    outside = _outside_the_range() if tested_outside(problem) else []
    closed = _closed_form_data() if data == "solver" else []
    return [TRUTH, *gp, *_main(), *_inequalities(problem), *outside, *closed, *_ensembles(members), *_cell_averages()]


def _main() -> list[ConservationMethod]:
    """The paper's four methods, and what can be assumed beside the total."""
    return [
        _row("anp", "ANP", Style(plots.BARE), NETWORK, bare, followed=True),
        _row("softc-anp", "SoftC-ANP", Style(plots.SOFT), SOFT, bare, followed=True),
        _row("hardc-anp", "HardC-ANP", Style(plots.HARD), NETWORK, hard, followed=True),
        _row(
            "probconserv-anp", "ProbConserv-ANP", Style(plots.CONSERVED), NETWORK, conserved, followed=True, local=True
        ),
        _variant("diffusion", NETWORK, smoothed, "--"),
        _variant("quadrature variance", NETWORK, loosely_conserved, (0, (5, 1, 1, 1))),
    ]


def _inequalities(problem: Problem) -> list[ConservationMethod]:
    """Rows for the inequalities that the field meets."""
    non_negative = _variant("non-negative", NETWORK, NON_NEGATIVE, ":", followed=True)
    monotone = _variant("monotone", NETWORK, DECREASING, "-.", followed=True)
    low = None if problem.bounds is None else torch.as_tensor(problem.bounds(problem.training_range[0])[0]).min()
    return [*([non_negative] if low is not None and low >= 0 else []), *([monotone] if problem.monotone else [])]


def _outside_the_range() -> list[ConservationMethod]:
    """Rows for networks that are over-sure outside their training range: our remedy, and the usual ones."""
    return [
        _row("anp-displaced", "ANP (displaced)", Style(plots.BARE, ":"), NETWORK, moved, extrapolates=True),
        _variant("displaced", NETWORK, moved_and_conserved, (0, (2, 1)), extrapolates=True),
        _variant("tempered", NETWORK, tempered_and_conserved, (0, (6, 2, 1, 2)), extrapolates=True),
        _variant("context-calibrated", CALIBRATED, conserved, (0, (1, 3))),
        _variant("noisy context", NOISY, conserved, (0, (3, 1, 1, 1, 1, 1))),
    ]


def _closed_form_data() -> list[ConservationMethod]:
    """Rows for a network that was trained on closed forms instead of finite-volume solutions."""
    label = "ANP, closed-form data"
    return [
        _row("anp-closed-form", label, Style(plots.BARE, "--"), EXACT, bare),
        _row("probconserv-anp-closed-form", f"ProbConserv-{label}", Style(plots.CONSERVED, "--"), EXACT, conserved),
    ]


def _ensembles(members: int) -> list[ConservationMethod]:
    box, style = BlackBox(tuple(f"member-{index}" for index in range(members)), _ensemble), Style(plots.CONSERVED, "--")
    return [
        _row("ensemble", "Ensemble", Style(plots.ENSEMBLE), box, bare, followed=True),
        _row("probconserv-ensemble", "ProbConserv-Ensemble", style, box, conserved, followed=True),
    ]


def _cell_averages() -> list[ConservationMethod]:
    label, style = "ANP (cell averages)", Style(plots.CONSERVED, "--")
    return [
        _row("anp-cells", label, Style(plots.BARE, "--"), NETWORK, bare, on_cells=True),
        _row("probconserv-anp-cells", f"ProbConserv-{label}", style, NETWORK, conserved, on_cells=True),
    ]


def _variant(
    name: str, black_box: BlackBox, transform: Transform, dashes: str | tuple[int, tuple[int, ...]], **options: bool
) -> ConservationMethod:
    """A variant of ProbConserv-ANP."""
    key, label = f"probconserv-anp-{name.replace(' ', '-')}", f"ProbConserv-ANP ({name})"
    return _row(key, label, Style(plots.CONSERVED, dashes), black_box, transform, **options)


def _row(
    key: str, label: str, style: Style, black_box: BlackBox, transform: Transform, **options: bool
) -> ConservationMethod:
    return ConservationMethod(key=key, label=label, style=style, black_box=black_box, transform=transform, **options)
