"""Conditions per channel: free ends, an initial value along time, messages."""

import pytest
import torch
from torch import nn

from boon import BOON, FNO, ChannelBOON, FNOConfig, MixedTransform, Prescription, boundary_error
from boon.errors import IncompatibleCornersError, InvalidArgumentError
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.boon.cases import ONE_OF_A_KIND

ROUND_OFF = {torch.float64: 1e-12, torch.float32: 1e-6}


@pytest.mark.parametrize("dtype", ROUND_OFF)
@pytest.mark.parametrize("correction", ONE_OF_A_KIND)
@pytest.mark.parametrize("condition", [Dirichlet(0.7), Neumann(0.3), Robin(1.0, 0.4871, 0.2)])
@pytest.mark.parametrize("last", [False, True])
def test_one_side_has_a_condition_and_the_other_is_free(correction, condition, last, dtype):
    torch.manual_seed(0)
    pair = (None, condition) if last else (condition, None)
    operator = BOON(FNO(FNOConfig(width=4, modes=(3,), depth=2)), [pair], (2.0,), correction, order=3).to(dtype)
    a = torch.randn(2, 1, 14, dtype=dtype)
    u = operator(a)
    assert boundary_error(u, operator.discretise(u)).relative_maximum <= ROUND_OFF[dtype]
    if isinstance(condition, Dirichlet):
        assert (u[..., -1 if last else 0] == 0.7).all()
    other = BOON(nn.Identity(), [pair], (2.0,), Prescription(), order=3)(a)
    free, node = (0, -1) if last else (-1, 0)
    assert torch.equal(other[..., free], a[..., free]), "prescription leaves the free side alone"
    assert not torch.equal(other[..., node], a[..., node])


@pytest.mark.parametrize("correction", ONE_OF_A_KIND)
def test_an_initial_value_along_time_and_walls(correction):
    def initial(x):
        return torch.sin(3 * x) + 0.3

    walls = (Dirichlet(0.3), Neumann(0.5))
    config = FNOConfig(width=4, modes=(3, 3), depth=2)
    operator = BOON(FNO(config), [walls, (Dirichlet(initial), None)], correction=correction, order=3).double()
    u = operator(torch.randn(2, 1, 12, 9).double())
    x = torch.linspace(0, 1, 12, dtype=torch.float64)
    assert torch.equal(u[:, 0, :, 0], initial(x).expand(2, -1)), "the initial value holds exactly, corners included"
    assert (u[:, :, 0] == 0.3).all()
    assert boundary_error(u, operator.discretise(u)).relative_maximum <= 1e-12


def flow(dtype=torch.float64, correction=None):
    """Two channels on a square: u given on all walls, of p the gradient on the first and last in x; a circle in z."""
    torch.manual_seed(0)
    zero = Dirichlet(0.0)
    conditions = [
        [(zero, Dirichlet()), (zero, Robin(1.0, 0.2871, 0.1))],
        [(Neumann(0.0), Neumann(0.4)), (Periodic(), Periodic())],
        [None, (None, Neumann(1.0))],
    ]
    operator = FNO(FNOConfig(width=4, modes=(3, 3), depth=1, out_channels=3)).to(dtype)
    return ChannelBOON(operator, conditions, (1.0, 2.0), correction, order=3).to(dtype)


@pytest.mark.parametrize("dtype", ROUND_OFF)
@pytest.mark.parametrize("correction", [None, Prescription()])
def test_every_channel_meets_conditions_of_its_own(dtype, correction):
    operator = flow(dtype, correction)
    values = [[(None, lambda y: torch.sin(y)), None], None, None]
    u = operator(torch.randn(2, 1, 10, 11, dtype=dtype), values)
    for part, boundary in zip(u.split(1, dim=1), operator.discretise(u, values), strict=True):
        assert boundary_error(part, boundary).relative_maximum <= ROUND_OFF[dtype]
    assert (u[:, 0, 0] == 0).all()
    assert torch.equal(u[:, 1, :, 0], u[:, 1, :, -1])
    assert torch.allclose(u[:, 0, -1, 1:-1], torch.sin(torch.linspace(0, 2, 11, dtype=dtype))[1:-1])


def test_channels_and_values_that_do_not_fit():
    operator = flow()
    a = torch.zeros(1, 1, 10, 11).double()
    with pytest.raises(InvalidArgumentError, match="boundary needs one entry for each of 3 channels, got 1"):
        operator(a, [None])
    with pytest.raises(InvalidArgumentError, match="gives 1 channels but conditions are given for 2"):
        ChannelBOON(nn.Identity(), [[None, None], [None, None]])(a)
    with pytest.raises(InvalidArgumentError, match=r"MixedTransform.* acts inside the layers, whose features"):
        ChannelBOON(nn.Identity(), [[None]], correction=MixedTransform())
    with pytest.raises(InvalidArgumentError, match="at least one output channel"):
        ChannelBOON(nn.Identity(), [])
    with pytest.raises(IncompatibleCornersError, match="disagree"):
        operator(a, [[(None, 1.0), None], None, None])


def test_errors_of_conditions_per_channel_are_the_largest_of_all_channels():
    walls = [[(Dirichlet(0.0), Dirichlet(0.0))], [(Neumann(0.0), Neumann(0.0))]]
    operator = ChannelBOON(nn.Identity(), walls).double()
    u = torch.randn(3, 2, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boundary = operator.discretise(u)
    whole, parts = boundary_error(u, boundary), [boundary_error(u[:, [n]], boundary[n]) for n in range(2)]
    assert whole.maximum == max(part.maximum for part in parts)
    assert whole.relative_maximum == max(part.relative_maximum for part in parts)
    assert min(part.relative_l2 for part in parts) < whole.relative_l2 < max(part.relative_l2 for part in parts)
    assert boundary_error(operator(u), boundary).relative_maximum <= 1e-12
    with pytest.raises(InvalidArgumentError, match="has 2 channels but conditions are given for 1; give one for each"):
        boundary_error(u, boundary[:1])
