"""Totals from fluxes and the law of every control volume."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal

from probconserv import InvalidArgumentError, condition, conservation, integral, local_conservation, total_over_time
from solvers import CellGrid, NodeGrid
from tests.strategies import seeds

few = settings(deadline=None, max_examples=20)
TIMES = torch.linspace(0.0, 2.0, 5).double()


def test_linear_fluxes_give_the_total_by_hand():
    # F_first = t, F_last = 1: U = 3 + t²/2 − t.
    expected = 3 + 0.5 * TIMES.square() - TIMES
    sampled = total_over_time(TIMES, 3.0, TIMES, torch.ones(5))
    assert torch.allclose(sampled, expected, rtol=1e-14)
    functions = total_over_time(TIMES, 3.0, lambda t: t, torch.ones_like)
    assert torch.allclose(functions, expected, rtol=1e-14)


def test_a_closed_form_flux_is_integrated_to_round_off():
    # The porous medium equation, m = 2: F(t, 0) = uᵐ u_x at the front's foot = m t^{1+1/m}… here dU/dt of the closed
    # form, U = m^{1+1/m}/(m+1) t^{1+1/m}, from t₀ = 0.1 on, where it is smooth.
    m = 2.0
    times = torch.linspace(0.1, 1.0, 7).double()

    def total(t):
        return m ** (1 + 1 / m) / (m + 1) * t ** (1 + 1 / m)

    result = total_over_time(times, total(times[0]), lambda t: m ** (1 / m) * t ** (1 / m), torch.zeros_like)
    assert torch.allclose(result, total(times), rtol=1e-12)


def test_sampled_fluxes_converge_at_second_order():
    sizes, errors = [10, 20, 40, 80], []
    for n in sizes:
        times = torch.linspace(0, 1, n + 1).double()
        errors.append(abs(float(total_over_time(times, 0.0, times.exp(), 0 * times)[-1]) - (np.e - 1)))
    assert -np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(2, abs=0.2)


def test_conservation_is_one_law_per_function_and_time():
    grid = NodeGrid(0.0, 1.0, 11)
    law = conservation(grid, TIMES, torch.tensor([1.0, 2.0]), torch.ones(2, 5), torch.zeros(2, 5))
    assert law.batch_shape == (2, 5)
    assert torch.allclose(law.b[..., 0], torch.tensor([[1.0], [2.0]]).double() + TIMES)
    posterior = condition(Normal(torch.zeros(2, 5, 11).double(), torch.ones(2, 5, 11).double()), law)
    assert torch.allclose(posterior.mean @ grid.weights, law.b[..., 0], rtol=1e-13)


@pytest.mark.parametrize("functions", [2, 3])  # as many as times, and more
def test_every_function_has_points_of_its_own_that_are_the_same_at_all_times(functions):
    points = torch.tensor([[0.0, 0.5, 1.0], [0.0, 1.0, 2.0], [0.0, 0.1, 4.0]]).double()[:functions]
    times, totals = torch.tensor([0.0, 1.0]), torch.arange(1.0, functions + 1)
    for domain in (points, points.numpy()):
        law = conservation(domain, times, totals, torch.ones(functions, 2), torch.zeros(2))
        assert law.batch_shape == (functions, 2)
        prior = Normal(torch.zeros(functions, 2, 3).double(), torch.ones(functions, 2, 3).double())
        integrals = torch.trapezoid(condition(prior, law).mean, points[:, None, :])
        assert torch.allclose(integrals, totals[:, None].double() + times, rtol=1e-13)


def test_initial_totals_of_functions_share_a_flux_or_have_one_each():
    initial = torch.tensor([1.0, 2.0, 3.0]).double()
    expected = initial[:, None] + TIMES
    shared = total_over_time(TIMES, initial, torch.ones(5), torch.zeros(5))
    assert torch.allclose(shared, expected, rtol=1e-15)
    assert torch.equal(total_over_time(TIMES, initial, torch.ones_like, torch.zeros(5)), shared)
    assert torch.equal(total_over_time(TIMES, initial, torch.ones(3, 5), torch.zeros(5)), shared)
    each = total_over_time(TIMES, initial, torch.arange(2.0)[:, None, None].expand(2, 1, 5), torch.zeros(5))
    assert torch.allclose(each, torch.stack([0 * TIMES + initial[:, None], expected]), rtol=1e-15)
    law = conservation(NodeGrid(0.0, 1.0, 11), TIMES, initial, torch.ones(5), torch.zeros(5))
    assert torch.equal(law.b[..., 0], shared)


@few
@given(st.integers(3, 20), st.integers(2, 8), seeds, st.booleans())
def test_rows_of_volumes_add_up_to_the_integral_and_are_exact_for_linear_fields(n, volumes, seed, on_nodes):
    generator = torch.Generator().manual_seed(seed)
    inner = torch.rand(volumes - 1, dtype=torch.float64, generator=generator).sort().values
    faces = torch.cat([torch.zeros(1).double(), inner, torch.ones(1).double()])
    grid = NodeGrid(0.0, 1.0, n) if on_nodes else CellGrid(0.0, 1.0, n)
    law = local_conservation(grid, faces, torch.zeros(volumes), torch.zeros(volumes + 1))
    assert torch.allclose(law.rows.sum(dim=0), integral(grid, 0.0).rows[0], rtol=1e-11, atol=1e-14)
    assert torch.allclose(law.rows.sum(dim=1), faces.diff(), rtol=1e-10, atol=1e-14)
    if on_nodes:
        contents = 0.5 * faces.square().diff() + faces.diff()
        assert torch.allclose(law.residual(grid.points + 1), contents, rtol=1e-10, atol=1e-14)


def test_piecewise_linear_field_between_nodes_by_quadrature():
    points = torch.tensor([0.0, 0.3, 0.5, 1.2]).double()
    values = torch.tensor([1.0, -2.0, 4.0, 0.5]).double()
    law = local_conservation(points, torch.tensor([0.1, 0.45, 1.0]), torch.zeros(2), torch.zeros(3))
    for row, (a, b) in zip(law.rows, [(0.1, 0.45), (0.45, 1.0)], strict=True):
        x = np.union1d(np.linspace(np.float32(a), np.float32(b), 2001), points.numpy())
        x = x[(x >= np.float32(a)) & (x <= np.float32(b))]
        expected = np.trapezoid(np.interp(x, points, values), x)
        assert float(row @ values) == pytest.approx(expected, rel=1e-12)


def test_contents_change_by_what_passes_the_faces():
    law = local_conservation(
        CellGrid(0.0, 1.0, 4), torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 2.0]), torch.tensor([0.3, 0.1, 0.0])
    )
    assert torch.allclose(law.b, torch.tensor([1.2, 2.1]).double(), rtol=1e-6)
    assert torch.allclose(law.rows, torch.tensor([[0.25, 0.25, 0, 0], [0, 0, 0.25, 0.25]]).double())


def test_messages():
    grid = NodeGrid(0.0, 1.0, 5)
    with pytest.raises(InvalidArgumentError, match="times must be at least two"):
        total_over_time(torch.tensor([0.0, 0.0]), 1.0, torch.zeros(2), torch.zeros(2))
    with pytest.raises(InvalidArgumentError, match="one value per time, 5, got 4"):
        total_over_time(TIMES, 1.0, torch.zeros(4), torch.zeros(5))
    with pytest.raises(InvalidArgumentError, match="faces must be at least two"):
        local_conservation(grid, torch.tensor([0.5, 0.2]), torch.zeros(1), torch.zeros(2))
    with pytest.raises(InvalidArgumentError, match=r"must lie in the domain \[0, 1\], got \[0, 1.5\]"):
        local_conservation(grid, torch.tensor([0.0, 1.5]), torch.zeros(1), torch.zeros(2))
    with pytest.raises(InvalidArgumentError, match="3 faces need 2 initial contents and 3 passed fluxes, got 3 and 3"):
        local_conservation(grid, torch.tensor([0.0, 0.5, 1.0]), torch.zeros(3), torch.zeros(3))
    with pytest.raises(InvalidArgumentError, match="along one axis, got a grid with 2"):
        local_conservation(NodeGrid((0.0, 0.0), (1.0, 1.0), (3, 3)), torch.ones(2), torch.zeros(1), torch.zeros(2))
    with pytest.raises(InvalidArgumentError, match=r"needs points \(n,\), got \(2, 3\)"):
        local_conservation(torch.rand(2, 3), torch.tensor([0.0, 1.0]), torch.zeros(1), torch.zeros(2))
