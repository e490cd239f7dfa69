"""The adapter of neuraloperator's FNO on a re-statement of it (``tests/neuralop_stub.py``), without the package."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from boon import BOON, Elimination, MixedTransform, Prescription, SmoothExtension, boundary_error
from boon.conditions.functionals import prescribe
from boon.corrections.correction import Correction, PrescriptionStep
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.errors import InvalidArgumentError, TooManyModesError
from boon.neuraloperator import kernel_of
from boon.spectral import fourier_basis
from boon.transforms import NodeFourier
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests import neuralop_stub
from tests.boon.cases import discretise, nodes_on
from tests.neuralop_stub import FNO, SpectralConv
from tests.oracles import eliminate_densely
from tests.strategies import seeds

CORRECTIONS = [
    Prescription(hidden=True),
    SmoothExtension(hidden=True),
    EliminationWithoutSchur(),
    EliminationWithoutSchur(hidden=False),
    MixedTransform(share=0.0),
]


class Unchanged(Correction):
    """Evaluates the layers as they are, by the adapter's kernels."""

    hidden = False
    acts_on_kernels = True

    def step(self, conditions, channels):  # noqa: ARG002
        return PrescriptionStep()


@pytest.fixture(autouse=True)
def package(monkeypatch):
    neuralop_stub.install(monkeypatch)


def layer_and_bases(shape, n_modes, margin=0, channels=2, seed=0):
    torch.manual_seed(seed)
    layer = SpectralConv(channels, n_modes, torch.float64).requires_grad_(False)
    like = torch.zeros((), dtype=torch.float64)
    counts = [*(m // 2 + 1 for m in layer.n_modes[:-1]), layer.n_modes[-1]]
    bases = [fourier_basis(n, m, like=like, transform=NodeFourier()) for n, m in zip(shape, counts, strict=True)]
    return (
        layer,
        tuple(replace(basis, margin=margin) for basis in bases),
        torch.randn(2, channels, *shape, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("shape", "n_modes"),
    [((9,), (6,)), ((8,), (5,)), ((8, 9), (4, 6)), ((9, 8), (5, 3)), ((7, 6), (1, 4)), ((6, 7, 8), (4, 3, 6))],
)
def test_kernel_equals_the_layer(shape, n_modes):
    layer, bases, x = layer_and_bases(shape, n_modes)
    expected = layer(x) - layer.bias
    result = kernel_of(layer, x.dtype)(x, bases)
    # Both sum at most 400 products of numbers of order 1: some hundred times eps = 2e-16.
    assert torch.allclose(result, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("n_modes", [(8, 6), (5, 4), (4, 6), (3, 2)])
def test_fewer_modes_than_stored_take_the_middle_of_the_weights(n_modes):
    # The package grows n_modes during training: frequency k then has the weight in the middle of what is stored.
    layer, _, x = layer_and_bases((12, 13), (8, 6))
    layer.n_modes = [n_modes[0], n_modes[1] // 2 + 1]
    spare = 8 - n_modes[0]
    kept = layer.weight[:, :, spare // 2 : spare // 2 + n_modes[0], : layer.n_modes[1]]
    sizes = ((12, n_modes[0] // 2 + 1), (13, layer.n_modes[1]))
    bases = [fourier_basis(n, m, like=x, transform=NodeFourier()) for n, m in sizes]
    assert torch.allclose(kernel_of(layer, x.dtype)(x, bases), neuralop_stub.convolve(x, kept), atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "n_modes", "axes", "margin"),
    [
        ((9,), (4,), (0,), 0),
        ((12,), (5,), (0,), 2),
        ((8, 7), (4, 4), (0, 1), 1),
        ((9, 8), (3, 4), (1,), 1),
        ((6, 5, 6), (2, 2, 3), (0, 2), 1),
    ],
)
def test_elimination_equals_the_dense_kernel(shape, n_modes, axes, margin):
    layer, bases, x = layer_and_bases(shape, n_modes, margin)
    conditions = [(Dirichlet(0.0), Dirichlet(0.0)) if axis in axes else None for axis in range(len(shape))]
    inner = x[(..., *(slice(margin, n - margin) for n in shape))]
    boundary = discretise(conditions, nodes_on(*[1.0] * len(shape)), None, inner, 2).inside([margin] * len(shape))
    result = EliminationWithoutSchur().kernel(kernel_of(layer, x.dtype), x, bases, boundary)

    def convolution(unit, weight, _):
        return neuralop_stub.convolve(torch.from_numpy(unit), weight).numpy()

    expected = torch.from_numpy(eliminate_densely(x.numpy(), layer.weight, shape, axes, margin, convolution))
    for axis in axes:  # T₁: Dirichlet faces keep the input
        for node in (margin, shape[axis] - 1 - margin):
            expected.select(2 + axis, node).copy_(x.select(2 + axis, node))
    assert torch.allclose(result, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_elimination_in_a_padded_array_carries_boundary_functionals():
    layer, bases, x = layer_and_bases((12, 13), (4, 6))
    bases = tuple(replace(basis, margin=margin) for basis, margin in zip(bases, (2, 1), strict=True))
    conditions = [(Neumann(0.0), Dirichlet(0.0)), (Robin(1.0, -0.3, 0.0), Neumann(0.0))]
    boundary = discretise(conditions, nodes_on(1.0, 1.0), None, x[..., 2:-2, 1:-1], 3)
    result = EliminationWithoutSchur().kernel(kernel_of(layer, x.dtype), x, bases, boundary.inside((2, 1)))
    for side in boundary.functionals:
        domain, before = (field[..., 2:-2, 1:-1] for field in (result, x))
        assert torch.allclose(side.read(domain), side.read(before), atol=1e-10)


@pytest.mark.parametrize("padding", [0, 2])
def test_the_whole_operator_is_evaluated_as_it_is_but_for_its_kernels(padding):
    torch.manual_seed(0)
    model = FNO((4, 6), 1, 2, 4, n_layers=3, padding=padding).requires_grad_(False)
    names = list(model.state_dict())
    operator = BOON(model, [(Dirichlet(0.5), Neumann(0.0)), None], correction=Unchanged())
    a = torch.randn(2, 1, 10, 9)
    expected = prescribe(model(a), operator.discretise(model(a)))
    # float32: eps = 1.2e-7 over three layers with sums of about fifty terms.
    assert torch.allclose(operator(a), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert list(model.state_dict()) == names
    assert all(type(layer) is SpectralConv for layer in model.fno_blocks.convs)


@st.composite
def pairs(draw):
    """Conditions of one axis with data that fit at corners."""
    sides = [Dirichlet(0.0), Neumann(0.0), Robin(1.0, 0.4871, 0.0), Robin(-2.0, 0.0973, 0.0)]
    kind = draw(st.sampled_from(["sides", "sides", "periodic", "free"]))
    if kind == "sides":
        return (draw(st.sampled_from(sides)), draw(st.sampled_from(sides)))
    return (Periodic(), Periodic()) if kind == "periodic" else None


@settings(deadline=None, max_examples=40)
@given(
    conditions=st.lists(pairs(), min_size=1, max_size=2),
    correction=st.sampled_from(CORRECTIONS),
    double=st.booleans(),
    padding=st.integers(0, 2),
    seed=seeds,
    data=st.data(),
)
def test_untrained_operators_meet_their_conditions_to_round_off(conditions, correction, double, padding, seed, data):
    periodic = any(pair is not None and isinstance(pair[0], Periodic) for pair in conditions)
    if isinstance(correction, MixedTransform) or periodic:
        padding = 0
    torch.manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    model = FNO([4 for _ in conditions], 1, 1, 3, padding=padding)
    operator = BOON(model, conditions, correction=correction)
    operator = operator.double() if double else operator  # leaves their complex weights as they are
    for _ in range(2):  # at two resolutions
        u = operator(torch.randn(2, 1, *(data.draw(st.integers(7, 13)) for _ in conditions), dtype=dtype))
        boundary = operator.discretise(u)
        assert boundary_error(u, boundary).relative_maximum <= (1e-12 if double else 1e-6)
        for side, values in zip(boundary.functionals, boundary.data, strict=True):
            if side.is_value:
                assert torch.equal(u.select(2 + side.axis, -1 if side.last else 0).double(), values)
        for axis in boundary.periodic:
            assert torch.equal(u.select(2 + axis, 0), u.select(2 + axis, -1))


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_every_parameter_gets_a_gradient(correction):
    torch.manual_seed(0)
    padding = 0 if isinstance(correction, MixedTransform) else 2
    operator = BOON(FNO((6,), 1, 1, 3, padding=padding), [(Robin(1.0, -0.3), Neumann())], correction=correction)
    u = operator(torch.randn(3, 1, 16), boundary=[(torch.randn(3, 1), torch.randn(3, 1))])
    u.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in operator.parameters())


def test_hidden_layers_see_boundary_values():
    a = torch.randn(1, 1, 20)
    operator = BOON(FNO((6,), 1, 1, 3, padding=2), [(Dirichlet(), Neumann(0.0))], correction=Prescription(hidden=True))
    low, high = (operator(a, boundary=[(value, None)]) for value in (0.0, 1.0))
    assert not torch.allclose(low[..., 5:15], high[..., 5:15])


OPTIONS = [
    ("complex_data", True, "real data"),
    ("separable", True, "full weight matrices"),
    ("preactivation", True, "activations after the kernel"),
    ("fno_block_precision", "mixed", "full precision .*got 'mixed'"),
    ("fno_blocks.norm", nn.ModuleList(), "no normalisation"),
    ("fno_blocks.resolution_scaling_factor", [[2.0], [2.0]], "one grid"),
    ("fno_blocks.convs", nn.ModuleList([nn.Identity()]), "spectral layers of type SpectralConv"),
]


@pytest.mark.parametrize(("name", "value", "message"), OPTIONS)
def test_an_option_that_corrections_inside_the_layers_do_not_support(name, value, message):
    model = FNO((4,), 1, 1, 3)
    *parents, last = name.split(".")
    setattr(model.get_submodule(".".join(parents)), last, value)
    with pytest.raises(InvalidArgumentError, match=f"neuralop FNO need .*{message}.*at its output"):
        BOON(model, [(Dirichlet(0.0), Dirichlet(0.0))], correction=Elimination())
    BOON(model, [(Dirichlet(0.0), Dirichlet(0.0))], correction=SmoothExtension())


@pytest.mark.parametrize("correction", CORRECTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_corrected_layers_under_autocast(dtype, correction):
    torch.manual_seed(0)
    operator, a = (
        BOON(FNO((6,), 1, 1, 4), [(Dirichlet(0.3), Neumann(0.1))], correction=correction),
        torch.randn(2, 1, 129),
    )
    with torch.autocast("cpu", dtype=dtype):
        u = operator(a)
    expected = operator(a).detach()
    assert float((u.detach().float() - expected).norm() / expected.norm()) < 4 * torch.finfo(dtype).eps


def test_invalid_arguments_raise_with_reason():
    operator = BOON(FNO((8,), 1, 1, 3), [(Dirichlet(0.0), Dirichlet(0.0))], correction=Elimination())
    with pytest.raises(TooManyModesError, match=r"keeps frequencies up to \(4,\).*too many for \(8,\) nodes"):
        operator(torch.zeros(1, 1, 8))
    operator = BOON(FNO((4,), 1, 1, 3, padding=2), [(Dirichlet(0.0), Neumann(0.0))], correction=MixedTransform())
    with pytest.raises(InvalidArgumentError, match="without domain_padding"):
        operator(torch.zeros(1, 1, 12))
    operator = BOON(FNO((4,), 1, 1, 3, padding=2), [(Periodic(), Periodic())], correction=Elimination())
    with pytest.raises(InvalidArgumentError, match="Axis 0 is periodic but padded"):
        operator(torch.zeros(1, 1, 12))
    operator = BOON(FNO((4,), 2, 1, 3), [(Dirichlet(0.0), Neumann(0.0))], correction=Elimination())
    with pytest.raises(InvalidArgumentError, match=r"input must be \(batch, 2, \*space\) with 1 axes"):
        operator(torch.zeros(1, 1, 12))
    with pytest.raises(InvalidArgumentError, match="operator has 1 axes but conditions are given for 2"):
        BOON(FNO((4,), 2, 1, 3), [None, (Dirichlet(0.0), Neumann(0.0))], correction=Elimination())


def test_without_the_package_no_module_is_taken_for_its_operator(monkeypatch):
    model = FNO((4,), 1, 1, 3)
    monkeypatch.delitem(neuralop_stub.sys.modules, "neuralop.models.fno")
    with pytest.raises(InvalidArgumentError, match=r"needs boon.FNO, got FNO .*pip install .*\[neuraloperator\]"):
        BOON(model, [(Dirichlet(0.0), Dirichlet(0.0))], correction=Elimination())
    operator = BOON(model, [(Dirichlet(1.0), Neumann(0.0))])
    assert (operator(torch.randn(2, 1, 12))[..., 0] == 1.0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("correction", [SmoothExtension(), Elimination()], ids=str)
def test_weights_in_half_precision_are_refused(dtype, correction):
    operator = BOON(FNO((4,), 1, 1, 4), [(Dirichlet(0.0), Dirichlet(0.0))], correction=correction)
    operator = operator.bfloat16() if dtype == torch.bfloat16 else operator.half()
    for a in (torch.rand(2, 1, 12), torch.rand(2, 1, 12, dtype=dtype)):
        with pytest.raises(InvalidArgumentError, match=rf"only, got {dtype}; leave the weights in float32"):
            operator(a)
