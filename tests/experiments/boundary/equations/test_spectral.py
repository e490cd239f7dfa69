"""Periodic Burgers: Cole–Hopf as oracle, observed order, resolution, invariants; the random field's law."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from experiments.boundary.equations.spectral import SpectralResolution, evaluate, random_field, solve_periodic_burgers
from solvers import GaussianField, Matern, NodeGrid, Periodic
from solvers.errors import InvalidArgumentError, SolverDivergedError
from tests.strategies import seeds

NU = 0.1
PLACES = torch.linspace(0.0, 1.0, 65, dtype=torch.float64)


def draw(seed: int, *batch: int, modes: int = 65) -> torch.Tensor:
    noise = torch.randn(*batch, 2, modes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return random_field(noise)


def cole_hopf(initial: torch.Tensor, t: float, viscosity: float, positions: torch.Tensor) -> np.ndarray:
    """Exact solution: u = c + v(t, x − ct) with v = −2ν φ_x/φ, φ_t = ν φ_xx, φ(0) = exp(−∫v dx/2ν), in NumPy.

    The mean c is split off so that φ is periodic; 4096 points hold φ's modes to round-off.
    """
    c, k, points = initial[0].real.item(), np.arange(len(initial)), 4096
    phase = 2j * np.pi * np.outer(np.arange(points) / points, k[1:])
    potential = 2 * (np.exp(phase) @ (initial.numpy()[1:] / (2j * np.pi * k[1:]))).real
    modes = np.fft.rfft(np.exp(-potential / (2 * viscosity)), norm="forward")
    waves = 2j * np.pi * np.arange(len(modes))
    modes = modes * np.exp(viscosity * waves.real**2 * t - viscosity * waves.imag**2 * t)
    kept = slice(0, 600)  # e^{−ν(2π·600)²t} < 1e-300 for the times used here
    weight = np.where(np.arange(len(modes)) > 0, 2.0, 1.0)[kept]
    at = np.exp(np.outer(positions.numpy() - c * t, waves[kept]))
    phi, phi_x = (at @ (weight * modes[kept])).real, (at @ (weight * waves[kept] * modes[kept])).real
    return c - 2 * viscosity * phi_x / phi


@pytest.mark.parametrize(("viscosity", "tolerance"), [(0.1, 1e-7), (0.02, 1e-6)])
def test_solution_is_that_of_cole_and_hopf(viscosity: float, tolerance: float) -> None:
    """Resolved to 1e-6 as promised for ν = 0.1, and still for smooth fields at ν = 0.02."""
    initial, times = draw(0, 3, modes=17), [0.04, 0.3, 1.0]
    actual = evaluate(solve_periodic_burgers(initial, times, viscosity), PLACES)
    for sample in range(3):
        for index, t in enumerate(times):
            expected = cole_hopf(initial[sample], t, viscosity, PLACES)
            np.testing.assert_allclose(actual[sample, index].numpy(), expected, rtol=0, atol=tolerance)


def test_random_fields_are_resolved_to_a_millionth() -> None:
    initial, times = draw(1, 8, modes=129), [0.04, 0.2, 1.0]
    default = evaluate(solve_periodic_burgers(initial, times, NU), PLACES)
    fine = evaluate(solve_periodic_burgers(initial, times, NU, SpectralResolution(points=768, step=5e-4)), PLACES)
    assert float((default - fine).abs().max()) <= 1e-6


def test_time_steps_are_of_fourth_order() -> None:
    """Mean square over eight fields: the leading error of a single one may be small by chance."""
    initial, t = draw(2, 8, modes=9), 0.1
    expected = np.stack([cole_hopf(field, t, NU, PLACES) for field in initial])
    errors = []
    for steps in (32, 64, 128, 256):
        resolution = SpectralResolution(points=256, step=t / steps)
        actual = evaluate(solve_periodic_burgers(initial, [t], NU, resolution), PLACES)[:, 0]
        errors.append(np.sqrt(np.square(actual.numpy() - expected).mean()))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert abs(orders.mean() - 4.0) <= 0.2, (errors, orders)


@settings(deadline=None, max_examples=10)
@given(seed=seeds, shift=st.floats(0, 1), batch=st.integers(1, 3))
def test_burgers_commutes_with_shifts_and_keeps_the_mean(seed: int, shift: float, batch: int) -> None:
    initial = draw(seed, batch, modes=9)
    resolution = SpectralResolution(points=64, step=0.01)
    turn = torch.exp(2j * torch.pi * shift * torch.arange(9, dtype=torch.float64))
    after = solve_periodic_burgers(initial, [0.1], NU, resolution)
    shifted = solve_periodic_burgers(initial * turn, [0.1], NU, resolution)
    full_turn = torch.exp(2j * torch.pi * shift * torch.arange(after.shape[-1], dtype=torch.float64))
    # The Galerkin system has this symmetry exactly; ten steps of FFTs of numbers of order ten leave round-off.
    torch.testing.assert_close(shifted, after * full_turn, rtol=0, atol=1e-12)
    torch.testing.assert_close(after[..., 0, 0], initial[..., 0], rtol=0, atol=1e-13)
    energy = [(evaluate(modes, PLACES[:-1]) ** 2).mean(-1) for modes in (initial, after[:, 0])]
    assert bool((energy[1] <= energy[0] + 1e-12).all())


def test_random_field_has_the_stated_covariance() -> None:
    """625(−Δ + 25)⁻² has eigenvalue 625/(4π²k² + 25)² on cos 2πkx and sin 2πkx: E u(x)u(x+r) = λ₀ + Σ 2λ_k cos 2πkr."""
    count, k = 20_000, np.arange(1, 33)
    fields = evaluate(draw(3, count, modes=33), torch.tensor([0.1, 0.1 + 0.25, 0.1 + 0.5]))
    eigenvalues = 625 / (4 * np.pi**2 * k**2 + 25) ** 2
    for column, r in enumerate((0.0, 0.25, 0.5)):
        expected = 1 + 2 * (eigenvalues * np.cos(2 * np.pi * k * r)).sum()
        # The mean of 20,000 products of normal variables of variance about 1.3 has deviation below 1.3·√2/√20,000.
        assert float((fields[:, 0] * fields[:, column]).mean()) == pytest.approx(expected, abs=4 * 0.013)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, modes=st.integers(1, 12), positions=st.integers(1, 5))
def test_fields_are_evaluated_as_the_sum_over_all_waves(seed: int, modes: int, positions: int) -> None:
    coefficients, x = draw(seed, 2, modes=modes), PLACES[:positions] ** 2
    k = torch.arange(-modes + 1, modes, dtype=torch.float64)
    both = torch.cat((coefficients[:, 1:].conj().flip(-1), coefficients), dim=-1)
    expected = (both[:, None, :] * torch.exp(2j * torch.pi * k * x[:, None])).sum(-1)
    torch.testing.assert_close(evaluate(coefficients, x), expected.real, rtol=0, atol=1e-12)
    assert float(expected.imag.abs().max()) <= 1e-12


def test_float32_noise_gives_the_same_field_in_float64() -> None:
    noise = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(random_field(noise), random_field(noise.double()), rtol=0, atol=0)


SINE = torch.tensor([0.0, -0.5j], dtype=torch.complex128)  # sin 2πx, which becomes a shock as thin as ν


@pytest.mark.parametrize(
    ("viscosity", "resolution", "message"),
    [
        (0.01, SpectralResolution(step=0.5), "has grown above its start at time 0.5 with step 0.5"),
        (0.01, SpectralResolution(points=32), "has waves too short for its points at time 0.5 with .* 32 points"),
        (0.001, SpectralResolution(points=64), "has waves too short for its points"),
    ],
)
def test_a_shock_that_is_not_resolved_is_an_error(
    viscosity: float, resolution: SpectralResolution, message: str
) -> None:
    with pytest.raises(SolverDivergedError, match=f"{message}.*; take a smaller step or more points"):
        solve_periodic_burgers(SINE, [0.5], viscosity, resolution)
    assert float(evaluate(solve_periodic_burgers(SINE, [0.5], viscosity), PLACES).abs().max()) < 0.75


def test_a_shock_that_has_become_smooth_again_is_judged_by_what_is_left_of_it() -> None:
    """12 points leave an error of a quarter at t = 6, 32 points one of 1e-3 at t = 2, having missed the shock alike."""
    with pytest.raises(SolverDivergedError, match="waves too short"):
        solve_periodic_burgers(SINE, [6.0], 0.01, SpectralResolution(points=12, step=0.01))
    coarse, fine = (
        evaluate(solve_periodic_burgers(SINE, [2.0], 0.01, SpectralResolution(points=points, step=0.01)), PLACES)
        for points in (32, 256)
    )
    assert float((coarse - fine).abs().max() / fine.abs().max()) < 1e-3


def test_waves_of_the_start_that_only_decay_or_travel_are_no_error() -> None:
    """As short as the points allow, on a mean flow, with one value, and nothing at all."""
    wave, resolution = torch.zeros(4, 22, dtype=torch.complex128), SpectralResolution(points=64)
    wave[:3, 0], wave[0, 20], wave[1, 16] = 1.0, 1e-3, 0.25
    later = evaluate(solve_periodic_burgers(wave, [0.01, 1.0], 1e-3, resolution), PLACES)
    assert float(later[2].max()) == pytest.approx(1.0, rel=1e-12)
    assert not later[3].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial": draw(0, modes=40), "resolution": SpectralResolution(points=64)}, "up to 21; take more points"),
        ({"initial": SINE.numpy()}, "initial must be a complex tensor of coefficients .* got ndarray"),
        ({"initial": PLACES}, r"got torch.float64 \(65,\); for values at equal points take torch.fft.rfft"),
        ({"initial": SINE.sum()}, "initial must be a complex tensor of coefficients"),
        ({"initial": SINE * float("nan")}, "initial must be finite"),
        ({"times": [0.2, 0.1]}, "times must be finite, strictly increasing"),
        ({"times": [-0.1]}, "not before start = 0"),
        ({"times": [float("nan")]}, "times is not finite"),
        ({"times": [float("inf")]}, "times is not finite"),
        ({"viscosity": 0.0}, "viscosity of periodic Burgers must be one finite number above 0, got 0"),
        ({"viscosity": torch.tensor([0.1, 0.2])}, "solve once for each"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        solve_periodic_burgers(**{"initial": SINE, "times": [0.1], "viscosity": NU} | changes)


@pytest.mark.parametrize("points", [7, 6, 64.0])
def test_wrong_resolutions_are_named(points: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="even number of at least 8 points"):
        SpectralResolution(points=points)


def test_the_random_field_has_the_covariance_of_li_and_others():
    """N(0, 625(−Δ + 25 I)⁻²) on the unit circle: the random field of ``solvers`` as the oracle."""
    grid, modes = NodeGrid(0.0, 1.0, 9), 6
    spectrum = Matern(amplitude=25.0, inverse_length=5.0, smoothness=2.0)
    field = GaussianField(low=0.0, high=1.0, spectrum=spectrum, boundary=(Periodic(), Periodic()), modes=modes)
    units = torch.eye(2 * (modes + 1), dtype=torch.float64).reshape(-1, 2, modes + 1)  # η₀ has no effect
    columns = evaluate(random_field(units), grid.points)
    torch.testing.assert_close(field.covariance(grid, grid), columns.mT @ columns, rtol=1e-12, atol=1e-13)
