"""Orders of accuracy of every term of u_t + ∇·(v u) = ∇·(k ∇u) + s: manufactured and exact solutions."""

import math

import numpy as np
import pytest
import torch

from solvers import (
    RKL2,
    SSPRK3,
    TRBDF2,
    Advection,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    Diffusion,
    Dirichlet,
    Field,
    Logistic,
    Neumann,
    Periodic,
    Robin,
    solve,
)
from solvers.finite_volume.diffusion.face_means import ArithmeticMean, HarmonicMean
from solvers.finite_volume.laws.coefficients import FaceVelocity
from solvers.finite_volume.laws.laws import Transport
from tests.solvers.laws.users import Traffic
from tests.solvers.terms.manufactured import (
    AMPLITUDE,
    SIZES,
    Bent,
    Case,
    along,
    assert_order,
    conductivity,
    errors_of,
    velocities,
    velocity,
)

FINE = {1: (20, 40, 80), 2: (16, 32, 64)}
HEAT = Case(diffuses=True)
WARMING = Case(diffuses=True, varies_in_time=True)
BENT = Case(diffuses=True, bends=0.2, varies_in_time=True)
WIND = Case(transports=True)
GUSTS = Case(transports=True, varies_in_time=True)
FRONTS = Case(steepens=True, diffuses=True)
ALL = Case(transports=True, diffuses=True, bends=0.2, varies_in_time=True)


@pytest.mark.parametrize("sides", ["dirichlet", pytest.param("gradient", marks=pytest.mark.long), "robin"])
@pytest.mark.parametrize("stepper", [TRBDF2, pytest.param(RKL2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", [HEAT, WARMING], ids=["k(x)", "k(x, t)"])
def test_variable_conductivity_is_of_second_order(case, stepper, sides):
    assert_order(errors_of(case, 1, stepper, sides), 2.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "stepper", "sides"),
    [(HEAT, TRBDF2, "robin"), (HEAT, RKL2, "gradient"), (WARMING, TRBDF2, "gradient"), (BENT, TRBDF2, "dirichlet")],
)
def test_variable_conductivity_in_two_axes_is_of_second_order(case, stepper, sides):
    assert_order(errors_of(case, 2, stepper, sides), 2.0)


@pytest.mark.long
@pytest.mark.parametrize("stepper", [TRBDF2, RKL2])
def test_a_conductivity_of_u_x_and_t_is_of_second_order(stepper):
    assert_order(errors_of(BENT, 1, stepper), 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("case", [BENT, ALL], ids=["k(u, x, t)", "all at once"])
def test_gradients_on_the_sides_of_a_conductivity_of_u_are_of_first_order(case):
    """Φ closes the half cell at a side, so the flux there takes k at the quarter of the cell: k′(u) u_x h/4 off."""
    assert_order(errors_of(case, 1, TRBDF2, "robin"), 1.0)


@pytest.mark.parametrize(
    ("dimension", "stepper"),
    [(1, TRBDF2), (1, RKL2), (1, SSPRK3), pytest.param(2, TRBDF2, marks=pytest.mark.long), (2, RKL2)],
)
def test_a_conductivity_on_cells_is_of_second_order(dimension, stepper):
    """A ``Field`` (kernels), with one conductivity for both entries of the batch."""

    def law(grid):
        points = [along(grid.points, dimension, axis) for axis in range(dimension)]
        return Diffusion(Field(conductivity(points, torch.zeros(()))))

    sizes = (4, 8, 16) if stepper is SSPRK3 else SIZES[dimension][:3]
    assert_order(errors_of(HEAT, dimension, stepper, law=law, sizes=sizes), 2.0, slack=0.35)


@pytest.mark.long
@pytest.mark.parametrize("face_mean", [ArithmeticMean(), HarmonicMean()])
def test_other_face_means_are_of_second_order(face_mean):
    assert_order(errors_of(BENT, 1, TRBDF2, face_mean=face_mean), 2.0)


@pytest.mark.parametrize("dimension", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", [WIND, GUSTS], ids=["v(x)", "v(x, t)"])
def test_transport_by_a_velocity_field_is_of_second_order(case, dimension):
    """Inflow through the first sides."""
    assert_order(errors_of(case, dimension, SSPRK3, sizes=FINE[dimension]), 2.0, slack=0.35)


def test_a_speed_that_varies_in_space_is_of_second_order():
    speed = velocities(WIND, 1)
    assert_order(errors_of(WIND, 1, SSPRK3, law=lambda grid: Advection(speed)), 2.0, slack=0.35)  # noqa: ARG005


@pytest.mark.long
@pytest.mark.parametrize("dimension", [1, 2])
def test_velocities_on_faces_are_of_second_order(dimension):
    def law(grid):
        values = []
        for axis in range(dimension):
            axes = [grid.faces[k] if k == axis else points for k, points in enumerate(grid.axes)]
            values.append(velocity(torch.meshgrid(*axes, indexing="ij"), torch.zeros(()))[axis])
        return Transport(FaceVelocity(tuple(values)))

    assert_order(errors_of(WIND, dimension, SSPRK3, sizes=FINE[dimension], law=law), 2.0, slack=0.35)


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "sides"), [(FRONTS, "robin"), (ALL, "dirichlet")], ids=["burgers and k(x)", "all at once"]
)
@pytest.mark.parametrize("stepper", [TRBDF2, pytest.param(SSPRK3, marks=pytest.mark.slow)])
def test_convection_with_diffusion_is_of_second_order(case, stepper, sides):
    sizes = SIZES[1] if stepper is TRBDF2 else (4, 8, 16)
    assert_order(errors_of(case, 1, stepper, sides, sizes=sizes), 2.0, slack=0.35)


@pytest.mark.slow
def test_convection_with_diffusion_in_two_axes_is_of_second_order():
    assert_order(errors_of(ALL, 2, TRBDF2), 2.0, slack=0.35)


@pytest.mark.long
@pytest.mark.parametrize("dimension", [1, 2])
def test_a_source_may_be_a_plain_function(dimension):
    sizes = SIZES[dimension][:2]
    errors = [errors_of(HEAT, dimension, TRBDF2, plain_source=plain, sizes=sizes) for plain in (False, True)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-12)


@pytest.mark.parametrize("stepper", [TRBDF2(1e-7), RKL2(1e-7), SSPRK3(0.9, 1e-7), None])
def test_the_front_of_fisher_kolmogorov_petrovsky_piskunov(stepper):
    """u = (1 + e^{√(r/6k) (x − ct)})⁻² with c = 5 √(k r/6) (Ablowitz and Zeppetella 1979): order 2, and its speed."""
    k, r, end = 0.5, 2.0, 2.0
    speed, errors = 5.0 * math.sqrt(k * r / 6.0), []

    def front(x, t):
        return (1.0 + np.exp(math.sqrt(r / (6.0 * k)) * (x - speed * t))) ** -2.0

    for n in (40, 80, 160):
        grid = CellGrid(-10.0, 20.0, n)
        sides = Dirichlet(lambda t: front(-10.0, t)), Dirichlet(lambda t: front(20.0, t))
        options = {} if stepper is None else {"stepper": stepper}
        start = front(grid.points.numpy(), 0.0)
        result = solve(Diffusion(k), grid, sides, start, [0.5 * end, end], source=Logistic(r), **options)
        errors.append(float(np.abs(result.values[1].numpy() - front(grid.points.numpy(), end)).mean()))
        assert float(result.imbalance.abs().max()) < 1e-12
    if stepper is not None:
        assert_order(errors, 2.0)
    assert float(result.total.diff()) == pytest.approx(0.5 * end * speed, rel=2e-3)


@pytest.mark.long
@pytest.mark.parametrize("stepper", [TRBDF2(1e-7), SSPRK3()])
def test_a_front_of_viscous_burgers_between_walls(stepper):
    """u = c − a tanh(a (x − ct)/2ν), a balance of steepening and diffusion: order 2."""
    viscosity, a, speed, errors = 0.05, 0.6, 0.8, []

    def front(x, t):
        return speed - a * np.tanh(a * (x - 0.3 - speed * t) / (2.0 * viscosity))

    for n in (40, 80, 160):
        grid = CellGrid(0.0, 1.0, n)
        sides = Dirichlet(lambda t: front(0.0, t)), Dirichlet(lambda t: front(1.0, t))
        options = {} if stepper is None else {"stepper": stepper}
        law = ConvectionDiffusion(Burgers(), Diffusion(viscosity))
        result = solve(law, grid, sides, front(grid.points.numpy(), 0.0), [0.5], **options)
        errors.append(float(np.abs(result.values[0].numpy() - front(grid.points.numpy(), 0.5)).mean()))
    assert_order(errors, 2.0, slack=0.35)


@pytest.mark.long
@pytest.mark.parametrize("law", ["transport", "both"])
@pytest.mark.parametrize("stepper", [TRBDF2(), SSPRK3()])
def test_a_velocity_without_divergence_keeps_a_constant(law, stepper):
    """Random stream functions per batch entry; walls in x, periodic in y; a two-phase conductivity."""
    if law == "transport" and isinstance(stepper, TRBDF2):
        return
    grid = CellGrid((0.0, 0.0), (1.0, 2.0), (8, 10))
    generator = torch.Generator().manual_seed(0)
    psi = torch.randn(3, 9, 11, generator=generator, dtype=torch.float64)
    psi[:, [0, -1]] = 0.0
    psi[..., -1] = psi[..., 0]
    wind = Transport(FaceVelocity.from_stream_function(psi, grid))
    k = Field(torch.where(torch.rand(8, 10, generator=generator, dtype=torch.float64) > 0.5, 1.0, 1e-3))
    sides = [(Neumann(flux=0.0), Neumann(flux=0.0)), (Periodic(), Periodic())]
    full = wind if law == "transport" else ConvectionDiffusion(wind, Diffusion(k))
    result = solve(full, grid, sides, 3.7, [0.02, 0.1], stepper=stepper)
    assert result.values.shape == (3, 2, 8, 10)
    assert float((result.values - 3.7).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("law", "sides"),
    [
        (ConvectionDiffusion(Advection(1.0), Bent(lambda x: 1.0 + x, 1.0)), "walls"),
        (ConvectionDiffusion(Traffic(), Diffusion(0.01)), "walls"),
        (Traffic(), "round"),
        (Diffusion(Field(torch.linspace(0.5, 2.0, 30))), "robin"),
    ],
)
@pytest.mark.parametrize("outputs", [1, 50])
def test_sources_are_in_the_account(law, sides, outputs):
    """total = initial total + inflow + source total to round-off at every output time."""
    grid = CellGrid(0.0, 1.0, 30)
    pairs = {
        "walls": (Dirichlet(lambda t: 0.5 + 0.3 * math.sin(20.0 * t)), Neumann(flux=0.1)),
        "round": (Periodic(), Periodic()),
        "robin": (Robin(AMPLITUDE, -1.0, 0.3), Robin(1.0, AMPLITUDE, 0.2)),
    }
    times = np.linspace(0.0, 0.1, outputs + 1)[1:]
    result = solve(
        law, grid, pairs[sides], lambda x: 0.3 + 0.2 * torch.sin(6.0 * x), times, source=Logistic(torch.ones(2))
    )
    assert float(result.source_total.abs().min()) > 0.0
    assert float(result.imbalance.abs().max()) < 1e-13


@pytest.mark.parametrize("stepper", [TRBDF2(), SSPRK3()])
def test_a_short_pulse_of_a_source_is_seen_between_its_break_points(stepper):
    """Without them the steps pass over it."""

    def pulse(u, x, t):  # noqa: ARG001 - the signature of sources
        return torch.exp(-(((t - 0.5031) / 1e-4) ** 2)) / (1e-4 * math.sqrt(math.pi)) + 0.0 * u

    law, sides = ConvectionDiffusion(Advection(1.0), Diffusion(0.1)), (Dirichlet(0.0), Dirichlet(1.0))
    options = {"source": pulse, "stepper": stepper, "breakpoints": (0.5027, 0.5035)}
    result = solve(law, CellGrid(0.0, 1.0, 10), sides, 0.0, [1.0], **options)
    assert float(result.source_total) == pytest.approx(1.0, rel=2e-3)
