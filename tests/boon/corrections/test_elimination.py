"""Elimination against the equations of Saad et al. 2023, with every matrix formed in NumPy."""

import copy
import pickle
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from boon import BOON, FNO, Elimination, FNOConfig
from boon.corrections import pivots
from boon.corrections.elimination import eliminate
from boon.errors import InvalidArgumentError, SingularKernelError
from boon.spectral import SpectralConvolution, convolve, fourier_basis
from boon.transforms import DomainFourier, NodeFourier
from solvers import Dirichlet, Neumann, Periodic, Robin
from solvers.stencils import one_sided_gradient
from tests.boon.cases import discretise, nodes_on
from tests.recording import records

NODES, DOMAIN = NodeFourier(), DomainFourier()
WALLS = [(Dirichlet(0.0), Dirichlet(0.0)), (Neumann(0.0), Neumann(0.0)), (Dirichlet(0.0), Neumann(0.0))]


def random_kernel(seed, channels=1, periodic=False):
    """A layer, its basis, and the matrix K of one channel from the definition of the transform."""
    torch.manual_seed(seed)
    modes = int(torch.randint(2, 17, ()))
    count = int(torch.randint(2 * modes + 2, 130, ()))
    layer = SpectralConvolution(channels, channels, (modes,)).double().requires_grad_(False)
    like, transform = torch.zeros((), dtype=torch.float64), (NODES, DOMAIN)[seed % 2]
    basis = fourier_basis(count, modes, 0.125, like=like, transform=transform, periodic=periodic)
    nodes, weight = np.arange(count), layer.weight[:, 0, 0].numpy()
    offset = nodes[:, None] - nodes
    waves = [(2 - (k == 0)) * w * np.exp(2j * np.pi * k * offset / basis.period) for k, w in enumerate(weight)]
    return layer, (basis,), np.sum(waves, 0).real / basis.period * basis.analysis[0].numpy()


def by_the_paper(kernel):
    """K T₂: the first end is eliminated with the Schur term of the last one, then the last end.

    The authors' public code differs from this:

    * for Neumann in one dimension it leaves the first end as it is and halves the result of every layer;
    * it evaluates the layer on e₀ and e_N with the bias of its pointwise part;
    * pivots below 1e-7 (1e-4 in two and three dimensions, there also negative ones) become this number;
    * in two and three dimensions z_N is 2 y_0 − …, with the first node in place of the last; in three only the first
      two of four sides are eliminated; near Dirichlet sides in two dimensions five nodes are smoothed;
    * after T₂ it sets the boundary nodes of every layer to the values of the solution, where T₁ here keeps those of the
      layer's input (which the hidden conditions have set).
    """
    count = len(kernel)
    k_00, k_0n, k_n0, k_nn = kernel[0, 0], kernel[0, -1], kernel[-1, 0], kernel[-1, -1]
    schur = k_00 - k_0n * k_n0 / k_nn
    first, last = np.eye(count), np.eye(count)
    first[0] = 2 * first[0] - (kernel[0] - k_0n / k_nn * kernel[-1] + k_0n * np.eye(count)[-1]) / schur
    last[-1] = 2 * last[-1] - kernel[-1] / k_nn
    return kernel @ last @ first


def corrected(layer, bases):
    """K T₂ from its action on unit vectors."""
    unit = torch.eye(bases[0].analysis.shape[1], dtype=torch.float64)[:, None]
    return eliminate(unit, layer.weight, bases)[:, 0].mT.numpy()


def beyond_the_diagonal(matrix, row):
    return np.abs(np.delete(matrix[row], row)).sum() / abs(matrix[row, row])


def test_200_random_kernels_are_those_of_the_paper_and_neither_end_sees_the_interior():
    eliminated, seed = 0, 0
    while eliminated < 200:
        layer, bases, kernel = random_kernel(seed)
        seed += 1
        try:
            matrix = corrected(layer, bases)
        except SingularKernelError:
            continue
        expected = by_the_paper(kernel)
        # 130 nodes: some thousand times eps = 2e-16. A small pivot magnifies rounding and the largest entry alike.
        assert np.abs(matrix - expected).max() <= 1e-12 * np.abs(expected).max()
        assert beyond_the_diagonal(matrix, 0) <= 1e-12
        assert beyond_the_diagonal(matrix, -1) <= 1e-12
        eliminated += 1
    assert seed <= 210  # so few are refused


@pytest.mark.parametrize(
    ("channels", "least", "most"), [(1, 0.0, 1e-12), (2, 0.4, 0.75), (8, 0.4, 0.75), (32, 0.4, 0.75)]
)
def test_one_number_for_all_channels_leaves_half_of_the_interior_at_the_ends(channels, least, most):
    """What the pages say of several channels; in one the interior cancels up to the round-off of some hundred terms."""
    bases, seen = (fourier_basis(33, 8, 0.125, like=torch.zeros((), dtype=torch.float64)),), []
    for seed in range(20):
        torch.manual_seed(seed)
        weight = SpectralConvolution(channels, channels, (8,)).double().weight.detach()
        x = torch.randn(2, channels, 33, dtype=torch.float64)
        x[..., [0, -1]] = 0.0
        try:
            eliminated = eliminate(x, weight, bases)
        except SingularKernelError:
            continue
        ends = [float(fields[..., [0, -1]].norm()) for fields in (eliminated, convolve(x, weight, bases))]
        seen.append(ends[0] / ends[1])
    assert len(seen) > 10
    assert least <= sorted(seen)[len(seen) // 2] <= most


@pytest.mark.parametrize("pair", WALLS, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_the_interior_is_that_of_both_ends_eliminated_and_the_walls_keep_the_functional_of_the_input(seed, pair):
    layer, bases, kernel = random_kernel(seed)
    x = torch.randn(3, 1, len(kernel), dtype=torch.float64)
    boundary = discretise([pair], nodes_on(1.0), None, x, 3)
    expected = x.numpy() @ by_the_paper(kernel).T
    for side, condition in zip((0, -1), pair, strict=True):
        step = 1 if side == 0 else -1
        c = one_sided_gradient(3, "first" if side == 0 else "last").numpy()
        inner = [side + step * j for j in range(1, len(c))]
        gradient = x.numpy()[..., [side, *inner]] @ c
        value = x.numpy()[..., side]
        of_wall = isinstance(condition, Dirichlet)
        expected[..., side] = value if of_wall else (gradient - expected[..., inner] @ c[1:]) / c[0]
    result = Elimination().kernel(layer, x, bases, boundary).numpy()
    assert np.abs(result - expected).max() <= 1e-11 * np.abs(expected).max()  # 1/c₀ times the above


@pytest.mark.parametrize("periodic", [True, False])
def test_on_a_circle_both_ends_are_the_average_and_no_end_is_eliminated(periodic):
    layer, bases, kernel = random_kernel(1, periodic=periodic)
    x = torch.randn(3, 1, len(kernel), dtype=torch.float64)
    expected = x.numpy() @ kernel.T
    expected[..., [0, -1]] = expected[..., [0, -1]].mean(-1, keepdims=True)
    boundary = discretise([(Periodic(), Periodic())], nodes_on(1.0), None, x, 2)
    assert np.allclose(Elimination().kernel(layer, x, bases, boundary).numpy(), expected, rtol=0, atol=1e-13)


def test_several_channels_share_the_numbers_of_channel_0_as_in_the_code_of_the_authors():
    layer, bases, _ = random_kernel(3, channels=3)
    count = bases[0].analysis.shape[1]
    x = torch.randn(2, 3, count, dtype=torch.float64)
    first, last = torch.zeros_like(x[:1]), torch.zeros_like(x[:1])
    first[..., 0], last[..., -1] = 1.0, 1.0
    (k_00, k_n0), (k_0n, k_nn) = (layer(end, bases)[0, 0, [0, -1]] for end in (first, last))
    y, image = x.clone(), layer(x, bases)
    inner = image[..., 0] - k_0n / k_nn * image[..., -1] + k_0n * x[..., -1]
    y[..., 0] = 2 * x[..., 0] - inner / (k_00 - k_0n * k_n0 / k_nn)
    z = y.clone()
    z[..., -1] = 2 * y[..., -1] - layer(y, bases)[..., -1] / k_nn
    assert torch.allclose(eliminate(x, layer.weight, bases), layer(z, bases), rtol=0, atol=1e-12)


def untrained(channels=4, padding=0.125, pair=WALLS[0]):
    torch.manual_seed(0)
    return BOON(FNO(FNOConfig(width=channels, modes=(4,), depth=2, padding=padding)), [pair], correction=Elimination())


def test_derivatives_in_field_values_and_weights():
    operator = untrained(2, pair=(Dirichlet(), Robin(1.0, 0.4871))).double()
    generator = torch.Generator().manual_seed(1)
    a, g = (torch.randn(1, 1, *space, dtype=torch.float64, generator=generator) for space in ((11,), ()))
    inputs = tuple(each.clone().requires_grad_() for each in (a, g, g))
    assert torch.autograd.gradcheck(lambda a, *values: operator(a, [values]), inputs, atol=1e-6)
    layer, bases, _ = random_kernel(4, channels=2)
    x = torch.randn(1, 2, bases[0].analysis.shape[1], dtype=torch.float64, generator=generator)
    weight = layer.weight.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda weight: eliminate(x, weight, bases).mean(), (weight,), atol=1e-6)


def test_training_needs_no_name_of_a_newer_torch(monkeypatch: pytest.MonkeyPatch):
    older = ModuleType("torch")
    older.__dict__.update(vars(torch), compiler=SimpleNamespace(is_compiling=torch.compiler.is_compiling))  # of 2.6
    monkeypatch.setattr(pivots, "torch", older)
    operator = untrained(2, pair=(Dirichlet(), Robin(1.0, 0.4871)))
    operator(torch.ones(1, 1, 11), [(0.0, 0.0)]).sum().backward()


@pytest.mark.long
@records
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracing
def test_a_small_pivot_is_refused_warned_of_in_training_and_gives_nan_where_a_graph_is_recorded():
    operator, a = untrained(), torch.randn(2, 1, 20)
    with torch.no_grad():
        for layer in operator.operator.modules():
            if isinstance(layer, SpectralConvolution):
                layer.weight[0] = -1.9999 * layer.weight[1:].real.sum(0)
    message = r"its terms in size add up to .* divides by no less than 0\.00035"
    with torch.no_grad():
        with pytest.raises(SingularKernelError, match=message):
            operator(a)
        assert bool(torch.compile(operator, fullgraph=True, backend="eager")(a)[..., 1:-1].isnan().all())
    with pytest.warns(RuntimeWarning, match=r"below 0\.00035 of its terms in size.*In the first steps of a training"):
        u = operator(a)
    u.sum().backward()
    assert bool(u.isfinite().all())
    torch.compiler.reset()
    assert torch.allclose(torch.compile(operator, fullgraph=True, backend="eager")(a), u, rtol=1e-4)
    exported = torch.export.export(operator, (a,)).module()
    assert bool(exported(a)[..., 1:-1].isnan().all())


def test_a_training_warns_of_small_pivots_once():
    operator, a = untrained(), torch.randn(2, 1, 20)
    kernels = [layer.weight for layer in operator.operator.modules() if isinstance(layer, SpectralConvolution)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # as Python shows them
        for step in range(5):
            with torch.no_grad():
                for weight in kernels:
                    weight[0] = -(1.9999 + 0.00001 * step) * weight[1:].real.sum(0)
            operator(a).sum().backward()
    assert [each.category for each in caught] == [RuntimeWarning]


def test_the_form_of_older_versions_is_not_unpickled_as_this_one():
    state = copy.copy(Elimination())
    object.__setattr__(state, "block", False)
    with pytest.raises(InvalidArgumentError, match=r"pickled by version 0\.3 or older.*read the file here"):
        pickle.loads(pickle.dumps(state))
    assert pickle.loads(pickle.dumps(Elimination(hidden=False))) == Elimination(hidden=False)
