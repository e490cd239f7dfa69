"""Scores at walls of fields with known errors."""

import pytest
import torch

from experiments.boundary.scoring import at_walls, slope_errors, wall_scores
from solvers import NodeGrid


def test_a_field_that_is_off_at_one_wall() -> None:
    """Off by 1 at the last of 101 nodes of one axis: at one of two walls, of 2 × 8 points near them."""
    missed = torch.zeros(3, 2, 101, 5, dtype=torch.float64)
    missed[:, :, -1] = 1.0
    grid = NodeGrid((0.0, 0.0), (1.0, 1.0), (101, 5))
    scores = wall_scores(missed, (0,), grid.weights)
    for name, square in {"wall_error": 1 / 2, "near_wall_error": 1 / 16, "total_drift": 1 / 200**2}.items():
        torch.testing.assert_close(scores[name], torch.full((3,), square**0.5, dtype=torch.float64))
    assert float(wall_scores(missed, (1,), grid.weights)["wall_error"][0]) == pytest.approx(101**-0.5)


def test_few_points_are_all_near() -> None:
    assert at_walls(torch.ones(1, 1, 3), (0,), 8).shape == (1, 1, 6)


def test_slopes_of_a_parabola() -> None:
    """x² + εx has slopes ε and 2 + ε, of which an error of ε is ε √2 / 2 of the truth's."""
    x = torch.linspace(0.0, 1.0, 33, dtype=torch.float64).expand(2, 1, 33)
    torch.testing.assert_close(slope_errors(x**2 + 0.1 * x, x**2, (0,)), torch.full((2,), 0.1 / 2**0.5).double())
