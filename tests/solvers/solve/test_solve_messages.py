"""What ``solve`` and its arguments say about wrong uses: which argument, what it needs, what it got."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from solvers import (
    ESDIRK4,
    RKL2,
    SSPRK3,
    TRBDF2,
    Advection,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    ConvectiveLaw,
    Diffusion,
    DiffusiveLaw,
    Dirichlet,
    Field,
    LeastCost,
    Logistic,
    Neumann,
    NodeGrid,
    Outflow,
    Periodic,
    Robin,
    Rusanov,
    Source,
    Stefan,
    align,
    solve,
)
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.finite_volume.diffusion.face_means import IntegralMean
from solvers.finite_volume.laws.coefficients import FaceVelocity
from solvers.finite_volume.laws.laws import Transport

LINE = CellGrid(0.0, 1.0, 10)
PLANE = CellGrid((0.0, 0.0), (1.0, 1.0), (4, 5))
ENDS = (Dirichlet(1.0), Dirichlet(0.0))
ROUND = (Periodic(), Periodic())
LAW = Diffusion(1.0)
BOTH = ConvectionDiffusion(Burgers(), LAW)


@dataclass(frozen=True)
class Careless(DiffusiveLaw):
    """A user's law k = 2 whose conductivity is whatever one says."""

    constant: object

    def potential(self, u):
        return 2.0 * u

    def conductivity(self, u):  # noqa: ARG002 - the mistake under test
        return self.constant


@dataclass(frozen=True)
class Still(ConvectiveLaw):
    """A user's law f = 0 whose speed is a number."""

    def convective_flux(self, u):
        return 0.0 * u

    def characteristic_speed(self, u):  # noqa: ARG002 - the mistake under test
        return 0.0


class Clipping(DiffusiveLaw):
    """A law that changes the states it is given."""

    def potential(self, u):
        return 2.0 * u.clamp_(min=0.0)

    def conductivity(self, u):
        return 2.0 + 0.0 * u


def attempt(law=LAW, sides=ENDS, initial=0.0, times=(0.1,), grid=LINE, **options):
    """A call of ``solve`` to be made later."""
    return lambda: solve(law, grid, sides, initial, times, **options)


def refused(build, message):
    with pytest.raises(InvalidArgumentError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (attempt(object()), "law must derive from DiffusiveLaw or ConvectiveLaw, or be a ConvectionDiffusion"),
        (attempt(Diffusion), "ConvectionDiffusion or ScalarLaw, got Diffusion"),
        (attempt((Burgers(), LAW)), "ConvectionDiffusion or ScalarLaw, got tuple"),
        (attempt(grid=NodeGrid(0.0, 1.0, 5)), "grid must be a CellGrid"),
        (attempt(times=[1.0, 0.5]), "strictly increasing"),
        (attempt(times=[]), r"strictly increasing and not before start = 0, got \[\]"),
        (attempt(times="soon"), "times must be a number, an array or a tensor, got 'soon'"),
        (attempt(start=2.0), "not before start = 2"),
        (attempt(start=math.nan), "start must be a finite number, got nan"),
        (attempt(start=None), "start must be a finite number, got None"),
        (attempt(initial=torch.zeros(9)), r"broadcast to \(\*batch, \*space\) with space = \(10,\)"),
        (attempt(initial=math.nan), "initial is not finite"),
        (attempt(initial=torch.zeros(10, requires_grad=True)), r"initial requires a gradient"),
        (attempt(initial=lambda x: None), "initial must be a number, an array or a tensor, got None"),  # noqa: ARG005
        (attempt(Diffusion(torch.ones(3)), initial=torch.zeros(2, 10)), "parameters of Diffusion do not broadcast"),
        (
            attempt(sides=(Dirichlet(torch.ones(3)), Dirichlet(0.0)), initial=torch.zeros(2, 10)),
            "axes that do not broad",
        ),
        (attempt(sides=None), r"boundary must be a \(first, last\) pair"),
        (attempt(sides=(Dirichlet(0.0), Outflow())), "Outflow is for laws without diffusion"),
        (attempt(rtol=1e-6), r"takes no option rtol with Diffusion; .* stepper=TRBDF2\(tolerance\)\."),
        (attempt(method="BDF"), r"takes no option method .* stepper=TRBDF2\(tolerance\)\."),
        (attempt(sources=Logistic(1.0)), "takes no option sources with Diffusion; the options are .*, source, start"),
    ],
)
def test_law_grid_boundary_initial_and_times(build, message):
    refused(build, message)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (attempt(source=Logistic), r"source must be a Source, such as Logistic\(rate\), or a function of u, x and t"),
        (attempt(source=1.0), "source must be a Source, .* got 1.0"),
        (attempt(source=Diffusion(1.0)), "source must be a Source, .* got Diffusion"),
        (attempt(source=lambda u: u), r"source\(u, x, t\) failed for u of shape \(10,\), .* It raised TypeError"),
        (attempt(source=lambda u, x, t: 1.0), "must return a tensor of the shape of u, got float; .* return c"),  # noqa: ARG005
        (attempt(source=lambda u, x, t: np.sin(u.numpy())), "must return a tensor of the shape of u, got ndarray"),  # noqa: ARG005
        (attempt(source=lambda u, x, t: u.mul_(0.0)), "changes u in place; it must return a new tensor"),  # noqa: ARG005
        (attempt(source=lambda u, x, t: u if float(t) < 0.01 else u[:, :3]), r"source\(u, x, t\)"),  # noqa: ARG005
        (attempt(source=Logistic(torch.tensor(1.0, requires_grad=True))), "Logistic.* requires a gradient"),
        (attempt(source=Logistic(Field(torch.ones(9)))), r"Logistic.rate: a Field must have one value per cell"),
        (lambda: Logistic("fast"), r"Logistic: rate must be a number, an array \(\*batch,\), a Field or a function"),
        (attempt(breakpoints=[math.nan]), r"breakpoints must be finite times, got \[nan\]"),
        (attempt(breakpoints="noon"), "breakpoints must be finite times, got 'noon'"),
        (attempt(breakpoints=None), "breakpoints must be finite times, got None"),
    ],
)
def test_sources_and_breakpoints(build, message):
    refused(build, message)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            attempt(stepper="rkl2"),
            r"stepper must be a Stepper, such as TRBDF2\(\), .* SSPRK3\(\) or LeastCost\(\), got 'rkl2'",
        ),
        (attempt(stepper=LeastCost), "stepper must be a Stepper, .* got <class"),
        (attempt(stepper=RKL2), "stepper must be a Stepper, .* got <class"),
        (attempt(Burgers(), (Dirichlet(1.0), Outflow()), stepper=TRBDF2()), "TRBDF2 does not suit Burgers: .*SSPRK3"),
        (attempt(Burgers(), ROUND, stepper=RKL2()), "RKL2 does not suit Burgers: a convective law needs SSPRK3"),
        (attempt(BOTH, stepper=RKL2()), "does not suit ConvectionDiffusion: with convection take TRBDF2 or SSPRK3"),
        (lambda: SSPRK3(1.5), r"courant must be in \(0, 1\], got 1.5"),
        (lambda: SSPRK3("half"), r"courant must be in \(0, 1\], got 'half'"),
        (lambda: SSPRK3(math.nan), r"courant must be in \(0, 1\], got nan"),
        (lambda: TRBDF2(tolerance=0.0), "TRBDF2 needs numbers tolerance > 0, .* got 0.0, inf and 0.0"),
        (lambda: RKL2("small"), "RKL2 needs numbers tolerance > 0, .* got 'small'"),
        (lambda: TRBDF2(torch.tensor([1e-3, 1e-4])), "TRBDF2 needs numbers tolerance > 0"),
        (lambda: RKL2(atol=-1.0), "RKL2 needs .* atol ≥ 0, got 0.0001, inf and -1.0"),
        (lambda: SSPRK3(atol=math.nan), "SSPRK3 needs .* atol ≥ 0, got 0.0001, inf and nan"),
        (lambda: ESDIRK4(atol=None), "ESDIRK4 needs .* atol ≥ 0, got 0.0001, inf and None"),
        (lambda: ESDIRK4(largest_step=-1.0), "largest_step > 0 .* got 0.0001, -1.0 and 0.0"),
        (lambda: RKL2(largest_step=0), "largest_step > 0"),
        (lambda: SSPRK3(largest_step=math.nan), "largest_step > 0"),
        (attempt(face_mean="harmonic"), r"face_mean must be a FaceMean, such as IntegralMean\(\)"),
        (attempt(face_mean=None), "face_mean must be a FaceMean, .* got None"),
        (attempt(flux=Rusanov()), "no option flux with Diffusion"),
        (attempt(Burgers(), ROUND, face_mean=IntegralMean()), "no option face_mean with Burgers"),
        (
            attempt(Burgers(), ROUND, flux="godunov"),
            r"flux must be a NumericalFlux, such as Godunov\(\) .* got 'godunov'",
        ),
        (attempt(Burgers(), ROUND, reconstruction=None), r"reconstruction must be a Reconstruction, .* got None"),
    ],
)
def test_steppers_and_schemes(build, message):
    refused(build, message)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Field("thick"), "Field must be a number, an array or a tensor, got 'thick'"),
        (lambda: Field(lambda x: x), "Field must be a number, .* got <function"),
        (lambda: Field([[1.0, 2.0], [1.0]]), r"Field must be a number, .* got \[\[1.0, 2.0\], \[1.0\]\]"),
        (attempt(Diffusion(Field(torch.ones(9)))), r"one value per cell, .* space = \(10,\), got shape \(9,\)"),
        (
            attempt(Diffusion(Field(torch.ones(5, 4))), [ENDS, ENDS], grid=PLANE),
            r"space = \(4, 5\), got shape \(5, 4\)",
        ),
        (attempt(Diffusion(Field(torch.ones(3, 10))), initial=torch.zeros(2, 10)), "Diffusion do not broadcast"),
        (attempt(Diffusion(torch.ones(10))), r"values on cells use Diffusion\(Field\(values\)\) or a function"),
        (attempt(initial=Field(torch.ones(10))), "initial must be a number, an array or a tensor, got Field"),
        (attempt(sides=(Dirichlet(Field([1.0])), ENDS[1])), "first side must be a number, an array or a tensor"),
        (lambda: Diffusion("big"), "Diffusion: diffusivity must be a number, .* or a function of x, got 'big'"),
        (attempt(Diffusion(lambda x: x.nope)), r"Diffusion.diffusivity\(x\) must accept x .* It raised AttributeError"),
        (attempt(Diffusion(lambda x: None)), "Diffusion.diffusivity must be a number, .* got None"),  # noqa: ARG005
        (
            attempt(Diffusion(lambda x, t: 0.05 - t + 0.0 * x)),
            "diffusivity must be finite and above 0, got values from -",
        ),
        (
            attempt(Diffusion(lambda x, t: x if t > 1 else 1 + x), initial=torch.ones(2, 10)),
            "torch.where instead of if",
        ),
    ],
)
def test_coefficients(build, message):
    refused(build, message)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Transport([1.0, 2.0]), "velocity must be a tuple .* got list"),
        (lambda: Transport((1.0, "east")), "speed must be a number"),
        (lambda: Transport((Field(torch.ones(10)),)), r"velocity\[0\] must be a number or an array .* got Field"),
        (lambda: Transport((1.0, lambda x: x)), r"velocity\[1\] must be a number .* got function; give .* as a whole"),
        (attempt(Transport((1.0, 2.0)), ROUND), "velocity must have one entry per axis, 1, got 2"),
        (attempt(Transport(lambda x: None), [ROUND, ROUND], grid=PLANE), "Transport.velocity must be a number"),  # noqa: ARG005
        (attempt(Transport(lambda x: x[..., 0]), [ROUND, ROUND], grid=PLANE), "d = 2, got shape"),
        (
            attempt(Transport(lambda x: x), [ROUND, ROUND], grid=PLANE),
            "the same face, but the values differ by up to 1",
        ),
        (
            lambda: FaceVelocity(1.0),
            r"values must be a tuple .* got float; with one axis write FaceVelocity\(\(values,",
        ),
        (lambda: FaceVelocity(torch.ones(11)), "values must be a tuple with one array .* got Tensor"),
        (lambda: FaceVelocity(("east",)), "FaceVelocity must be a number, an array or a tensor, got 'east'"),
        (lambda: FaceVelocity((torch.full((3,), math.nan),)), "FaceVelocity is not finite"),
        (
            attempt(Transport(FaceVelocity((torch.ones(10),))), ROUND),
            r"faces of \(9,\) cells, but the grid has \(10,\)",
        ),
        (lambda: FaceVelocity.from_stream_function(torch.ones(3, 3), LINE), "needs a grid with two axes"),
        (
            lambda: ConvectionDiffusion(LAW, Burgers()),
            "convection must be an instance of a ConvectiveLaw, got Diffusion",
        ),
        (lambda: ConvectionDiffusion(Burgers, LAW), "convection must be an instance of a ConvectiveLaw, got <class"),
        (lambda: ConvectionDiffusion(Burgers(), 0.1), "diffusion must be an instance of a DiffusiveLaw, got 0.1"),
        (attempt(BOTH, (ENDS[0], Outflow())), "Outflow is for laws without diffusion"),
        (
            attempt(ConvectionDiffusion(Advection(torch.ones(3)), Diffusion(torch.ones(2)))),
            r"Diffusion do not broadcast with the batch shape \(3,\)",
        ),
        (attempt(Careless(torch.ones(3))), r"Careless do not broadcast .* shape by solvers\.align\(parameter, u\)"),
    ],
)
def test_velocities_and_convection_with_diffusion(build, message):
    refused(build, message)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Robin(torch.ones(2), torch.tensor([0.0, 1.0])), "finite a and b with b ≠ 0"),
        (lambda: Robin([1.0, 2.0], 1.0), "one number per batch entry, or for operators a function"),
        (lambda: Robin("1", 1.0), "takes numbers for a and b"),
        (lambda: Robin(np.array([1j]), 1.0), "Robin needs real a and b"),
        (attempt(sides=(Robin(lambda y: y, 1.0, 0.0), ENDS[1])), "only the value may be a function of time"),
        (attempt(sides=(Robin(torch.ones(3), 1.0, 0.0), ENDS[1]), initial=torch.zeros(2, 10)), "do not broadcast"),
        (attempt(sides=(Robin(torch.ones(2, requires_grad=True), 1.0, 0.0), ENDS[1])), "requires a gradient"),
        (attempt(sides=(Robin(20.0, 1.0, 0.0), ENDS[1])), r"a \+ b·c₀ = 0 .* change a or b, or the number of cells"),
        (attempt(sides=[(Robin(torch.ones(5), 1.0, 0.0), ENDS[1]), ENDS], grid=PLANE), "one number per batch entry"),
    ],
)
def test_robin_conditions_per_sample(build, message):
    refused(build, message)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (Careless(2.0), r"Careless.conductivity\(u\) must return a tensor of the shape of u, got float"),
        (Careless(torch.tensor(2.0)), r"Careless.conductivity\(u\) .* got a tensor without axes"),
        (Careless(torch.ones(1)), r"Careless.conductivity\(u\) .* got shape \(1,\) for u of shape \(10,\)"),
        (Still(), r"Still.characteristic_speed\(u\) must return a tensor of the shape of u, got float"),
        (Clipping(), r"Clipping.potential\(u\) changes u in place; it must return a new tensor"),
    ],
)
def test_a_law_of_ones_own_returns_a_value_for_every_state(law, message):
    refused(attempt(law), message)


@pytest.mark.parametrize("stepper", [RKL2(), TRBDF2(), SSPRK3(), ESDIRK4()])
def test_a_source_that_turns_infinite_is_an_error_not_a_result(stepper):
    def source(u, x, t):  # noqa: ARG001 - one signature
        return torch.where(t > 0.005, math.nan, 1.0) + 0.0 * u

    with pytest.raises(SolverDivergedError, match=r"row 0 failed at time 0\.00"):
        solve(Stefan(0.5), LINE, ENDS, 0.0, [0.01], source=source, stepper=stepper)


@dataclass(frozen=True)
class Decay(Source):
    rates: torch.Tensor
    placed: bool = False

    def __call__(self, u, x, t):  # noqa: ARG002
        return -(align(self.rates, u) if self.placed else self.rates) * u


def test_one_rate_per_function_is_not_read_along_the_cells():
    """As many functions as cells: without align the rates broadcast over the cells."""
    rates, initial, sides = torch.linspace(0.0, 2.0, 10).double(), torch.ones(10, 10).double(), (Neumann(0.0),) * 2
    with pytest.raises(InvalidArgumentError, match=r"Decay: the first function .* solvers\.align\(parameter, u\)"):
        solve(LAW, LINE, sides, initial, [0.1], source=Decay(rates))
    total = solve(LAW, LINE, sides, initial, [0.1], source=Decay(rates, placed=True)).total[:, 0]
    torch.testing.assert_close(total, torch.exp(-0.1 * rates), rtol=1e-3, atol=0.0)


def test_a_side_that_lets_in_more_the_more_there_is_warns():
    cooled = (Robin(1.0, -0.5, 0.0), Robin(1.0, 0.5, 0.0))
    solve(LAW, LINE, cooled, 1.0, [0.01])
    for sides, place in ((cooled[:1] * 2, "last"), (cooled[1:] * 2, "first")):
        with pytest.warns(UserWarning, match=f"axis 0, {place} side: .* may grow without bound"):
            solve(LAW, LINE, sides, 1.0, [0.01])


@pytest.mark.parametrize(
    ("law", "initial", "value"),
    [
        (Diffusion(torch.zeros(0)), 0.5, 0.0),
        (Diffusion(1.0), torch.zeros(2, 0, 10), 0.0),
        (Diffusion(1.0), 0.5, torch.zeros(0)),
    ],
)
def test_a_batch_without_entries_is_refused(law, initial, value):
    with pytest.raises(InvalidArgumentError, match=r"The batch \((2, 0|0,)\) .* has no entries; give at least one"):
        solve(law, CellGrid(0.0, 1.0, 10), (Dirichlet(value), Dirichlet(0.0)), initial, [0.1])


@pytest.mark.parametrize("stepper", [TRBDF2, ESDIRK4])
def test_the_largest_step_is_given_by_name(stepper: Callable[..., object]) -> None:
    """It was the second number in version 0.1."""
    with pytest.raises(TypeError, match="positional argument"):
        stepper(1e-4, 0.05)
