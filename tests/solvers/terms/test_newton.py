"""The stopping criterion of Newton's method: what it stops, and what it costs."""

import numpy as np
import pytest

from solvers import InvalidArgumentError, Newton
from solvers.finite_volume.diffusion._newton_kernels import has_converged, relaxation, side_slope


def test_convergence_follows_from_the_last_two_changes():
    """What is left of a geometric sequence after the change c with ratio θ is c θ/(1 − θ)."""
    assert has_converged(1e-3, 1e-2, 1.12e-4, False, False)
    assert not has_converged(1e-3, 1e-2, 1.11e-4, False, False)
    assert not has_converged(1e-3, 1e-3, 1e-2, False, False)
    assert has_converged(1e-3, 1e-3, 1e-1, False, False)


def test_the_first_change_and_linear_laws():
    assert has_converged(1e-3, 0.0, 1e-3, True, False)
    assert not has_converged(1e-3, 0.0, 0.9e-3, True, False)
    assert has_converged(1e3, 0.0, 1e-12, True, True)
    assert not has_converged(np.nan, 0.0, 1.0, True, True)
    assert not has_converged(np.nan, 1.0, 1.0, False, False)
    assert not has_converged(np.inf, 0.0, 1.0, True, True)


def test_changes_to_and_fro_are_damped_after_many_iterations_only():
    assert relaxation(1.0, 3, 1.0, 1.0) == 1.0
    assert relaxation(1.0, 10, 1.0, 1.0) == 0.5
    assert relaxation(0.5, 11, 1.0, 1.0) == 0.25
    assert relaxation(0.5, 11, 0.1, 1.0) == 0.625
    assert relaxation(0.9, 11, 0.1, 1.0) == 1.0


def test_slope_at_a_side_keeps_the_matrix_dominant():
    """The diagonal 1 + (inner − slope) stays at ½ or above; a linear law keeps its slope."""
    for inner, outer, pull in [(0.0, 100.0, 1.0), (100.0, 300.0, 0.9), (50.0, 20.0, -2.0)]:
        slope = side_slope(outer, inner, pull, 0)
        assert slope <= pull * outer
        assert 1.0 + (inner - slope) >= 0.5 - 1e-12
    assert side_slope(100.0, 50.0, 0.4, 0) == 40.0
    assert side_slope(100.0, 0.0, 1.5, -1) == 150.0
    assert side_slope(100.0, 100.0, 0.9, 20) == 0.0


@pytest.mark.parametrize("wrong", [{"tolerance": 0.0}, {"iterations": 0}, {"tolerance": float("nan")}])
def test_message(wrong):
    with pytest.raises(InvalidArgumentError, match="tolerance > 0 and iterations > 0"):
        Newton(**wrong)
