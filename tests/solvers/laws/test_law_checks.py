"""Checks of laws before they are solved: what contradicts itself is refused, with the method, the state and numbers."""

import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Advection, Burgers, CellGrid, ConvectiveLaw, Diffusion, DiffusiveLaw, Field, PorousMedium, Stefan
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws._law_checks import check_law
from solvers.finite_volume.laws._law_rows import LawRows
from solvers.finite_volume.laws.laws import Transport, align

LINE = CellGrid(0.0, 1.0, 100)
PLANE = CellGrid((0.0, 0.0), (1.0, 1.0), (3, 4))


def check(law, low=-1.0, high=1.0, batch=(), grid=LINE):
    check_law(LawRows.build(law, batch, grid), low, high)


def convective(f, speed, stationary=(), inflection=None, **methods):
    """A law from functions; ``methods`` are further methods of its class."""
    members = {
        "convective_flux": lambda _, u: f(u),
        "characteristic_speed": lambda _, u: speed(u),
        "stationary_points": lambda _: stationary,
        "inflection_points": lambda _: inflection,
        **methods,
    }
    return type("Mine", (ConvectiveLaw,), members)()


def diffusive(potential, conductivity, **methods):
    members = {
        "potential": lambda _, u: potential(u),
        "conductivity": lambda _, u: conductivity(u),
        **methods,
    }
    return type("Mine", (DiffusiveLaw,), members)()


def buckley_leverett(u):
    return u**2 / (u**2 + 0.5 * (1.0 - u) ** 2)


def buckley_leverett_speed(u):
    return u * (1.0 - u) / (u**2 + 0.5 * (1.0 - u) ** 2) ** 2


@pytest.mark.parametrize(
    ("law", "low", "high"),
    [
        (convective(lambda u: u**3, lambda u: 3 * u**2, (), (0.0,)), -1.0, 1.0),
        (convective(lambda u: u**3, lambda u: 3 * u**2, (0.0,), None), -1.0, 1.0),
        (convective(torch.sin, torch.cos, (-np.pi / 2, np.pi / 2), (0.0,)), -3.0, 3.0),
        (convective(torch.sin, torch.cos, None), -3.0, 3.0),
        (convective(buckley_leverett, buckley_leverett_speed, ()), 0.0, 1.0),
        (convective(lambda u: u.abs(), torch.sign, (0.0,)), -1.0, 1.0),
        (convective(lambda u: 0.0 * u, lambda u: 0.0 * u), -1.0, 1.0),
        (convective(lambda u: 293.0 * u, lambda u: 293.0 + 0.0 * u), 293.0, 293.0 + 1e-5),
        (diffusive(lambda u: u**4 / 4, lambda u: u**3), 0.0, 1.0),
        (diffusive(lambda u: 2.0 * u.clip(min=0.0) ** 1.5 / 3.0, lambda u: u.clip(min=0.0) ** 0.5), -1.0, 1.0),
        (diffusive(lambda u: (u - 0.3).clip(min=0.0), lambda u: (u > 0.3) + 0.0 * u), 0.0, 1.0),
        (diffusive(lambda u: u**2 * (0.5 - u / 3.0), lambda u: u * (1.0 - u)), 0.0, 1.0),
        (diffusive(torch.log, lambda u: 1.0 / u), 0.0, 0.0),
        (diffusive(lambda u: 1e-30 * u, lambda u: 1e-30 + 0.0 * u), 0.0, 1e30),
    ],
)
def test_laws_that_agree_with_themselves_pass(law, low, high):
    check(law, low, high)
    check(law, low, high, (3,), PLANE)


@dataclass(frozen=True)
class Heated(DiffusiveLaw):
    """A user's law k = c u for u ≥ 0; ``wrong`` falsifies the conductivity."""

    factor: object
    wrong: float = 1.0

    def potential(self, u):
        return align(self.factor, u) * u * u / 2.0

    def conductivity(self, u):
        return align(self.wrong, u) * align(self.factor, u) * u


class Table(DiffusiveLaw):
    """A law on 12 cells that knows its grid."""

    def __init__(self, wrong=1.0):
        self.cells = 1.0 + torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
        self.wrong = wrong

    def potential(self, u):
        return self.cells * u

    def conductivity(self, u):
        return self.wrong * self.cells + 0.0 * u


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([0.1, 0.5, 0.97, 1.03, 10.0, -1.0]), st.floats(1e-8, 1e8), st.integers(0, 2))
def test_a_wrong_factor_is_found_at_any_amplitude(wrong, amplitude, way):
    factor = [amplitude, torch.full((2,), amplitude), Field(torch.full((2, 3, 4), amplitude))][way]
    check(Heated(factor), 0.0, amplitude, (2,), PLANE)
    with pytest.raises(InvalidArgumentError, match=r"Heated.conductivity\(u\) must be the derivative of potential"):
        check(Heated(factor, wrong), 0.0, amplitude, (2,), PLANE)


def test_one_wrong_row_is_found():
    wrong = torch.ones(50, dtype=torch.float64)
    wrong[31] = 1.5
    with pytest.raises(InvalidArgumentError, match=r"at u = 0.99\d* it is 1.48\d*, but the derivative is 0.99"):
        check(Heated(1.0, wrong), 0.0, 1.0, (50,))


def test_laws_on_the_cells_of_the_grid_are_checked_there():
    check(Table(), 0.0, 1.0, (2,), PLANE)
    with pytest.raises(InvalidArgumentError, match="must be the derivative"):
        check(Table(2.0), 0.0, 1.0, (2,), PLANE)


class Turning(ConvectiveLaw):
    """A law f = c u² on 12 cells that knows its grid and does not state where f′ changes sign."""

    def convective_flux(self, u):
        return Table().cells * u * u

    def characteristic_speed(self, u):
        return 2.0 * Table().cells * u

    def stationary_points(self):
        return ()


@pytest.mark.parametrize("low", [-1.0, -0.1, -3.0])
def test_missing_points_are_found_on_the_cells_of_the_grid(low):
    with pytest.raises(InvalidArgumentError, match=r"changes sign between u = -0.0\d+ and 0.0\d+"):
        check(Turning(), low, 1.0, (2,), PLANE)


def half(u):
    return 0.5 * u * u


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (
            convective(half, lambda u: 0.1 * u, (0.0,)),
            r"characteristic_speed\(u\) must be the derivative of convective",
        ),
        (convective(lambda u: u, lambda u: u), r"at u = -0.988246 it is -0.988246, but the derivative is 1\."),
        (convective(half, lambda u: -u, (0.0,)), "must be the derivative"),
        (
            convective(half, lambda u: u, ()),
            r"stationary_points\(\) returns \(\), but f′ changes sign between u = -0.0",
        ),
        (convective(half, lambda u: u, (0.2,)), r"stationary_points\(\) returns \(0.2,\), but f′ changes sign"),
        (convective(half, lambda u: u, [0.0]), r"stationary_points\(\) must return a tuple of numbers"),
        (
            convective(lambda u: u**3, lambda u: 3 * u**2, (), ()),
            r"inflection_points\(\) returns \(\), but f″ changes sign between u = -0.0\d+ and 0.0\d+; .* samples f′",
        ),
        (
            diffusive(lambda u: -u, lambda u: -1.0 + 0.0 * u),
            r"potential\(u\) must not decrease: it is 0.98\d* at u =",
        ),
        (diffusive(half, lambda u: u), r"must not decrease: .* with conductivity -0.98"),
        (diffusive(lambda u: u - (u > 0.5).double(), torch.ones_like), "must not decrease: it is 0.4"),
        (diffusive(torch.log, lambda u: 1.0 / u), r"not finite at u = -0.98\d*, a state between"),
        (diffusive(lambda u: u, lambda u: 1.0), r"Mine.conductivity\(u\) must return .* got float"),  # noqa: ARG005
        (diffusive(lambda u: u, lambda u: torch.ones(1)), r"got shape \(1,\) for u of shape \(100,\)"),  # noqa: ARG005
        (diffusive(lambda u: u.sum(), torch.ones_like), r"Mine.potential\(u\) .* got shape \(\) for u"),
        (diffusive(lambda u: u.float(), torch.ones_like), "keep the precision of u, torch.float64, got torch.float32"),
        (
            diffusive(lambda u: torch.ones(1, dtype=torch.float64, requires_grad=True) * u, torch.ones_like),
            "requires a gradient, which does not flow through solve",
        ),
    ],
)
def test_laws_that_contradict_themselves(law, message):
    with pytest.raises(InvalidArgumentError, match=message):
        check(law)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("source", "a source is an argument of solve"),
        ("sources", "a source is an argument of solve"),
        ("velocity", r"a velocity per axis is a law, Transport\(velocity\)"),
        ("flux_x", r"a velocity per axis is a law, Transport\(velocity\)"),
        ("stationary_point", "did you mean stationary_points"),
        ("inflexion_points", "did you mean inflection_points"),
        ("conductivity", "convection and diffusion together are ConvectionDiffusion"),
        ("flux", "solve takes the flux from convective_flux and characteristic_speed"),
    ],
)
def test_methods_that_solve_would_not_call(name, message):
    law = convective(half, lambda u: u, (0.0,), **{name: lambda _, u: u})
    with pytest.raises(InvalidArgumentError, match=rf"Mine.{name}.*{message}"):
        check(law)


def test_helpers_of_the_formulas_are_allowed():
    law = convective(half, lambda u: u, (0.0,), mobility=lambda _, u: u, _source=lambda _, u: u)
    check(law)


def test_a_law_is_of_one_kind():
    members = {name: lambda _, u: u for name in ("potential", "conductivity", "convective_flux")}
    members["characteristic_speed"] = members["potential"]
    with pytest.raises(InvalidArgumentError, match="derives from both kinds of laws; convection and diffusion"):
        check(type("Both", (DiffusiveLaw, ConvectiveLaw), members)())


@pytest.mark.parametrize(
    "build", [Diffusion, PorousMedium, Advection, lambda p: Stefan(0.5, p), lambda p: Transport((p,))]
)
def test_parameters_that_require_a_gradient_are_refused(build):
    law = build(torch.tensor(1.0, requires_grad=True))
    with pytest.raises(InvalidArgumentError, match=r"requires a gradient, .* pass a detached tensor"):
        check(law)


def test_the_check_of_a_shipped_law_costs_nothing():
    """Best of five, 1 ms: some twenty times what it takes."""
    rows = LawRows.build(PorousMedium(torch.ones(64)), (64,), LINE)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        check_law(rows, 0.0, 1.0)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1e-3
    check(Burgers())
