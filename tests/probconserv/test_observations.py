"""Draws given observations: how far off they may be where no field of the model explains them."""

import warnings

import pytest
import torch

from probconserv import LinearConstraint
from probconserv.surrogates.flow.observations import given_observations

NOISE, VARIANCE = 0.01, 4.0


def told(offset: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The noise of every sampling whose draws miss all observations by the offset, and the last draws."""
    values = torch.tensor([1.0, -2.0], dtype=torch.float64)
    observations = LinearConstraint(torch.eye(2, 3, dtype=torch.float64), values, torch.full_like(values, NOISE))
    seen: list[torch.Tensor] = []

    def sample(observed: LinearConstraint) -> torch.Tensor:
        seen.append(observed.noise)
        return (torch.tensor([1.0, -2.0, 0.0]) + offset + len(seen) - 1).expand(5, 3)

    return seen, given_observations(sample, observations, VARIANCE)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_observations_near_the_draws_keep_their_noise(offset: float) -> None:
    with warnings.catch_warnings(action="error"):
        seen, draws = told(offset)
    assert [noise.tolist() for noise in seen] == [[NOISE, NOISE]]
    assert draws.shape == (5, 3)


def test_the_discrepancy_is_added_to_the_noise_once() -> None:
    with pytest.warns(UserWarning, match=r"miss the observations by 1\.5 of the fields' standard deviation"):
        seen, draws = told(3.0)
    assert torch.allclose(seen[1], torch.full((2,), 9.0, dtype=torch.float64))
    assert len(seen) == 2
    assert draws[0, 0] == 5.0
