"""Laws as functions of numbers: the results of built-in laws and laws in torch, and errors that name the function."""
# ruff: noqa: ARG005 - functions name what they depend on, or ignore it

import math
from dataclasses import dataclass

import numba
import numpy as np
import pytest
import torch

from solvers import (
    RKL2,
    TRBDF2,
    Advection,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    ConvectiveLaw,
    Diffusion,
    Dirichlet,
    Field,
    Logistic,
    Neumann,
    Outflow,
    Periodic,
    PorousMedium,
    Robin,
    Rusanov,
    ScalarLaw,
    Stefan,
    solve,
)
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.finite_volume.convection.schemes import Constant
from solvers.finite_volume.diffusion.face_means import ArithmeticMean
from solvers.finite_volume.laws.coefficients import Arguments, align
from solvers.finite_volume.laws.scalar import ScalarDiffusion

LINE = CellGrid(0.0, 1.0, 60)
PLANE = CellGrid((0.0, 0.0), (1.0, 1.0), (12, 10))
ENDS = (Dirichlet(1.0), Dirichlet(0.0))
BUMP = 0.2 + 0.6 * torch.exp(-40.0 * (LINE.points - 0.5) ** 2)
EXPONENTS = np.array([1.0, 2.0, 3.0])


def one(u):  # noqa: ARG001 - a function of the state
    return 1.0


def porous(u, m):
    return max(u, 0.0) ** m


def porous_potential(u, m):
    return max(u, 0.0) ** (m + 1.0) / (m + 1.0)


def cars(u, v):
    return v * u * (1.0 - u)


@dataclass(frozen=True)
class Traffic(ConvectiveLaw):
    speed: object

    def convective_flux(self, u):
        return align(self.speed, u) * u * (1.0 - u)

    def characteristic_speed(self, u):
        return align(self.speed, u) * (1.0 - 2.0 * u)

    def stationary_points(self):
        return (0.5,)


def same(law, other, *arguments, tolerance=1e-12, **options):
    """Asserts that two laws have the same solution, steps included; returns the first."""
    first, second = (solve(each, *arguments, **options) for each in (law, other))
    np.testing.assert_allclose(first.values, second.values, rtol=0.0, atol=tolerance)
    np.testing.assert_array_equal(first.work.steps, second.work.steps)
    assert float(first.imbalance.abs().max()) < 1e-14
    return first


@pytest.mark.parametrize("sides", [ENDS, (Robin(1.0, -0.1, 0.5), Neumann(flux=-0.1)), (Periodic(), Periodic())])
@pytest.mark.parametrize("potential", [None, porous_potential])
def test_a_porous_medium_is_the_built_in_one(sides, potential):
    law = ScalarLaw(conductivity=porous, potential=potential, parameters={"m": EXPONENTS})
    same(law, PorousMedium(EXPONENTS), LINE, sides, BUMP, [0.01, 0.1], stepper=TRBDF2())


def test_a_vectorised_power_and_a_potential_give_any_exponent():
    law = ScalarLaw(
        conductivity=lambda u, m: max(u, 0.0) ** m,
        potential=lambda u, m: max(u, 0.0) ** (m + 1.0) / (m + 1.0),
        parameters={"m": EXPONENTS + 0.5},
    )
    same(law, PorousMedium(EXPONENTS + 0.5), LINE, ENDS, 0.0, [0.1], stepper=TRBDF2())


def test_a_conductivity_that_jumps_needs_its_potential():
    law = ScalarLaw(conductivity=lambda u: 1.0 if u >= 0.4 else 0.0, potential=lambda u: max(u - 0.4, 0.0))
    first, second = (solve(each, LINE, ENDS, 0.0, [0.1], stepper=TRBDF2(1e-6)) for each in (law, Stefan(0.4)))
    np.testing.assert_allclose(first.values, second.values, atol=1e-5)  # the branch at a kink hangs on round-off


def test_a_row_alone_has_the_bits_of_the_batch():
    rows = torch.rand((11, 60), dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def law(m):
        return ScalarLaw(conductivity=porous, source=lambda u, x, m: m * u * (x - u), parameters={"m": m})

    exponents = np.linspace(1.0, 3.0, 11)
    batch = solve(law(exponents), LINE, ENDS, rows, [0.1])
    for k in (0, 9):
        alone = solve(law(exponents[k]), LINE, ENDS, rows[k], [0.1])
        assert torch.equal(batch.values[k], alone.values)


@pytest.mark.parametrize(
    "options", [{}, {"flux": Rusanov()}, {"reconstruction": Constant()}], ids=["godunov", "rusanov", "constant"]
)
def test_a_flux_is_that_of_a_law_in_torch(options):
    speeds = np.array([0.5, 1.5])
    law = ScalarLaw(flux=cars, stationary_points=(0.5,), parameters={"v": speeds})
    same(law, Traffic(speeds), LINE, (Dirichlet(0.2), Outflow()), BUMP, [0.3], tolerance=1e-10, **options)


def test_a_flux_may_depend_on_place_and_time():
    law = ScalarLaw(flux=lambda u, x, t: (1.0 + x) * math.exp(-t) * u, stationary_points=(), inflection_points=())
    linear = Advection(lambda x: 1.0 + x)
    slow = solve(law, LINE, (Dirichlet(0.2), Outflow()), BUMP, [1.0])
    # dτ = e^(−t) dt: the clock of the autonomous law runs to 1 − e^(−1)
    fast = solve(linear, LINE, (Dirichlet(0.2), Outflow()), BUMP, [1.0 - math.exp(-1.0)])
    np.testing.assert_allclose(slow.values, fast.values, atol=1e-3)


def test_all_terms_together_are_those_of_built_in_laws():
    law = ScalarLaw(
        flux=lambda u: 0.5 * u * u,
        stationary_points=(0.0,),
        inflection_points=(),
        conductivity=lambda u, x, t: 0.01 * (1.0 + x) * (1.0 + t),
        source=lambda u, r: r * u * (1.0 - u),
        parameters={"r": [1.0, 3.0]},
    )
    other = ConvectionDiffusion(Burgers(), Diffusion(lambda x, t: 0.01 * (1.0 + x) * (1.0 + t)))
    mine = solve(law, LINE, ENDS, BUMP, [0.3], stepper=TRBDF2(1e-6))
    theirs = solve(other, LINE, ENDS, BUMP, [0.3], stepper=TRBDF2(1e-6), source=Logistic(np.array([1.0, 3.0])))
    np.testing.assert_allclose(mine.values, theirs.values, atol=2e-5)  # harmonic means of k, and explicit sources
    np.testing.assert_allclose(mine.source_total, theirs.source_total, atol=2e-5)


def test_a_stiff_source_is_implicit():
    law = ScalarLaw(conductivity=lambda u: 0.01, source=lambda u, x, t: -1e4 * (u - math.sin(x + t)))

    def relaxed(u, x, t):
        return -1e4 * (u - torch.sin(x + t))

    mine = solve(law, LINE, ENDS, BUMP, [0.2], stepper=TRBDF2())
    theirs = solve(Diffusion(0.01), LINE, ENDS, BUMP, [0.2], stepper=TRBDF2(), source=relaxed)
    np.testing.assert_allclose(mine.values, theirs.values, atol=1e-9)
    assert int(mine.work.steps) < 120


def test_a_source_without_time_does_not_bound_the_steps():
    laws = [ScalarLaw(conductivity=one, source=source) for source in (lambda u: -u, lambda u, t: -u + 0.0 * t)]
    steps = [int(solve(law, LINE, ENDS, BUMP, [5.0], stepper=TRBDF2()).work.steps) for law in laws]
    assert steps[0] < 0.7 * steps[1]


@pytest.mark.parametrize("stepper", [TRBDF2(1e-6), RKL2(1e-6)])
def test_several_axes(stepper):
    law = ScalarLaw(conductivity=porous, source=lambda u, x: x[0] * x[1] - u, parameters={"m": 2.0})
    sides = ((Dirichlet(1.0), Neumann(0.0)), (Dirichlet(0.5), Robin(1.0, 1.0, 0.2)))
    mine = solve(law, PLANE, sides, 0.3, [0.1], stepper=stepper)
    theirs = solve(PorousMedium(2.0), PLANE, sides, 0.3, [0.1], stepper=stepper, source=lambda u, x, t: x.prod(-1) - u)
    np.testing.assert_allclose(mine.values, theirs.values, atol=1e-5)
    assert float(mine.imbalance.abs().max()) < 1e-14


def test_other_means_of_the_conductivity_take_its_derivative_by_differences():
    law = ScalarLaw(conductivity=lambda u, m: 0.1 + max(u, 0.0) ** m, parameters={"m": 2.0})

    class Shifted(PorousMedium):
        def potential(self, u):
            return super().potential(u) + 0.1 * u

        def conductivity(self, u):
            return super().conductivity(u) + 0.1

    same(law, Shifted(2.0), LINE, ENDS, BUMP, [0.1], tolerance=1e-9, stepper=TRBDF2(), face_mean=ArithmeticMean())


@pytest.mark.parametrize("degree", range(8))
def test_the_integral_of_a_conductivity_is_exact_to_degree_seven(degree):
    call = {"conductivity": (lambda u, m: u**m, ("m",))}
    values = torch.tensor(float(degree))
    part = ScalarDiffusion(call, Arguments(names=("m",), values=(values,), placed=False, timed=False))
    left, right = torch.rand((2, 50), dtype=torch.float64, generator=torch.Generator().manual_seed(degree))
    exact = (left ** (degree + 1) - right ** (degree + 1)) / (degree + 1)
    np.testing.assert_allclose(part.potential_difference(left, right), exact, atol=1e-15)


def raising(u):
    if u > 2.0:
        raise ValueError
    return u


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": abs}, "ScalarLaw needs conductivity or flux"),
        ({"flux": porous, "potential": porous}, "with potential its derivative, the conductivity"),
        ({"conductivity": abs}, "conductivity must be a Python function of numbers, got <built-in function abs>"),
        ({"conductivity": lambda: 1.0}, "conductivity must take the state and then any of x, t, got conductivity()"),
        (
            {"flux": lambda u, y: y},
            r"flux must take the state and then any of x, t, got flux\(u, y\); give other names",
        ),
        ({"conductivity": porous, "parameters": {"n": 2.0}}, r"any of x, t, n, got conductivity\(u, m\)"),
        ({"conductivity": lambda u: u, "parameters": {"m": 2.0}}, "no function takes m of parameters"),
        ({"conductivity": porous, "parameters": {"m": math.nan}}, "ScalarLaw: m is not finite"),
        ({"conductivity": porous, "parameters": {"m": Field(BUMP)}}, "ScalarLaw: m must be a number, an array"),
        ({"conductivity": lambda u, x: x, "parameters": {"x": 2.0}}, "names other than x and t, got x"),
        ({"conductivity": raising}, "conductivity raises an error or asserts, .* return math.nan there"),
    ],
)
def test_what_cannot_be_a_law_is_refused_when_it_is_made(given, message):
    with pytest.raises(InvalidArgumentError, match=message):
        ScalarLaw(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"conductivity": lambda u: (u, u)}, r"conductivity\(u\) must return one real number, got UniTuple"),
        ({"conductivity": lambda u: np.array([u])}, r"conductivity\(u\) must return one real number, got array"),
        ({"conductivity": one, "source": lambda u: 1j * u}, r"source\(u\) must return one real number, got complex"),
        ({"conductivity": lambda u, t: torch.sin(u)}, r"numba cannot compile conductivity\(u, t\) for numbers"),
        ({"conductivity": lambda u: math.log(u - 0.5)}, "conductivity is not finite at u = 0.005"),
        ({"conductivity": lambda u: u - 0.5}, "conductivity must not be negative, got -0.49.* at u = 0.005"),
        ({"conductivity": lambda u: 1.0 if u > 0.3 else 0.9}, "conductivity jumps at u = 0.3; give its integral"),
        ({"conductivity": lambda u, x: x if u > 0.3 else 2.0}, "conductivity jumps at u = 0.3; give its integral"),
        ({"conductivity": one, "potential": lambda u: 2.0 * u}, r"ScalarLaw.conductivity\(u\) must be the derivative"),
        ({"flux": lambda u: math.sqrt(u - 0.5)}, "flux is not finite at u = 0.005"),
        ({"flux": lambda u: u * u}, r"needs ScalarLaw.stationary_points, .* or pass flux=Rusanov\(\)"),
        ({"flux": lambda u: u * (1.0 - u), "stationary_points": ()}, "f′ changes sign between u = 0.49"),
        (
            {"conductivity": one, "source": lambda u: math.log(u)},
            "source.* must be finite, got -inf in cell 0",
        ),
        ({"conductivity": porous, "parameters": {"m": np.ones(60)}}, "for values on cells take x in the functions"),
    ],
)
def test_what_contradicts_itself_is_refused_before_the_first_step(given, message):
    sides = ENDS if "conductivity" in given else (Dirichlet(1.0), Outflow())
    with pytest.raises(InvalidArgumentError, match=message):
        solve(ScalarLaw(**given), LINE, sides, 0.0, [0.1])


def test_other_wrong_uses():
    with pytest.raises(InvalidArgumentError, match="source is given twice"):
        solve(ScalarLaw(conductivity=one, source=one), LINE, ENDS, 0.0, [0.1], source=Logistic(1.0))
    law = ScalarLaw(conductivity=porous, parameters={"m": np.ones(3)})
    with pytest.raises(InvalidArgumentError, match=r"ScalarLaw: m of shape \(3,\) must have as many axes as the batch"):
        solve(law, LINE, ENDS, torch.zeros(2, 3, 60), [0.1])
    with pytest.raises(InvalidArgumentError, match="parameters of ScalarLaw do not broadcast"):
        solve(law, LINE, ENDS, torch.zeros(2, 60), [0.1])
    with pytest.raises(SolverDivergedError, match=r"cannot be continued past time 0\.99"):
        solve(ScalarLaw(conductivity=one, source=lambda u: u * u), LINE, (Neumann(0.0),) * 2, 1.0, [2.0])


def test_a_function_that_is_compiled_already_is_taken():
    law = ScalarLaw(conductivity=numba.njit(lambda u: 1.0 + u))
    plain = ScalarLaw(conductivity=lambda u: 1.0 + u)
    assert torch.equal(*(solve(each, LINE, ENDS, 0.0, [0.1]).values for each in (law, plain)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_function_of_a_function_raises_gives_no_result():
    helper = numba.njit(raising)
    for given in ({"conductivity": lambda u: helper(5.0 * u)}, {"flux": lambda u: helper(5.0 * u)}):
        sides = ENDS if "conductivity" in given else (Dirichlet(1.0), Outflow())
        with pytest.raises(InvalidArgumentError, match=r"is not finite at u = 0\.4"):
            solve(ScalarLaw(stationary_points=(), **given), LINE, sides, 0.0, [0.1])
