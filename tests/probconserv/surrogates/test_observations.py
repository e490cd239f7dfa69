"""Draws given observations: how far off they may be where no field of the model explains them."""

import warnings

import pytest
import torch

from probconserv import LinearConstraint
from probconserv.surrogates.flow.observations import given_observations

NOISE, VARIANCE = 0.01, 4.0


def told(*offsets: float) -> tuple[list[float], float]:
    """The noise of every sampling, whose draws miss all observations by these offsets in turn, and the offset taken."""
    values = torch.tensor([1.0, -2.0], dtype=torch.float64)
    observations = LinearConstraint(torch.eye(2, 3, dtype=torch.float64), values, torch.full_like(values, NOISE))
    seen: list[float] = []

    def sample(observed: LinearConstraint) -> torch.Tensor:
        seen.append(float(observed.noise[0]))
        return (torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64) + offsets[len(seen) - 1]).expand(5, 3)

    draws = given_observations(sample, observations, VARIANCE)
    assert draws.shape == (5, 3)
    return seen, float(draws[0, 0]) - 1.0


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_observations_near_the_draws_keep_their_noise(offset: float) -> None:
    with warnings.catch_warnings(action="error"):
        assert told(offset) == ([NOISE], offset)


def test_the_discrepancy_is_added_to_the_noise_as_long_as_draws_come_closer() -> None:
    with pytest.warns(UserWarning, match=r"by 1\.5 of the fields' standard deviation.* in the end by 0\.99"):
        seen, offset = told(3.0, 2.5, 2.0, 1.98)
    assert seen == pytest.approx([NOISE, 9.0, 6.25, 4.0])
    assert offset == 1.98


def test_draws_that_are_farther_off_by_a_tenth_are_not_taken() -> None:
    with pytest.warns(UserWarning, match=r"in the end by 1\.5"):
        seen, offset = told(3.0, 3.4)
    assert (len(seen), offset) == (2, 3.0)


def test_draws_are_taken_anew_at_most_five_times() -> None:
    with pytest.warns(UserWarning, match="drawn again"):
        seen, offset = told(*(10.0 * 0.8**k for k in range(6)))
    assert len(seen) == 6
    assert offset == pytest.approx(10.0 * 0.8**5)
