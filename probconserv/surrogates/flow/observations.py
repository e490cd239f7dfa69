"""Predictions from observations: rows that interpolate a grid, draws under them, and these draws as a prediction.

Observations that no field of the model explains are met with a larger noise, or named in a warning.
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from probconserv._linalg.rows import SparseRows, as_sparse_rows
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.fitted.members import MemberGaussian, from_samples
from probconserv.surrogates._interpolation import corners_of
from solvers._former import renamed, warn_at_caller, warn_of_former

MISFIT = 0.3
"""Of the fields' standard deviation, by which draws may miss observations beyond their noise."""
_TENTH = 1.21  # ratio of mean squares from which misfits differ by a tenth
_MOST = 5  # times to draw again


def interpolation_rows(axes: Sequence[Float[Tensor, " length"]], points: Float[Tensor, "m d"]) -> SparseRows:
    """The rows W ``(m, n)`` with (W u)_i the multilinear interpolant of a field, flattened row by row, at point i."""
    column, entries = corners_of(axes, points.to(torch.float64))
    used = entries != 0
    row = torch.arange(len(points))[:, None].expand(column.shape)
    index, shape = torch.stack([row[used], column[used]]), (len(points), prod(len(axis) for axis in axes))
    return as_sparse_rows(torch.sparse_coo_tensor(index, entries[used], shape, check_invariants=False))


def given_observations(
    sample: Callable[[LinearConstraint], Tensor],
    observations: LinearConstraint,
    variance: float,
    far: Callable[[LinearConstraint], tuple[float, float] | None] | None = None,
) -> Tensor:
    """Draws ``(s, n)`` under noisy observations; with more noise, and a warning, where the model does not explain them.

    A flow of a training range without the observed field has no draw near the observations. Under their noise alone it
    leaves all that it was trained on, and its draws are worse than any field of the range. They are then drawn again,
    with the mean square by which they missed the observations added to the noise: the discrepancy of the model, in the
    sense of Kennedy and O'Hagan (2001), as independent noise. This goes on as long as the draws come closer by a tenth;
    draws that are farther off by a tenth are not taken.

    A flow whose corrections act on every point can be moved to observations wherever they are. Its draws then meet
    values that none of its fields has; they are left as they are, with a warning if ``far`` (see ``distances``, asked
    with as much noise added as draws may miss observations by) says so. ``variance`` is that of the fields.
    """
    draws = sample(observations).flatten(1)
    excess = first = _excess(observations, draws)
    if not first > MISFIT**2 * variance:
        distances = None if far is None else far(_with_noise(observations, MISFIT**2 * variance))
        if distances is not None:
            warn_at_caller(
                f"The observations are outside of what the flow knows: {distances[0]:.3g} standard deviations of its "
                f"fields from their mean, where its draws without observations are {distances[1]:.3g} at most. Draws "
                "are moved to them all the same, and neither these nor their spread can be trusted. Train the flow on "
                "a range that holds the observed field, or say how far off observations may be "
                "(Context.noise_variance).",
            )
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
    warn_at_caller(
        f"The draws miss the observations by {(first / variance) ** 0.5:.2g} of the fields' standard deviation: no "
        "field that the flow knows explains them. They were drawn again with observations that may be off by as much "
        f"as draws miss them, in the end by {(excess / variance) ** 0.5:.2g}, and their spread says little of the "
        "error. Train the flow on a range that holds the observed field, or say how far off observations may be "
        "(Context.noise_variance).",
    )
    return draws


def _with_noise(observations: LinearConstraint, more: float) -> LinearConstraint:
    return LinearConstraint(observations.G, observations.b, noise_variance=observations.noise + more)


def _excess(observations: LinearConstraint, draws: Tensor) -> float:
    """Mean square by which draws miss observations, beyond their noise."""
    return float((observations.residual(draws).square().mean() - observations.noise.mean()).clamp_min(0.0))


class DrawnFields(MemberGaussian):
    """Draws ``(s, *batch, q)`` as a prediction: its samples are draws, its mean and covariance theirs.

    It can stand wherever a Gaussian can: ``condition`` reads it as ``from_samples`` reads the draws, and warns where
    they cannot explain a law. Another batch and part of the points are draws as well; sums and products are the
    Gaussian.

    Args:
        fields: The draws, at least two.
        noise_variance: Variance added at every point, so that the covariance of few draws is not singular.
    """

    @renamed(draws="fields")
    def __init__(self, fields: Float[Tensor, "s *batch q"], noise_variance: float | Tensor = 0.0) -> None:
        gaussian = from_samples(fields, noise_variance)
        assert isinstance(gaussian, MemberGaussian)
        super().__init__(gaussian.mean, gaussian.members)
        self.fields = fields

    @property
    def draws(self) -> Tensor:
        """The former name of ``fields``, a number of draws elsewhere."""
        warn_of_former("draws of DrawnFields is fields since release 0.5; the old name goes with 0.6.")
        return self.fields

    def rsample(
        self,
        sample_shape: Sequence[int] = torch.Size(),
        base_samples: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draws, chosen at random with repetitions: whole fields, with the correlations between their points.

        ``base_samples`` must be None, since draws are no function of normal numbers.
        """
        if base_samples is not None:
            raise InvalidArgumentError("Drawn fields are no function of normal numbers; leave base_samples out.")
        shape = torch.Size(sample_shape)
        batch = self.fields.shape[1:-1]
        index = torch.randint(len(self.fields), (shape.numel(), *batch), generator=generator)
        chosen = self.fields.gather(0, index[..., None].expand(*index.shape, self.fields.shape[-1]))
        return chosen.reshape(*shape, *self.fields.shape[1:])

    def _changed(self, change: Callable[[Tensor, int], Tensor]) -> "DrawnFields":
        noise = 0.0 if self.members.noise is None else change(self.members.noise.expand(self.mean.shape), 1)
        return DrawnFields(change(self.fields.movedim(0, -1), 2).movedim(-1, 0), noise)
