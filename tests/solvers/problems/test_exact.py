"""Closed forms: the equation by autograd, totals by quadrature, jump conditions, initial and boundary values."""

import math
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings
from scipy.optimize import brentq

from solvers.conditions import Dirichlet, value_at
from solvers.errors import InvalidArgumentError
from solvers.grids import CellGrid
from solvers.problems import PROBLEMS, Problem, exact
from solvers.problems.conservation import ADVECTION, BURGERS, DIFFUSION, POROUS_MEDIUM, STEFAN

ALL = list(PROBLEMS.values())
WITH_FRONT = [problem for problem in ALL if problem.front is not None]
fractions = st.floats(0.02, 0.98)
# Closed forms of a few operations on numbers of order one, differentiated twice: some hundred roundings.
ROUND_OFF = 1e-11


def draw(problem: Problem, parameter: float, time: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameter and time (float64, with gradient) at fractions of the training range and of the duration."""
    low, high = problem.training_range
    t = torch.tensor(time * problem.final_time, dtype=torch.float64, requires_grad=True)
    return torch.tensor(low + parameter * (high - low), dtype=torch.float64), t


def number(tensor: torch.Tensor) -> float:
    return tensor.detach().item()


def gradient(output: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """Derivative, zero where the output is piecewise constant."""
    if not output.requires_grad:
        return torch.zeros_like(of)
    result = torch.autograd.grad(output.sum(), of, create_graph=True, allow_unused=True)[0]
    return torch.zeros_like(of) if result is None else result


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
@settings(deadline=None, max_examples=40)
@given(parameter=fractions, time=fractions, at=fractions)
def test_solution_satisfies_its_law_where_smooth(problem: Problem, parameter: float, time: float, at: float) -> None:
    p, t = draw(problem, parameter, time)
    low, high = problem.domain
    if problem.front is not None:  # the smooth part behind the front
        high = min(high, number(problem.front(t, p)))
    # 1/√t and u^{1/m − 1} blow up at the corner (0, 0) and at the front: stay 2 % away from both ends.
    x = torch.tensor(low + at * (high - low), dtype=torch.float64, requires_grad=True)
    u = problem.solution(t, x, p)
    u_x, u_t = gradient(u, x), gradient(u, t)
    flux_x = gradient(problem.law(p).flux(u, u_x), x)
    assert abs(u_t + flux_x) <= ROUND_OFF * (1 + abs(u_t))


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
@settings(deadline=None, max_examples=40)
@given(parameter=fractions, time=fractions, at=fractions)
def test_antiderivative_derives_to_the_solution(problem: Problem, parameter: float, time: float, at: float) -> None:
    p, t = draw(problem, parameter, time)
    low, high = problem.domain
    x = torch.tensor(low + at * (high - low), dtype=torch.float64, requires_grad=True)
    assert gradient(problem.antiderivative(t, x, p), x).item() == pytest.approx(
        problem.solution(t, x, p).item(), abs=ROUND_OFF
    )


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
@settings(deadline=None, max_examples=20)
@given(parameter=fractions, time=st.floats(0, 1))
def test_total_is_the_integral_of_the_solution(problem: Problem, parameter: float, time: float) -> None:
    p, t = draw(problem, parameter, time)
    grid = CellGrid(*problem.domain, 100_000)
    u = problem.solution(t, grid.points, p)
    # Midpoint rule: a jump within a cell costs at most half a cell times the jump; u^{1/m} and √t less than that.
    tolerance = grid.spacing[0] * number(u.abs().max() + 1)
    assert number(problem.total(t, p)) == pytest.approx(number((grid.weights * u).sum()), abs=tolerance)
    averages = problem.averages(t, CellGrid(*problem.domain, 17), p)
    assert number(problem.total(t, p)) == pytest.approx(
        number(averages.mean()) * (problem.domain[1] - problem.domain[0]), abs=ROUND_OFF
    )


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
@settings(deadline=None, max_examples=40)
@given(parameter=fractions, time=fractions)
def test_total_changes_by_the_boundary_fluxes(problem: Problem, parameter: float, time: float) -> None:
    p, t = draw(problem, parameter, time)
    if problem.front is not None:  # the total has a kink, so no rate, when a jump leaves the domain
        assume(abs(number(problem.front(t, p)) - problem.domain[1]) > ROUND_OFF)
    left, right = problem.boundary_flux(t, p)
    rate = gradient(problem.total(t, p), t)
    assert number(rate) == pytest.approx(number(left - right), rel=ROUND_OFF, abs=ROUND_OFF)


@pytest.mark.parametrize("problem", [STEFAN, ADVECTION, BURGERS], ids=lambda problem: problem.name)
@settings(deadline=None, max_examples=40)
@given(parameter=fractions, time=fractions)
def test_shock_speed_meets_rankine_hugoniot(problem: Problem, parameter: float, time: float) -> None:
    p, t = draw(problem, parameter, time)
    if problem is BURGERS and number(p * t) <= 1.0:
        return  # not broken yet
    assert problem.front is not None
    front = problem.front(t, p)
    speed = gradient(front, t)
    x = (front.detach() - 1e-12).requires_grad_()
    u = problem.solution(t, x, p)
    behind = problem.law(p).flux(u, gradient(u, x))
    ahead = problem.solution(t, front + 1e-12, p)
    assert number(ahead) == 0.0
    # A step of 1e-12 off the front moves smooth values by 1e-12 times their slope, at most about 1e2.
    assert number(speed * (u - ahead)) == pytest.approx(number(behind), rel=1e-9)


@pytest.mark.parametrize("problem", WITH_FRONT, ids=lambda problem: problem.name)
@settings(deadline=None, max_examples=40)
@given(parameter=fractions, time=fractions)
def test_front_is_where_the_field_passes_its_level(problem: Problem, parameter: float, time: float) -> None:
    p, t = draw(problem, parameter, time)
    assert problem.front is not None
    assert problem.front_level is not None
    front, level = number(problem.front(t, p)), number(problem.front_level(p))
    assert number(problem.solution(t, front - 1e-9, p)) > level
    assert number(problem.solution(t, front + 1e-9, p)) <= level


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
@settings(deadline=None, max_examples=20)
@given(parameter=fractions, time=fractions)
def test_solution_takes_its_dirichlet_values_and_keeps_its_bounds(
    problem: Problem, parameter: float, time: float
) -> None:
    p, t = draw(problem, parameter, time)
    for side, at in zip(problem.boundary(p), problem.domain, strict=True):
        if isinstance(side, Dirichlet):
            assert number(value_at(side.value, number(t))) == pytest.approx(
                number(problem.solution(t, at, p)), abs=ROUND_OFF
            )
    u = problem.solution(t, torch.linspace(*problem.domain, 501, dtype=torch.float64), p)
    assert problem.bounds is not None
    low, high = problem.bounds(p)
    assert bool(((u >= low) & (u <= high * (1 + 1e-15))).all())
    assert problem.monotone == bool((u.diff() <= 0).all())


def test_initial_fields() -> None:
    x = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    parameter = torch.tensor([[1.5], [3.0]], dtype=torch.float64)
    torch.testing.assert_close(exact.diffusion(0.0, x, parameter), torch.sin(x).expand(2, 3))
    assert not exact.porous_medium(0.0, x, parameter).any()
    assert not exact.stefan(0.0, x, 0.6).any()
    assert number(exact.stefan(0.0, 0.0, 0.6)) == 1.0
    assert exact.advection(0.0, x, parameter).tolist() == [[1.0, 1.0, 0.0]] * 2
    torch.testing.assert_close(exact.burgers(0.0, x - 1, parameter), -parameter * (x - 1))
    grid = CellGrid(0.0, 1.0, 4)
    assert ADVECTION.initial(grid, parameter[:, 0]).tolist() == [[1.0, 1.0, 0.0, 0.0]] * 2
    assert not STEFAN.initial(grid, 0.6).any()
    assert not POROUS_MEDIUM.initial(grid, parameter[:, 0]).any()
    assert DIFFUSION.initial(CellGrid(0.0, 2 * math.pi, 8), parameter[:, 0]).shape == (2, 8)


@settings(deadline=None, max_examples=60)
@given(logit=st.floats(-25.0, 25.0))
def test_stefan_similarity_against_bisection(logit: float) -> None:
    threshold = 1 / (1 + math.exp(-logit))

    def residual(z: float) -> float:
        return math.log(threshold * z * math.erf(z) * math.sqrt(math.pi)) + z * z - math.log1p(-threshold)

    assert number(exact.stefan_similarity(threshold)) == pytest.approx(
        brentq(residual, 1e-9, 10.0, xtol=1e-15, rtol=1e-14), rel=1e-12
    )


def test_float32_arguments_give_float64() -> None:
    for problem in ALL:
        p = torch.tensor(problem.test_parameters, dtype=torch.float32)
        u = problem.solution(torch.tensor(problem.test_time), torch.zeros(3, 1), p)
        assert u.dtype == torch.float64
        assert u.shape == (3, len(p))


def barenblatt_radius(t: float, exponent: float, constant: float, dimension: int = 2) -> float:
    """Radius √(C/κ) t^β of the support, β = 1/(dm + 2) and κ = βm/2."""
    beta = 1 / (dimension * exponent + 2)
    return math.sqrt(constant / (0.5 * beta * exponent)) * t**beta


@pytest.mark.parametrize("dimension", [1, 2, 3])
@settings(deadline=None, max_examples=30)
@given(exponent=st.floats(0.5, 5.0), constant=st.floats(0.5, 2.0), time=st.floats(0.5, 2.0), radius=fractions)
def test_barenblatt_satisfies_the_porous_medium_equation(
    dimension: int, exponent: float, constant: float, time: float, radius: float
) -> None:
    t = torch.tensor(time, dtype=torch.float64, requires_grad=True)
    direction = torch.arange(1.0, dimension + 1, dtype=torch.float64)
    direction = direction / direction.norm()
    edge = barenblatt_radius(time, exponent, constant, dimension)
    x = (direction * radius * edge).requires_grad_()
    u = exact.barenblatt(t, x, exponent, constant)
    flux = -(u**exponent) * gradient(u, x)
    divergence = sum(gradient(flux[axis], x)[axis] for axis in range(dimension))
    u_t = gradient(u, t)
    assert abs(u_t + divergence) <= 1e-10 * (1 + abs(u_t))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (exact.stefan_similarity, (torch.tensor([0.6, 0.0]),), "strictly between 0 and 1"),
        (exact.stefan_similarity, (1.0,), "strictly between 0 and 1"),
        (exact.stefan_similarity, (math.nan,), "strictly between 0 and 1"),
        (exact.porous_medium, (0.5, 0.2, -1.0), "exponent m of the porous medium must be above 0, got -1"),
        (exact.porous_medium_total, (0.5, 0.0), "exponent m"),
        (exact.porous_medium_boundary_flux, (0.5, torch.tensor([1.0, -2.0])), "exponent m .* got -2"),
        (exact.porous_medium_front, (0.5, math.nan), "exponent m .* got nan"),
        (PROBLEMS["advection"].total, (1.0, -1.0), "speed a of the advected step must be 0 or more, got -1"),
        (exact.advection, (1.0, 0.2, -1.0), "speed a"),
        (exact.advection_boundary_flux, (1.0, math.nan), "speed a"),
        (PROBLEMS["burgers_shock"].total, (0.0, -1.0), "slope a of Burgers' ramp must be 0 or more, got -1"),
        (exact.burgers, (0.0, 0.2, -1.0), "slope a"),
        (exact.burgers_antiderivative, (0.0, 0.2, -1.0), "slope a"),
        (exact.burgers_front, (0.0, -1.0), "slope a"),
        (exact.barenblatt, (0.1, torch.zeros(5), 2.0, 0.1), r"got \(5,\); for positions x on a line give x\[\.\.\."),
        (exact.barenblatt, (0.1, torch.zeros(2, 5), 2.0, 0.1), "with d = 1, 2 or 3 coordinates last"),
        (exact.barenblatt, (0.1, torch.tensor(0.5), 2.0, 0.1), "with d = 1, 2 or 3 coordinates last"),
        (exact.barenblatt, (0.0, torch.zeros(4, 1), 2.0, 0.1), "t of Barenblatt's solution must be above 0, got 0"),
        (exact.barenblatt, (0.1, torch.zeros(4, 1), 0.0, 0.1), "exponent m of Barenblatt's"),
        (exact.barenblatt, (0.1, torch.zeros(4, 1), 2.0, -0.1), "constant C of Barenblatt's"),
    ],
)
def test_parameters_without_a_solution_are_refused(
    function: Callable[..., torch.Tensor], arguments: tuple[float | torch.Tensor, ...], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        function(*arguments)


def test_barenblatt_on_a_line_has_a_value_for_every_position_and_keeps_its_mass() -> None:
    """With m = 2 the profile is half of an ellipse, whose area is π/2 C/√κ, κ = 1/4."""
    grid = CellGrid(-1.0, 1.0, 400)
    u = exact.barenblatt(torch.tensor([[0.1], [0.2]]), grid.points[:, None], 2.0, 0.1)
    mass = 0.5 * math.pi * 0.1 / 0.5
    assert (u.mean(-1) * 2).tolist() == pytest.approx([mass, mass], rel=1e-3)  # a root at the edge: O(h^1.5)


def test_barenblatt_vanishes_outside_its_support() -> None:
    radius = barenblatt_radius(1.0, 2.0, 1.0)
    points = torch.tensor([[radius + 1e-9, 0.0], [0.0, 2 * radius], [radius - 1e-6, 0.0]], dtype=torch.float64)
    assert (exact.barenblatt(1.0, points, 2.0, 1.0) > 0).tolist() == [False, False, True]
