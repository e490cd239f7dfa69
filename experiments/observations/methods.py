"""The rows: what is done to a black box's prediction of observations, whose law is given.

none         the prediction, with the variances of its errors in the cases that are known
uniform      shifted by a constant onto the law
ratio        multiplied by a constant onto the law
regression   the errors regressed on what the prediction misses of the law; learns whatever the law is worth
diagonal     the update with independent errors, the law exact
covariance   the same with their shrunk covariance (what forecasters call MinT)
fitted       the same, and the law with the slope, offset and error that it had in the known cases
truncated    the last, cut off where the field would be negative
calibrated   the last but one, with as much trust in the law and as wide a band as suit the validation cases
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from experiments import plots
from experiments.experiment import Style
from experiments.observations.parts import PENALTIES, Observed, Part
from experiments.observations.regression import regress
from probconserv import LinearConstraint, NonNegative, condition, fit_covariance, fit_law, scores, truncate

LEVEL = 0.9
"""Of the bands that are calibrated."""
DOUBTS = (1.0, 3.0, 10.0, 100.0, 1e4)
"""Factors of the variance of the law's error, among which the validation chooses."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row: from the observations of a problem to a prediction of its test.

    Args:
        predict: ``observed -> prediction (cases, n)``; learns from all parts but the test, of which it reads
            ``predicted`` and ``target`` alone.
        signed: Whether it needs a field that cannot be negative.
    """

    key: str
    label: str
    style: Style
    predict: Callable[[Observed], Any]
    information: str = "the law's right-hand side"
    signed: bool = False


def none(observed: Observed) -> Normal:
    """The prediction as it is."""
    return _with_errors(observed.test.predicted, observed.known.errors)


def moved(move: Callable[[Part, Tensor], Tensor], observed: Observed) -> Normal:
    """Moved onto the law, with the variances that the errors of the known cases then have."""
    rows, known = observed.rows, observed.known
    return _with_errors(move(observed.test, rows), known.truth - move(known, rows))


def shift(part: Part, rows: Tensor) -> Tensor:
    """Shifted by as many constants as there are rows, each where its row looks."""
    looked = (rows != 0).to(rows)
    return part.predicted + (_missed(part, rows) / (rows @ looked.mT).diagonal()) @ looked


def ratio(part: Part, rows: Tensor) -> Tensor:
    """Multiplied by as many constants; left alone where a total has not the sign of the law's."""
    looked, total = (rows != 0).to(rows), part.predicted @ rows.mT
    factor = torch.where(total * part.target > 0, part.target / total, 1.0)
    return part.predicted * (1 + (factor - 1) @ looked)


def regression(observed: Observed) -> Normal:
    """Ridge regression of errors on what the prediction misses of every row; λ by the validation."""

    def learnt(known: Part, part: Part, penalty: float) -> Sequence[Tensor]:
        """What is added to the predictions of both."""
        missed = torch.cat([_missed(each, observed.rows) for each in (known, part)])
        count = len(known.truth)
        errors = torch.cat([known.errors, torch.zeros_like(part.predicted)])
        scaled = missed / missed[:count].std(dim=0).clamp_min(1e-12)
        return regress(scaled, errors, torch.arange(count), penalty).split([count, len(part.predicted)])

    def tried(penalty: float) -> float:
        added = learnt(observed.training, observed.validation, penalty)[1]
        return float((observed.validation.errors - added).square().mean())

    known, test = learnt(observed.known, observed.test, min(PENALTIES, key=tried))
    return _with_errors(observed.test.predicted + test, observed.known.errors - known)


def diagonal(observed: Observed) -> Any:
    """The update with independent errors."""
    return condition(none(observed), LinearConstraint(observed.rows, observed.test.target))


def covariance(observed: Observed) -> Any:
    """The update with the covariance of the errors."""
    return condition(_around(observed.known, observed.test), LinearConstraint(observed.rows, observed.test.target))


def fitted(observed: Observed) -> Any:
    """The same under the law as it was kept."""
    return _updated(observed.rows, observed.known, observed.test)


def truncated(observed: Observed) -> Any:
    """The same where the field is not negative."""
    law = _as_kept(observed.rows, observed.known, observed.test)
    return truncate(_around(observed.known, observed.test), law & NonNegative())


def calibrated(observed: Observed) -> Normal:
    """With doubt and width from the validation, whose bands then hold in ``LEVEL`` of all values."""
    rows, training, unseen = observed.rows, observed.training, observed.validation

    def tried(doubt: float) -> float:
        prediction = _updated(rows, training, unseen, doubt)
        return float(scores.crps(unseen.truth, prediction.mean, prediction.variance).mean())

    doubt = min(DOUBTS, key=tried)
    seen, prediction = _updated(rows, training, unseen, doubt), _updated(rows, observed.known, observed.test, doubt)
    missed = (unseen.truth - seen.mean).abs() / seen.stddev
    usual = Normal(0.0, 1.0).icdf(torch.tensor((1 + LEVEL) / 2, dtype=missed.dtype))
    return Normal(
        prediction.mean, prediction.stddev * missed.flatten().sort().values[int(LEVEL * missed.numel())] / usual
    )


def _updated(rows: Tensor, known: Part, part: Part, doubt: float = 1.0) -> Any:
    return condition(_around(known, part), _as_kept(rows, known, part, doubt))


def _around(known: Part, part: Part) -> Any:
    """The predictions of a part with the covariance of the errors of known cases."""
    return fit_covariance(known.errors).around(part.predicted)


def _as_kept(rows: Tensor, known: Part, part: Part, doubt: float = 1.0) -> LinearConstraint:
    """The law with the slope, offset and error that it had in known cases, its variance times a factor."""
    law = fit_law(LinearConstraint(rows, known.target), known.truth).corrected(LinearConstraint(rows, part.target))
    return LinearConstraint(law.G, law.b, doubt * law.noise)


def _missed(part: Part, rows: Tensor) -> Tensor:
    return part.target - part.predicted @ rows.mT


def _with_errors(mean: Tensor, errors: Tensor) -> Normal:
    return Normal(mean, errors.square().mean(dim=0).sqrt().expand(mean.shape))


METHODS = (
    Method(key="none", label="no law", style=Style(plots.BARE), predict=none, information=""),
    Method(key="uniform", label="uniform shift", style=Style(plots.HARD), predict=partial(moved, shift)),
    Method(key="ratio", label="ratio", style=Style(plots.HARD, "--"), predict=partial(moved, ratio)),
    Method(key="regression", label="regression on the misfit", style=Style(plots.GREY), predict=regression),
    Method(key="diagonal", label="law, diagonal Σ", style=Style(plots.SOFT), predict=diagonal),
    Method(key="covariance", label="law, fitted Σ (MinT)", style=Style(plots.SKY), predict=covariance),
    Method(key="fitted", label="fitted law, fitted Σ", style=Style(plots.CONSERVED), predict=fitted),
    Method(
        key="truncated",
        label="fitted law, fitted Σ, u ≥ 0",
        style=Style(plots.CONSERVED, "--"),
        predict=truncated,
        signed=True,
    ),
    Method(key="calibrated", label="the same, calibrated", style=Style(plots.CONSERVED, ":"), predict=calibrated),
)
"""The rows of all problems."""
