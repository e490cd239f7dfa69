"""Bands that hold new values, or new fields, with a guaranteed probability (split conformal prediction)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.gaussian import deviation_of
from probconserv._linalg.values import Array, as_tensor
from probconserv.errors import InvalidArgumentError
from probconserv.prediction import Prediction, within_bounds

_FLOOR = 1e-3  # of the root mean square of the deviations
_ROUNDING = 1e-9  # of a rank, so that 0.9·200 is 180


@dataclass(frozen=True, kw_only=True)
class ConformalBand:
    """The band μ ± factor · max(s, floor) around a prediction with mean μ and standard deviation s.

    Around a conditioned prediction it respects the law: its centre meets it, and it is narrow where the law leaves
    little open. Around one with bounds it ends at the bounds, beyond which no field lies.

    Args:
        factor: Half width in standard deviations.
        level: Probability with which the band holds a value, or (at least) ``inside`` of the points of a field.
        inside: Fraction of the points of a field.
        floor: Smallest standard deviation, in the units of the field.
        kind: "pointwise" for a band of values, "field" for one of fields; see ``fit_band``.
    """

    factor: float
    level: float
    inside: float = 1.0
    floor: float = 0.0
    kind: Literal["pointwise", "field"] = "field"

    def ends(self, prediction: Prediction) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
        """Lower and upper end of the band, within the bounds of the prediction."""
        width = self.factor * deviation_of(prediction).clamp_min(self.floor).to(prediction.mean.dtype)
        return within_bounds(prediction, prediction.mean - width, prediction.mean + width)


def fit_band(
    prediction: Prediction,
    values: Float[Array, "functions n"],
    *,
    level: float,
    kind: Literal["pointwise", "field"] = "field",
    inside: float = 1.0,
    floor: float | None = None,
) -> ConformalBand:
    """The band fitted on validation functions that the surrogate has not been trained on.

    A "pointwise" band holds ``level`` of the values: as wide as an interval of a calibrated Gaussian, 1.64 standard
    deviations for 0.9. A "field" band holds whole fields, or the fraction ``inside`` of their points, with probability
    ``level``; it is wider, and a field of n points lies in it at more than ``level`` of them.

    With "field" a function's score is the smallest factor whose band holds the fraction ``inside`` of its points: with
    1 the maximum of |u − μ|/s; Ma et al. (2024) take a fraction. The factor is the ⌈(m + 1)·level⌉-th smallest score of
    m functions (Vovk et al. 2005). With "pointwise" it is the ⌈(m + 1)·level·n⌉-th smallest of all m·n ratios
    |u − μ|/s, which holds the value at a random point of a new function (Lee et al. 2023, hierarchical conformal
    prediction). Both hold with probability at least ``level`` if the new function is exchangeable with the m, so of the
    same parameters. Out of range nothing is guaranteed.

    Args:
        prediction: Of the validation functions ``(functions, n)``; conditioned for a band that respects the law.
        values: Their fields, a tensor or an array.
        level: Probability, in (0, 1).
        kind: "pointwise" for a band of values, "field" for one of fields.
        inside: Fraction of the points of a field, in (0, 1]; 1 for a pointwise band.
        floor: Smallest standard deviation that is counted, in the units of the field; by default a thousandth of the
            root mean square of all.
    """
    if not (0 < level < 1 and 0 < inside <= 1 and (floor is None or floor > 0)):
        raise InvalidArgumentError(
            f"level must lie in (0, 1), inside in (0, 1] and floor above 0, got {level}, {inside} and {floor}."
        )
    values = as_tensor(values, dtype=None)
    if kind not in ("pointwise", "field") or (kind == "pointwise" and inside != 1):
        raise InvalidArgumentError(
            'kind must be "field" for a band of fields, or "pointwise" for one of values, without inside; got '
            f"{kind!r} and inside={inside}."
        )
    deviation = deviation_of(prediction)
    *lead, points = values.shape
    if prediction.mean.shape != values.shape or math.prod(lead) != max(lead, default=0):
        raise InvalidArgumentError(
            f"fit_band needs fields of n points, (functions, n), got a prediction of {tuple(prediction.mean.shape)} "
            f"and values {tuple(values.shape)}; make one axis of those of a map by .flatten(1), and of functions "
            "that are drawn independently by .flatten(0, -2)."
        )
    for name, part in (("values", values), ("mean", prediction.mean), ("deviation", deviation)):
        refuse_missing(part, f"The {name} of the functions that a band is fitted on holds")
    if floor is None:
        floor = max(_FLOOR * float(deviation.detach().square().mean().sqrt()), torch.finfo(deviation.dtype).tiny)
    scores = ((values - prediction.mean).abs() / deviation.clamp_min(floor)).reshape(-1, points)
    if kind == "field":
        count = max(1, math.ceil(inside * points - _ROUNDING))
        scores = scores.kthvalue(count, dim=-1, keepdim=True).values
    functions, each = scores.shape
    factor = scores.flatten().kthvalue(conformal_rank(functions, each, level)).values
    return ConformalBand(factor=float(factor), level=level, inside=inside, floor=floor, kind=kind)


def conformal_rank(functions: int, each: int, level: float) -> int:
    """⌈(m + 1)·level·n⌉, a rank among n scores of each of m functions.

    A score of a new function, taken at random, exceeds the one with this rank with probability 1 − level at most.

    Raises:
        InvalidArgumentError: If there are fewer scores, or the level is no probability.
    """
    if not 0 < level < 1:
        raise InvalidArgumentError(f"level must lie between 0 and 1, got {level}.")
    rank = math.ceil(((functions + 1) * level - _ROUNDING) * each)
    if rank > functions * each:
        least = math.ceil(level / (1 - level) - _ROUNDING)
        raise InvalidArgumentError(
            f"A band of level {level} needs at least {least} validation functions, got {functions}."
        )
    return rank
