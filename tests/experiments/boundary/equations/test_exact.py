"""Closed forms of the boundary-condition problems: equation by autograd, data at the ends, initial field, oracles."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from experiments.boundary.equations import exact
from experiments.boundary.equations.exact import Harmonics, constant
from solvers.errors import InvalidArgumentError
from tests.strategies import seeds

PI = torch.pi
K = 0.02
ENDS = (0.0, 1.0)
examples = settings(deadline=None, max_examples=20)


class Sample:
    """Random points (with gradients) and parameters of one sample, from a seed."""

    def __init__(self, seed: int, points: int = 7) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.t = self.uniform(0.02, 2.0, points).requires_grad_()
        self.x = self.uniform(0.0, 1.0, points).requires_grad_()
        self.y = self.uniform(0.0, 1.0, points).requires_grad_()

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def side(self) -> Harmonics:
        """A constant and three harmonics, for one sample."""
        amplitudes = torch.complex(self.uniform(-1.0, 1.0, 1, 4), self.uniform(-1.0, 1.0, 1, 4))
        return Harmonics(amplitudes, torch.tensor([0.0, 1.0, 2.5, 7.0], dtype=torch.float64))

    def coefficients(self) -> torch.Tensor:
        return self.uniform(-1.0, 1.0, 1, 6)


def derivative(u: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(u.sum(), of, create_graph=True)[0]


def close_to_zero(residual: torch.Tensor, *terms: torch.Tensor) -> bool:
    """Round-off: some hundred terms with n² in front, so 1e-10 of the size of the terms that cancel."""
    size = 1.0 + sum(term.abs().max() for term in terms)
    return bool((residual.abs() <= 1e-10 * size).all())


@examples
@given(seed=seeds)
def test_stokes_solves_its_equation_and_swings_with_the_wall(seed: int) -> None:
    s = Sample(seed)
    omega, nu = s.uniform(3.0, 4.0, 1), s.uniform(0.001, 0.1, 1)
    u = exact.stokes(s.t, s.x, omega, nu)
    u_t, u_yy = derivative(u, s.t), derivative(derivative(u, s.x), s.x)
    assert close_to_zero(u_t - nu * u_yy, u_t)
    torch.testing.assert_close(exact.stokes(s.t, 0.0, omega, nu), 2 * torch.cos(omega * s.t))


@examples
@given(seed=seeds)
def test_burgers_wave_solves_its_equation_and_keeps_its_shape(seed: int) -> None:
    s = Sample(seed)
    left, right, nu = s.uniform(1.0, 1.5, 1), s.uniform(-0.5, 0.0, 1), 0.02
    u = exact.burgers_wave(s.t, s.x, left, right, nu)
    u_t, u_x = derivative(u, s.t), derivative(u, s.x)
    assert close_to_zero(u_t + u * u_x - nu * derivative(u_x, s.x), u_t)
    moved = exact.burgers_wave(0.0, s.x - 0.5 * (left + right) * s.t, left, right, nu)
    torch.testing.assert_close(moved, u)
    assert bool(((u >= right) & (u <= left)).all())


@examples
@given(seed=seeds)
def test_heat_between_insulator_and_heater_solves_its_equation(seed: int) -> None:
    s = Sample(seed)
    omega, k, heater = s.uniform(2.01, 3.99, 1), 0.01, 5.0
    u = exact.heat_insulator(s.t, s.x, omega)
    u_t, u_xx = derivative(u, s.t), derivative(derivative(u, s.x), s.x)
    source = heater * PI * 0.5 * s.x**2 * torch.cos(PI * s.t)
    assert close_to_zero(u_t - k * u_xx - source, u_t, source)


@examples
@given(seed=seeds)
def test_heat_between_insulator_and_heater_has_the_stated_gradients(seed: int) -> None:
    s = Sample(seed)
    omega = s.uniform(2.01, 3.99, 1)
    for end, expected in zip(ENDS, (0.0 * s.t, exact.heater_gradient(s.t)), strict=True):
        x = torch.full_like(s.x, end, requires_grad=True)
        u = exact.heat_insulator(s.t, x, omega)
        assert close_to_zero(derivative(u, x) - expected, expected)


@settings(deadline=None, max_examples=5)
@given(seed=seeds)
def test_heat_between_insulator_and_heater_starts_from_the_initial_field(seed: int) -> None:
    s = Sample(seed)
    omega, t, k = s.uniform(2.01, 3.99, 1), 1e-4, 0.01
    x = s.x.detach()
    u = exact.heat_insulator(t, x, omega)
    # Inside, |u_t| ≤ k(ωπ)² + Uπ/2; the gradient ωπ sin ωπ and U sin πt that do not fit at x = 1 reach √(4kt/π) far.
    bound = t * (k * (4 * PI) ** 2 + 2.5 * PI) + (4 * PI + 5 * PI * t) * (4 * k * t / PI) ** 0.5
    assert float((u - torch.cos(omega * PI * x)).abs().max()) <= bound


def test_cosine_coefficients_are_those_of_the_initial_field() -> None:
    """The late field's cosine modes against ∫ cos(ωπx) cos(nπx) dx by Gauss's rule, 60 nodes: exact to round-off."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    x, w = 0.5 * (torch.from_numpy(nodes) + 1), 0.5 * torch.from_numpy(weights)
    t, k, omega = 0.4, 0.01, torch.tensor([[2.01], [2.7], [3.0], [3.99]], dtype=torch.float64)
    decaying = exact.heat_insulator(t, x, omega, k, heater=0.0)
    for n in range(5):
        mode = torch.cos(n * PI * x)
        expected = (torch.cos(omega * PI * x) * mode * w).sum(-1) * np.exp(-k * (n * PI) ** 2 * t)
        torch.testing.assert_close((decaying * mode * w).sum(-1), expected, rtol=0, atol=1e-14)


@examples
@given(seed=seeds, m=st.integers(1, 4), n=st.integers(1, 4))
def test_waves_solve_their_equation_with_walls_at_rest(seed: int, m: int, n: int) -> None:
    s = Sample(seed)
    amplitudes, speed = s.uniform(-1.0, 1.0, 1, m, n), 1.3
    u = exact.wave(s.t, s.x, s.y, amplitudes, speed) + 0 * (s.t + s.x + s.y)
    u_tt, u_xx, u_yy = (derivative(derivative(u, of) + 0 * of, of) for of in (s.t, s.x, s.y))
    assert close_to_zero(u_tt - speed**2 * (u_xx + u_yy), u_tt, u_xx)
    for end in ENDS:
        wall = torch.full_like(s.x, end, requires_grad=True)
        for at_wall in ((wall, s.y), (s.x, wall)):
            u = exact.wave(s.t, *at_wall, amplitudes) + 0 * wall
            assert close_to_zero(derivative(u, wall))
    torch.testing.assert_close(
        exact.wave(0.0, s.x, s.y, amplitudes),
        torch.einsum(
            "mn,pm,pn->p",
            amplitudes[0],
            torch.cos(PI * s.x[:, None] * torch.arange(m)),
            torch.cos(PI * s.y[:, None] * torch.arange(n)),
        ),
    )


@pytest.mark.parametrize("field", [exact.heat_dirichlet, exact.heat_neumann])
@examples
@given(seed=seeds)
def test_heat_with_independent_data_solves_its_equation(field, seed: int) -> None:
    s = Sample(seed)
    u = field(s.t, s.x, s.coefficients(), s.side(), s.side(), K)
    u_t, u_xx = derivative(u, s.t), derivative(derivative(u, s.x), s.x)
    assert close_to_zero(u_t - K * u_xx, u_t)


@examples
@given(seed=seeds)
def test_heat_with_independent_data_takes_them_at_the_ends(seed: int) -> None:
    s = Sample(seed)
    initial, sides = s.coefficients(), (s.side(), s.side())
    for end, side in zip(ENDS, sides, strict=True):
        value = exact.heat_dirichlet(s.t, end, initial, *sides, K)
        torch.testing.assert_close(value, side.at(s.t), rtol=0, atol=1e-11)
        x = torch.full_like(s.x, end, requires_grad=True)
        u = exact.heat_neumann(s.t, x, initial, *sides, K)
        torch.testing.assert_close(derivative(u, x), side.at(s.t), rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=5)
@given(seed=seeds)
def test_heat_with_independent_data_starts_from_the_initial_field(seed: int) -> None:
    s = Sample(seed)
    initial, sides, t = s.coefficients(), (s.side(), s.side()), 1e-4
    x = s.uniform(0.05, 0.95, 7)
    # Data reach the inside through erfc(x/2√kt) ≤ e^{−x²/4kt} = e^{−300}; the initial field moves by t·k(6π)²·6.
    moved = t * K * (6 * PI) ** 2 * 6 + 1e-12
    late = exact.heat_dirichlet(t, x, initial, *sides, K)
    assert float((late - exact.sine_series(x, initial)).abs().max()) <= moved
    late = exact.heat_neumann(t, x, initial, *sides, K)
    assert float((late - exact.cosine_series(x, initial)).abs().max()) <= moved


def test_more_terms_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    s = Sample(5)
    arguments = (s.t.detach(), s.x.detach(), s.coefficients(), s.side(), s.side(), K)
    few = [field(*arguments) for field in (exact.heat_dirichlet, exact.heat_neumann)]
    monkeypatch.setattr(exact, "_EXPONENT", 300.0)
    many = [field(*arguments) for field in (exact.heat_dirichlet, exact.heat_neumann)]
    for a, b in zip(few, many, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


@examples
@given(seed=seeds, batch=st.integers(1, 3), times=st.integers(1, 3), positions=st.integers(1, 4))
def test_batches_are_samples_side_by_side(seed: int, batch: int, times: int, positions: int) -> None:
    s = Sample(seed)
    t, x = s.uniform(0.1, 1.0, times, 1), s.uniform(0.0, 1.0, positions)
    initial = s.uniform(-1.0, 1.0, batch, 1, 1, 4)
    amplitudes = torch.complex(s.uniform(-1.0, 1.0, batch, 1, 1, 2), s.uniform(-1.0, 1.0, batch, 1, 1, 2))
    frequencies = torch.tensor([0.0, 2.0], dtype=torch.float64)
    sides = Harmonics(amplitudes, frequencies), Harmonics(amplitudes.flip(0), frequencies)
    u = exact.heat_dirichlet(t, x, initial, *sides, K)
    assert u.shape == (batch, times, positions)
    last = [Harmonics(side.amplitudes[-1], frequencies) for side in sides]
    alone = exact.heat_dirichlet(t, x, initial[-1], *last, K)
    torch.testing.assert_close(u[-1], alone, rtol=0, atol=1e-13)


def test_float32_arguments_are_computed_in_float64() -> None:
    x = torch.linspace(0, 1, 5)
    u = exact.heat_insulator(torch.tensor(0.5), x, torch.tensor(2.5))
    torch.testing.assert_close(u, exact.heat_insulator(0.5, x.double(), 2.5))
    assert u.dtype == torch.float64


SIDE, INITIAL = constant(0.0), torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("stokes", (1.0, 0.5, 3.0, -0.1), "viscosity of Stokes' problem must be above 0, got -0.1"),
        ("stokes", (1.0, 0.5, 3.0, 0.0), "viscosity of Stokes' problem must be above 0"),
        ("stokes", (1.0, 0.5, -3.0, 0.1), "frequency of Stokes' problem must be 0 or more, got -3"),
        ("stokes", (1.0, 0.5, torch.tensor([3.0, np.nan]), 0.1), "frequency of Stokes' problem .* got nan"),
        ("stokes", (np.inf, 0.5, 3.0, 0.1), "t of Stokes' problem must be finite, got inf"),
        ("burgers_wave", (0.0, 0.5, -0.2, 1.2, 0.02), "left − right of the Burgers wave must be 0 or more, got -1.4"),
        ("burgers_wave", (0.0, 0.5, torch.tensor([1.0, 0.0]), 0.5, 0.02), "left − right .* got -0.5"),
        ("burgers_wave", (0.0, 0.5, 1.0, 0.0, -0.02), "viscosity of the Burgers wave must be above 0, got -0.02"),
        ("burgers_wave", (0.0, 0.5, 1.0, 0.0, np.nan), "viscosity of the Burgers wave must be above 0, got nan"),
        ("heat_dirichlet", (0.0, 0.5, INITIAL, SIDE, SIDE, K), "at t = 0 take the initial field itself"),
        ("heat_neumann", (1e-9, 0.5, INITIAL, SIDE, SIDE, K), "more than 20000; choose later times"),
        ("Harmonics", (torch.ones(2, 3) + 0j, torch.zeros(2)), "one amplitude along the last axis for every frequency"),
    ],
)
def test_arguments_without_a_solution_are_refused(function: str, arguments: tuple, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        getattr(exact, function)(*arguments)
    assert exact.burgers_wave(1.0, 0.3, 0.7, 0.7, 0.02).item() == 0.7
