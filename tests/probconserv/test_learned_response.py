"""A response that is learnt from errors of single steps says where in the field a missing total belongs."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from boon import BOON, Prescription, boundary_error
from probconserv import NonNegative, Rollout, condition, integral
from probconserv.errors import InvalidArgumentError
from probconserv.rollout import StepUpdate
from probconserv.rollout.learned_response import LearnedResponse
from solvers import CellGrid, Dirichlet, Neumann, NodeGrid, Periodic, Robin
from tests.strategies import normal

GRID, TIMES = CellGrid(0.0, 1.0, 40), torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
PLUME = torch.exp(-((GRID.points - 0.3) / 0.1).square())[None, None]
TRUTH = torch.stack([PLUME.roll(step, -1) for step in range(9)], dim=1).repeat(3, 1, 1, 1)
TRUTH = TRUTH * torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64)[:, None, None, None]


def response_of(*coefficients: float) -> LearnedResponse:
    return LearnedResponse(coefficients=torch.tensor([coefficients], dtype=torch.float64))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (lambda u: 0.05 * u, (0.0, 1.0, 0.0)),
        (lambda u: -0.01 * u.square() / u.amax(dim=-1, keepdim=True), (0.0, 0.0, 1.0)),
        (lambda u: 0.01 * u.amax(dim=-1, keepdim=True) + 0 * u, (1.0, 0.0, 0.0)),
    ],
)
def test_errors_that_go_with_the_field_are_undone(error, expected: tuple[float, ...]) -> None:
    def operator(u: Tensor) -> Tensor:
        moved = u.roll(1, -1)
        return moved + error(moved)

    learnt = Rollout(operator, GRID).fit_response(TRUTH)
    torch.testing.assert_close(learnt.coefficients[0], torch.tensor(expected).double(), rtol=0, atol=2e-3)
    exact = Rollout(operator, GRID, response=response_of(*expected))
    uniform = Rollout(operator, GRID)
    missed, before = (each(TRUTH[:, 0], TIMES, fluxes=[Periodic()]).fields - TRUTH for each in (exact, uniform))
    alike = expected[0] == 1.0  # where the uniform move is right as well
    assert float(missed.abs().max()) < (1e-12 if alike else 0.25 * float(before.abs().max()))


def test_channels_without_a_balance_stay_and_others_meet_theirs() -> None:
    """In two axes, of one channel and of both, in both precisions, a field of zeros and a batch of one among them."""
    grid = NodeGrid((0.0, 0.0), (1.0, 2.0), (5, 7))
    for dtype in (torch.float32, torch.float64):
        field = normal(3, 2, 5, 7).to(dtype)
        field[1] = 0
        for conserved in (None, (1,)):
            k = 2 if conserved is None else 1
            learned = LearnedResponse(coefficients=torch.tensor([[0.2, 0.5, 0.3]]).expand(k, 3))
            rollout = Rollout(lambda u: 1.1 * u + 0.01, grid, response=learned, conserved=conserved)
            result = rollout(field, TIMES[:3], fluxes=[(0.0, 0.0), (0.0, 0.0)])
            totals = (result.fields.double() * grid.weights).flatten(3).sum(dim=3)
            of_law = totals if conserved is None else totals[..., 1:]
            torch.testing.assert_close(of_law, result.totals, rtol=0, atol=60 * torch.finfo(dtype).eps)
            torch.testing.assert_close(result.totals, result.totals[:, :1].expand(-1, 3, -1), rtol=0, atol=1e-14)
            if conserved is not None:
                assert torch.equal(result.fields[:, 1, 0], 1.1 * field[:, 0] + 0.01)
            alone = rollout(field[:1], TIMES[:3], fluxes=[(0.0, 0.0), (0.0, 0.0)]).fields[0]
            torch.testing.assert_close(alone, result.fields[0], rtol=0, atol=8 * torch.finfo(dtype).eps)
            moved = (result.fields[:, 1] - (1.1 * field + 0.01)).double().square() * grid.weights / 2
            torch.testing.assert_close(
                result.moved[:, 1].double(), moved.flatten(2).sum(dim=2).sqrt(), rtol=1e-3, atol=1e-6
            )


def test_bounds_are_met_by_the_nearest_field_in_its_metric() -> None:
    learned = response_of(0.2, 0.5, 0.3)
    rollout = Rollout(lambda u: 1.05 * u - 0.05, GRID, response=learned, bounds=NonNegative())
    after = rollout(PLUME, TIMES[:2], fluxes=[Periodic()]).fields[0, 1, 0]
    given = 1.05 * PLUME[0, 0] - 0.05
    parts = [torch.ones(40).double(), given.abs(), given.square()]
    r = sum(a * part / (part @ GRID.weights) for a, part in zip((0.2, 0.5, 0.3), parts, strict=True))
    prior = Normal(given, (r / GRID.weights).sqrt())
    expected = condition(prior, integral(GRID, PLUME[0, 0] @ GRID.weights) & NonNegative()).mode
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("bounds", [None, NonNegative()])
def test_bounds_walls_fluxes_and_sources_hold_under_it(bounds: NonNegative | None) -> None:
    operator = BOON(torch.nn.Identity(), [(Dirichlet(0.5), Robin(1.0, 0.2, 0.5))], correction=Prescription())
    grid, x = NodeGrid(0.0, 1.0, 41), NodeGrid(0.0, 1.0, 41).points
    start = (0.5 + 0.4 * torch.sin(9 * x))[None, None].repeat(2, 1, 1)
    source, flux = (lambda u, t: 0.3 * u * (1 - u) + 0 * t), (lambda u, g: 0.1 * u + g)
    law = {"bounds": bounds, "flux": flux, "source": source}
    rollout = Rollout(lambda u: operator(1.02 * u), grid, response=response_of(0.1, 0.6, 0.3), **law)
    given = 0.01 * normal(2, 9, 1)
    u = rollout(start, TIMES, values=[(given, given)]).fields
    after = u[:, 1:].flatten(0, 1)
    assert bounds is None or float(u.min()) >= 0
    assert boundary_error(after, operator.discretise(after)).relative_maximum < 1e-12
    u = u[:, :, 0]
    rate = 0.1 * (u[..., 0] - u[..., -1]) + source(u, 0.0) @ grid.weights
    expected = 0.5 * TIMES.diff() * (rate[:, 1:] + rate[:, :-1])
    torch.testing.assert_close((u @ grid.weights).diff(dim=1), expected, rtol=0, atol=1e-11)


class Dipped(torch.nn.Module):
    """The field with values below zero in the middle."""

    def forward(self, u: Tensor) -> Tensor:
        return u - 0.5 * ((torch.arange(u.shape[-1]) - 8).abs() < 2)


@pytest.mark.parametrize("grid", [NodeGrid(0.0, 1.0, 17), CellGrid(0.0, 1.0, 17)], ids=["nodes", "cells"])
@pytest.mark.parametrize("sides", [(Neumann(0.0), Neumann(0.3)), (Robin(1.0, -0.3, 0.4), Dirichlet(0.5))])
@pytest.mark.parametrize("coefficients", [(0.0, 1.0, 0.0), (0.5, 0.0, 0.5)])
def test_walls_stay_where_bounds_are_met_far_from_them(grid, sides, coefficients) -> None:
    operator = BOON(Dipped(), [sides], grid=grid, correction=Prescription())
    start = 0.3 + 0.05 * normal(2, 1, 17)
    rollout = Rollout(operator, grid, response=response_of(*coefficients), bounds=NonNegative())
    after = rollout(start, TIMES[:2], fluxes=[(0.0, 0.0)]).fields[:, 1]
    assert bool((after[..., 7:10] == 0).all())
    assert float(after.min()) >= 0
    assert boundary_error(after, operator.discretise(after)).relative_maximum < 1e-12
    totals = (torch.stack([start, after]) * grid.weights).sum(dim=-1)
    torch.testing.assert_close(totals[1], totals[0], rtol=0, atol=1e-14)


def test_a_field_that_is_zero_but_at_a_wall_has_the_response_of_the_wall() -> None:
    """A cold body whose side is heated: values at the side follow the others, and move no total by themselves."""
    grid = NodeGrid(0.0, 1.0, 21)
    operator = BOON(torch.nn.Identity(), [(Neumann(-1.0), Neumann(0.0))], grid=grid, correction=Prescription())
    start = torch.zeros(1, 1, 21, dtype=torch.float64)
    for bounds in (None, NonNegative()):
        rollout = Rollout(operator, grid, response=response_of(0.0, 0.0, 1.0), bounds=bounds)
        result = rollout(start, TIMES[:3], fluxes=[(1.0, 0.0)])
        totals = (result.fields * grid.weights).sum(dim=-1)[..., 0]
        torch.testing.assert_close(totals, TIMES[None, :3], rtol=0, atol=1e-14)
        after = result.fields[:, 1]
        assert boundary_error(after, operator.discretise(after)).relative_maximum < 1e-12


def test_the_law_is_trusted_by_the_variances_of_the_update() -> None:
    update = StepUpdate(total_variance=1.0, noise_variance=3.0)  # a quarter of what is missing is corrected
    rollout = Rollout(lambda u: 1.2 * u, GRID, update=update, response=response_of(0.0, 1.0, 0.0))
    fields = rollout(PLUME, TIMES[:2], fluxes=[Periodic()]).fields
    torch.testing.assert_close(fields[:, 1], 1.15 * PLUME, rtol=0, atol=1e-14)


def test_gradients_pass_through_it() -> None:
    field = PLUME[..., :20].clone().requires_grad_()
    inflow = torch.full((1, 3, 1), 1e-2, dtype=torch.float64, requires_grad=True)
    rollout = Rollout(lambda u: u + 0.1 * u.square(), CellGrid(0.0, 1.0, 20), response=response_of(0.2, 0.5, 0.3))
    assert torch.autograd.gradcheck(lambda u, f: rollout(u, TIMES[:3], fluxes=[(f, 0.0)]).fields, (field, inflow))


def test_invalid_arguments_raise_with_reason() -> None:
    with pytest.raises(InvalidArgumentError, match="not negative and of sum 1"):
        response_of(0.5, 0.6, 0.1)
    with pytest.raises(InvalidArgumentError, match="not negative and of sum 1"):
        LearnedResponse(coefficients=torch.tensor([[1.5, -0.5, 0.0]]))
    two = LearnedResponse(coefficients=torch.tensor([[1.0, 0.0, 0.0]]).expand(2, 3))
    with pytest.raises(InvalidArgumentError, match="learnt for 2 channels, but 1 are conserved"):
        Rollout(lambda u: u, GRID, response=two)(PLUME, TIMES, fluxes=[Periodic()])
    with pytest.raises(InvalidArgumentError, match="fields must be trajectories"):
        Rollout(lambda u: u, GRID).fit_response(PLUME[0])
