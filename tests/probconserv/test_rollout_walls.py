"""Rollouts around an operator of ``boon`` leave what it meets at walls as it is."""

import pickle
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from boon import BOON, FNO, ChannelBOON, FNOConfig, Normalised, Part, Prescription, boundary_error
from boon.scores import residuals
from probconserv import Rollout, fit_covariance
from probconserv.errors import InvalidArgumentError
from probconserv.rollout import StepUpdate, with_errors
from probconserv.rollout.learned_response import LearnedResponse
from solvers import Dirichlet, Neumann, NodeGrid, Periodic, Robin
from tests.recording import records
from tests.strategies import normal

FLAT, ROUND = (Neumann(0.0), Neumann(0.0)), (Periodic(), Periodic())
FIRST, LAST = Robin(1.0, -0.2, 0.4), Robin(1.0, 0.2, 0.1)
AXIS = {
    "Dirichlet": (Dirichlet(0.3), Dirichlet(1.0)),
    "Neumann": (Neumann(0.2), Neumann(0.1)),
    "Robin": (FIRST, LAST),
    "mixed": (Dirichlet(0.5), LAST),
    "slope and free": (Neumann(0.2), None),
}
OTHERS = {1: [], 2: [FLAT], 3: [ROUND, FLAT]}


def conditions_of(kind: str, dimension: int) -> list:
    """The kind at the sides of the first axis; insulated, or periodic, along the others."""
    if kind == "parts":
        where = (0.2, 0.6) if dimension == 2 else ((0.0, 1.0), (0.2, 0.6))
        return [((Part(Dirichlet(0.5), where), Part(Neumann(0.0))), LAST), *OTHERS[dimension]]
    return [AXIS[kind], *OTHERS[dimension]]


def setting(kind: str, dimension: int, dtype: torch.dtype) -> tuple[BOON, NodeGrid, list]:
    """An untrained operator, its grid, and fluxes through the sides of the first axis."""
    torch.manual_seed(0)
    grid = NodeGrid((0.0,) * dimension, (1.0,) * dimension, {1: 33, 2: (17, 15), 3: (11, 9, 10)}[dimension])
    network = FNO(FNOConfig(width=4, modes=(3,) * dimension, depth=1)).to(dtype)
    conditions = conditions_of(kind, dimension)
    walls = [(0.3, 0.1), *(Periodic() if pair is ROUND else (0.0, 0.0) for pair in conditions[1:])]
    return BOON(network, conditions), grid, walls


def update_of(response: str, grid: NodeGrid) -> StepUpdate | None:
    if response != "fitted":
        return None
    errors = normal(12, grid.weights.numel()) * torch.linspace(0.1, 1.0, grid.weights.numel())
    return StepUpdate(covariance=fit_covariance(errors, shrinkage=0.3))


def check_walls(operator: BOON, u: Tensor, size: float) -> None:
    """In float32 values to 1e-6 of the field, slopes and Robin conditions to 4 ε |u|/h: rounding of every value, times
    stencils, whose terms a u of Robin conditions are below that; in float64 all to 1e-12 of their terms.
    """
    boundary = operator.discretise(u)
    if u.dtype == torch.float64:
        assert boundary_error(u, boundary).relative_maximum < 1e-12
        return
    for side, (missed, _) in zip(boundary.sides, residuals(u, boundary), strict=False):
        value = side.given if boundary.varying else torch.tensor(side.is_value)
        of_slopes = 4 * torch.finfo(u.dtype).eps * (u.shape[2 + side.axis] - 1)
        assert bool((missed.abs() <= torch.where(value, 1e-6, of_slopes) * size).all())


def check_rollout(kind: str, dimension: int, response: str, dtype: torch.dtype, steps: int) -> None:
    operator, grid, walls = setting(kind, dimension, dtype)
    sizes: list[float] = []

    def measured(u: Tensor) -> Tensor:
        predicted = operator(u)
        sizes.append(float(predicted.abs().max()))
        return predicted

    learned = LearnedResponse(coefficients=torch.tensor([[0.2, 0.5, 0.3]])) if response == "learned" else None
    rollout = Rollout(measured, grid, update=update_of(response, grid), response=learned)
    times, start = torch.linspace(0.0, 1.0, steps + 1), normal(2, 1, *grid.shape).to(dtype)
    if dimension == 3:
        start[:, :, :, 0] = start[:, :, :, -1]  # a periodic axis
    with torch.no_grad():
        for state in rollout.iterate(start, times, fluxes=walls):
            u, size = state.field, max(sizes[-1], float(state.field.abs().max()))
            assert u.dtype == dtype
            check_walls(operator, u, size)
            missed = (u.double() * grid.weights).flatten(1).sum(dim=1) - state.total[:, 0]
            rounding = 8 * max(1.0, (grid.weights.numel() / 256) ** 0.5)  # of sums, that of n values grows like √n
            assert float(missed.abs().max()) <= rounding * torch.finfo(dtype).eps * size
    assert len(sizes) == steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("response", ["uniform", "fitted", "learned"])
@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("kind", [*AXIS, "parts"])
def test_what_an_operator_meets_at_walls_is_met_after_every_step(
    kind: str, dimension: int, response: str, dtype: torch.dtype
):
    if kind == "parts" and dimension == 1:
        kind = "Robin"  # the side of an interval has no parts
    check_rollout(kind, dimension, response, dtype, steps=100 if dimension == 1 else 10)


@pytest.mark.slow
@pytest.mark.parametrize("response", ["uniform", "fitted", "learned"])
@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("kind", [*AXIS, "parts"])
def test_walls_are_met_after_two_hundred_steps(kind: str, dimension: int, response: str):
    if kind == "parts" and dimension == 1:
        kind = "mixed"
    check_rollout(kind, dimension, response, torch.float32, steps=200)


class Wrapped(nn.Module):
    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, u: Tensor) -> Tensor:
        return self.operator(u)


class Plain:
    def __init__(self, operator: nn.Module) -> None:
        self.operator = operator

    def __call__(self, u: Tensor) -> Tensor:
        return self.operator(u)


@records
@torch.no_grad()
def test_modules_and_functions_around_an_operator_pass_its_response_on():
    operator, grid, walls = setting("mixed", 1, torch.float64)
    u, times = normal(2, 1, 33), torch.linspace(0.0, 1.0, 4)
    expected = Rollout(operator, grid)(u, times, fluxes=walls).fields
    compiled = torch.compile(operator, backend="eager")
    outside = [
        Wrapped(Wrapped(operator)),
        lambda u: operator(u),
        partial(lambda inner, u: inner(u), operator),
        operator.forward,
        Plain(operator),
        compiled,
        Wrapped(compiled),
        deepcopy(operator),
    ]
    for each in outside:
        torch.testing.assert_close(Rollout(each, grid)(u, times, fluxes=walls).fields, expected, rtol=0, atol=1e-14)
    old = Rollout(Wrapped(operator), grid)
    for copied in (pickle.loads(pickle.dumps(old)), old):
        torch.testing.assert_close(copied(u, times, fluxes=walls).fields, expected, rtol=0, atol=1e-14)
        of_release = {name: each for name, each in vars(old).items() if name not in ("wall_response", "bounds")}
        old.__dict__.clear()
        old.__setstate__(of_release)
    scaled = BOON(nn.Identity(), [(Dirichlet(0.0), LAST)], correction=Prescription())
    one = torch.ones(1).double()
    outer = Normalised(scaled, 0 * one, one, normal(1, 33), 3 * one)  # conditions hold for the normalised field
    before = outer(u)
    after = Rollout(outer, grid)(u, times[:2], fluxes=walls).fields[:, 1]
    changed = (after - before) / 3
    assert boundary_error(changed, replace_data(scaled, changed)).relative_maximum < 1e-12


def replace_data(operator: BOON, u: Tensor):
    boundary = operator.discretise(u)
    return type(boundary)(**{**vars(boundary), "data": tuple(torch.zeros_like(data) for data in boundary.data)})


def test_functions_without_an_operator_of_walls_have_none():
    def recursive(u: Tensor) -> Tensor:
        return unset(u) if u.ndim > 9 else u

    assert Rollout(recursive, NodeGrid(0.0, 1.0, 17)).wall_response is None
    unset = recursive


@torch.no_grad()
def test_data_that_change_from_step_to_step_are_met_in_each():
    """Values at the call, as of walls that follow the weather: an ensemble of rollouts, and a state gone on from."""
    torch.manual_seed(0)
    model = BOON(FNO(FNOConfig(width=4, modes=(3,), depth=1)).double(), [(Dirichlet(), Robin(1.0, 0.2))])
    grid, times, given = NodeGrid(0.0, 1.0, 33), torch.linspace(0.0, 1.0, 6), normal(3, 5, 2)
    rollout = Rollout(lambda u, g: model(u, [(g[:, :1], g[:, 1:])]), grid)
    states = list(rollout.iterate(normal(3, 1, 33), times, given, fluxes=[(0.3, 0.1)]))
    for step, state in enumerate(states):
        conditions = model.discretise(state.field, [(given[:, step, :1], given[:, step, 1:])])
        assert torch.equal(state.field[:, 0, 0], given[:, step, 0])
        assert boundary_error(state.field, conditions).relative_maximum < 1e-13
    later = list(rollout.iterate(states[2], times, given, fluxes=[(0.3, 0.1)]))[-1]
    assert torch.equal(later.field, states[-1].field)


def test_channels_have_walls_of_their_own():
    operator = ChannelBOON(nn.Identity(), [[(Dirichlet(0.3), LAST)], [(Neumann(0.2), Neumann(0.1))]])
    grid, times = NodeGrid(0.0, 1.0, 33), torch.linspace(0.0, 1.0, 6)
    for update in (None, StepUpdate(covariance=normal(2, 33).square() + 0.1)):
        u = Rollout(operator, grid, update=update)(normal(3, 2, 33), times, fluxes=[(0.3, 0.1)]).fields[:, -1]
        for channel, conditions in zip(u.split(1, dim=1), operator.discretise(u), strict=True):
            assert boundary_error(channel, conditions).relative_maximum < 1e-12
    u = Rollout(operator, grid, conserved=(1,))(normal(3, 2, 33), times[:2], fluxes=[(0.3, 0.1)]).fields[:, 1]
    torch.testing.assert_close(u[:, 0], operator(normal(3, 2, 33))[:, 0], rtol=0, atol=1e-15)


def test_draws_of_errors_leave_the_walls():
    operator, grid, walls = setting("mixed", 1, torch.float64)
    errors = Normal(torch.zeros(33).double(), 0.1 + torch.rand(33).double())
    drawn = Rollout(with_errors(operator, errors, torch.Generator().manual_seed(0)), grid)
    members, times = normal(1, 1, 33).expand(50, 1, 33), torch.linspace(0.0, 1.0, 5)
    fields = drawn(members, times, fluxes=walls).fields[:, 1:].flatten(0, 1).detach()
    check_walls(operator, fields, 1.0)
    assert float(fields.std(dim=0).max()) > 0.05


def test_gradients_pass_through_the_response():
    operator, grid, walls = setting("Robin", 1, torch.float64)
    rollout, times = Rollout(operator, grid, flux=lambda u, g: -u * g), torch.linspace(0.0, 0.3, 4)
    given = normal(1, 4, 1).requires_grad_()
    field = normal(1, 1, 33).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, g: rollout(u, times, values=[(g, 0.0)]).fields, (field, given), atol=1e-6)
    weights = torch.autograd.grad(
        rollout(field, times, values=walls).fields.square().sum(), list(operator.parameters())
    )
    assert all(bool(each.isfinite().all()) and bool((each != 0).any()) for each in weights)


@pytest.mark.long
def test_rollouts_that_keep_walls_are_compiled_and_exported():
    operator, grid, _ = setting("mixed", 1, torch.float64)
    update = StepUpdate(covariance=normal(33).square() + 0.1)
    arguments = normal(2, 1, 33), torch.linspace(0.0, 1.0, 3).double()
    given = {"fluxes": [(normal(2, 3, 1), normal(2, 3, 1))]}
    for rollout in (Rollout(operator, grid), Rollout(operator, grid, update=update)):
        expected = rollout(*arguments, **given).fields
        compiled = torch.compile(rollout, fullgraph=True, backend="eager")(*arguments, **given).fields
        exported = torch.export.export(rollout, arguments, given).module()(*arguments, **given).fields
        torch.testing.assert_close(compiled, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(exported, expected, rtol=0, atol=1e-12)


def test_walls_that_are_not_protected_are_named():
    grid = NodeGrid(0.0, 1.0, 17)
    first, second = (BOON(nn.Identity(), [(Dirichlet(0.0), Neumann(0.0))]) for _ in range(2))
    with pytest.warns(UserWarning, match="Sequential meets are not protected: it holds 2 operators"):
        Rollout(nn.Sequential(first, second), grid)
    by_sample = BOON(nn.Identity(), [(Robin(torch.rand(3, 1) + 0.5, -0.2, 0.0), LAST)])
    with pytest.warns(UserWarning, match="BOON meets are not protected: Coefficients of Robin that differ"):
        Rollout(by_sample, grid)
    update = StepUpdate(fixed=torch.arange(17) == 16)
    with pytest.raises(InvalidArgumentError, match="fixed holds values at a wall where the operator meets a slope"):
        Rollout(first, grid, update=update)(normal(2, 1, 17), torch.linspace(0.0, 1.0, 3), fluxes=[(0.1, 0.0)])
    update = StepUpdate(fixed=torch.arange(17) == 0)
    u = Rollout(first, grid, update=update)(normal(2, 1, 17), torch.linspace(0.0, 1.0, 3), fluxes=[(0.1, 0.0)]).fields
    assert not u[:, 1:, :, 0].any()


@pytest.mark.parametrize("condition", [Neumann(0.0), Robin(1.0, 0.2, 0.1)])
def test_slopes_on_another_length_than_that_of_the_grid_are_named(condition: object):
    operator = BOON(nn.Identity(), [(Dirichlet(0.0), condition)], correction=Prescription())
    with pytest.warns(UserWarning, match="axis 0 of length 1, but the grid has 2"):
        Rollout(operator, NodeGrid(0.0, 2.0, 17))
    assert Rollout(operator, NodeGrid(3.0, 4.0, 17)).wall_response is not None


def test_values_are_met_on_any_length():
    operator = BOON(nn.Identity(), [(Dirichlet(0.0), Dirichlet(1.0))], correction=Prescription())
    assert Rollout(operator, NodeGrid(0.0, 2.0, 17)).wall_response is not None


def test_a_balance_that_is_periodic_along_walls_is_refused():
    operator, grid, _ = setting("Dirichlet", 2, torch.float64)
    times, start = torch.linspace(0, 1, 3), torch.zeros(1, 1, *grid.shape, dtype=torch.float64)
    with pytest.raises(InvalidArgumentError, match="Axis 0 is given as periodic, but the operator meets"):
        Rollout(operator, grid)(start, times, fluxes=[Periodic(), (0.0, 0.0)])
