"""Steady variable-coefficient problems: closed forms, orders, a finite-element reference, invariants, messages."""

import importlib.util
from itertools import pairwise
from math import log, pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import CellGrid, Diffusion, Dirichlet, Neumann, NodeGrid, Outflow, Periodic, Robin, solve, solve_steady
from solvers.errors import InvalidArgumentError
from solvers.steady.linear import ConjugateGradients, Direct, Jacobi
from solvers.steady.solve import node_values

PYAMG = importlib.util.find_spec("pyamg") is not None
LINE = CellGrid(0.0, 1.0, 8)
DIRICHLET = (Dirichlet(0.0), Dirichlet(1.0))


def slopes(errors):
    return [log(a / b, 2) for a, b in pairwise(errors)]


def conductivity(x, y):
    return 1 + 0.5 * torch.sin(2 * x + y) + x


def exact(x, y):
    return torch.exp(x / 2) * torch.cos(2 * y) + x**2 * y


def gradient(x, y):
    return torch.stack(
        [torch.exp(x / 2) * torch.cos(2 * y) / 2 + 2 * x * y, -2 * torch.exp(x / 2) * torch.sin(2 * y) + x**2]
    )


def manufactured_source(points):
    """−∇·(k ∇u) by automatic differentiation of the flux written out by hand."""
    at = points.detach().clone().requires_grad_()
    flux = conductivity(*at.unbind(-1)) * gradient(*at.unbind(-1))
    parts = [torch.autograd.grad(flux[i].sum(), at, retain_graph=True)[0][..., i] for i in range(2)]
    return -(parts[0] + parts[1]).detach()


def mixed_sides(x, y, top, right):
    """Dirichlet and Robin along the first axis, a gradient and a flux along the second, at positions x and y."""
    one = torch.ones((), dtype=torch.float64)
    ux, uy = gradient(right * one, y)[0], gradient(x, top * one)[1]
    return [
        (Dirichlet(exact(0 * one, y)), Robin(2.0, 3.0, 2 * exact(right * one, y) + 3 * ux)),
        (Neumann(gradient=gradient(x, 0 * one)[1]), Neumann(flux=-conductivity(x, top * one) * uy)),
    ]


def manufactured(n, **options):
    grid = CellGrid((0.0, 0.0), (1.0, 2.0), (n, 3 * n // 2))
    sides = mixed_sides(*grid.axes, 2.0, 1.0)
    source = {"source": manufactured_source}
    return solve_steady(lambda p: conductivity(*p.unbind(-1)), grid, sides, **source, **options)


def test_smooth_conductivity_with_mixed_sides_is_second_order_in_values_fluxes_and_nodes():
    """Largest errors; the flux through faces across the first axis is compared at all faces, sides included."""
    errors = {"values": [], "flux": [], "nodes": []}
    for n in (12, 24, 48, 96):
        solution = manufactured(n)
        grid = solution.grid
        faces = torch.meshgrid(grid.faces[0], grid.axes[1], indexing="ij")
        nodes = NodeGrid(grid.low, grid.high, tuple(c + 1 for c in grid.count))
        at_nodes = node_values(solution, mixed_sides(*nodes.axes, 2.0, 1.0))
        errors["values"].append(float((solution.values - exact(*grid.points.unbind(-1))).abs().max()))
        errors["flux"].append(float((solution.fluxes[0] + conductivity(*faces) * gradient(*faces)[0]).abs().max()))
        errors["nodes"].append(float((at_nodes - exact(*nodes.points.unbind(-1))).abs().max()))
        assert torch.equal(at_nodes[0], exact(torch.zeros((), dtype=torch.float64), nodes.axes[1]))
    for name, values in errors.items():
        assert all(abs(slope - 2) < 0.2 for slope in slopes(values)), (name, values)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_periodic_axes_are_second_order(d):
    """u = Π cos(2πx_i + i), k = 1 + cos²(2πx₀)/2, all axes periodic: mean 0."""
    errors = []
    for n in (8, 16, 32):
        grid = CellGrid((0.0,) * d, (1.0,) * d, (n,) * d)
        points = grid.points.reshape(*grid.shape, d)
        waves = torch.cos(2 * pi * points + torch.arange(d, dtype=torch.float64))
        u, x = waves.prod(-1), 2 * pi * points[..., 0]
        k = 1 + torch.cos(x) ** 2 / 2
        rest = waves[..., 1:].prod(-1)
        slope = -torch.sin(x) * 2 * pi * rest
        source = pi * torch.sin(2 * x) * slope + k * d * (2 * pi) ** 2 * u
        # the sampled source has a mean of round-off only, since trigonometric sums vanish
        solution = solve_steady(k, grid, [(Periodic(), Periodic())] * d, source)
        errors.append(float((solution.values - u).abs().max()))
        assert abs(float(solution.values.mean())) < 1e-13
    assert all(abs(slope - 2) < 0.25 for slope in slopes(errors)), errors


def test_layers_in_one_axis_are_exact():
    """u(0)=1, u(1)=0, k by layers: the flux is 1/∫dx/k and u is piecewise linear, to round-off at cells and nodes."""
    k = torch.tensor([1.0, 1.0, 100.0, 100.0, 1e-3, 1e-3, 5.0, 5.0], dtype=torch.float64)
    solution = solve_steady(k, LINE, (Dirichlet(1.0), Dirichlet(0.0)))
    resistance = float((0.125 / k).sum())
    drop = torch.cat([torch.zeros(1, dtype=torch.float64), (0.125 / k).cumsum(0)]) / resistance
    torch.testing.assert_close(
        solution.fluxes[0], torch.full((9,), 1 / resistance, dtype=torch.float64), rtol=1e-11, atol=0
    )
    torch.testing.assert_close(node_values(solution), 1 - drop, rtol=0, atol=1e-13)


def test_robin_and_flux_in_one_axis_are_exact():
    """k u' = −q with q = 3 at the left, 2u + u' = 5 at the right, k = 2: u' = −3/2, u(1) = 13/4."""
    solution = solve_steady(2.0, LINE, (Neumann(flux=3.0), Robin(2.0, 1.0, 5.0)))
    torch.testing.assert_close(solution.values, 3.25 + 1.5 * (1 - LINE.points), rtol=1e-13, atol=0)
    assert float(solution.side_values[0][1]) == pytest.approx(3.25, rel=1e-13)


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("skfem") is None, reason="scikit-fem is not installed")
def test_two_phase_conductivity_against_finite_elements():
    """k = 20 in rectangles and 1 around them; quadratic elements of scikit-fem on a mesh that resolves the interfaces.

    u has singular corners of k, so both methods are below order 2 there; L2 norm and flux must still converge together.
    """
    blocks = np.ones((8, 8))
    blocks[1:4, 2:5] = blocks[5:7, 1:6] = blocks[2, 6:] = 20.0
    basis, u, flux = finite_elements(blocks, 64)
    differences, fluxes = [], []
    for n in (16, 32, 64):
        grid = CellGrid((0.0, 0.0), (1.0, 1.0), (n, n))
        k = torch.from_numpy(np.kron(blocks, np.ones((n // 8, n // 8))))
        sides = [(Dirichlet(1.0), Dirichlet(0.0)), (Neumann(gradient=0.0), Neumann(flux=0.0))]
        solution = solve_steady(k, grid, sides)
        reference = basis.interpolator(u)(grid.points.reshape(-1, 2).numpy().T).reshape(n, n)
        differences.append(float(np.sqrt(np.mean((solution.values.numpy() - reference) ** 2))))
        fluxes.append(float(solution.fluxes[0][0].mean()) / flux - 1)
    assert all(slope > 0.8 for slope in slopes(differences)), differences
    assert differences[2] < 1e-3
    assert abs(fluxes[2]) < 6e-3
    assert abs(fluxes[2]) < 0.3 * abs(fluxes[0])


def finite_elements(blocks, cells):
    """Basis, solution and flux of P2 elements on the unit square, u = 1 at x = 0, 0 at x = 1, no flux elsewhere."""
    import skfem
    from skfem.helpers import dot, grad

    mesh = skfem.MeshTri.init_tensor(*(np.linspace(0, 1, cells + 1),) * 2)
    basis = skfem.Basis(mesh, skfem.ElementTriP2())
    number = len(blocks)

    @skfem.BilinearForm
    def energy(u, v, w):
        i, j = (np.minimum((x * number).astype(int), number - 1) for x in w.x)
        return blocks[i, j] * dot(grad(u), grad(v))

    stiffness = energy.assemble(basis)
    left, right = (basis.get_dofs(lambda x, at=at: np.isclose(x[0], at)).flatten() for at in (0.0, 1.0))
    u = np.zeros(basis.N)
    u[left] = 1.0
    u = skfem.solve(*skfem.condense(stiffness, x=u, D=np.concatenate([left, right])))
    return basis, u, float(u @ (stiffness @ u))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(0, 10**6), st.floats(-8, 8), st.floats(-4, 4), st.booleans())
def test_balance_energy_and_maximum_principle(d, seed, decades, contrast, periodic):
    """Every cell balances, the dissipation is the work of the sides, and u stays between its Dirichlet values.

    k is two-phase with a ratio of up to 1e4; round-off is some n·contrast·eps of the largest flux.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = tuple(torch.randint(1, 7, (d,), generator=generator).tolist())
    grid = CellGrid((0.0,) * d, (1.0, 2.0, 0.5)[:d], counts)
    scale = 10.0**decades
    k = torch.where(torch.rand((2, *counts), generator=generator, dtype=torch.float64) < 0.5, 1.0, 10.0**contrast)
    ends = torch.randn((2, *counts[1:]), generator=generator, dtype=torch.float64)
    rest = (Periodic(), Periodic()) if periodic else (Neumann(gradient=0.0), Neumann(flux=0.0))
    solution = solve_steady(k * scale, grid, [(Dirichlet(ends[0]), Dirichlet(ends[1]))] + [rest] * (d - 1))
    u, largest = solution.values, float(solution.fluxes[0].abs().max())
    assert solution.imbalance.abs().max() <= 1e-11 * largest * grid.volume / grid.spacing[0] + 1e-300
    divergence = sum(f.diff(dim=a - d) / h for a, (f, h) in enumerate(zip(solution.fluxes, grid.spacing, strict=True)))
    fastest = max(float(f.abs().max()) / h for f, h in zip(solution.fluxes, grid.spacing, strict=True))
    assert divergence.abs().max() <= 1e-9 * fastest
    spread = float(ends.max() - ends.min()) + 1e-12
    assert ends.min() - 1e-10 * spread <= u.min()
    assert u.max() <= ends.max() + 1e-10 * spread
    nodes = node_values(solution)
    assert nodes.shape == (2, *(n + 1 for n in counts))
    if periodic and d > 1:
        torch.testing.assert_close(nodes.select(2, 0), nodes.select(2, -1), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3))
def test_batch_members_do_not_depend_on_each_other(seed, batch, d):
    generator = torch.Generator().manual_seed(seed)
    counts = (5, 4, 3)[:d]
    grid = CellGrid((0.0,) * d, (1.0,) * d, counts)
    k = torch.rand((batch, *counts), generator=generator, dtype=torch.float64) + 0.1
    s = torch.randn((batch, *counts), generator=generator, dtype=torch.float64)
    ends = torch.randn((batch, *(1,) * (d - 1)), generator=generator, dtype=torch.float64)
    sides = [(Dirichlet(0.0), Neumann(flux=ends))] + [(Neumann(flux=0.0), Robin(1.0, 2.0, 0.5))] * (d - 1)
    together = solve_steady(k, grid, sides, s)
    for i in range(batch):
        one = [(Dirichlet(0.0), Neumann(flux=ends[i])), *sides[1:]]
        assert torch.equal(solve_steady(k[i], grid, one, s[i]).values, together.values[i])


def test_one_matrix_serves_a_batch_of_sources():
    sources = torch.randn((3, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = solve_steady(lambda x: 1 + x, LINE, (Dirichlet(1.0), Dirichlet(2.0)), sources)
    for i in range(3):
        alone = solve_steady(lambda x: 1 + x, LINE, (Dirichlet(1.0), Dirichlet(2.0)), sources[i])
        torch.testing.assert_close(alone.values, together.values[i], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("solver", [Direct(), ConjugateGradients(preconditioner=Jacobi())])
def test_the_low_phase_is_as_accurate_as_the_high_one(solver):
    """u = 0 at the ends, s = k, k = 1 and 1e-10 in two halves: u = x(1 − x)/2, since u' = 0 at the interface.

    The scheme gives it with an excess of h²/8 everywhere, exactly.
    """
    grid = CellGrid(0.0, 1.0, 64)
    k = torch.where(grid.points < 0.5, 1.0, 1e-10).to(torch.float64)
    solution = solve_steady(k, grid, (Dirichlet(0.0), Dirichlet(0.0)), k, solver=solver)
    h, x = grid.spacing[0], grid.points
    torch.testing.assert_close(solution.values, x * (1 - x) / 2 + h**2 / 8, rtol=1e-9, atol=0)


@pytest.mark.parametrize("solver", [Direct(), ConjugateGradients(preconditioner=Jacobi())])
def test_fluxes_beside_a_layer_lose_digits_and_those_through_it_do_not(solver):
    """As ``solve_steady`` says: k = 1 and a cell of 1e-9, with the flux −1/∫dx/k through all faces."""
    k = torch.ones(9, dtype=torch.float64)
    k[4] = 1e-9
    solution = solve_steady(k, CellGrid(0.0, 1.0, 9), DIRICHLET, solver=solver)
    error = (1 + solution.fluxes[0] * (1 / k).mean()).abs()
    assert error[4:6].max() < 1e-14
    assert 1e-8 < error.max() < 1e-5
    torch.testing.assert_close(solution.values, ((1 / k).cumsum(0) - 0.5 / k) / (1 / k).sum(), rtol=0, atol=1e-14)


def test_a_constant_factor_or_shift_changes_nothing_else():
    k = lambda x: 1 + x  # noqa: E731
    high = (Dirichlet(1e6), Dirichlet(1e6 + 1))
    base = solve_steady(k, LINE, (Dirichlet(0.0), Dirichlet(1.0)), -3.0).values
    scaled = solve_steady(lambda x: 1e8 * k(x), LINE, high, -3e8).values
    torch.testing.assert_close(scaled - 1e6, base, rtol=0, atol=1e-9)


def test_fluxes_that_do_not_balance_are_refused_with_the_remedy():
    sides = (Neumann(flux=2.0), Neumann(flux=torch.tensor([2.0, 1.5])))
    with pytest.raises(InvalidArgumentError, match=r"sample \(1,\): inflow \+ ∫ s dx = 0.5") as info:
        solve_steady(1.0, LINE, sides)
    excess = float(str(info.value).split("Add ")[1].split(" ")[0])
    balanced = solve_steady(1.0, LINE, sides, torch.tensor([[0.0], [excess]]))
    assert balanced.imbalance.abs().max() < 1e-14
    assert balanced.values.mean(-1).abs().max() <= 2e-15  # a mean of 8 values up to one: 8 ε


def test_a_steady_solution_is_the_late_solution_of_solve_with_the_same_source():
    grid, sides = CellGrid(0.0, 1.0, 20), (Dirichlet(0.0), Robin(1.0, 0.5, 0.2))
    source = 3.0 * torch.cos(4.0 * grid.points) + 1.0
    late = solve(Diffusion(0.7), grid, sides, 0.0, [30.0], source=lambda u, *_: source + 0.0 * u)
    steady = solve_steady(0.7, grid, sides, source)
    torch.testing.assert_close(steady.values, late.values[0], rtol=0, atol=1e-6)
    assert steady.imbalance.abs() < 1e-12


def test_a_source_adds():
    """u = s x (1 − x)/2 between walls of 0 has an excess of s h²/8 in finite volumes."""
    zero, h = (Dirichlet(0.0), Dirichlet(0.0)), LINE.spacing[0]
    heated = solve_steady(1.0, LINE, zero, 2.0)
    x = LINE.points
    torch.testing.assert_close(heated.values, x * (1 - x) + h**2 / 4, rtol=1e-13, atol=0)


@pytest.mark.parametrize("rows", [3, 5])
def test_robin_coefficients_per_batch_entry_are_those_of_solve(rows):
    """Also where the side has as many faces as the batch entries, and where they alone make the batch."""
    grid = CellGrid((0.0, 0.0), (1.0, 2.0), (4, rows))
    a, b = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([0.5, 0.2, 1.0]).double()
    sides = [(Dirichlet(0.0), Robin(a, b.numpy(), 1.0)), (Periodic(), Periodic())]
    marched = solve(Diffusion(1.0), grid, sides, torch.zeros(3, 4, rows), [20.0]).values[:, 0]
    steady = solve_steady(1.0, grid, sides, torch.zeros(3, 4, rows)).values
    torch.testing.assert_close(steady, marched, rtol=0, atol=1e-6)
    for i in range(3):
        alone = [(Dirichlet(0.0), Robin(float(a[i]), float(b[i]), 1.0)), sides[1]]
        torch.testing.assert_close(solve_steady(1.0, grid, alone).values, steady[i], rtol=1e-12, atol=0)
    if rows != 3:
        torch.testing.assert_close(solve_steady(1.0, grid, sides).values, steady, rtol=1e-12, atol=0)


def test_robin_coefficients_along_a_side_need_the_batch_axes_of_other_data():
    grid = CellGrid((0.0, 0.0), (1.0, 2.0), (4, 3))
    b = torch.tensor([[0.5, 0.2, 1.0]]).double()
    sides = [(Dirichlet(0.0), Robin(1.0, b, 1.0)), (Neumann(flux=0.0), Neumann(flux=0.0))]
    solution = solve_steady(1.0, grid, sides, torch.zeros(2, 4, 3))
    gradient = -solution.fluxes[0][:, -1]
    torch.testing.assert_close(
        solution.side_values[0][1] + b * gradient, torch.ones(2, 3).double(), rtol=1e-12, atol=1e-12
    )
    other = [(Dirichlet(0.0), Robin(1.0, b.T, 1.0)), sides[1]]
    per_entry = [(Dirichlet(0.0), Robin(1.0, b[0], 1.0)), sides[1]]
    sources = torch.zeros(3, 4, 3)
    assert torch.equal(
        solve_steady(1.0, grid, other, sources).values, solve_steady(1.0, grid, per_entry, sources).values
    )
    for shape, source in (((3,), 0.0), ((1, 3), 0.0), ((3, 1), 0.0), ((3,), torch.zeros(2, 4, 3))):
        unclear = [(Dirichlet(0.0), Robin(1.0, b.reshape(shape), 1.0)), sides[1]]
        with pytest.raises(InvalidArgumentError, match=r"one number per batch entry, but shape .* might be meant for"):
            solve_steady(1.0, grid, unclear, source)
    with pytest.raises(InvalidArgumentError, match="do not broadcast"):
        solve_steady(1.0, grid, [(Dirichlet(0.0), Robin(1.0, torch.ones(4), 1.0)), sides[1]], sources)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.0, LINE, DIRICHLET), "conductivity must be positive"),
        ((float("nan"), LINE, DIRICHLET), "conductivity is not finite"),
        ((torch.ones(5), LINE, DIRICHLET), r"conductivity has shape \(5,\), which does not end in the cells \(8,\)"),
        ((torch.ones(8, requires_grad=True), LINE, DIRICHLET), "requires a gradient"),
        (("k", LINE, DIRICHLET), "conductivity must be a number"),
        ((1.0, LINE, DIRICHLET, torch.ones(7)), "source has shape"),
        ((1.0, LINE, DIRICHLET, float("inf")), "source is not finite"),
        ((1.0, NodeGrid(0.0, 1.0, 8), DIRICHLET), "grid must be a CellGrid"),
        ((1.0, LINE, (Dirichlet(0.0), Outflow())), "Outflow is for convective laws"),
        ((1.0, LINE, (Dirichlet(lambda t: t), Dirichlet(0.0))), "a steady problem has no time"),
        ((1.0, LINE, (Dirichlet(), Dirichlet(0.0))), "is missing"),
        ((1.0, LINE, (Robin(1.0, 1.0, 0.0), Dirichlet(0.0))), "needs a/b ≤ 0"),
        ((torch.ones(2, 8), LINE, DIRICHLET, torch.zeros(3, 8)), "do not broadcast"),
        (
            (1.0, CellGrid((0.0, 0.0), (1.0, 1.0), (4, 4)), [(Dirichlet(torch.zeros(3)), Dirichlet(0.0))] * 2),
            "with face",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        solve_steady(*arguments)


def test_node_values_refuse_other_conditions():
    solution = solve_steady(1.0, LINE, DIRICHLET)
    with pytest.raises(InvalidArgumentError, match="of the kind that was solved with, Dirichlet"):
        node_values(solution, (Neumann(gradient=0.0), Dirichlet(0.0)))
