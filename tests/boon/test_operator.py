"""Operators under conditions: exact data in one to three axes, at every resolution, around any module."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from boon import BOON, FNO, ChannelBOON, FNOConfig, Prescription, SmoothExtension
from boon.conditions.sides import check_conditions
from boon.corrections.correction import HiddenConditions
from boon.corrections.matched import matched_bases
from boon.errors import InvalidArgumentError
from solvers import Dirichlet, Neumann, NodeGrid, Periodic, Robin
from tests.boon.cases import EVERY, ON_ONE_AXIS


def test_hidden_conditions_bring_boundary_values_into_the_interior():
    config = FNOConfig(width=4, modes=(4,), depth=2)
    a = torch.randn(1, 1, 20)
    for hidden, reaches in ((False, False), (True, True)):
        operator = BOON(FNO(config), [(Dirichlet(), Neumann(0.0))], correction=Prescription(hidden=hidden))
        low, high = (operator(a, boundary=[(value, None)]) for value in (0.0, 1.0))
        assert (not torch.allclose(low[..., 5:15], high[..., 5:15])) == reaches


BOTH = (Dirichlet(), Dirichlet())


@pytest.mark.parametrize(
    ("operator", "conditions", "options", "message"),
    [
        (nn.Conv1d(1, 1, 3), [BOTH], {"correction": Prescription(hidden=True)}, "needs boon.FNO, got Conv1d"),
        (FNO(FNOConfig()), [BOTH, None], {}, "operator has 1 axes but conditions are given for 2"),
        (FNO(FNOConfig()), [BOTH], {"order": 5}, "must be 1, 2, 3 or 4, got 5"),
        (FNO(FNOConfig(periodic=(True,))), [BOTH], {}, "Axis 0 of the operator is periodic but its conditions are not"),
        (nn.Identity(), Dirichlet(0.0), {}, r"conditions needs one \(first, last\) pair"),
        (nn.Identity(), [BOTH], {"lengths": 2.0}, "lengths needs one positive number per axis"),
    ],
)
def test_operators_that_do_not_fit_their_conditions(operator, conditions, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        BOON(operator, conditions, **options)


@pytest.mark.parametrize(
    ("given", "named"), [(SmoothExtension, "the class SmoothExtension"), ("smooth", "'smooth'"), ("", "''")]
)
def test_a_correction_that_is_a_class_or_a_name(given, named):
    pairs = [(Dirichlet(0.0), None)]
    for wrap in (
        lambda: BOON(nn.Identity(), pairs, correction=given),
        lambda: ChannelBOON(nn.Identity(), [pairs], correction=given),
    ):
        with pytest.raises(InvalidArgumentError, match=rf"as SmoothExtension\(\), or None, got {named}\."):
            wrap()


@pytest.mark.parametrize("inner", [lambda: FNO(FNOConfig(width=4, modes=(3,), depth=2)), nn.Identity])
def test_input_fields_have_the_name_that_neuraloperator_gives_them(inner):
    a, operator = torch.randn(2, 1, 9), inner()
    wrapped, channels = BOON(operator, [(Dirichlet(), None)]), ChannelBOON(operator, [[(Dirichlet(1.0), None)]])
    assert torch.equal(wrapped(x=a, boundary=[(0.0, None)]), wrapped(a, [(0.0, None)]))
    assert torch.equal(wrapped.with_residual(x=a, boundary=[(0.0, None)])[0], wrapped(a, [(0.0, None)]))
    assert torch.equal(channels(x=a), channels(a))
    if isinstance(operator, FNO):
        assert torch.equal(operator(x=a), operator(a))


@pytest.mark.parametrize("correction", EVERY, ids=str)
@pytest.mark.parametrize("others", [[], [(Periodic(), Periodic())], [(Dirichlet(0.0), Neumann(1.0))]])
def test_a_batch_without_entries(correction, others):
    space = (9, 16)[: 1 + len(others)]
    config = FNOConfig(width=4, modes=(3,) * len(space), depth=2)
    operator = BOON(FNO(config), [(Dirichlet(0.0), Dirichlet(0.0)), *others], correction=correction)
    assert operator(torch.zeros(0, 1, *space)).shape == (0, 1, *space)


@pytest.mark.parametrize("correction", ON_ONE_AXIS)
@pytest.mark.parametrize("pair", [(Robin(1.0, -0.3), Neumann()), (Dirichlet(), Neumann()), (Periodic(), Periodic())])
def test_every_parameter_of_a_corrected_operator_gets_a_gradient(correction, pair):
    torch.manual_seed(0)
    operator = BOON(FNO(FNOConfig(width=4, depth=2, modes=(4,))), [pair], correction=correction)
    values = None if isinstance(pair[0], Periodic) else [(torch.randn(3, 1), torch.randn(3, 1))]
    u = operator(torch.randn(3, 1, 20), boundary=values)
    (u - torch.randn(3, 1, 20)).square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in operator.parameters())
    assert all(bool(p.grad.abs().sum() > 0) for p in operator.parameters())


@pytest.mark.parametrize("correction", ON_ONE_AXIS)
def test_an_operator_that_has_predicted_in_inference_mode_can_be_trained(correction):
    operator = BOON(
        FNO(FNOConfig(width=4, depth=2, modes=(4,))), [(Dirichlet(1.0), Neumann(0.3))], correction=correction
    )
    a = torch.randn(2, 1, 23)  # a shape of its own: what depends on the shape is kept
    with torch.inference_mode():
        before = operator(a)
    operator(a).sum().backward()
    assert torch.equal(operator(a), before)


@pytest.mark.parametrize("padding", [0.125, 0.5])
@pytest.mark.parametrize("right", [Dirichlet(0.0), Neumann(0.0)])
def test_mixed_kernels_have_no_higher_frequency_than_the_fourier_series(padding, right):
    modes, like = 12, torch.zeros(1, dtype=torch.float64)
    pair, config = (Dirichlet(0.0), right), FNOConfig(modes=(modes,), padding=padding)
    (basis,) = matched_bases(check_conditions([pair]), config, [129], like)
    half_waves = [((row[:-1] * row[1:]) < 0).sum() + 1 for row in basis.synthesis[1:-1].mT]
    highest = 2 * (modes - 1) / (1 + padding)
    assert highest - 1 < max(half_waves) <= highest + 0.5
    least = next(n for n in range(4, 129) if 2 * (modes - 1) < (1 + padding) * (n - 1))
    assert BOON(FNO(config), [pair])(torch.randn(1, 1, least)).shape == (1, 1, least)


def test_hidden_conditions_are_those_of_an_affine_image_of_the_solution():
    # B(A u + c) = A B u + c·B1 for every kind of condition.
    torch.manual_seed(1)
    u = torch.randn(2, 3, 8, 9, dtype=torch.float64)
    conditions = [(Robin(2.0, 0.3), Neumann()), (Dirichlet(), Robin(-1.0, 0.2))]
    sides = BOON(nn.Identity(), conditions).discretise(u, [(0.0, 0.0), (0.0, 0.0)])
    of_solution = replace(sides, data=tuple(side.read(u) for side in sides.functionals))
    hidden = HiddenConditions(2, 3, 5).double()
    nn.init.normal_(hidden.bias)
    for layer, boundary in enumerate(hidden(of_solution)):
        image = torch.einsum("wc,bcij->bwij", hidden.weight[layer, 0], u) + hidden.bias[layer, 0, :, :, None]
        for side, data in zip(sides.functionals, boundary.data, strict=True):
            assert torch.allclose(data, side.read(image), atol=1e-12)


@pytest.mark.parametrize("operator", [FNO(FNOConfig()), nn.Identity()])
def test_an_array_as_input_is_refused(operator):
    a = torch.zeros(1, 1, 33).numpy()
    with pytest.raises(InvalidArgumentError, match=r"Fields are tensors, got ndarray; use torch\.as_tensor"):
        BOON(operator, [(Dirichlet(0.0), Dirichlet(0.0))])(a)
    with pytest.raises(InvalidArgumentError, match=r"Fields are tensors, got ndarray; use torch\.as_tensor"):
        FNO(FNOConfig())(a)
    with pytest.raises(InvalidArgumentError, match=r"Fields are tensors, got ndarray; use torch\.as_tensor"):
        ChannelBOON(operator, [[(Dirichlet(0.0), Dirichlet(0.0))]])(a)


def test_a_field_with_the_axes_of_the_grid_exchanged_is_refused():
    pair = (Dirichlet(0.0), Dirichlet(0.0))
    grid = NodeGrid((0.0, 0.0), (2.0, 1.0), (9, 5))
    operator = BOON(nn.Conv2d(1, 1, 1), [pair, pair], grid=grid)
    with pytest.raises(InvalidArgumentError, match=r"grid has \(9, 5\) values .* field \(5, 9\).* transpose"):
        operator(torch.randn(2, 1, 5, 9))
    for shape in (grid.shape, (17, 9), (5, 5)):  # other numbers are another grid
        assert operator(torch.randn(2, 1, *shape)).shape[2:] == shape
