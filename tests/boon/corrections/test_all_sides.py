"""Elimination of all sides at once, on two and three axes, against kernels whose matrices are formed."""

import warnings
from math import prod

import pytest
import torch

from boon import BOON, FNO, Elimination, FNOConfig, load, save
from boon.conditions.functionals import Functional
from boon.conditions.parts import Part
from boon.corrections.all_sides import eliminate_all_sides
from boon.errors import InvalidArgumentError, SingularKernelError
from boon.spectral import SpectralConvolution, convolve, fourier_basis
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.recording import records

SHAPES = [
    ((9, 9), (4, 4), (0, 1)),
    ((9, 8), (4, 3), (0,)),
    ((9, 8), (4, 3), (1,)),
    ((5, 12), (3, 5), (0, 1)),
    ((7, 6, 7), (2, 3, 3), (0, 1, 2)),
    ((7, 6, 7), (2, 3, 3), (0, 1)),
    ((6, 5, 7), (3, 2, 2), (0, 2)),
]
CIRCLE = (Periodic(), Periodic())
VALUES, SLOPES, MIXED = (
    (Dirichlet(0.0), Dirichlet(0.0)),
    (Neumann(0.5), Neumann(-0.25)),
    (Dirichlet(0.0), Robin(1.0, 0.4871, 0.0)),
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "modes", "axes"), SHAPES, ids=str)
def test_the_kernel_is_that_of_its_matrix_and_no_side_sees_the_interior(shape, modes, axes, seed):
    torch.manual_seed(seed)
    like = torch.zeros((), dtype=torch.float64)
    bases = [fourier_basis(count, m, 0.125, like=like) for count, m in zip(shape, modes, strict=True)]
    layer, size = SpectralConvolution(1, 1, modes).double().requires_grad_(False), prod(shape)
    at_sides = torch.zeros(shape, dtype=torch.bool)
    for axis in axes:
        for node in (0, -1):
            at_sides.select(axis, node).fill_(True)
    on = at_sides.flatten()
    kernel = torch.stack([layer(unit.view(1, 1, *shape), bases).flatten() for unit in torch.eye(size).double()], 1)
    # On nodes K_BB has zeros among its singular values, and the others are above 1e-3 of the largest.
    inverse = torch.linalg.pinv(kernel[on][:, on], rtol=1e-9)
    expected = kernel.clone()
    expected[:, ~on] -= kernel[:, on] @ inverse @ kernel[on][:, ~on]
    x = torch.randn(4, 1, *shape, dtype=torch.float64)
    made = eliminate_all_sides(x, layer.weight, bases, axes)
    assert torch.allclose(made.flatten(1), x.flatten(1) @ expected.mT, rtol=0, atol=1e-13 * float(x.norm()))
    inner = torch.where(at_sides, 0.0, x)
    assert float(eliminate_all_sides(inner, layer.weight, bases, axes)[..., at_sides].abs().max()) <= 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "pairs",
    [
        [VALUES, VALUES],
        [SLOPES, SLOPES],
        [MIXED, MIXED],
        [VALUES, SLOPES],
        [MIXED, None],
        [None, SLOPES],
        [CIRCLE, MIXED],
        [((Part(Dirichlet(0.0), (0.0, 0.5)), Part(Neumann(0.0))), Dirichlet(0.0)), VALUES],
        [VALUES, VALUES, SLOPES],
        [MIXED, VALUES, None],
    ],
    ids=str,
)
def test_walls_of_untrained_operators_are_right(pairs, dtype):
    torch.manual_seed(0)
    periodic = tuple(pair is CIRCLE for pair in pairs)
    config = FNOConfig(width=4, modes=(3,) * len(pairs), depth=2, periodic=periodic)
    operator = BOON(FNO(config), pairs, correction=Elimination()).to(dtype)
    shape = (9, 10, 8)[: len(pairs)]
    with torch.no_grad():
        u = operator(torch.randn(2, 1, *shape, dtype=dtype))
    assert bool(u.isfinite().all())
    boundary = operator.discretise(u)
    largest = float(u.abs().max())
    for side, data in zip(boundary.sides, boundary.data, strict=True):
        # The rounding of a node to the dtype of the field, times the weights that read it.
        if isinstance(side, Functional) and side.is_value:
            limit = 4 * torch.finfo(dtype).eps * largest
        else:
            limit = 8 * torch.finfo(dtype).eps * largest * (shape[side.axis] - 1)
        assert float((side.read(u) - data).abs().max()) <= limit


def test_a_side_with_free_nodes_is_refused():
    config = FNOConfig(width=4, modes=(3, 3), depth=1)
    for pair in ((Dirichlet(0.0), None), (Part(Dirichlet(0.0), (0.0, 0.5)), Dirichlet(0.0))):
        with pytest.raises(InvalidArgumentError, match="acts on both ends of an axis, but axis 0"):
            BOON(FNO(config), [pair, None], correction=Elimination())


@pytest.mark.parametrize(("channels", "least", "most"), [(1, 0.0, 1e-12), (2, 0.4, 0.75), (32, 0.4, 0.75)])
def test_one_number_for_all_channels_leaves_half_of_the_interior_at_the_sides(channels, least, most):
    """What the pages say of several channels."""
    bases, seen = [fourier_basis(17, 4, 0.125, like=torch.zeros((), dtype=torch.float64)) for _ in range(2)], []
    at_sides = torch.ones(17, 17, dtype=torch.bool)
    at_sides[1:-1, 1:-1] = False
    for seed in range(9):
        torch.manual_seed(seed)
        weight = SpectralConvolution(channels, channels, (4, 4)).double().weight.detach()
        x = torch.randn(2, channels, 17, 17, dtype=torch.float64).masked_fill(at_sides, 0.0)
        fields = eliminate_all_sides(x, weight, bases, (0, 1)), convolve(x, weight, bases)
        ends = [float(field[..., at_sides].norm()) for field in fields]
        seen.append(ends[0] / ends[1])
    assert least <= sorted(seen)[4] <= most


def untrained():
    torch.manual_seed(0)
    return BOON(FNO(FNOConfig(width=4, modes=(3, 3), depth=2)), [VALUES, SLOPES], correction=Elimination())


def test_derivatives_in_field_and_weights():
    torch.manual_seed(0)
    bases = [fourier_basis(7, 2, 0.125, like=torch.zeros((), dtype=torch.float64)) for _ in range(2)]
    weight = SpectralConvolution(2, 2, (2, 2)).double().weight.detach().requires_grad_()
    x = torch.randn(1, 2, 7, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: eliminate_all_sides(x, weight, bases, (0, 1)), (x, weight))


def test_a_stored_operator_gives_the_same_field(tmp_path):
    operator, a = untrained(), torch.randn(2, 1, 9, 8)
    save(operator, tmp_path / "operator.safetensors")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "operator.safetensors")(a), operator(a))


def test_twenty_steps_in_half_precision_stay_finite_and_lower_the_loss():
    operator, a = untrained(), torch.randn(4, 1, 9, 8)
    optimiser, losses = torch.optim.Adam(operator.parameters(), lr=1e-2), []
    for _ in range(20):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (operator(a) - a.tanh()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.long
@records
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracing
def test_a_compiled_and_an_exported_operator_give_the_same_field():
    operator, a = untrained(), torch.randn(2, 1, 9, 8)
    with torch.no_grad():
        u = operator(a)
        compiled = torch.compile(operator, fullgraph=True, backend="eager")(a)
        exported = torch.export.export(operator, (a,)).module()(a)
    # Condition numbers of some tens.
    assert torch.allclose(compiled, u, rtol=0, atol=1e3 * torch.finfo(u.dtype).eps * float(u.abs().max()))
    assert torch.allclose(exported, u, rtol=0, atol=1e3 * torch.finfo(u.dtype).eps * float(u.abs().max()))


def test_a_singular_kernel_is_refused_and_a_training_warns_of_it_once():
    operator, a = untrained(), torch.randn(2, 1, 9, 8)
    with torch.no_grad():
        for layer in operator.operator.modules():
            if isinstance(layer, SpectralConvolution):
                layer.weight[1:] = 0.0  # only constants along the first axis
        with pytest.raises(SingularKernelError, match=r"between its sides has the condition number .* use another"):
            operator(a)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # as Python shows them
        for _ in range(3):
            operator(a)
    assert [each.category for each in caught] == [RuntimeWarning]
