"""The scores of all experiments: how tables head them, what they mean, which way is better."""

from dataclasses import dataclass
from enum import Enum


class Better(Enum):
    """Direction in which a score is better, as the arrow behind its heading."""

    LOWER = "↓"
    HIGHER = "↑"
    NEITHER = ""


class Reduction(Enum):
    """How the scores of many functions become one number."""

    MEAN = "mean"
    MAXIMUM = "largest"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score as a column of tables.

    Args:
        meaning: What the legend says; empty where the heading says it all.
        round_off: Size up to which the score may be round-off, of which the order of magnitude is all that counts.
        squared: Whether it is a squared distance between moments of draws and exact ones.
        timing: Whether it is a time, which no two runs have in common.
        imposed: Whether methods impose it, so that it says nothing of how good they are.
    """

    heading: str
    meaning: str = ""
    better: Better = Better.LOWER
    reduction: Reduction = Reduction.MEAN
    round_off: float = 1e-12
    squared: bool = False
    timing: bool = False
    imposed: bool = False

    @property
    def title(self) -> str:
        """Heading and arrow."""
        return f"{self.heading} {self.better.value}".strip()


def _neither(heading: str, meaning: str = "") -> Score:
    return Score(heading=heading, meaning=meaning, better=Better.NEITHER)


def _squared(heading: str, meaning: str = "", round_off: float = 1e-24) -> Score:
    return Score(heading=heading, meaning=meaning, round_off=round_off, squared=True)


def _holds(heading: str, meaning: str, reduction: Reduction = Reduction.MEAN, round_off: float = 1e-6) -> Score:
    """How exactly something holds that methods impose; single precision holds it to 1e-6 in fields of size one."""
    return Score(heading=heading, meaning=meaning, reduction=reduction, round_off=round_off, imposed=True)


VARIANCE_FLOOR = 1e-6
"""Smallest variance of log-likelihoods, in squared units of the field: that of all tables since the first release."""

_CANCELLED = 1e-13  # square of a deviation whose variance is a difference of squares

SCORES: dict[str, Score] = {
    "CE": _holds("|CE|", "absolute trapezoid total minus the law's total"),
    "signed_CE": Score(
        heading="CE",
        meaning="trapezoid total minus the law's total, with its sign",
        better=Better.NEITHER,
        round_off=1e-6,
    ),
    "LL": Score(heading="LL", meaning="log-likelihood per point", better=Better.HIGHER),
    "RMSE": Score(heading="RMSE", meaning="root of the mean squared error of a function"),
    "MSE": _squared("MSE", "mean squared error"),
    "CRPS": Score(heading="CRPS", meaning="continuous ranked probability score"),
    "coverage50": _neither("cover 50 %", "fraction of the truth inside the central 50 % interval"),
    "coverage90": _neither("cover 90 %", "the same for 90 %"),
    "coverage90_positive": _neither("cover 90 %, u > 0", "the same where the truth is positive"),
    "area_CRPS": Score(heading="CRPS of area", meaning="of the part of the domain where the field exceeds a threshold"),
    "draws_CRPS": Score(heading="CRPS of draws", meaning="of the draws of a prediction under inequalities"),
    "draws_coverage50": _neither("draws cover 50 %", "fraction of the truth between the quartiles of such draws"),
    "draws_coverage90": _neither("draws cover 90 %", "the same for 90 %"),
    "energy": Score(heading="energy", meaning="energy score"),
    "Brier": Score(heading="Brier", meaning="(probability − outcome)², of the mass in a region above a threshold"),
    "shock": Score(heading="front error", meaning="mean absolute error of the front in samples"),
    "spread": _neither("front std", "standard deviation of the front in samples"),
    "shockless": _neither("no front", "fraction of samples without a front, left out of both"),
    "calibration_error": Score(heading="calibration error", meaning="√ mean over levels of (coverage − level)²"),
    "front_MSE": _squared("MSE at front", "the same within 0.02 of the front"),
    "front_CRPS": Score(heading="CRPS at front"),
    "front_LL": Score(heading="LL at front", better=Better.HIGHER),
    "front_coverage50": _neither("cover 50 % at front"),
    "front_coverage90": _neither("cover 90 % at front"),
    "front_calibration_error": Score(heading="calibration error at front"),
    "squared_residual": _neither(
        "z²", "squared standardised residual of the law before it is imposed, 1 if calibrated"
    ),
    "moved": _neither("moved", "probability of a displacement given the law"),
    "band_coverage": _neither("band holds", "fraction of functions wholly within their conformal 90 % band"),
    "band_width": _neither("band width", "mean width of that band"),
    "relative_l2": Score(
        heading="relative L2", meaning="‖u − truth‖/‖truth‖, mean over test samples", round_off=1.2e-7
    ),
    "validation": Score(
        heading="validation L2", meaning="the same on the validation set, by which choices are made", round_off=1.2e-7
    ),
    "boundary": _holds(
        "boundary error",
        "largest |B u − g|, B the value, the one-sided gradient or the mismatch",
        Reduction.MAXIMUM,
        round_off=1e-3,  # a gradient divides by the distance of nodes
    ),
    "boundary_relative": _holds("boundary L2", "‖B u − g‖ relative to s = |g| + Σ|w u|, B u = Σ w u"),
    "boundary_relative_max": _holds("boundary max", "largest |B u − g| relative to s", round_off=1e-4),
    "conservation": _holds("largest |CE|", "largest |total − law|", Reduction.MAXIMUM),
    "block_error": _holds("block error", "largest relative error of a block mean", Reduction.MAXIMUM),
    "open_error": Score(heading="error", meaning="‖u − truth‖ over the rms of ‖truth‖ over time, mean over steps"),
    "open_final": Score(heading="at the end", meaning="the same after the last step"),
    "total_drift": _holds("drift", "rms error of the mean of u over time, in spreads of u"),
    "wall_error": _holds("wall value", "rms error at the walls, in spreads of u"),
    "near_wall_error": Score(heading="near wall", meaning="the same within 8 points of them"),
    "slope_error": Score(
        heading="wall slope",
        meaning="relative error of ∂u/∂x there by a stencil of third order",
    ),
    "slope_error_finer": Score(heading="… on 4 n", meaning="the same on four times as many nodes"),
    "wall_flux_error": Score(heading="wall heat flux", meaning="relative error of the heat that passes the walls"),
    "budget_error": Score(
        heading="budget", meaning="Brier score of: the total is above the upper quartile of the training's"
    ),
    "law_helps": _neither("law helps", "1 where the balance knows the total better, by the validation"),
    "band_wall": _neither("band holds walls", "part of wall values in the conformal 90 % band after 20 steps"),
    "band_wall_end": _neither("… at the end", "the same after the last step"),
    "band_near": _neither("band holds near walls", "the same within 8 points of them"),
    "band_near_end": _neither("… near, at the end"),
    "band_total": _neither("band holds totals", "the same of totals"),
    "band_total_end": _neither("… totals, at the end"),
    "mean_error": _squared("error of mean", "mean squared difference of the pointwise mean from the exact one"),
    "deviation_error": _squared("error of std", "the same for the pointwise standard deviation"),
    "mean_error_10": _squared("error of mean, 10 %", "10 % quantile over sets of true draws of the same size"),
    "mean_error_90": _squared("error of mean, 90 %", "90 % quantile over these"),
    "deviation_error_10": _squared("error of std, 10 %"),
    "deviation_error_90": _squared("error of std, 90 %"),
    "protocol_mean": _squared(
        "few draws, mean", "256 draws against 512 true fields as published, median over 100 trials"
    ),
    "protocol_deviation": _squared("few draws, std", "the same for the standard deviation", _CANCELLED),
    "protocol_mean_90": _squared("few draws, mean, 90 %", "90 % quantile over the trials"),
    "protocol_deviation_90": _squared("few draws, std, 90 %", round_off=_CANCELLED),
    "frechet": Score(
        heading="Fréchet", meaning="Fréchet distance of ten whitened Karhunen–Loève coefficients", squared=True
    ),
    "effective_size": _neither("effective draws", "effective number of true draws behind exact moments"),
    "outside": Score(heading="outside", meaning="fraction of values outside the bounds of the problem"),
    "law_residual": _holds("law", "largest |G u − b| or |g(u)| of all draws", Reduction.MAXIMUM),
    "draw_milliseconds": Score(heading="ms per draw", meaning="processor milliseconds of sampling a draw", timing=True),
    "ratio": Score(heading="CRPS ratio", meaning="CRPS over that of ProbConserv after training, of the same seed"),
}
"""All scores by their keys, in the order of tables."""
