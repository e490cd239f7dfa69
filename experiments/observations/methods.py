"""The rows: what is done to a black box's prediction of observations, whose law is given.

none         the prediction, with the variances of its errors in the cases that are known
uniform      shifted by a constant onto the law
ratio        multiplied by a constant onto the law
regression   the errors regressed on what the prediction misses of the law; learns whatever the law is worth
diagonal     the update with independent errors, the law exact
covariance   the same with their shrunk covariance
fitted       the same, and the law with the slope, offset and error that it had in the known cases
covariates   the same with a slope for every covariate of the law, where the problem has them
truncated    *fitted*, cut off where the field would be negative
mint         the law's side as one more forecast, whose errors go together with the others': made to agree as
             forecasters do (MinT with shrinkage)
joint        the same after slope and offset were fitted
calibrated   the last, with covariates or without, as much trust in the law and as wide a band as suit the
             validation cases
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from experiments import plots
from experiments.experiment import Style
from experiments.observations.parts import PENALTIES, Observed, Part
from experiments.observations.regression import regress
from probconserv import LinearConstraint, NonNegative, condition, fit_covariance, fit_law, scores, truncate
from probconserv.sampling import draw

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
        explained: Whether it needs covariates of the law.
    """

    key: str
    label: str
    style: Style
    predict: Callable[[Observed], Any]
    information: str = "the law's right-hand side"
    signed: bool = False
    explained: bool = False


@dataclass(frozen=True)
class Fields:
    """The field's part of a prediction of the law's side and the field: all values but the first ``count``."""

    both: Any
    count: int

    @property
    def mean(self) -> Tensor:
        return self.both.mean[:, self.count :]

    @property
    def variance(self) -> Tensor:
        return self.both.variance[:, self.count :]

    def rsample(self, shape: Sequence[int] = (), generator: Generator | None = None) -> Tensor:
        return draw(self.both, tuple(shape), generator)[..., self.count :]


def none(observed: Observed) -> Normal:
    """The prediction as it is."""
    return _with_errors(observed.test.predicted, observed.known.errors)


def shift_to_law(move: Callable[[Part, Tensor], Tensor], observed: Observed) -> Normal:
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
        """Correction that is added to the predictions of both."""
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


def fitted(observed: Observed, explained: bool = False) -> Any:
    """The same under the law as it was kept, with its covariates or without."""
    law = _as_kept(observed.rows, observed.known, observed.test, explained)
    return condition(_around(observed.known, observed.test), law)


def truncated(observed: Observed) -> Any:
    """The same where the field is not negative."""
    law = _as_kept(observed.rows, observed.known, observed.test)
    return truncate(_around(observed.known, observed.test), law & NonNegative())


def mint(observed: Observed) -> Any:
    """The law and the predictions reconciled, with the covariance of the errors of both."""
    return _reconciled(observed.rows, observed.known, observed.test)


def joint(observed: Observed) -> Any:
    """The same with the law's slope and offset of the known cases."""
    return _reconciled(observed.rows, *_righted(observed.rows, observed.known, observed.test))


def calibrated(observed: Observed) -> Normal:
    """With covariates, doubt and width from the validation, whose bands then hold in ``LEVEL`` of all values."""
    unseen = observed.validation

    def predicted(known: Part, part: Part, explained: bool, doubt: float) -> Fields:
        return _reconciled(observed.rows, *_righted(observed.rows, known, part, explained), doubt)

    def tried(choice: tuple[bool, float]) -> float:
        prediction = predicted(observed.training, unseen, *choice)
        return float(scores.crps(unseen.truth, prediction.mean, prediction.variance).mean())

    choice = min(product((False,) if unseen.covariates is None else (False, True), DOUBTS), key=tried)
    seen = predicted(observed.training, unseen, *choice)
    prediction = predicted(observed.known, observed.test, *choice)
    missed = (unseen.truth - seen.mean).abs() / seen.variance.sqrt()
    usual = Normal(0.0, 1.0).icdf(torch.tensor((1 + LEVEL) / 2, dtype=missed.dtype))
    width = missed.flatten().sort().values[int(LEVEL * missed.numel())] / usual
    return Normal(prediction.mean, width * prediction.variance.sqrt())


def _reconciled(rows: Tensor, known: Part, part: Part, doubt: float = 1.0) -> Fields:
    """G u = b for forecasts of both b and u, the variance of b's error multiplied by ``doubt``."""
    count = len(rows)
    wrong = known.truth @ rows.mT - known.target
    wrong = torch.where(wrong.abs() > 1e-9 * known.target.abs().amax(), wrong, 0.0)  # not by round-off
    errors = torch.cat([doubt**0.5 * wrong, known.errors], dim=1)
    prior = fit_covariance(errors).around(torch.cat([part.target, part.predicted], dim=1))
    agree = torch.cat([torch.eye(count, dtype=rows.dtype), -rows], dim=1)
    return Fields(condition(prior, LinearConstraint(agree, torch.zeros_like(part.target))), count)


def _righted(rows: Tensor, known: Part, part: Part, explained: bool = False) -> tuple[Part, Part]:
    """Both with the right-hand sides that the law, as it was kept in the known cases, then has."""
    right = [replace(each, target=_as_kept(rows, known, each, explained).b) for each in (known, part)]
    return right[0], right[1]


def _around(known: Part, part: Part) -> Any:
    """The predictions of a part with the covariance of the errors of known cases."""
    return fit_covariance(known.errors).around(part.predicted)


def _as_kept(rows: Tensor, known: Part, part: Part, explained: bool = False) -> LinearConstraint:
    """The law of a part with the slopes, offset and error that it had in known cases, of which there are hundreds."""
    before, now = (each.covariates if explained else None for each in (known, part))
    law = fit_law(LinearConstraint(rows, known.target), known.truth, covariates=before)
    return law.corrected(LinearConstraint(rows, part.target), now, level=None)


def _missed(part: Part, rows: Tensor) -> Tensor:
    return part.target - part.predicted @ rows.mT


def _with_errors(mean: Tensor, errors: Tensor) -> Normal:
    return Normal(mean, errors.square().mean(dim=0).sqrt().expand(mean.shape))


METHODS = (
    Method(key="none", label="no law", style=Style(plots.BARE), predict=none, information=""),
    Method(key="uniform", label="uniform shift", style=Style(plots.HARD), predict=partial(shift_to_law, shift)),
    Method(key="ratio", label="ratio", style=Style(plots.HARD, "--"), predict=partial(shift_to_law, ratio)),
    Method(key="regression", label="regression on the misfit", style=Style(plots.GREY), predict=regression),
    Method(key="diagonal", label="law, diagonal Σ", style=Style(plots.SOFT), predict=diagonal),
    Method(key="covariance", label="law, fitted Σ", style=Style(plots.SKY), predict=covariance),
    Method(key="fitted", label="fitted law, fitted Σ", style=Style(plots.CONSERVED), predict=fitted),
    Method(
        key="covariates",
        label="fitted law with covariates, fitted Σ",
        style=Style(plots.CONSERVED, ":"),
        predict=partial(fitted, explained=True),
        information="the law's right-hand side, covariates",
        explained=True,
    ),
    Method(
        key="truncated",
        label="fitted law, fitted Σ, u ≥ 0",
        style=Style(plots.CONSERVED, "--"),
        predict=truncated,
        signed=True,
    ),
    Method(key="mint", label="MinT, law and fields", style=Style(plots.SKY, "--"), predict=mint),
    Method(key="joint", label="MinT, fitted law", style=Style(plots.ENSEMBLE), predict=joint),
    Method(
        key="calibrated",
        label="MinT, calibrated law",
        style=Style(plots.ENSEMBLE, ":"),
        predict=calibrated,
        information="the law's right-hand side, covariates",
    ),
)
"""The rows of all problems."""
