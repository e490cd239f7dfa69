"""The scores of all experiments: how tables head them, what they mean, which way is better."""

from dataclasses import dataclass
from enum import Enum


class Better(Enum):
    """Which way a score is better, as the arrow behind its heading."""

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
        heading: What stands above it.
        meaning: What the legend says; empty where the heading says it all.
        better: Which way is better.
        reduction: How scores of functions are joined.
        exact: Whether the score measures how exactly something holds, so that methods that meet it have round-off.
        relative: Whether it is an error relative to the truth's norm, which single precision resolves to its eps.
        timing: Whether it is a time, which no two runs have in common.
    """

    heading: str
    meaning: str = ""
    better: Better = Better.LOWER
    reduction: Reduction = Reduction.MEAN
    exact: bool = False
    relative: bool = False
    timing: bool = False

    @property
    def title(self) -> str:
        """Heading and arrow."""
        return f"{self.heading} {self.better.value}".strip()


def _neither(heading: str, meaning: str = "") -> Score:
    return Score(heading=heading, meaning=meaning, better=Better.NEITHER)


SCORES: dict[str, Score] = {
    "CE": Score(heading="|CE|", meaning="absolute trapezoid total minus the law's total", exact=True),
    "signed_CE": Score(
        heading="CE", meaning="trapezoid total minus the law's total, with its sign", better=Better.NEITHER, exact=True
    ),
    "LL": Score(heading="LL", meaning="log-likelihood per point", better=Better.HIGHER),
    "RMSE": Score(heading="RMSE", meaning="root of the mean squared error of a function"),
    "MSE": Score(heading="MSE", meaning="mean squared error"),
    "CRPS": Score(heading="CRPS", meaning="continuous ranked probability score"),
    "coverage50": _neither("cover 50 %", "fraction of the truth inside the central 50 % interval"),
    "coverage90": _neither("cover 90 %", "the same for 90 %"),
    "draws_CRPS": Score(heading="CRPS of draws", meaning="of the draws of a prediction under inequalities"),
    "draws_coverage50": _neither("draws cover 50 %", "fraction of the truth between the quartiles of such draws"),
    "draws_coverage90": _neither("draws cover 90 %", "the same for 90 %"),
    "energy": Score(heading="energy", meaning="energy score"),
    "shock": Score(heading="front error", meaning="mean absolute error of the front in samples"),
    "spread": _neither("front std", "standard deviation of the front in samples"),
    "shockless": _neither("no front", "fraction of samples without a front, left out of both"),
    "calibration_error": Score(heading="calibration error", meaning="√ mean over levels of (coverage − level)²"),
    "front_MSE": Score(heading="MSE at front", meaning="the same within 0.02 of the front"),
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
    "relative_l2": Score(heading="relative L2", meaning="‖u − truth‖/‖truth‖, mean over test samples", relative=True),
    "validation": Score(
        heading="validation L2", meaning="the same on the validation set, by which choices are made", relative=True
    ),
    "validation_noise_0.001": Score(heading="0.1 % noise", meaning="validation L2 with noise of 0.1 % in the inputs"),
    "validation_noise_0.01": Score(heading="1 % noise", meaning="the same with 1 %"),
    "validation_coarser": Score(heading="coarser", meaning="validation L2 on twice the distance between nodes"),
    "validation_finer": Score(heading="finer", meaning="the same on half the distance"),
    "validation_mean": Score(heading="mean L2", meaning="geometric mean of all validation scores"),
    "boundary": Score(
        heading="boundary error",
        meaning="largest |B u − g|, B the value, the one-sided gradient or the mismatch",
        reduction=Reduction.MAXIMUM,
        exact=True,
    ),
    "boundary_relative": Score(
        heading="boundary L2", meaning="‖B u − g‖ relative to s = |g| + Σ|w u|, B u = Σ w u", exact=True
    ),
    "boundary_relative_max": Score(heading="boundary max", meaning="largest |B u − g| relative to s", exact=True),
    "conservation": Score(
        heading="largest |CE|", meaning="largest |total − law|", reduction=Reduction.MAXIMUM, exact=True
    ),
    "block_error": Score(
        heading="block error", meaning="largest relative error of a block mean", reduction=Reduction.MAXIMUM, exact=True
    ),
    "rollout_error": Score(heading="error", meaning="‖h − truth‖ / ‖truth − its mean‖, mean over steps"),
    "final_error": Score(heading="at the end", meaning="the same after the last step"),
    "mass_drift": Score(
        heading="mass drift",
        meaning="largest relative change of mass since the start",
        reduction=Reduction.MAXIMUM,
        exact=True,
    ),
    "energy_error": Score(heading="energy error", meaning="|energy of the waves at the end / the truth's − 1|"),
    "spectrum_error": Score(
        heading="spectrum error", meaning="rms over wavenumbers of log₁₀ power / the truth's at the end"
    ),
    "changed": _neither("changed h", "what the fixer moved, mean |change of depth| over all steps / rms wave height"),
    "changed_momentum": _neither("changed hv", "the same for the momenta"),
    "changed_share": _neither("in a tenth", "part of the change of depth in the tenth of cells that changed most"),
    "mean_error": Score(
        heading="error of mean", meaning="mean squared difference of the pointwise mean from the exact one"
    ),
    "deviation_error": Score(heading="error of std", meaning="the same for the pointwise standard deviation"),
    "mean_error_10": Score(heading="error of mean, 10 %", meaning="10 % quantile over sets of as many true draws"),
    "mean_error_90": Score(heading="error of mean, 90 %", meaning="90 % quantile over these"),
    "deviation_error_10": Score(heading="error of std, 10 %"),
    "deviation_error_90": Score(heading="error of std, 90 %"),
    "protocol_mean": Score(
        heading="few draws, mean", meaning="256 draws against 512 true fields as published, median over 100 trials"
    ),
    "protocol_deviation": Score(heading="few draws, std", meaning="the same for the standard deviation"),
    "protocol_mean_90": Score(heading="few draws, mean, 90 %", meaning="90 % quantile over the trials"),
    "protocol_deviation_90": Score(heading="few draws, std, 90 %"),
    "frechet": Score(heading="Fréchet", meaning="Fréchet distance of ten whitened Karhunen–Loève coefficients"),
    "outside": Score(heading="outside", meaning="fraction of values outside the bounds of the problem"),
    "law_residual": Score(
        heading="law", meaning="largest |G u − b| or |g(u)| of all draws", reduction=Reduction.MAXIMUM, exact=True
    ),
    "draw_milliseconds": Score(heading="ms per draw", meaning="processor milliseconds of sampling a draw", timing=True),
    "ratio": Score(heading="CRPS ratio", meaning="CRPS over that of ProbConserv after training, of the same seed"),
}
"""All scores by their keys, in the order of tables."""
