"""Rollouts whose fields meet inequalities as well as the balance after every step."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from boon import BOON, Prescription, boundary_error
from probconserv import Bounded, Monotone, NonNegative, Rollout, condition, integral
from probconserv.errors import InfeasibleConstraintError, InvalidArgumentError
from probconserv.rollout import StepUpdate, with_errors
from solvers import CellGrid, Dirichlet, Neumann, NodeGrid
from tests.strategies import normal

GRID, TIMES = CellGrid(0.0, 1.0, 40), torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
PLUME = torch.exp(-((GRID.points - 0.3) / 0.05).square())[None, None].repeat(3, 1, 1)
PLUME = PLUME * torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64)[:, None, None]
CLOSED = [(0.0, 0.0)]


def gaining(u: Tensor) -> Tensor:
    """An operator that moves a plume and adds mass."""
    return 1.05 * u.roll(1, -1) + 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fields_are_the_nearest_that_meet_balance_and_bounds(dtype: torch.dtype):
    """As ``condition`` has it, in the metric of the update: every step restated."""
    variance = 0.1 + torch.rand(40, generator=torch.Generator().manual_seed(0)).double()
    for bounds in (NonNegative(), Bounded(0.0, 0.9)):
        for update in (None, StepUpdate(covariance=variance)):
            result = Rollout(gaining, GRID, update=update, bounds=bounds)(PLUME.to(dtype), TIMES, fluxes=CLOSED)
            total = PLUME.to(dtype).double()[:, 0] @ GRID.weights
            u = PLUME.to(dtype)
            for after in result.fields[:, 1:].unbind(dim=1):
                deviation = torch.ones(40).double() if update is None else variance.sqrt()
                given = gaining(u).double()[:, 0]
                u = condition(Normal(given, deviation.expand_as(given)), integral(GRID, total) & bounds).mode
                u = u[:, None].to(dtype)
                torch.testing.assert_close(after, u, rtol=0, atol=20 * torch.finfo(dtype).eps)
                assert float(after.min()) >= 0
                missed = after.double()[:, 0] @ GRID.weights - total
                assert float(missed.abs().max()) < 4 * torch.finfo(dtype).eps
            assert result.fields.dtype == dtype
            moved = (result.fields[:, 1, 0] - gaining(PLUME.to(dtype))[:, 0]).square().mean(dim=-1).sqrt()
            torch.testing.assert_close(result.moved[:, 1, 0], moved, rtol=1e-4, atol=1e-7)
            assert not result.moved[:, 0].any()


def test_a_trajectory_depends_on_its_batch_by_rounding_alone():
    """Totals are products of a matrix, whose rounding depends on its size."""
    rollout = Rollout(gaining, GRID, bounds=NonNegative())
    whole = rollout(PLUME, TIMES, fluxes=CLOSED).fields
    for row in range(3):
        alone = rollout(PLUME[row : row + 1], TIMES, fluxes=CLOSED).fields[0]
        torch.testing.assert_close(alone, whole[row], rtol=0, atol=1e-15)


def test_channels_share_bounds_and_have_balances_of_their_own():
    grid = NodeGrid((0.0, 0.0), (1.0, 2.0), (5, 7))
    field = normal(2, 2, 5, 7).abs()
    for conserved in (None, (1,)):
        rollout = Rollout(lambda u: u - 0.3, grid, bounds=NonNegative(), conserved=conserved)
        result = rollout(field, TIMES, fluxes=[(0.0, 0.0), (0.0, 0.0)])
        assert float(result.fields.min()) >= 0
        totals = (result.fields * grid.weights).flatten(3).sum(dim=3)
        kept = totals if conserved is None else totals[..., 1:]
        torch.testing.assert_close(kept, kept[:, :1].expand_as(kept), rtol=0, atol=1e-13)
    ordered = Rollout(lambda u: u + 0.1 * normal(1, 40), GRID, bounds=Monotone() & Bounded(0.0, 2.0))
    u = ordered(PLUME.cumsum(dim=-1) / 40, TIMES, fluxes=CLOSED).fields
    assert bool((u.diff(dim=-1) >= 0).all())
    assert float(u.min()) >= 0


def test_fluxes_and_sources_are_those_of_the_field_within_bounds():
    source = lambda u, t: 0.5 * u * (1 - u) + 0 * t  # noqa: E731
    grid = NodeGrid(0.0, 1.0, 40)
    flux = lambda u, g: 0.3 * u + g  # noqa: E731
    rollout = Rollout(gaining, grid, bounds=NonNegative(), flux=flux, source=source)
    given = normal(3, 6, 1).abs() * 0.01
    u = rollout(PLUME, TIMES, values=[(given, given)]).fields[:, :, 0]
    rate = 0.3 * (u[..., 0] - u[..., -1]) + source(u, 0.0) @ grid.weights
    expected = 0.5 * TIMES.diff() * (rate[:, 1:] + rate[:, :-1])
    torch.testing.assert_close((u @ grid.weights).diff(dim=1), expected, rtol=0, atol=1e-11)
    assert float(u[:, 1:].min()) == 0


def test_gradients_pass_through_the_bounds():
    field = PLUME[:1, :, :24].clone().requires_grad_()
    rollout = Rollout(lambda u: 1.05 * u.roll(1, -1) + 1e-3 * u.square(), CellGrid(0.0, 1.0, 24), bounds=NonNegative())
    inflow = torch.full((1, 2, 1), 1e-3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, f: rollout(u, TIMES[:3], fluxes=[(f, 0.0)]).fields, (field, inflow))


@pytest.mark.long
def test_rollouts_with_bounds_are_compiled():
    rollout = Rollout(nn.Conv1d(1, 1, 3, padding=1).double(), GRID, bounds=NonNegative())
    with torch.no_grad():
        expected = rollout(PLUME, TIMES[:3], fluxes=CLOSED).fields
        compiled = torch.compile(rollout, backend="eager")(PLUME, TIMES[:3], fluxes=CLOSED).fields
    torch.testing.assert_close(compiled, expected, rtol=0, atol=1e-12)


def test_draws_and_bands_are_within_the_bounds():
    errors = Normal(torch.zeros(40).double(), 0.05 * torch.ones(40).double())
    members = with_errors(gaining, errors, torch.Generator().manual_seed(0))
    rollout = Rollout(members, GRID, bounds=NonNegative())
    drawn = rollout(PLUME[:1].expand(30, 1, 40), TIMES, fluxes=CLOSED).fields
    assert float(drawn.min()) >= 0
    assert float(drawn[:, -1].std(dim=0).max()) > 0.01
    truth = torch.stack([PLUME.roll(step, -1) for step in range(6)], dim=1).repeat(8, 1, 1, 1)
    above = torch.full((40,), 5.0, dtype=torch.float64)
    for bounds in (NonNegative(), Bounded(torch.zeros(40), above)):
        held = Rollout(members, GRID, bounds=bounds)
        lower, upper = held.fit_band(truth, TIMES, fluxes=CLOSED).ends(held(PLUME, TIMES, fluxes=CLOSED))
        assert float(lower.min()) == 0
        assert bool((upper > 0).any())
        assert bool((lower <= upper).all())


def test_a_diagnosis_is_of_rollouts_within_bounds():
    truth = torch.stack([PLUME.roll(step, -1) for step in range(6)], dim=1)
    free, held = (
        Rollout(gaining, GRID, bounds=bounds).diagnose(truth, TIMES, fluxes=CLOSED) for bounds in (None, NonNegative())
    )
    assert bool(held.helps)
    assert float(held.corrected_error) < float(free.corrected_error)
    assert torch.equal(held.field_error, free.field_error)
    result = Rollout(gaining, GRID, bounds=NonNegative())(PLUME, TIMES, fluxes=CLOSED)
    assert float(held.moved) == pytest.approx(float(result.moved[:, 1:].square().mean().sqrt()), rel=1e-12)


def test_given_values_stay_and_slopes_do_where_no_bound_is_met():
    grid = NodeGrid(0.0, 1.0, 41)
    x = grid.points
    operator = BOON(nn.Identity(), [(Dirichlet(1.0), Neumann(0.0))], correction=Prescription())
    lowered = lambda u: operator(1.02 * u - 0.03)  # noqa: E731
    dip = (1.0 - 3 * torch.exp(-((x - 0.4) / 0.1).square()))[None, None]
    rollout = Rollout(lowered, grid, bounds=NonNegative())
    u = rollout(dip.clamp_min(0.0), TIMES, fluxes=CLOSED).fields[:, 1:].flatten(0, 1)
    assert float(u.min()) == 0  # inside, away from both walls
    assert boundary_error(u, operator.discretise(u)).relative_maximum < 1e-13
    assert bool((u[..., 0] == 1.0).all())
    front = operator((x - 0.5).clamp_min(0.0)[None, None])  # values next to the first wall fall below the bound
    u = rollout(front, TIMES, fluxes=[(-0.02, 0.0)]).fields[:, 1:]
    assert not u[..., 1:5].any()
    assert bool((u[..., 0] == 1.0).all())


def test_bounds_that_contradict_law_or_walls_are_named():
    with pytest.raises(InfeasibleConstraintError, match=r"contradict each other at step 1: Row 0 .* asks for -"):
        Rollout(gaining, GRID, bounds=NonNegative())(PLUME[1:2], TIMES, fluxes=[(-0.06, 0.0)])
    cold = BOON(nn.Identity(), [(Dirichlet(-1.0), Neumann(0.0))], correction=Prescription())
    with pytest.raises(InfeasibleConstraintError, match="at step 0: The prior fixes the value -1 at point 0"):
        Rollout(cold, NodeGrid(0.0, 1.0, 40), bounds=NonNegative())(PLUME, TIMES, fluxes=CLOSED)
    for bounds in (0.0, integral(GRID, 1.0) & NonNegative()):
        with pytest.raises(InvalidArgumentError, match=r"bounds must be inequalities.* without a law"):
            Rollout(gaining, GRID, bounds=bounds)
