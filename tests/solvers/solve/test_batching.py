"""Groups of a batch: the very bits of the members, in their order; laws that cannot be cut stay whole."""

import numpy as np
import pytest
import torch

from solvers import (
    RKL2,
    SSPRK3,
    TRBDF2,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    Diffusion,
    Dirichlet,
    LeastCost,
    Logistic,
    Neumann,
    Periodic,
    PorousMedium,
    Robin,
    solve,
)
from solvers.errors import SolverDivergedError
from solvers.finite_volume import _groups
from tests.solvers.laws.users import Averaged, Plain

GRID = CellGrid(0.0, 1.0, 10)
SEED = torch.Generator().manual_seed(0)
FACTOR, VALUE = (0.5 + torch.rand(5, generator=SEED, dtype=torch.float64) for _ in range(2))
INITIAL = torch.rand((5, 10), generator=SEED, dtype=torch.float64)


@pytest.fixture
def groups(monkeypatch):
    """Groups of two rows of ten cells; lists the rows of every group that is integrated."""
    sizes = []

    def counted(operator, stepper, u, *rest):
        sizes.append(len(u))
        return drive(operator, stepper, u, *rest)

    drive = _groups.drive
    monkeypatch.setattr("solvers.finite_volume._groups._CELLS_PER_GROUP", 20)
    monkeypatch.setattr("solvers.finite_volume._groups.drive", counted)
    return sizes


def assert_equal(some, other):
    assert torch.equal(some.values, other.values)
    assert torch.equal(some.boundary_flux, other.boundary_flux)
    assert torch.equal(some.source_total, other.source_total)
    assert torch.equal(some.work.steps, other.work.steps)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["array", "function", "numpy"])
@pytest.mark.parametrize("law", [Diffusion(FACTOR), PorousMedium(FACTOR)])
def test_groups_equal_members(monkeypatch, groups, law, kind, threads):
    """Arrays, functions and a source per batch entry, in groups of two on some threads, against one group."""
    given = {"array": VALUE, "function": lambda t: VALUE * (1.0 + t), "numpy": VALUE.numpy()}[kind]
    case = law, GRID, (Dirichlet(given), Robin(1.0, FACTOR, 0.3)), INITIAL, [0.01, 0.02]
    options = {"source": Logistic(FACTOR)}
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    grouped = solve(*case, **options)
    assert sorted(groups) == [1, 2, 2]
    monkeypatch.setattr("solvers.finite_volume._groups._CELLS_PER_GROUP", 1000)
    assert_equal(grouped, solve(*case, **options))
    assert groups[3:] == [5]


@pytest.mark.long
def test_two_batch_axes_and_two_dimensions(groups):
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (4, 3))
    initial = torch.rand((3, 2, 4, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factor = np.array([[1.0], [2.0], [3.0]])
    boundary = [(Neumann(flux=torch.ones(3, 1, 1)), Dirichlet(0.0)), (Periodic(), Periodic())]
    result = solve(Diffusion(factor), grid, boundary, initial, [0.01])
    assert groups == [1] * 6
    assert result.values.shape == (3, 2, 1, 4, 3)
    for row in range(3):
        one = solve(Diffusion(float(factor[row, 0])), grid, boundary_of(boundary), initial[row, 1], [0.01])
        assert torch.equal(result.values[row, 1], one.values)


def boundary_of(boundary):
    """The same sides with the flux of one batch entry."""
    return [(Neumann(flux=1.0), boundary[0][1]), boundary[1]]


@pytest.mark.parametrize("law", [Averaged(FACTOR), pytest.param(Plain(FACTOR), marks=pytest.mark.long)])
def test_a_law_that_cannot_be_cut_stays_whole(groups, law):
    result = solve(law, GRID, (Dirichlet(0.0), Dirichlet(VALUE)), INITIAL, [0.01])
    assert groups == [5]
    factor = FACTOR.mean().expand(5) if isinstance(law, Averaged) else FACTOR
    shipped = solve(Diffusion(factor.clone()), GRID, (Dirichlet(0.0), Dirichlet(VALUE)), INITIAL, [0.01])
    assert torch.allclose(result.values, shipped.values, rtol=0, atol=1e-3)


@pytest.mark.long
def test_rows_with_other_steppers_come_back_in_their_order(groups):
    """Weak and strong diffusion take turns, so the groups of the two steppers interleave."""
    factor = torch.tensor([1e-4, 1e4, 1e-4, 1e4, 1e-4], dtype=torch.float64)
    grid, stepper = CellGrid(0.0, 1.0, 200), LeastCost()
    result = solve(Diffusion(factor), grid, (Dirichlet(VALUE), Dirichlet(0.0)), 0.0, [0.5], stepper=stepper)
    names = [type(result.work.steppers[k]).__name__ for k in result.work.choice]
    assert names == ["RKL2", "TRBDF2", "RKL2", "TRBDF2", "RKL2"]
    for row in range(5):
        walls = Dirichlet(float(VALUE[row])), Dirichlet(0.0)
        one = solve(Diffusion(float(factor[row])), grid, walls, 0.0, [0.5], stepper=stepper)
        assert torch.equal(result.values[row], one.values)
    assert len(groups) == 10


@pytest.mark.parametrize(
    ("law", "steppers"),
    [
        (Diffusion(torch.tensor([1e-4, 1e4], dtype=torch.float64)), [RKL2(1e-4), TRBDF2(1e-4)]),
        (Burgers(), [SSPRK3(courant=0.5, tolerance=1e-4)] * 2),
        (ConvectionDiffusion(Burgers(), Diffusion(1e-6)), [SSPRK3(courant=0.5, tolerance=1e-4)] * 2),
        (ConvectionDiffusion(Burgers(), Diffusion(1.0)), [TRBDF2(1e-4)] * 2),
    ],
)
def test_least_cost_gives_every_entry_a_stepper_with_stated_tolerances(law, steppers):
    """The entries' values are those of the stepper when it is passed for the whole batch, bit for bit."""
    grid = CellGrid(0.0, 1.0, 200)
    initial = 1.5 + torch.sin(2 * torch.pi * grid.points).expand(2, -1)
    chosen = solve(law, grid, (Periodic(), Periodic()), initial, [0.05], stepper=LeastCost())
    assert [chosen.work.steppers[k] for k in chosen.work.choice] == steppers
    for entry, stepper in enumerate(steppers):
        passed = solve(law, grid, (Periodic(), Periodic()), initial, [0.05], stepper=stepper)
        assert torch.equal(chosen.values[entry], passed.values[entry])


def test_errors_of_threads_come_through(monkeypatch, groups):  # noqa: ARG001 - cuts the batch into groups
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)

    def source(u, x, t):  # noqa: ARG001 - one signature
        return torch.where(t > 0.005, torch.nan, 1.0) + 0.0 * u

    with pytest.raises(SolverDivergedError, match="failed at time"):
        solve(Diffusion(FACTOR), GRID, (Dirichlet(VALUE), Dirichlet(0.0)), INITIAL, [0.01], source=source)
