"""Draws given observations, also those that no field of the model explains."""

import warnings
from collections.abc import Callable

from torch import Tensor

from probconserv.constraints import LinearConstraint

MISFIT = 0.3
"""Of the fields' standard deviation, by which draws may miss observations beyond their noise."""
_TENTH = 1.21  # ratio of mean squares from which misfits differ by a tenth
_MOST = 5  # times to draw again


def given_observations(
    sample: Callable[[LinearConstraint], Tensor],
    observations: LinearConstraint,
    variance: float,
    far: Callable[[LinearConstraint], tuple[float, float] | None] | None = None,
) -> Tensor:
    """Draws under noisy observations; with a larger noise, and a warning, where the model does not explain them.

    A flow of a training range without the observed field has no draw near the observations. Under their noise alone it
    leaves all that it was trained on, and its draws are worse than any field of the range. They are then drawn again,
    with the mean square by which they missed the observations added to the noise: the discrepancy of the model, in the
    sense of Kennedy and O'Hagan (2001), as independent noise. This goes on as long as the draws come closer by a tenth;
    draws that are farther off by a tenth are not taken.

    A flow whose corrections act on every point can be moved to observations wherever they are. Its draws then meet
    values that none of its fields has; they are left as they are, with a warning.

    Args:
        sample: Observations with their noise → draws ``(s, *space)``.
        observations: Rows, values and noise variances of the observations.
        variance: Of the fields, the mean over points.
        far: Says how far observations are from what the flow knows, see ``distances``; asked where draws meet them,
            with as much noise added as draws may miss them by.

    Returns:
        The draws ``(s, n)``.
    """
    draws = sample(observations).flatten(1)
    excess = first = _excess(observations, draws)
    if not first > MISFIT**2 * variance:
        if far is not None:
            _warn_if_far(far(_with_noise(observations, MISFIT**2 * variance)))
        return draws
    for _ in range(_MOST):
        again = sample(_with_noise(observations, excess)).flatten(1)
        before, excess = excess, _excess(observations, again)
        if not excess <= before * _TENTH:
            excess = before
            break
        draws = again
        if excess * _TENTH > before:
            break
    warnings.warn(
        f"The draws miss the observations by {(first / variance) ** 0.5:.2g} of the fields' standard deviation: no "
        "field that the flow knows explains them. They were drawn again with observations that may be off by as much "
        f"as draws miss them, in the end by {(excess / variance) ** 0.5:.2g}, and their spread says little of the "
        "error. Train the flow on a range that holds the observed field, or say how far off observations may be "
        "(Context.noise_variance).",
        stacklevel=3,
    )
    return draws


def _with_noise(observations: LinearConstraint, more: float) -> LinearConstraint:
    return LinearConstraint(observations.G, observations.b, observations.noise + more)


def _warn_if_far(distances: tuple[float, float] | None) -> None:
    if distances is None:
        return
    warnings.warn(
        f"The observations are outside of what the flow knows: {distances[0]:.3g} standard deviations of its fields "
        f"from their mean, where its draws without observations are {distances[1]:.3g} at most. Draws are moved to "
        "them all the same, and neither these nor their spread can be trusted. Train the flow on a range that holds "
        "the observed field, or say how far off observations may be (Context.noise_variance).",
        stacklevel=4,
    )


def _excess(observations: LinearConstraint, draws: Tensor) -> float:
    """Mean square by which draws miss observations, beyond their noise."""
    return float((observations.residual(draws).square().mean() - observations.noise.mean()).clamp_min(0.0))
