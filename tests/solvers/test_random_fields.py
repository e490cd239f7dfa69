"""Gaussian random fields: closed-form covariances, Monte Carlo, one draw on several grids, messages."""

from math import cosh, pi, sinh

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import CellGrid, Dirichlet, GaussianField, Matern, Neumann, NodeGrid, Periodic, Robin
from solvers.errors import InvalidArgumentError
from solvers.random_fields import log_normal, two_phase

FIXED, FREE, RING = Dirichlet(0.0), Neumann(gradient=0.0), Periodic()
LINE = NodeGrid(0.0, 2.0, 17)


def line(pair, modes=400, **spectrum):
    spectrum = {"amplitude": 1.0, "inverse_length": 0.0, "smoothness": 1.0} | spectrum
    return GaussianField(low=0.0, high=2.0, spectrum=Matern(**spectrum), boundary=pair, modes=modes)


def test_brownian_motion_and_bridge():
    """(−d²/dx²)⁻¹ on [0, 2]: min(x, y) − x y/2 fixed at both ends, min(x, y) fixed at one; tail 2 L/(π² modes)."""
    x, y = LINE.points[:, None], LINE.points[None]
    tail = 2 * 2.0 / (pi**2 * 400)
    bridge = torch.minimum(x, y) - x * y / 2
    torch.testing.assert_close(line((FIXED, FIXED)).covariance(LINE, LINE), bridge, rtol=0, atol=tail)
    motion = torch.minimum(x, y)
    torch.testing.assert_close(line((FIXED, FREE)).covariance(LINE, LINE), motion, rtol=0, atol=tail)
    torch.testing.assert_close(line((FREE, FIXED)).covariance(LINE, LINE), 2 - torch.maximum(x, y), rtol=0, atol=tail)


def test_exponential_covariance_with_free_and_periodic_ends():
    """Green's functions of −u'' + τ²u on [0, 2]: cosh(τ(2−max)) cosh(τ min)/(τ sinh 2τ), and on the circle."""
    tau, (x, y) = 3.0, (LINE.points[:, None], LINE.points[None])
    small, large = torch.minimum(x, y), torch.maximum(x, y)
    free = torch.cosh(tau * (2 - large)) * torch.cosh(tau * small) / (tau * sinh(2 * tau))
    ring = torch.cosh(tau * (1 - (x - y).abs())) / (2 * tau * sinh(tau))
    tail = 2 * 2.0 / (pi**2 * 400)
    assert float(ring[0, 0]) == pytest.approx(cosh(tau) / (2 * tau * sinh(tau)))
    torch.testing.assert_close(line((FREE, FREE), inverse_length=tau).covariance(LINE, LINE), free, rtol=0, atol=tail)
    torch.testing.assert_close(line((RING, RING), inverse_length=tau).covariance(LINE, LINE), ring, rtol=0, atol=tail)


@pytest.mark.parametrize("boundary", [(FIXED, FIXED), (FREE, FREE), (RING, RING), (FREE, FIXED), (FIXED, FREE)])
def test_draws_have_the_stated_covariance_in_two_axes(boundary):
    """20,000 draws: a covariance estimate deviates by √((c_ii c_jj + c_ij²)/N); 5.5 deviations for 400 pairs."""
    spectrum = Matern(amplitude=2.0, inverse_length=2.0, smoothness=1.5)
    sides = [boundary, (FREE, FREE)]
    field = GaussianField(low=(0.0, -1.0), high=(1.0, 2.0), spectrum=spectrum, boundary=sides, modes=(6, 5))
    grid = CellGrid((0.0, -1.0), (1.0, 2.0), (5, 4))
    draws = field.draw(20_000, generator=torch.Generator().manual_seed(3))
    values = field.values(draws, grid).reshape(20_000, -1)
    exact = field.covariance(grid, grid)
    deviation = ((exact.diag()[:, None] * exact.diag() + exact**2) / 20_000).sqrt()
    assert ((values.mT @ values / 20_000 - exact).abs() <= 5.5 * deviation).all()
    assert (values.mean(0).abs() <= 5.5 * (exact.diag() / 20_000).sqrt()).all()
    torch.testing.assert_close(field.variance(grid).reshape(-1), exact.diag(), rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(0, 10**6), st.sampled_from([(FIXED, FIXED), (FREE, FREE), (RING, RING)]))
def test_one_draw_is_the_same_function_on_every_grid(d, seed, pair):
    """Coarse nodes are among the fine ones, and so are cell centres of odd refinements; the sides hold."""
    low, high = (0.0, 1.0, -1.0)[:d], (2.0, 4.0, 0.0)[:d]
    spectrum = Matern(amplitude=1.0, inverse_length=1.0, smoothness=2.0)
    field = GaussianField(low=low, high=high, spectrum=spectrum, boundary=[pair] * d, modes=(3, 4, 2)[:d])
    draw = field.draw((2, 3), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(draw, field.draw((2, 3), generator=torch.Generator().manual_seed(seed)))
    for kind, coarse, fine, step in (
        (NodeGrid, (5, 4, 3), (9, 7, 5), slice(None, None, 2)),
        (CellGrid, (4, 3, 2), (12, 9, 6), slice(1, None, 3)),
    ):
        rough, smooth = (field.values(draw, kind(low, high, counts[:d])) for counts in (coarse, fine))
        assert rough.shape == (2, 3, *coarse[:d])
        torch.testing.assert_close(smooth[(..., *(step,) * d)], rough, rtol=0, atol=1e-12)
    nodes = field.values(draw, NodeGrid(low, high, (5,) * d))
    first, last = nodes.select(2, 0), nodes.select(2, -1)
    if pair[0] is FIXED:
        assert max(first.abs().max(), last.abs().max()) < 1e-13
    if pair[0] is RING:
        torch.testing.assert_close(first, last, rtol=0, atol=1e-13)


def test_coefficients_of_darcy_flow():
    values = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    assert two_phase(values, 0.1, 12.0).tolist() == [0.1, 0.1, 12.0]
    torch.testing.assert_close(log_normal(values, 2.0), 2 * values.exp())
    with pytest.raises(InvalidArgumentError, match="must not be NaN"):
        two_phase(values.log(), 0.1, 12.0)
    with pytest.raises(InvalidArgumentError, match="take a smaller amplitude"):
        log_normal(1000 * values)
    with pytest.raises(InvalidArgumentError, match="median > 0"):
        log_normal(values, 0.0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64])
def test_two_phases_of_integers_are_not_rounded(dtype):
    values = torch.tensor([[1, 0], [0, 1]], dtype=dtype)
    phases = two_phase(values, 0.5, 12.7, 0.5)
    assert phases.dtype == torch.float64
    assert phases.tolist() == [[12.7, 0.5], [0.5, 12.7]]
    assert two_phase(values.float(), 0.5, 12.7, 0.5).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"boundary": (Dirichlet(1.0), FREE)}, "must be Dirichlet"),
        ({"boundary": (Robin(1.0, 1.0, 0.0), FREE)}, "must be Dirichlet"),
        ({"boundary": (RING, FREE)}, "periodic on one side only"),
        ({"modes": 0}, "at least 1"),
        ({"modes": (3, 3)}, "one number per axis"),
        ({"high": -1.0}, "low < high"),
        ({"spectrum": lambda mu: -mu}, "finite and not negative"),
        ({"boundary": (FREE, FREE), "spectrum": Matern(amplitude=1.0, inverse_length=0.0, smoothness=1.0)}, "inverse_"),
    ],
)
def test_wrong_fields_are_refused(change, text):
    spectrum = Matern(amplitude=1.0, inverse_length=1.0, smoothness=1.0)
    right = {"low": 0.0, "high": 1.0, "spectrum": spectrum, "boundary": (FIXED, FREE), "modes": 4}
    with pytest.raises(InvalidArgumentError, match=text):
        GaussianField(**right | change)


def test_wrong_spectra_grids_and_coefficients_are_refused():
    for wrong in ({"amplitude": 0.0}, {"inverse_length": -1.0}, {"smoothness": float("nan")}):
        with pytest.raises(InvalidArgumentError, match="Matern needs"):
            Matern(**{"amplitude": 1.0, "inverse_length": 1.0, "smoothness": 1.0} | wrong)
    field = line((FIXED, FIXED), modes=4)
    with pytest.raises(InvalidArgumentError, match="not inside the box"):
        field.variance(NodeGrid(0.0, 2.1, 5))
    with pytest.raises(InvalidArgumentError, match=r"must end in \(4,\)"):
        field.values(torch.zeros(5), LINE)
