"""A field plus a multiple of the response meets what the field met."""

import pickle

import pytest
import torch
from torch import nn

from boon import BOON, ChannelBOON, Part, Prescription
from boon import operator as operator_module
from boon.conditions.functionals import Boundary
from boon.errors import InvalidArgumentError
from boon.scores import residuals
from solvers import Dirichlet, Neumann, NodeGrid, Periodic, Robin
from tests.strategies import normal

VALUE, SLOPE, ROUND = Dirichlet(0.7), Neumann(0.3), Periodic()
FIRST, LAST = Robin(1.0, -0.2, 0.4), Robin(1.0, 0.2, 0.4)
FLAT = Neumann(0.0)
WAVY = Robin(lambda y: 1 + 0.5 * torch.sin(6 * y), -0.2, 0.4)
CASES = {
    "values": [(VALUE, Dirichlet(0.2))],
    "slopes": [(SLOPE, SLOPE)],
    "Robin": [(FIRST, LAST)],
    "value, Robin": [(VALUE, LAST)],
    "slope, free": [(SLOPE, None)],
    "value, free": [(VALUE, None)],
    "a source": [(Robin(1.0, 0.3, 0.4), LAST)],
    "Robin by channel": [(Robin(torch.tensor([[1.0, 2.0]]), -0.2, 0.4), LAST)],
    "periodic": [(ROUND, ROUND)],
    "2-D mixed": [(VALUE, SLOPE), (FIRST, VALUE)],
    "2-D free, mixed": [None, (VALUE, SLOPE)],
    "2-D periodic": [(VALUE, LAST), (ROUND, ROUND)],
    "2-D parts": [((Part(VALUE, (0.2, 0.5)), Part(SLOPE)), LAST), (FLAT, FLAT)],
    "2-D parts, periodic": [((Part(VALUE, (0.2, 0.5)), Part(SLOPE)), LAST), (ROUND, ROUND)],
    "2-D part, free": [(Part(FIRST, (0.3, 0.6)), VALUE), (FLAT, None)],
    "2-D Robin of place": [(WAVY, SLOPE), (FLAT, VALUE)],
    "3-D mixed": [(VALUE, SLOPE), (ROUND, ROUND), (FIRST, LAST)],
    "3-D part": [(Part(VALUE, ((0.2, 0.5), (0.3, 0.8))), SLOPE), (FLAT, FLAT), (FIRST, LAST)],
}


def grid_of(dimension: int) -> NodeGrid:
    count = {1: 41, 2: 21, 3: 13}[dimension]
    return NodeGrid((0.0,) * dimension, (1.0,) * dimension, tuple(count - 2 * axis for axis in range(dimension)))


def missed(parts: list[torch.Tensor], u: torch.Tensor, boundary: Boundary) -> float:
    """The largest |B u − g| of a sum of parts relative to |g| + Σ_j |w_j| of each: u may be small where they cancel."""
    terms = residuals(torch.stack([part.double().abs() for part in parts]).sum(dim=0), boundary)
    return max(
        float((residual.abs() / scale.clamp_min(1e-300)).max())
        for (residual, _), (_, scale) in zip(residuals(u, boundary), terms, strict=True)
    )


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_fields_that_move_by_the_response_meet_the_same_conditions(name: str, order: int):
    """To ten roundings of the terms of B: of the sum, the product, the response, and a stencil of up to five values."""
    conditions = CASES[name]
    grid = grid_of(len(conditions))
    model = BOON(nn.Identity(), conditions, correction=Prescription(), order=order)
    response = model.response(grid)
    assert response.dtype == torch.float64
    assert 0 <= float(response.min()) < float(response.max()) + 1e-15
    assert response.flatten(1).amax(dim=1).tolist() == pytest.approx([1.0] * len(response), abs=1e-15)
    for dtype in (torch.float32, torch.float64):
        u = model(normal(3, 2, *grid.shape).to(dtype))
        change = normal(3, 2, *[1] * grid.dimension, seed=1)
        moved = (u.double() + response * change).to(dtype)
        assert missed([u, response * change], moved, model.discretise(u)) < 10 * torch.finfo(dtype).eps
    like = model.response(None, normal(2, 2, *grid.shape))  # any change of a field, made to meet data 0
    u = model(normal(2, 2, *grid.shape))
    assert missed([u, like], u + like, model.discretise(u)) < 10 * torch.finfo(torch.float64).eps


def test_the_response_is_constant_between_gradients_and_a_parabola_between_values():
    x = grid_of(1).points
    of = lambda *pair: BOON(nn.Identity(), [pair], correction=Prescription()).response(grid_of(1))[0]  # noqa: E731
    torch.testing.assert_close(of(SLOPE, SLOPE), torch.ones_like(x), rtol=0, atol=1e-15)
    torch.testing.assert_close(of(ROUND, ROUND), torch.ones_like(x), rtol=0, atol=1e-15)
    torch.testing.assert_close(of(VALUE, VALUE), 4 * x * (1 - x), rtol=0, atol=1e-3 / 8)  # κ²/8
    robin = 0.2 + x - x.square()  # of −r″ = 2, r = .2 r′ at 0 and r = −.2 r′ at 1
    torch.testing.assert_close(of(FIRST, LAST), robin / robin.max(), rtol=0, atol=1e-3 / 2)
    half = of(VALUE, None)
    torch.testing.assert_close(half, x * (2 - x), rtol=0, atol=1e-3)


def test_parts_of_a_side_give_a_smooth_response():
    """−Δ r is one constant inside, as the sparse system says, and equal to the product where no side has parts."""
    conditions = CASES["2-D parts"]
    r = BOON(nn.Identity(), conditions, correction=Prescription()).response(grid_of(2))[0]
    h, k = (1 / (count - 1) for count in r.shape)
    inside = r[1:-1, 1:-1]
    along = (r[2:, 1:-1] - 2 * inside + r[:-2, 1:-1]) / h**2, (r[1:-1, 2:] - 2 * inside + r[1:-1, :-2]) / k**2
    curvature = (-along[0] - along[1])[1:-1, 1:-1]
    assert float(curvature.std() / curvature.mean()) < 1e-2  # of κ² r
    whole = [(Part(VALUE), Part(SLOPE)), (FLAT, FLAT)]
    plain = [(VALUE, SLOPE), (FLAT, FLAT)]
    same = [BOON(nn.Identity(), each, correction=Prescription()).response(grid_of(2)) for each in (whole, plain)]
    torch.testing.assert_close(*same, rtol=0, atol=1e-3)


@torch.no_grad()
def test_every_channel_has_the_response_of_its_own_conditions():
    model = ChannelBOON(nn.Identity(), [[(VALUE, VALUE)], [(SLOPE, SLOPE)]])
    response = model.response(NodeGrid(0.0, 1.0, 31))
    assert response.shape == (2, 31)
    assert response[0, 0] == 0
    torch.testing.assert_close(response[1], torch.ones_like(response[1]), rtol=0, atol=1e-15)
    u, like = model(normal(3, 2, 31)).expand(4, 3, 2, 31), model.response(None, normal(4, 3, 2, 31))
    channels = (part.flatten(0, 1).split(1, dim=1) for part in (u, like, u + like))
    for *parts, moved, each in zip(*channels, model.channels, strict=True):
        assert missed(parts, moved, each.discretise(moved)) < 10 * torch.finfo(torch.float64).eps


def test_conditions_without_data_are_built_once_for_a_shape(monkeypatch: pytest.MonkeyPatch):
    """And anew for another one, in inference mode, and where coefficients may change; copies are independent."""
    built: list[torch.Size] = []
    real = operator_module.homogeneous
    monkeypatch.setattr(operator_module, "homogeneous", lambda *of: (built.append(of[2]), real(*of))[1])
    model = BOON(nn.Identity(), [(FIRST, LAST)], correction=Prescription())
    with torch.inference_mode():
        model.response(None, normal(2, 1, 31))
    first = model.response(None, normal(2, 1, 31).requires_grad_())
    first.sum().backward()
    for dtype in (torch.float32, torch.float64):
        fields = normal(5, 2, 1, 31).to(dtype)
        assert torch.equal(model.response(None, fields)[0], model.response(None, fields[0]))
    assert len(built) == 2
    copied = pickle.loads(pickle.dumps(model))
    assert torch.equal(copied.response(None, normal(2, 1, 31)), first)
    model.response(None, normal(2, 1, 21))
    assert [shape[0] for shape in built] == [31, 31, 21]
    coefficient = torch.full((1, 1), 1.0)
    changing = BOON(nn.Identity(), [(Robin(coefficient, -0.2, 0.0), LAST)], correction=Prescription())
    before = changing.response(None, normal(2, 1, 31))
    coefficient.mul_(2)
    assert not torch.equal(changing.response(None, normal(2, 1, 31)), before)


def test_conditions_without_one_response_are_refused():
    by_sample = Robin(torch.rand(3, 1) + 0.5, -0.2, 0.0)
    with pytest.raises(InvalidArgumentError, match="differ between samples have another response"):
        BOON(nn.Identity(), [(by_sample, LAST)]).response(grid_of(1))
    fed = Robin(1.0, 0.005, 0.0)  # even one step inside the boundary node has the other sign
    for conditions in ([(fed, VALUE)], [((Part(fed, (0.2, 0.5)), Part(SLOPE)), VALUE), (FLAT, FLAT)]):
        with pytest.raises(InvalidArgumentError, match="No field of one sign"):
            BOON(nn.Identity(), conditions).response(grid_of(len(conditions)))
