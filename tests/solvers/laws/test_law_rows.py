"""Laws and sources on rows have the same values as on the whole batch, whatever rows are chosen."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import (
    MUSCL,
    Advection,
    CellGrid,
    Diffusion,
    DiffusiveLaw,
    Dirichlet,
    Field,
    Godunov,
    Logistic,
    PorousMedium,
    Source,
    Stefan,
)
from solvers.errors import InvalidArgumentError
from solvers.finite_volume._groups import make_groups
from solvers.finite_volume.convection._convection import ConvectionTerm
from solvers.finite_volume.diffusion._diffusion import DiffusionTerm
from solvers.finite_volume.diffusion.face_means import IntegralMean
from solvers.finite_volume.laws._law_rows import LawRows, batch_of_law
from solvers.finite_volume.laws._source import SourceTerm, batch_of_source
from solvers.finite_volume.laws.laws import Transport, align
from solvers.finite_volume.sides._side_data import SideData
from tests.solvers.laws.users import Averaged, Cubic, Plain

LINE = CellGrid(0.0, 1.0, 5)
PLANE = CellGrid((0.0, 0.0), (1.0, 2.0), (3, 4))


def random(seed, *shape):
    return 0.5 + torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Counted(Cubic):
    """A law that insists on six entries."""

    def __post_init__(self):
        if self.factor.numel() != 6:
            raise ValueError("six entries, please")


@dataclass(frozen=True)
class Last(Cubic):
    """A law whose formula asks for its fourth entry."""

    def potential(self, u):
        return self.factor.flatten()[3] * u

    def conductivity(self, u):
        return self.factor.flatten()[3] + 0.0 * u


BATCH = (2, 3)
VALUES = random(0, *BATCH)
LINES = [
    Diffusion(VALUES),
    Diffusion(2.0),
    Diffusion(np.array([[1.0, 2.0, 3.0]])),
    Diffusion(Field(random(1, 2, 3, 5))),
    Diffusion(Field(random(1, 2, 1, 5))),
    Diffusion(lambda x: 1.0 + x),
    Diffusion(lambda x: random(2, 3, 1) + x),
    Diffusion(lambda x, t: 1.0 + x * t),
    PorousMedium(VALUES),
    Stefan(Field(random(3, 5)), VALUES[:1]),
    Cubic(VALUES),
    Cubic(Field(random(4, 2, 3, 5))),
    Averaged(VALUES),
    Counted(VALUES),
    Last(VALUES),
    Plain(VALUES),
]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(LINES), st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), st.booleans())
def test_rows_have_the_values_of_the_whole_batch(law, chosen, on_faces):
    """In two cuts: first all but one row, then the chosen ones among them."""
    u, times = random(5, 2, 3, 6 if on_faces else 5), torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3, 1)
    axis = 0 if on_faces else None
    placed = law.at(LINE, times, axis) if law.varies_in_space else law
    rows = LawRows.build(law, BATCH, LINE).take(np.array([5, 4, 3, 2, 1, 0])).take(5 - np.array(chosen))
    time = times.reshape(6)[chosen].numpy()
    rows = rows.at(time, 0) if on_faces else rows.at(time)
    for name in ("potential", "conductivity"):
        expected = getattr(placed, name)(u).reshape(6, -1)[chosen]
        assert torch.equal(getattr(rows, name)(u.reshape(6, -1)[chosen]), expected)


@pytest.mark.parametrize(
    "law",
    [
        Cubic(1.0),
        PorousMedium(Field(random(1, 5))),
        Advection(lambda x, t: x * t),
        Diffusion(lambda x, t: 1.0 + x * t),
        Transport(lambda x, t: x * t),
        type("Mine", (Diffusion,), {})(1.0),
    ],
)
def test_other_laws_have_no_kernel(law):
    rows, sides = LawRows.build(law, (), LINE), SideData.build(((Dirichlet(0.0),) * 2,), LINE, (), 0.0, 1.0)
    schemes = (IntegralMean(),) if isinstance(law, DiffusiveLaw) else (Godunov(), MUSCL())
    term = DiffusionTerm if isinstance(law, DiffusiveLaw) else ConvectionTerm
    assert term(rows, LINE, sides, *schemes).compiled_law is None


@dataclass(frozen=True)
class Decay(Source):
    rate: object

    def __call__(self, u, x, t):
        return -align(self.rate, u) * u * x * t


def whole_source(u, x, t):
    assert u.shape == (2, 3, 5)
    return VALUES[..., None] * u * x * t


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(
        [
            Logistic(VALUES),
            Logistic(Field(random(1, 3, 5))),
            Logistic(lambda x, t: x * t),
            Decay(VALUES),
            Decay(Field(random(1, 5))),
            whole_source,
        ]
    ),
    st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True),
)
def test_sources_of_rows(source, chosen):
    u, times = random(9, 2, 3, 5), torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3, 1)
    placed = source.at(LINE, times) if isinstance(source, Source) else source
    expected = placed(u, LINE.points, times).reshape(6, 5)[chosen]
    term = SourceTerm.build(source, BATCH, LINE).take(np.array(chosen))
    values, total = term.rate(u.reshape(6, 5)[chosen].numpy(), times.reshape(6)[chosen].numpy())
    assert values.tolist() == expected.tolist()
    assert total == pytest.approx((expected * LINE.weights).sum(-1).numpy(), rel=1e-14)


def test_a_source_in_the_plane_is_integrated_with_the_area_of_the_cells():
    values, total = SourceTerm.build(lambda u, x, t: u * x[..., 1] + t, (), PLANE).rate(
        np.ones((1, 12)), np.array([3.0])
    )
    assert values.reshape(3, 4)[0].tolist() == [3.25, 3.75, 4.25, 4.75]
    assert total.tolist() == pytest.approx([2.0 * 4.0])


@pytest.mark.parametrize(
    ("law", "before", "after"),
    [
        (Diffusion(1.0), (), ()),
        (Diffusion(torch.ones(2)), (), (2,)),
        (Diffusion(torch.ones(2, 1)), (1, 3), (2, 3)),
        (Diffusion(torch.ones(5)), (5,), (5,)),
        (Diffusion(Field(torch.ones(5))), (), ()),
        (Diffusion(Field(torch.ones(5, 5))), (), (5,)),
        (Stefan(torch.ones(5), Field(torch.ones(5, 5))), (), (5,)),
        (Diffusion(lambda x: torch.ones(2, 1) + x), (3, 1), (3, 2)),
        (Transport((1.0,)), (4,), (4,)),
        (Transport((torch.ones(4),)), (), (4,)),
        (Plain(torch.ones(3)), (), (3,)),
        (Plain(torch.ones(2, 3)), (3,), (2, 3)),
    ],
)
def test_batches_of_laws(law, before, after):
    assert batch_of_law(law, before, LINE) == after


@pytest.mark.parametrize(
    ("source", "before", "after"),
    [
        (Logistic(1.0), (), ()),
        (Logistic(torch.ones(3)), (), (3,)),
        (Logistic(torch.ones(5)), (5,), (5,)),
        (Logistic(Field(torch.ones(2, 5))), (), (2,)),
        (lambda u, x, t: torch.ones(3, 1) * u, (), (3,)),  # noqa: ARG005 - one signature
        (lambda u, x, t: torch.ones(5) * u, (), ()),  # noqa: ARG005
        (lambda u, x, t: u * x * float(t), (), ()),
    ],
)
def test_batches_of_sources(source, before, after):
    assert batch_of_source(source, before, LINE) == after


def test_groups_hold_the_cells_that_fit_the_cache():
    assert [len(group) for group in make_groups(100, 400, divisible=True)] == [40, 40, 20]
    assert np.concatenate(make_groups(100, 400, divisible=True)).tolist() == list(range(100))
    assert [len(group) for group in make_groups(3, 10**6, divisible=True)] == [1, 1, 1]
    assert [len(group) for group in make_groups(100, 400, divisible=False)] == [100]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: batch_of_law(Diffusion(1.0 + LINE.points), (), LINE), r"as an axis has cells; .* Diffusion\(Field\("),
        (lambda: batch_of_law(Diffusion(1.0 + LINE.points), (1,), LINE), r"say so by initial of shape \(5, 5\)"),
        (lambda: batch_of_law(Diffusion(torch.ones(2, 5)), (), LINE), "as many entries as an axis has cells"),
        (lambda: batch_of_law(Advection([1.0, 0.5]), (), PLANE), r"one entry per axis .* a velocity is Transport"),
        (lambda: LawRows.build(Diffusion(torch.ones(3)), (3, 3), LINE), r"as many axes as the batch \(3, 3\)"),
        (lambda: SourceTerm.build(Logistic(torch.ones(3)), (3, 3), LINE), r"as many axes as the batch \(3, 3\)"),
        (lambda: LawRows.build(Transport((torch.ones(3),)), (3, 3), LINE), r"Transport: velocity\[0\] of shape \(3,\)"),
        (lambda: batch_of_source(Logistic(1.0 + LINE.points), (), LINE), r"Logistic\(Field\(values\)\)"),
        (lambda: batch_of_source(Logistic(torch.ones(3)), (2,), LINE), "Logistic"),
        (lambda: SourceTerm.build(lambda u, x, t: u * float(t), (2,), LINE), "torch.where instead of if. It raised"),  # noqa: ARG005
        (lambda: SourceTerm.build(lambda u, x, t: u[0], (2,), LINE), r"got shape \(5,\) for u of shape \(2, 5\)"),  # noqa: ARG005
        (lambda: SourceTerm.build(lambda u, x, t: u.float(), (), LINE), "keep the precision"),  # noqa: ARG005
        (
            lambda: SourceTerm.build(lambda u, x, t: u * torch.ones(1, requires_grad=True), (), LINE),  # noqa: ARG005
            "requires a gradient",
        ),
    ],
)
def test_invalid_arguments_raise_with_reason(build, message):
    with pytest.raises(InvalidArgumentError, match=message):
        build()
