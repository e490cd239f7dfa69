"""Gaussians in the place of Student's t distributions, which values have whose variance is estimated from few cases."""

import warnings

import torch
from torch import Tensor

from probconserv.errors import InvalidArgumentError

_LEVEL, _LEAST = 0.9, 0.88  # level of intervals, and the coverage below which a warning names it
_FEW, _FAR = 2.0, 0.99  # degrees of freedom up to which a warning names the coverage of intervals of this level


def widening(freedom: Tensor, level: float) -> Tensor:
    """(t/z)², the factor on a variance with these degrees of freedom for central intervals of a level; warns of few."""
    from scipy.special import ndtri, stdtrit  # slow to import, rarely needed

    if not 0.0 < level < 1.0:
        raise InvalidArgumentError(
            f"level must lie between 0 and 1, or be None for the variance as it is, got {level}."
        )
    freedom = freedom.detach()
    ratio = torch.as_tensor(stdtrit(freedom.cpu().numpy(), 0.5 + 0.5 * level) / ndtri(0.5 + 0.5 * level)).to(freedom)
    least = float(freedom.min()) if freedom.numel() else _FEW + 1
    if level < _FAR and least <= _FEW * (1 + 1e-9):
        held = _coverage(least, _FAR, float(ratio.max()))
        warnings.warn(
            f"A variance of few cases has {least:.2g} degrees of freedom. Intervals of {level:.0%} hold new cases as "
            f"often as they say, but those of {_FAR:.0%} only {held:.0%} of them; give more cases, or level={_FAR:g} "
            "to be right there.",
            stacklevel=3,
        )
    return ratio.square()


def warn_of_few(cases: int, remedy: str) -> None:
    """Warns of Gaussians about the mean of so few cases, with their variance, whose intervals hold too rarely."""
    held = _coverage(cases - 1.0, _LEVEL, (1.0 + 1.0 / cases) ** -0.5)
    if held < _LEAST:
        warnings.warn(
            f"Variances of {cases} cases are known roughly; intervals of {_LEVEL:.0%} are expected to hold {held:.0%} "
            f"of new cases. {remedy}",
            stacklevel=3,
        )


def _coverage(freedom: float, level: float, widened: float) -> float:
    """How often a Gaussian interval holds values of Student's t distribution, with deviations that are widened."""
    from scipy.special import ndtri, stdtr

    return float(2 * stdtr(freedom, widened * ndtri(0.5 + 0.5 * level)) - 1)
