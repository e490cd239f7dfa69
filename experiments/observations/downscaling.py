"""Methods of downscaling: what predicts the fine field, how its block means are made right, and how sure the result is.

All choices (λ, ranks, the sizes of the regression) are made on validation years by models that were fitted on training
years. Then everything is fitted again on training and validation years together.

Constraint layers are those of Harder et al. 2023 (*Hard-Constrained Deep Learning for Climate Downscaling*, JMLR 24),
section 4.2. Fields are ``(*batch, H, W)``, means ``(*batch, H/f, W/f)``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor
from torch.nn import functional

from experiments.errors import InvalidArgumentError, require_at_least
from experiments.experiment import Style
from experiments.observations.regression import Ridge, left_out, regress_blocks
from experiments.plots import BARE, BLACK, CONSERVED, ENSEMBLE, HARD, SKY, SOFT
from probconserv import from_samples
from probconserv.fields import FieldLayout, block_means, condition_fields

Fields = Float[Tensor, "years rows columns"]


def means_of(field: Fields, factor: int) -> Fields:
    """The mean of every block of f × f points."""
    return functional.avg_pool2d(field[:, None], factor)[:, 0]


def spread(means: Fields, factor: int) -> Fields:
    """A field that has a block's value at each of its points."""
    return means.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def bilinear(means: Fields, factor: int) -> Fields:
    """Bilinear interpolation between the centres of blocks, constant beyond the outermost."""
    return functional.interpolate(means[:, None], scale_factor=factor, mode="bilinear")[:, 0]


def additive(field: Fields, means: Fields, factor: int) -> Fields:
    """Adds to each block what its mean lacks: u + (b − mean u)."""
    return field + spread(means - means_of(field, factor), factor)


def multiplicative(field: Fields, means: Fields, factor: int) -> Fields:
    """Scales each block to its mean: u · b / mean u; for fields whose block means do not vanish."""
    return field * spread(means / means_of(field, factor), factor)


def softmax(logits: Fields, means: Fields, factor: int) -> Fields:
    """Divides each block's total by a softmax: exp ℓ · b / mean exp ℓ; for positive fields."""
    return multiplicative(torch.exp(logits - spread(means_of(logits, factor), factor)), means, factor)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Years and candidates. The first years are for training, the next for validation, the rest for the test.

    The rest are candidates: for λ of the shrunk covariance, for the rank of low rank + diagonal, and for the
    regression.
    """

    training: int = 150
    validation: int = 30
    shrinkages: tuple[float, ...] = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
    ranks: tuple[int, ...] = (5, 10, 20, 30, 50)
    ridges: tuple[Ridge, ...] = tuple(Ridge(r, p) for r in (1, 2, 3, 12) for p in (0.1, 0.3, 1.0, 3.0, 10.0))

    def __post_init__(self) -> None:
        require_at_least(self, training=6, validation=1)


@dataclass(frozen=True)
class Years:
    """Fine fields of all years, the years of the fit and of the scores, and the points along an axis of a block."""

    series: Fields
    fitted: Tensor
    scored: Tensor
    factor: int

    @property
    def means(self) -> Fields:
        """Block means of all years, which are given to methods."""
        return means_of(self.series, self.factor)


@dataclass(frozen=True)
class Fit:
    """Predictions of a black box for the years of the scores, and what gives them for the years of the fit."""

    scored: Fields
    fitted: Callable[[], Fields]


@dataclass(frozen=True)
class Forecast:
    """Mean and variance ``(years, rows, columns)`` in kelvins and their square."""

    mean: Fields
    variance: Fields


BlackBox = Callable[[Years, Any], Fit]
Treatment = Callable[[Fit, Years, Any], Forecast]


def interpolate(years: Years, candidate: None = None, change: Callable[[Fields], Fields] = lambda u: u) -> Fit:  # noqa: ARG001 - one signature
    """Bilinear interpolation plus the mean error of the years of the fit, both of what ``change`` makes of fields."""
    field = change(bilinear(years.means, years.factor))
    field = field + (change(years.series) - field)[years.fitted].mean(dim=0)
    return Fit(field[years.scored], lambda: field[years.fitted])


def regress(years: Years, candidate: Ridge) -> Fit:
    """Bilinear interpolation plus a ridge regression of its error on the coarse cells around each block."""
    coarse, field = years.means, bilinear(years.means, years.factor)
    error = years.series - field
    scored = field + regress_blocks(coarse, error, years.fitted, candidate)
    return Fit(scored[years.scored], lambda: field[years.fitted] + left_out(coarse, error, years.fitted, candidate))


def layered(layer: Callable[[Fields, Fields, int], Fields] | None) -> Treatment:
    """A constraint layer, or none; the variance at a point is the mean squared error in the years of the fit."""

    def treat(fit: Fit, years: Years, candidate: Any) -> Forecast:  # noqa: ARG001
        def apply(field: Fields, part: Tensor) -> Fields:
            return field if layer is None else layer(field, years.means[part], years.factor)

        mean = apply(fit.scored, years.scored)
        error = years.series[years.fitted] - apply(fit.fitted(), years.fitted)
        return Forecast(mean, error.square().mean(dim=0).expand(mean.shape))

    return treat


def updated(covariance: Callable[[Tensor, Any], LinearOperator]) -> Treatment:
    """The update under block means; from errors ``(years, n)`` and a candidate to Σ."""

    def treat(fit: Fit, years: Years, candidate: Any) -> Forecast:
        error = (years.series[years.fitted] - fit.fitted()).flatten(1)
        sigma = covariance(error, candidate)
        layout = FieldLayout(channels=1, shape=tuple(fit.scored.shape[1:]))
        law = block_means(years.means[years.scored], years.factor)
        prior = MultivariateNormal(fit.scored.flatten(1), sigma.expand(len(fit.scored), *sigma.shape))
        posterior = condition_fields(prior, law, layout)
        return Forecast(posterior.mean[:, 0], posterior.variance[:, 0])

    return treat


def diagonal(error: Float[Tensor, "years n"], candidate: None) -> LinearOperator:  # noqa: ARG001
    """Σ of independent errors."""
    return DiagLinearOperator(error.square().mean(dim=0))


def low_rank(error: Float[Tensor, "years n"], candidate: int) -> LinearOperator:
    """Σ of the leading principal components of the errors, and the rest of each variance on the diagonal."""
    _, s, V = torch.linalg.svd(error / len(error) ** 0.5, full_matrices=False)
    root = V[:candidate].mT * s[:candidate]
    rest = error.square().mean(dim=0) - root.square().sum(dim=-1)
    return PsdSumLinearOperator(RootLinearOperator(root), DiagLinearOperator(rest.clamp_min(0.0)))


def shrunk(error: Float[Tensor, "years n"], candidate: float) -> LinearOperator:
    """(1 − λ) S + λ diag S with the empirical covariance S of the errors."""
    return from_samples(error, shrinkage=candidate).lazy_covariance_matrix


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row.

    Args:
        black_box: Name of what predicts the field, see ``BLACK_BOXES``; empty for the truth.
        candidates: Name of the entry of ``Sizes`` with the candidates of the treatment; empty for none.
    """

    key: str
    label: str
    style: Style
    black_box: str = ""
    treatment: Treatment = field(default=layered(None), compare=False)
    candidates: str = ""
    information: str = ""


BLACK_BOXES: Mapping[str, tuple[BlackBox, str]] = {
    "bilinear": (interpolate, ""),
    "logits": (partial(interpolate, change=torch.log), ""),
    "ridge": (regress, "ridges"),
}
"""Model of the fine field, of ``logits`` its logarithm, and the entry of ``Sizes`` with its candidates."""
BEST, FIXER, BARE_KEY = "update-shrunk", "additive", "bilinear"


def _row(key: str, label: str, colour: str, dashes: str, black_box: str, treatment: Treatment, of: str = "") -> Method:
    style = Style(colour, dashes)
    return Method(key=key, label=label, style=style, black_box=black_box, treatment=treatment, candidates=of)


METHODS: tuple[Method, ...] = (
    Method(key="truth", label="truth", style=Style(BLACK)),
    _row(BARE_KEY, "bilinear + mean error", BARE, "-", "bilinear", layered(None)),
    _row(FIXER, "additive layer", SOFT, "-", "bilinear", layered(additive)),
    _row("multiplicative", "multiplicative layer", SOFT, "--", "bilinear", layered(multiplicative)),
    _row("softmax", "softmax layer on logits", SOFT, ":", "logits", layered(softmax)),
    _row("update-diagonal", "update, diagonal", CONSERVED, ":", "bilinear", updated(diagonal)),
    _row("update-low-rank", "update, low rank", CONSERVED, "--", "bilinear", updated(low_rank), "ranks"),
    _row(BEST, "update, shrunk", CONSERVED, "-", "bilinear", updated(shrunk), "shrinkages"),
    _row("ridge", "ridge regression", HARD, "-", "ridge", layered(None)),
    _row("ridge-additive", "ridge, additive layer", SKY, "-", "ridge", layered(additive)),
    _row("ridge-update", "ridge, update, shrunk", ENSEMBLE, "-", "ridge", updated(shrunk), "shrinkages"),
)
"""All rows; those with one black box have the same information."""


def forecast(series: Fields, factor: int, sizes: Sizes, method: Method) -> tuple[Forecast, Any]:
    """Predictions of a method for the test years, and the candidate that it chose.

    The variance has one factor, the mean of (u − μ)²/v over the validation years, where the training years' model
    predicts them: errors grow as the climate leaves the years of the fit, for all methods.
    """
    check_series(series, factor, sizes)
    first, last = sizes.training, sizes.training + sizes.validation
    order = torch.arange(len(series))
    early = Years(series, order[:first], order[first:last], factor)
    late = Years(series, order[:last], order[last:], factor)
    chosen_box = _choose_box(early, method.black_box, sizes)
    fit_early = BLACK_BOXES[method.black_box][0](early, chosen_box)
    candidates: Sequence[Any] = getattr(sizes, method.candidates) if method.candidates else (None,)
    tried = [method.treatment(fit_early, early, candidate) for candidate in candidates]
    errors = [float((early.series[early.scored] - one.mean).square().mean()) for one in tried]
    best = min(range(len(tried)), key=errors.__getitem__)
    scale = ((early.series[early.scored] - tried[best].mean).square() / tried[best].variance).mean()
    fit = BLACK_BOXES[method.black_box][0](late, chosen_box)
    final = method.treatment(fit, late, candidates[best])
    return Forecast(final.mean, scale * final.variance), (chosen_box, candidates[best])


def check_series(series: Fields, factor: int, sizes: Sizes) -> None:
    """Raises InvalidArgumentError unless the factor cuts the fields into blocks and a year is left for the test."""
    years, rows, columns = series.shape
    if factor < 2 or rows % factor or columns % factor:
        raise InvalidArgumentError(
            f"factor must be at least 2 and divide both axes of the fields of {rows} × {columns} points, got {factor}."
        )
    if years <= sizes.training + sizes.validation:
        raise InvalidArgumentError(
            f"series must have more years than the {sizes.training} for training and {sizes.validation} for "
            f"validation, got {years}: give more years, or Sizes with fewer."
        )


def _choose_box(years: Years, name: str, sizes: Sizes) -> Any:
    """The candidate of a black box whose predictions are best on the scored years; None without candidates."""
    black_box, entry = BLACK_BOXES[name]
    if not entry:
        return None
    truth = years.series[years.scored]
    return min(getattr(sizes, entry), key=lambda one: float((truth - black_box(years, one).scored).square().mean()))
