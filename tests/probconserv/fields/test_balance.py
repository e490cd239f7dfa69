"""Totals from fluxes and the law of every control volume."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal

from probconserv import condition, conservation, integral, local_conservation
from probconserv.balance import total_over_time
from probconserv.errors import ConvergenceError, InvalidArgumentError
from solvers import CellGrid, NodeGrid
from tests.strategies import seeds

few = settings(deadline=None, max_examples=20)
TIMES = torch.linspace(0.0, 2.0, 5).double()
GRID = NodeGrid(0.0, 1.0, 11)


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
    of_function = total_over_time(TIMES, initial, torch.ones_like, torch.zeros(5))
    assert torch.allclose(of_function, shared, rtol=1e-14)  # its rule has weights that are rounded
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


def test_invalid_arguments_raise_with_reason():
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


SPANS = ((0.0, 0.3, 1.0, 2.7), (0.0, 1.0), (0.0, 10.0))


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("frequency", [5, 40, 100, 1000])
def test_oscillating_fluxes_are_resolved_to_round_off(span, frequency):
    """Angles of up to 1e4 are rounded to 1e-12, and the flux with them; the estimate covers what is left."""
    times = torch.tensor(span, dtype=torch.float64)
    law = conservation(GRID, times, 0.5, lambda t: torch.sin(frequency * t), lambda t: torch.exp(-t))
    expected = 0.5 + (1 - torch.cos(frequency * times)) / frequency - (1 - torch.exp(-times))
    error = (law.b[..., 0] - expected).abs()
    assert float(error.max()) < 1e-12
    assert bool((error <= law.rule_variance[..., 0].sqrt() + 1e-12).all())


def test_a_jump_anywhere_is_integrated_as_well_as_the_law_says():
    """To a billionth of the whole at most, and to round-off with the time of the jump as a breakpoint."""
    times, generator = torch.tensor([-1.0, 0.0, 3.0], dtype=torch.float64), torch.Generator().manual_seed(0)
    for jump in [*torch.rand(200, generator=generator, dtype=torch.float64).tolist(), 0.5, 3 / 16]:
        flux, exact = lambda t: 2.0 * (t > jump) - 0.5, -2.0 + 2 * (3 - jump)  # noqa: B023
        law = conservation(GRID, times, 0.0, flux, torch.zeros_like)
        stated = float(law.rule_variance[2, 0].sqrt())
        assert stated < 1e-9
        assert law.b[:, 0].tolist() == pytest.approx([0.0, -0.5, exact], abs=stated + 1e-14)
        told = conservation(GRID, times, 0.0, flux, torch.zeros_like, breakpoints=[jump])
        assert told.b[:, 0].tolist() == pytest.approx([0.0, -0.5, exact], abs=1e-14)
        assert float(told.rule_variance.max()) == 0.0


def test_a_pulse_is_seen_from_a_panel_on_and_with_breakpoints_however_narrow():
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for width, breakpoints in ((0.02, ()), (1e-6, (0.53 - 1e-5, 0.53, 0.53 + 1e-5))):
        pulse = lambda t: torch.exp(-(((t - 0.53) / width) ** 2))  # noqa: B023, E731
        total = total_over_time(times, 0.0, pulse, torch.zeros_like, breakpoints=breakpoints)[-1]
        assert float(total) == pytest.approx(width * np.pi**0.5, rel=1e-8)


def test_an_infinite_rate_at_the_start_is_integrated():
    """√t, what diffuses through a wall after a step of its value."""
    times = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    total = total_over_time(times, 0.0, lambda t: 0.5 / t.sqrt(), torch.zeros_like)
    assert torch.allclose(total, times.sqrt(), rtol=0, atol=1e-8)


def test_fluxes_of_a_batch_of_several_precisions_and_of_numpy_are_integrated_alike():
    frequency = torch.tensor([[1.0], [30.0], [0.0]], dtype=torch.float64)
    expected = torch.where(frequency > 0, torch.sin(frequency * TIMES) / frequency, TIMES)
    fluxes = {
        1e-13: lambda t: torch.cos(frequency * t),
        1e-12: lambda t: np.cos(frequency.numpy() * t.numpy()),
        4e-7: lambda t: torch.cos(frequency.float() * t.float()),
        5e-7: lambda t: torch.cos(frequency.float() * t.float()).double(),
    }
    for tolerance, flux in fluxes.items():
        total = total_over_time(TIMES, 0.0, flux, lambda t: 0.0)  # noqa: ARG005
        assert torch.allclose(total, expected, rtol=0, atol=tolerance)


def test_gradients_pass_through_a_flux_that_is_refined():
    """d/dω ∫ sin ωt dt over [0, 2], and d/dc of a flux that jumps from 0 to c."""
    frequency = torch.tensor(90.0, dtype=torch.float64, requires_grad=True)
    total_over_time(TIMES, 0.0, lambda t: torch.sin(frequency * t), torch.zeros_like)[-1].backward()
    w = 90.0
    assert float(frequency.grad) == pytest.approx(2 * np.sin(2 * w) / w - (1 - np.cos(2 * w)) / w**2, abs=1e-11)
    height = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    total_over_time(TIMES, 0.0, lambda t: height * (t > 0.7), torch.zeros_like)[-1].backward()
    assert float(height.grad) == pytest.approx(1.3, abs=1e-9)


def test_compiled_fluxes_have_the_same_totals_and_an_estimate():
    def law(shift):
        made = conservation(GRID, TIMES, 0.0, lambda t: torch.sin(30 * t + shift), torch.zeros_like)
        return made.b, made.rule_variance

    shifts = torch.tensor([0.1, 0.2], dtype=torch.float64)
    b, variance = torch.func.vmap(law)(shifts)
    for shift, values, error in zip(shifts, b, variance, strict=True):
        expected, estimate = law(shift)
        assert torch.allclose(values, expected, rtol=0, atol=1e-14)
        # Squares of differences of two rules, each with the rounding of the totals.
        assert torch.allclose(error.sqrt(), estimate.sqrt(), rtol=0, atol=1e-14)


def test_fluxes_that_cannot_be_integrated_are_refused_with_the_reason():
    generator = torch.Generator().manual_seed(0)
    times, none = torch.tensor([0.0, 1.0]), torch.zeros_like
    with pytest.raises(ConvergenceError, match=r"over \[0, 1\].*do not resolve it. Give the times of jumps"):
        total_over_time(times, 0.0, lambda t: torch.rand(t.shape, generator=generator), none)
    with pytest.raises(InvalidArgumentError, match=r"not finite at t = 0\.\d+; give its integrals"):
        total_over_time(times, 0.0, lambda t: torch.where(t > 0.5, torch.inf, t), none)
    with pytest.raises(InvalidArgumentError, match=r"takes all times \(q,\) at once.*torch.tensor\(\[f\(float"):
        total_over_time(times, 0.0, lambda t: 1.0 if t > 0.5 else 0.0, none)
    with pytest.raises(InvalidArgumentError, match=r"must return \(\*batch, q\), here q = 1088, but got \(3,\)"):
        total_over_time(times, 0.0, lambda t: torch.zeros(3), none)  # noqa: ARG005
