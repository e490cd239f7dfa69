"""Groups of a batch: the same solutions as one by one, and laws that cannot be cut stay whole."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from solvers import TRBDF2, CellGrid, Diffusion, DiffusiveLaw, Dirichlet, Neumann, Periodic, Robin, solve
from solvers.finite_volume._batching import make_groups, run_groups

STEPPER = TRBDF2(float("inf"), largest_step=0.002)


@dataclass(frozen=True)
class Layered(DiffusiveLaw):
    """Conductivity by a table that happens to be as long as the batch: no parameter of the batch."""

    table: torch.Tensor

    def potential(self, u):
        return self.table.to(u.dtype).mean() * u

    def conductivity(self, u):
        return self.table.to(u.dtype).mean() + 0.0 * u


@dataclass(frozen=True)
class Checked(DiffusiveLaw):
    """A law that insists on four entries."""

    factor: torch.Tensor

    def __post_init__(self):
        if len(self.factor) != 4:
            raise ValueError("four entries, please")

    def potential(self, u):
        return self.factor[:, None] * u

    def conductivity(self, u):
        return self.factor[:, None] + 0.0 * u


@dataclass(frozen=True)
class Indexed(DiffusiveLaw):
    """A law whose formula asks for its fourth entry."""

    factor: torch.Tensor

    def potential(self, u):
        return self.factor[3] * u

    def conductivity(self, u):
        return self.factor[3] + 0.0 * u


class Plain(DiffusiveLaw):
    """A law that is no dataclass."""

    def __init__(self, factor):
        self.factor = factor

    def potential(self, u):
        return self.factor[:, None] * u

    def conductivity(self, u):
        return self.factor[:, None] + 0.0 * u


@pytest.mark.parametrize("kind", ["array", "function", "numpy"])
def test_groups_equal_members(monkeypatch, kind):
    """With groups of two rows; fixed steps, so the same to round-off (the linear law needs one Newton iteration)."""
    grid = CellGrid(0.0, 1.0, 10)
    generator = torch.Generator().manual_seed(0)
    factor = 0.5 + torch.rand(5, generator=generator, dtype=torch.float64)
    initial = torch.rand((5, 10), generator=generator, dtype=torch.float64)
    value = torch.rand(5, generator=generator, dtype=torch.float64)
    given = {"array": value, "function": lambda t: value * (1.0 + t), "numpy": value.numpy()}[kind]
    boundary = (Dirichlet(given), Robin(1.0, 0.5, 0.3))
    whole = solve(Diffusion(factor), grid, boundary, initial, [0.01, 0.02], stepper=STEPPER)
    monkeypatch.setattr("solvers.finite_volume._batching._CELLS_PER_GROUP", 20)
    assert len(make_groups(Diffusion(factor), (boundary,), initial, 1)) == 3
    grouped = solve(Diffusion(factor), grid, boundary, initial, [0.01, 0.02], stepper=STEPPER)
    assert torch.allclose(grouped.values, whole.values, rtol=1e-10)
    assert torch.allclose(grouped.boundary_flux, whole.boundary_flux, rtol=1e-9, atol=1e-12)


def test_two_batch_axes_and_two_dimensions(monkeypatch):
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (4, 3))
    factor = np.array([[1.0], [2.0], [3.0]])
    initial = torch.rand((3, 2, 4, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    boundary = [(Neumann(flux=torch.ones(3, 1, 1)), Dirichlet(0.0)), (Periodic(), Periodic())]
    whole = solve(Diffusion(factor), grid, boundary, initial, [0.01], stepper=STEPPER)
    monkeypatch.setattr("solvers.finite_volume._batching._CELLS_PER_GROUP", 24)
    grouped = solve(Diffusion(factor), grid, boundary, initial, [0.01], stepper=STEPPER)
    assert grouped.values.shape == (3, 2, 1, 4, 3)
    assert torch.allclose(grouped.values, whole.values, rtol=1e-10)


def test_a_law_that_cannot_be_cut_stays_whole(monkeypatch):
    monkeypatch.setattr("solvers.finite_volume._batching._CELLS_PER_GROUP", 20)
    initial = torch.rand((4, 10), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ends = ((Dirichlet(0.0), Dirichlet(0.0)),)
    table = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert len(make_groups(Layered(table), ends, initial, 1)) == 1
    assert len(make_groups(Plain(table.double()), ends, initial, 1)) == 1
    assert len(make_groups(Checked(table.double()), ends, initial, 1)) == 1
    assert len(make_groups(Indexed(table.double()), ends, initial, 1)) == 1
    assert len(make_groups(Diffusion(2.0), ends, initial, 1)) == 2
    result = solve(Plain(table.double()), CellGrid(0.0, 1.0, 10), ends[0], initial, [0.01])
    assert result.values.shape == (4, 1, 10)


def test_results_come_in_order_and_errors_come_through(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert run_groups(lambda group: group * 2, [1, 2, 3, 4]) == [2, 4, 6, 8]
    with pytest.raises(ZeroDivisionError):
        run_groups(lambda group: 1 // group, [1, 0, 2])
