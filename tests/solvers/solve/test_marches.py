"""Compiled steps by compiled laws and by laws in tensors."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from solvers import (
    RKL2,
    TRBDF2,
    CellGrid,
    Diffusion,
    Dirichlet,
    Neumann,
    Periodic,
    PorousMedium,
    Robin,
    Stefan,
    solve,
)

GRID = CellGrid(0.0, 1.0, 40)
TIMES = (0.003, 0.004, 0.05)
HALF = torch.tensor([0.8, 0.9, 1.0], dtype=torch.float64)


def wave(points):
    return 0.6 + 0.4 * torch.cos(2.0 * torch.pi * points) + 0.1 * torch.sin(6.0 * torch.pi * points)


def solved(law, sides, stepper, **options):
    initial = wave(GRID.points)
    return solve(law, GRID, sides, initial, TIMES, stepper=stepper(1e-4), **options)


def as_tensors(law):
    """The same law as a user's own, whose formulas are tensors."""
    kind = type(f"My{type(law).__name__}", (type(law),), {})
    return kind(*(getattr(law, field.name) for field in fields(law)))


CASES = {
    "whole power": (PorousMedium(3.0 * HALF.round()), (Dirichlet(1.0), Dirichlet(HALF))),
    "fluxes": (PorousMedium(2.5 * HALF), (Neumann(flux=0.3), Robin(1.0, 0.2, HALF))),
    "threshold": (Stefan(0.5), (Dirichlet(lambda t: 1.0 + t), Neumann(gradient=0.0))),
    "circle": (Diffusion(HALF), (Periodic(), Periodic())),
    "root": (PorousMedium(2.0), (Dirichlet(lambda t: (t / 0.1) ** (1.0 / 3.0)), Dirichlet(0.0))),
    "pulse": (Diffusion(1.0), (Dirichlet(lambda t: float(0.01 < t < 0.02)), Neumann(flux=0.0))),
}


@pytest.mark.parametrize("stepper", [TRBDF2, RKL2])
@pytest.mark.parametrize("name", CASES)
def test_laws_in_tensors_take_the_steps_of_compiled_ones(name, stepper):
    """The same steps, also where the data jump, and values to rounding.

    With a threshold, rounding decides in which step a cell passes it: initial data that differ by 1e-15 change the
    values by 2e-8.
    """
    law, sides = CASES[name]
    options = {"breakpoints": [0.01, 0.02]} if name == "pulse" else {}
    expected = solved(as_tensors(law), sides, stepper, **options)
    result = solved(law, sides, stepper, **options)
    assert torch.equal(result.work.steps, expected.work.steps)
    assert torch.equal(result.work.rejected, expected.work.rejected)
    rounding = 1e-7 if name == "threshold" else 1e-10
    if not torch.equal(result.work.evaluations, expected.work.evaluations):
        rounding = 1e-5  # RKL2 takes more stages where the bound of the radius is another
    assert torch.allclose(result.values, expected.values, rtol=0, atol=rounding)
    assert torch.allclose(result.boundary_flux, expected.boundary_flux, rtol=0, atol=rounding)
    assert result.imbalance.abs().max() < 1e-13


@pytest.mark.parametrize("stepper", [TRBDF2, RKL2])
def test_a_row_has_the_same_bits_in_any_company(stepper):
    """Eleven rows fill a tile of eight and refill its lanes; one row goes by itself."""
    exponent = torch.linspace(1.0, 3.5, 11, dtype=torch.float64)

    def inflow(factor):
        return Dirichlet(lambda t: 1.0 + factor * t * (1.0 - t))

    together = solved(PorousMedium(exponent), (inflow(exponent), Neumann(gradient=0.0)), stepper)
    for row in (0, 4, 10):
        one = exponent[row : row + 1]
        alone = solved(PorousMedium(one), (inflow(one), Neumann(gradient=0.0)), stepper)
        assert torch.equal(together.values[row], alone.values[0])
        assert torch.equal(together.boundary_flux[row], alone.boundary_flux[0])


@pytest.mark.parametrize("law", [PorousMedium(1.5), as_tensors(Diffusion(1.0))], ids=["compiled", "tensors"])
@pytest.mark.parametrize("stepper", [TRBDF2, RKL2])
def test_a_row_has_the_same_bits_where_data_of_another_jump(law, stepper):
    """Data of the first two rows are smooth; those of the third jump, without and with break points."""

    def inflow(rows):
        def value(t):
            wave = 0.5 + 0.2 * np.sin(90.0 * t)
            return torch.tensor([wave, 2.0 * wave, 0.2 + int(t / 0.006) % 2], dtype=torch.float64)[rows]

        return Dirichlet(value), Neumann(flux=HALF[rows])

    for options in ({}, {"breakpoints": [0.006 * k for k in range(1, 9)]}):
        together = solved(law, inflow([0, 1, 2]), stepper, **options)
        for row in range(3):
            alone = solved(law, inflow([row]), stepper, **options)
            assert torch.equal(together.values[row], alone.values[0])
            assert torch.equal(together.boundary_flux[row], alone.boundary_flux[0])


def test_laws_in_tensors_take_the_steps_of_compiled_ones_in_planes():
    grid, wall = CellGrid((0.0, 0.0), (1.0, 1.0), (9, 7)), (Neumann(flux=0.2), Dirichlet(0.5))
    initial = wave(grid.points[..., 0]) * grid.points[..., 1]
    law, case = PorousMedium(HALF), (grid, [wall, wall], initial, TIMES)
    result, expected = (solve(each, *case, stepper=RKL2()) for each in (law, as_tensors(law)))
    assert torch.equal(result.work.evaluations, expected.work.evaluations)
    assert torch.allclose(result.values, expected.values, rtol=0, atol=1e-12)


def test_single_precision_parameters_march():
    """The march is in float64; parameters rounded to float32 move the solution by their rounding."""
    exponent = torch.tensor(2.3, dtype=torch.float64)
    exact = solved(PorousMedium(exponent), (Dirichlet(1.0), Dirichlet(0.0)), TRBDF2)
    rounded = solved(PorousMedium(exponent.float()), (Dirichlet(1.0), Dirichlet(0.0)), TRBDF2)
    assert rounded.values.dtype == torch.float64
    assert 0.0 < (rounded.values - exact.values).abs().max() < 1e-6
