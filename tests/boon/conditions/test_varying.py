"""Conditions that vary along a side: parts of a side, Robin coefficients as fields."""

import pytest
import torch

from boon import BOON, ChannelBOON, MixedTransform, Part, Prescription, SmoothExtension
from boon.conditions.discretisation import boundary_channels
from boon.conditions.functionals import prescribe
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.errors import IncompatibleCornersError, InvalidArgumentError, MissingBoundaryError
from boon.fno import FNO, FNOConfig
from boon.normalisation import Normalised
from boon.scores import boundary_error
from boon.storage import load, save
from solvers import Dirichlet, Neumann, Periodic, Robin
from solvers.stencils import one_sided_gradient
from tests.boon.cases import EVERY

N, M = 14, 11
ANYWHERE = [each for each in EVERY if not isinstance(each, EliminationWithoutSchur)]
ALONG = torch.linspace(0, 1, M, dtype=torch.float64)
PARTS = (Part(Dirichlet(2.0), where=lambda y: y < 0.45), Part(Neumann(0.5)))
LEAKY = Robin((1 + ALONG).view(1, 1, M), -(0.2 + ALONG**2).view(1, 1, M), 1.0)
CLOSED = [
    [(PARTS, Neumann(0.1)), (Dirichlet(2.0), Neumann(0.3))],
    [(LEAKY, Robin(1.0, 0.3, 0.4)), (Neumann(0.3), Dirichlet(0.0))],
    [(LEAKY, Dirichlet(1.0)), None],
    [(Robin(torch.tensor([1.0, 2.0]).view(2, 1, 1), -0.3, 0.2), PARTS), (None, Neumann(0.0))],
]
OPEN = [
    [(Part(Dirichlet(2.0), where=lambda y: y < 0.45), Neumann(0.1)), None],
    [((Part(Dirichlet(1.0), where=ALONG > 0.7), Part(Neumann(0.0), where=ALONG < 0.2)), None), (None, Dirichlet(1.0))],
]


def build(conditions, correction, modes=(3, 3), order=2):
    torch.manual_seed(0)
    return BOON(FNO(FNOConfig(width=4, modes=modes, depth=2)), conditions, None, correction, order)


def field(dtype=torch.float64, shape=(2, 1, N, M)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def derivative(u, axis, last, order=2):
    """∂u/∂x on a side, written out."""
    weights = one_sided_gradient(order, "last" if last else "first") * (u.shape[2 + axis] - 1)
    return sum(w * u.select(2 + axis, -1 - j if last else j).double() for j, w in enumerate(weights))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("conditions", [*CLOSED, *OPEN])
@pytest.mark.parametrize("correction", EVERY)
def test_every_correction_meets_every_condition_or_says_why_not(correction, conditions, dtype, tolerance):
    if isinstance(correction, EliminationWithoutSchur) and (conditions in OPEN or None in (conditions[1] or ())):
        with pytest.raises(InvalidArgumentError, match="on one side only or on a part of a side"):
            build(conditions, correction)
        return
    operator = build(conditions, correction).to(dtype)
    u = operator(field(dtype))
    assert boundary_error(u, operator.discretise(u)).relative_maximum <= tolerance
    u.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in operator.operator.parameters())


def test_parts_hold_where_they_are_and_the_rest_is_left_alone():
    conditions = [((Part(Dirichlet(2.0), where=ALONG < 0.2), Part(Neumann(0.5), where=ALONG > 0.6)), None), None]
    operator, a = build(conditions, Prescription()), field(torch.float32)
    before, u = operator.operator(a), operator(a)
    assert bool((u[:, :, 0, ALONG < 0.2] == 2.0).all())
    assert torch.allclose(derivative(u, 0, False)[..., ALONG > 0.6], torch.tensor(0.5).double(), atol=1e-4)
    between = (ALONG >= 0.2) & (ALONG <= 0.6)
    assert torch.equal(u[:, :, 0, between], before[:, :, 0, between])
    assert torch.equal(u[:, :, 1:], before[:, :, 1:])


@pytest.mark.parametrize("correction", ANYWHERE)
@pytest.mark.parametrize("last", [False, True])
def test_robin_with_fields_holds_against_the_data_as_given(correction, last):
    a, b = torch.rand(2, 2, 1, M, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    g = torch.randn(2, 1, M, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sides = (None, Robin(a, b)) if last else (Robin(a, -b), None)
    operator = build([sides, None], correction, order=3).double()
    u = operator(field(), [(None, g) if last else (g, None), None])
    residual = a * u[:, :, -1 if last else 0] + (b if last else -b) * derivative(u, 0, last, 3) - g
    assert float(residual.detach().abs().max()) < 1e-11  # weights b c/h up to 60


@pytest.mark.parametrize(
    "correction",
    [Prescription(), SmoothExtension(), SmoothExtension(hidden=True, reach=0.0), EliminationWithoutSchur()],
)
def test_constant_coefficients_as_tensors_are_numbers(correction):
    a, b = torch.full((1, 1, 1), 1.5), torch.full((1, 1, 1), -0.3)
    results = []
    for side in (Robin(1.5, -0.3, 0.7), Robin(a, b.double().fill_(-0.3), 0.7)):
        operator = build([(side, Dirichlet(0.3)), (Periodic(), Periodic())], correction).double()
        results.append(operator(field()))
    assert torch.allclose(*results, atol=1e-10)


def test_the_first_of_two_parts_counts_and_values_elsewhere_do_not_matter():
    first = Part(Dirichlet(lambda y: torch.sqrt(0.5 - y)), where=lambda y: y <= 0.5)
    operator = build([((first, Part(Dirichlet(3.0), where=lambda y: y > 0.3)), None), None], Prescription())
    u = operator(field(torch.float32))
    expected = torch.where(ALONG <= 0.5, torch.sqrt((0.5 - ALONG).clamp(min=0)), 3.0).float()
    assert torch.equal(u[:, :, 0], expected.expand(2, 1, M))


def test_values_of_parts_at_the_call():
    sides = (Part(Dirichlet(), where=ALONG < 0.5), Part(Dirichlet()))
    operator, a = build([(sides, Part(Dirichlet(), where=ALONG < 0.5)), None], Prescription()), field(torch.float32)
    u = operator(a, [([1.0, 2.0], 4.0), None])
    assert torch.equal(u[0, 0, 0], torch.where(ALONG < 0.5, 1.0, 2.0).float())
    assert bool((u[:, :, -1, ALONG < 0.5] == 4.0).all())
    with pytest.raises(InvalidArgumentError, match="has 2 parts and takes a list with a value or None for each"):
        operator(a, [(1.0, 4.0), None])
    with pytest.raises(MissingBoundaryError):
        operator(a, [([1.0, None], 4.0), None])


def test_both_derivatives_hold_at_a_corner_if_coefficients_and_data_fit():
    # B₁ g₂ = B₂ g₁ for data read from one field: then the side that does not set the corner holds there as well.
    source, robin = field(shape=(2, 1, N, M)), Robin(*torch.tensor([1.0, -0.4]).view(2, 1, 1, 1).double())

    first = source[:, :, 0] + robin.b * derivative(source, 0, False)
    operator = build([(robin, None), (Neumann(), None)], Prescription()).double()
    u = operator(field(), [(first, None), (derivative(source, 1, False), None)])
    assert torch.allclose(u[:, :, 0] + robin.b * derivative(u, 0, False), first, atol=1e-11)
    assert torch.allclose(derivative(u, 1, False), derivative(source, 1, False), atol=1e-11)


def test_edges_and_vertices_of_a_cube():
    coefficient = 1 + torch.rand(1, 1, 7, 6, generator=torch.Generator().manual_seed(0))
    part = (Part(Dirichlet(1.0), where=lambda x, z: (x > 0.5) & (z < 0.5)), Part(Neumann(0.2)))
    conditions = [(Robin(coefficient, -0.5, 0.3), Neumann(0.1)), (part, part), (Neumann(0.0), Dirichlet(1.0))]
    operator = build(conditions, MixedTransform(), (2, 2, 2)).double()
    u = operator(field(shape=(2, 1, 8, 7, 6)))
    boundary = operator.discretise(u)
    assert boundary_error(u, boundary).relative_maximum <= 1e-12
    owners = torch.zeros(8, 7, 6, dtype=torch.int64)
    for side in boundary.varying:
        owners.select(side.axis, -1 if side.last else 0).add_(side.holds)
    assert bool((owners[1:-1, 1:-1, 1:-1] == 0).all())
    owners[1:-1, 1:-1, 1:-1] = 1
    assert bool((owners == 1).all())


@pytest.mark.parametrize(
    ("conditions", "match"),
    [
        ([(PARTS, None), (Dirichlet(1.0), None)], "values on the first side of axis . disagree by 1"),
        ([(Part(Dirichlet(lambda y: y)), None), (Periodic(), Periodic())], "other end of a periodic axis"),
    ],
)
def test_values_that_disagree_at_a_corner(conditions, match):
    with pytest.raises(IncompatibleCornersError, match=match):
        build(conditions, Prescription())(field(torch.float32))


@pytest.mark.parametrize(
    ("side", "match"),
    [
        (Part(Dirichlet(0.0), where=torch.ones(3, dtype=torch.bool)), r"booleans of the shape \(11,\) of the side"),
        (Part(Dirichlet(0.0), where=lambda y: y), "got torch.float64"),
        (Part(Dirichlet(0.0), where=((0.0, 0.5), (0.0, 0.5))), "one interval for each of the 1 axes .* got 2"),
        (Part(Neumann(flux=1.0)), "needs a physical law"),
        (Part(Dirichlet(torch.nan)), "NaN or infinite"),
        (Robin(torch.ones(2), 1.0, 0.0), r"a of Robin must be a number or have one axis for the batch"),
        (Robin(1.0, torch.ones(1, 1, M - 1), 0.0), r"b of Robin must be .* got shape \(1, 1, 10\)"),
        (Robin(lambda y: y[:3], 1.0, 0.0), "a of Robin must be"),
        (Robin(1.0, lambda y: y, 0.0), "function for b of Robin gives .* b = 0"),
        (Robin(lambda y: 1 / y, 1.0, 0.0), "function for a of Robin gives a number that is not finite"),
        (Robin(torch.full((1, 1, M), 3 / 2 * (N - 1)), 1.0, 0.0), "cannot be solved for the boundary node"),
    ],
)
def test_sides_that_make_no_sense(side, match):
    with pytest.raises(InvalidArgumentError, match=match):
        build([(side, None), None], Prescription()).double()(field())


@pytest.mark.parametrize("correction", [Prescription(), SmoothExtension(), MixedTransform()])
def test_coefficients_as_functions_are_those_on_the_nodes_of_any_grid(correction):
    def transfer(y):
        return 1 + y.square()

    operator = build([(Robin(transfer, -0.4, 0.3), Dirichlet(1.0)), None], correction).double()
    for along in (11, 21):
        u = operator(field(shape=(2, 1, 17, along)))
        a = transfer(torch.linspace(0.0, 1.0, along, dtype=torch.float64))
        (robin,) = (side for side in operator.discretise(u).varying if not side.last)
        assert torch.equal(robin.a[0, 0], torch.where(robin.holds, a, 0.0))
        assert boundary_error(u, operator.discretise(u)).relative_maximum <= 1e-12


def test_coefficients_that_differ_between_channels():
    a = torch.tensor([1.0, 2.0]).view(1, 2, 1)
    conditions = [(Robin(a, -0.3, 0.5), None), None]
    network = FNO(FNOConfig(width=4, modes=(3, 3), depth=2, out_channels=2))
    u = BOON(network, conditions, correction=SmoothExtension())(field(torch.float32))
    residual = a * u[:, :, 0] - 0.3 * derivative(u, 0, False).float() - 0.5
    assert float(residual.detach().abs().max()) < 1e-4
    with pytest.raises(InvalidArgumentError, match="differ between channels do not pass into hidden features"):
        BOON(network, conditions, correction=Prescription(hidden=True))(field(torch.float32))


def test_channels_of_their_own_may_have_parts():
    operator = ChannelBOON(FNO(FNOConfig(width=4, modes=(3, 3), depth=1, out_channels=2)), [CLOSED[0], CLOSED[2]])
    u = operator.double()(field())
    errors = [boundary_error(u[:, i : i + 1], each) for i, each in enumerate(operator.discretise(u))]
    assert all(each.relative_maximum <= 1e-12 for each in errors)


def test_parts_in_a_normalised_operator():
    inputs, outputs = 5 + 3 * field(), 300 + 20 * field(shape=(3, 1, N, M))[:2]
    inner = Normalised.fit(FNO(FNOConfig(width=4, modes=(3, 3), depth=2)).double(), inputs, outputs)
    operator = BOON(inner, [((Part(Dirichlet(290.0), where=ALONG < 0.5), Part(Neumann(3.0))), None), None])
    u = operator.double()(inputs)
    assert boundary_error(u, operator.discretise(u)).relative_maximum <= 1e-12
    inside = inner.inside(operator.discretise(u), (N, M))
    assert torch.allclose(
        inner.output_scale * inside.data[0] + inside.varying[0].read(inner.output_mean[None]),
        operator.discretise(u).data[0],
    )


def test_coefficients_and_values_have_gradients():
    a = torch.full((1, 1, M), 2.0, requires_grad=True)
    g = torch.zeros(2, 1, M, requires_grad=True)
    build([(Robin(a, -0.3), None), None], SmoothExtension())(field(torch.float32), [(g, None), None]).sum().backward()
    assert a.grad is not None
    assert bool((a.grad != 0).all())
    assert g.grad is not None
    assert bool((g.grad != 0).all())


def test_parts_under_vmap():
    operator, a = build(CLOSED[0], MixedTransform()), field(torch.float32)
    assert torch.allclose(torch.func.vmap(operator)(a[:, None])[:, 0], operator(a), atol=1e-6)


def test_the_data_of_parts_as_channels_are_0_elsewhere():
    operator = build(OPEN[0], Prescription())
    channels = boundary_channels(operator.discretise(field(torch.float32)), (N, M), torch.float32)
    assert torch.equal(channels[0, 0, 3], torch.where(ALONG < 0.45, 2.0, 0.0).float())


def test_parts_on_intervals_are_those_of_functions_and_are_stored(tmp_path):
    sides = [(Part(Dirichlet(2.0), where=(0.0, 0.45)), Part(Neumann(0.5))), Part(Robin(1.0, 0.1, 0.0), where=[0.5, 1])]
    operator, a = build([tuple(sides), None], MixedTransform()), field(torch.float32)
    again = (Part(Dirichlet(2.0), where=lambda y: y <= 0.45), Part(Neumann(0.5)))
    other = build([(again, Part(Robin(1.0, 0.1, 0.0), where=lambda y: y >= 0.5)), None], MixedTransform())
    save(operator, tmp_path / "x")
    loaded = load(tmp_path / "x")
    assert loaded.conditions == operator.conditions
    assert torch.equal(loaded(a), operator(a))
    assert torch.equal(other(a), operator(a))
    cube = Part(Dirichlet(1.0), where=((0.5, 1.0), (0.0, 0.4)))
    u = build([(cube, None), None, None], Prescription(), (2, 2, 2))(field(torch.float32, (1, 1, 5, 5, 6)))
    assert torch.equal((u[0, 0, 0] == 1).nonzero(), torch.cartesian_prod(torch.arange(2, 5), torch.arange(3)))


@pytest.mark.parametrize(
    "where", [(0.5, 0.2), (0.1,), ((0.0, 1.0), (0.3,)), (), (float("nan"), 1.0), ("a", "b"), (0.1, (0.2, 0.3))]
)
def test_intervals_that_make_no_sense(where):
    with pytest.raises(InvalidArgumentError, match="where of a Part needs an interval"):
        Part(Dirichlet(0.0), where=where)


@pytest.mark.parametrize(("nodes", "expected"), [(11, 4), (21, 7), (41, 13), (51, 16), (101, 31)])
def test_an_interval_holds_the_node_at_its_end(nodes, expected):
    side = Part(Dirichlet(1.0), where=(0.0, 0.3))
    u = BOON(torch.nn.Identity(), [(side, None), None], correction=Prescription())(torch.zeros(1, 1, 5, nodes))
    assert int((u == 1).sum()) == expected


def test_functions_are_called_on_the_nodes_of_their_part_alone():
    factor = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    upper = (0.5, 1.0)
    value = Part(Dirichlet(lambda y: factor * torch.sqrt(y - 0.5)), where=upper)
    u = BOON(torch.nn.Identity(), [(value, None), None], correction=Prescription())(field(shape=(1, 1, 9, 9)))
    u.sum().backward()
    roots = torch.linspace(0, 0.5, 5, dtype=torch.float64).sqrt()
    assert torch.allclose(u[0, 0, 0, 4:], 2 * roots)
    assert torch.allclose(factor.grad, roots.sum())
    singular = Part(Robin(lambda y: 1 / y, -0.5, 0.0), where=upper)
    operator = BOON(torch.nn.Identity(), [(singular, None), None], correction=Prescription())
    u = operator(field(shape=(1, 1, 9, 9)))
    assert boundary_error(u, operator.discretise(u)).relative_maximum <= 1e-12


def wave(y):
    return torch.sin(2 * torch.pi * y)


@pytest.mark.parametrize(
    "conditions",
    [
        [(Dirichlet(lambda y: torch.sin(torch.pi * y)), Dirichlet(0.0)), (Dirichlet(0.0), Dirichlet(0.0))],
        [(Dirichlet(wave), Robin(lambda y: 1 + 0 * y, 0.5, 0.0)), (Periodic(), Periodic())],
        [(Robin(lambda y: 1 + 0.5 * wave(y), -0.5, 0.0), None), (Periodic(), Periodic())],
        [(PARTS, None), (Dirichlet(lambda x: 2 + torch.sin(torch.pi * x)), None)],
    ],
)
def test_data_that_agree_up_to_rounding_are_taken(conditions):
    operator = BOON(torch.nn.Identity(), conditions, correction=Prescription())
    u = operator(field(shape=(1, 1, 9, 9)))
    assert boundary_error(u, operator.discretise(u)).maximum <= 1e-12


@pytest.mark.parametrize("parts", [False, True])
def test_corners_are_judged_for_every_sample_and_in_every_dtype(parts):
    side = Part(Dirichlet()) if parts else Dirichlet()
    operator = BOON(torch.nn.Identity(), [(side, None), (Dirichlet(), None)], correction=Prescription())

    def call(first, second, dtype=torch.float32):
        a, b = (torch.tensor(each).view(-1, 1, 1) for each in (first, second))
        return operator(torch.zeros(len(a), 1, 9, 9, dtype=dtype), [([a] if parts else a, None), (b, None)])

    call([1e6, 1.0], [1e6, 1.0])
    with pytest.raises(IncompatibleCornersError, match="disagree by 4"):
        call([1e6, 1.0], [1e6, 5.0])
    call([1.0], [1.004], torch.bfloat16)
    for dtype, other in ((torch.bfloat16, 0.9), (torch.float16, 0.95)):
        with pytest.raises(IncompatibleCornersError):
            call([1.0], [other], dtype)


def test_invalid_arguments_raise_with_reason(tmp_path):
    operator = build([(PARTS, None), (Periodic(), Periodic())], Prescription())
    with pytest.raises(InvalidArgumentError, match="differs between the two ends of the periodic axis 1"):
        operator(field(torch.float32))
    with pytest.raises(InvalidArgumentError, match="cannot be written to a file where a function or an array gives"):
        save(build(OPEN[0], Prescription()), tmp_path / "x")
    operator = BOON(torch.nn.Identity(), [(Part(Dirichlet(1.0), where=(0.51, 0.52)), None), None])
    with pytest.raises(InvalidArgumentError, match="first side of axis 0 has no node in the interval"):
        operator(torch.zeros(1, 1, 9, 9))
    plain = [(Dirichlet(torch.tensor([1j])), None), None]
    for conditions in (plain, [(Robin(lambda y: 1 + 1j * y, -0.5, 0.0), None), None]):
        with pytest.raises(InvalidArgumentError, match="needs real numbers, got complex ones"):
            BOON(torch.nn.Identity(), conditions, correction=Prescription())(torch.zeros(1, 1, 9, 9))
    real = BOON(torch.nn.Identity(), [(Dirichlet(0.0), None), None], correction=Prescription())
    for dtype in (torch.complex64, torch.int64):
        with pytest.raises(InvalidArgumentError, match="fields of real numbers"):
            real(torch.zeros(1, 1, 9, 9, dtype=dtype))
        with pytest.raises(InvalidArgumentError, match="fields of real numbers"):
            prescribe(torch.zeros(1, 1, 9, 9, dtype=dtype), real.discretise(torch.zeros(1, 1, 9, 9)))
