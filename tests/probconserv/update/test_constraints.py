"""Constraints as values: rows of every constructor against polynomials that they must integrate or differentiate."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DenseLinearOperator, KroneckerProductLinearOperator
from torch.distributions import Normal

from probconserv import (
    Bounded,
    Context,
    LinearConstraint,
    NonNegative,
    Query,
    boundary_value,
    condition,
    conservation,
    integral,
    local_conservation,
)
from probconserv.constraints import boundary_gradient, second_difference_variance, smoothness
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from solvers import CellGrid, NodeGrid
from tests.strategies import seeds

few = settings(deadline=None, max_examples=20)


@few
@given(st.integers(2, 40), seeds)
def test_trapezoid_integrates_linear_fields_at_unequal_points(n, seed):
    points = torch.rand(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).cumsum(-1) + 0.1
    first, last = points[:, 0], points[:, -1]
    law = integral(points, 2 * (last - first) + 1.5 * (last.square() - first.square()))
    assert law.rows.shape == (3, 1, n)
    assert float(law.residual(2 + 3 * points).abs().max()) <= 1e-13 * n * n


@pytest.mark.parametrize("grid", [NodeGrid((0.0, -1.0), (1.0, 2.0), (5, 7)), CellGrid((0.0, -1.0), (1.0, 2.0), (5, 7))])
def test_integral_over_a_plane(grid):
    # ∫∫ x y over [0, 1] × [−1, 2] = ½ · 3/2; trapezoid and cell sums are exact for bilinear fields.
    x, y = grid.points.unbind(-1)
    assert float(integral(grid, 0.75).residual((x * y).flatten())) == pytest.approx(0.0, abs=1e-14)


def test_integral_over_a_box_of_three_axes():
    grid = CellGrid((0.0,) * 3, (1.0,) * 3, (3, 4, 5))
    assert float(integral(grid, 0.5).residual(grid.points[..., 2].flatten())) == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize(("grid", "order"), [(NodeGrid, 2), (CellGrid, 2)])
def test_quadrature_converges_with_its_order(grid, order):
    errors = []
    sizes = [20, 40, 80, 160]
    for n in sizes:
        points = grid(0.0, 1.0, n)
        errors.append(abs(float(integral(points, np.e - 1).residual(points.points.exp()))))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.2)


def test_totals_keep_float64_and_batches():
    law = integral(NodeGrid(0.0, 1.0, 5), 0.1)
    assert float(law.b[0]) == 0.1
    batched = integral(NodeGrid(0.0, 1.0, 5), torch.rand(2, 3))
    assert batched.batch_shape == (2, 3)
    assert batched.b.dtype == torch.float64
    assert batched.points == 5
    tolerant = integral(NodeGrid(0.0, 1.0, 5), torch.rand(2), noise_variance=1e-6)
    assert torch.equal(tolerant.noise, torch.tensor([1e-6], dtype=torch.float64))


def test_several_components_have_several_totals():
    grid = NodeGrid(0.0, 1.0, 11)
    fields = torch.stack([grid.points, grid.points.square(), torch.ones(11).double()])
    totals = fields @ grid.weights
    law = integral(grid, totals, dim=-1)
    assert law.rows.shape == (3, 33)
    assert float(law.residual(fields.flatten()).abs().max()) <= 5e-15  # means of 11 numbers up to 1, twice: 22 ε
    assert float(law.residual(torch.zeros(33)).abs().min()) > 0
    # Each row leaves the other components alone.
    assert int((law.rows != 0).sum()) == 33
    law = integral(grid, totals[:, None].expand(3, 2), dim=0)
    assert (law.rows.shape, law.b.shape) == ((3, 33), (2, 3))
    assert torch.equal(law.b, totals.expand(2, 3))
    with pytest.raises(InvalidArgumentError, match="dim must be an axis of total, which has 1, got 1"):
        integral(grid, totals, dim=1)


@pytest.mark.bits("a row of zeros and a one times a field rounds nothing")
@pytest.mark.parametrize("side", ["first", "last"])
@pytest.mark.parametrize("axis", [0, 1])
def test_boundary_values_of_a_plane(side, axis):
    grid = NodeGrid((0.0, 0.0), (1.0, 2.0), (4, 6))
    field = torch.rand(3, 4, 6, dtype=torch.float64)
    face = field.select(1 + axis, 0 if side == "first" else -1)
    law = boundary_value(grid, face, side=side, axis=axis)
    assert law.rows.shape == (face.shape[-1], 24)
    assert torch.equal(law.residual(field.flatten(-2)), torch.zeros_like(face))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("side", ["first", "last"])
def test_boundary_gradient_is_exact_for_polynomials_of_its_order(side, order):
    grid = NodeGrid((0.0, 0.0), (2.0, 1.0), (9, 3))
    x = grid.points[..., 0]
    end = 0.0 if side == "first" else 2.0
    law = boundary_gradient(grid, order * (end + 1) ** (order - 1), side=side, axis=0, order=order)
    assert law.rows.shape == (3, 27)
    # Stencil weights of a few units over h = ¼ times values up to 3⁴.
    assert float(law.residual(((x + 1) ** order).flatten()).abs().max()) <= 1e-11


def test_boundary_value_at_points_and_with_tolerance():
    law = boundary_value(torch.linspace(0, 1, 4), torch.tensor([2.0, 3.0]), side="last", noise_variance=0.1)
    assert torch.equal(law.rows, torch.tensor([[0.0, 0, 0, 1]]).double())
    assert law.b.shape == (2, 1)
    assert float(law.noise) == pytest.approx(0.1)
    assert torch.equal(boundary_value(torch.linspace(0, 1, 4).expand(3, 4), 2.0, side="last").rows, law.rows)


def test_second_differences():
    s = torch.tensor([0.1, 0.2, 0.3])
    law = smoothness(s)
    squares = torch.arange(5.0).square()
    assert torch.equal(law.residual(squares), torch.full((3,), 2.0).double())
    assert torch.equal(law.noise, s.double())


@few
@given(st.integers(3, 12), st.floats(-1, 1), seeds)
def test_variance_of_second_differences_is_that_of_correlated_neighbours(n, alpha, seed):
    v = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    s = second_difference_variance(v, alpha)
    left, centre, right = v[:-2], v[1:-1], v[2:]
    stated = (
        left
        + 4 * centre
        + right
        - 4 * alpha * (left * centre).sqrt()
        + 2 * alpha**2 * (left * right).sqrt()
        - 4 * alpha * (centre * right).sqrt()
    )
    assert bool((s >= 0).all())
    assert torch.allclose(s, stated, rtol=1e-12, atol=1e-14)


def test_joining_stacks_rows_and_their_variances():
    first = LinearConstraint(torch.rand(2, 1, 4), torch.ones(1), noise_variance=0.5)
    second = LinearConstraint(torch.rand(3, 4), torch.ones(2, 3))
    joined = first & second
    assert joined.rows.shape == (2, 4, 4)
    assert joined.b.shape == (2, 4)
    assert torch.equal(joined.noise, torch.tensor([0.5, 0, 0, 0]).double())
    assert torch.equal(joined.rows[:, :1], first.rows)
    per_row = LinearConstraint(torch.rand(2, 4), torch.ones(2), noise_variance=torch.tensor([0.0, 1.0]))
    assert torch.equal((per_row & first).noise, torch.tensor([0.0, 1, 0.5]).double())


def test_a_linear_operator_is_a_constraint():
    weights = torch.tensor([[0.5, 1.0, 0.5]])
    per_time = KroneckerProductLinearOperator(DenseLinearOperator(torch.eye(2)), DenseLinearOperator(weights))
    law = LinearConstraint(per_time, torch.tensor([2.0, 4.0]))
    assert torch.equal(law.residual(torch.tensor([1.0, 1, 1, 2, 2, 2])), torch.zeros(2).double())


def test_negative_axes_count_from_the_last():
    grid = NodeGrid((0.0, 0.0), (1.0, 2.0), (4, 6))
    face = torch.rand(4, dtype=torch.float64)
    value, gradient = (make(grid, face, side="last", axis=-1) for make in (boundary_value, boundary_gradient))
    assert torch.equal(value.rows, boundary_value(grid, face, side="last", axis=1).rows)
    assert torch.equal(gradient.rows, boundary_gradient(grid, face, side="last", axis=1).rows)
    assert torch.equal(
        boundary_value(grid, 1.0, side="last", axis=-2).rows, boundary_value(grid, 1.0, side="last").rows
    )


def test_arrays_serve_as_tensors():
    points = np.linspace(0, 1, 5)
    points.flags.writeable = False
    assert torch.equal(integral(points, np.float64(1.0)).rows, integral(torch.from_numpy(points.copy()), 1.0).rows)
    law = LinearConstraint(np.ones((1, 5), dtype=np.float32), np.ones(1), noise_variance=np.array([0.5]))
    assert law.rows.dtype == law.b.dtype == law.noise.dtype == torch.float64
    assert torch.equal(law.residual(points[::-1]), torch.tensor([1.5]).double())
    assert boundary_value(points, np.ones(3), side="first").b.shape == (3, 1)
    assert integral(points, np.ones(2), dim=-1).points == 10
    s = second_difference_variance(np.ones(5, dtype=np.float32))
    assert s.dtype == torch.float32
    assert torch.equal(smoothness(s.numpy()).noise, s.double())
    along = conservation(points, points, np.array(1.0), points, np.zeros(5))
    # 1 + t²/2, by the trapezoid rule exact for a linear flux.
    assert torch.allclose(along.b[:, 0], torch.from_numpy(1 + points.copy() ** 2 / 2), rtol=1e-15)
    assert local_conservation(points, points, np.ones(4), np.zeros(5)).rows.shape == (4, 5)


@pytest.mark.parametrize("make", [boundary_value, boundary_gradient])
def test_messages_of_sides(make):
    grid = NodeGrid((0.0, 0.0), (1.0, 1.0), (4, 5))
    with pytest.raises(InvalidArgumentError, match="""side must be "first" or "last", got 'left'"""):
        make(grid, 1.0, side="left")
    for axis in (2, -3):
        with pytest.raises(InvalidArgumentError, match=rf"axis must lie in \[-2, 1\] .* dimension 2, got {axis}"):
            make(grid, 1.0, side="first", axis=axis)
    with pytest.raises(InvalidArgumentError, match=r"first side of axis 0 has nodes \(5,\), .* shape \(7,\)"):
        make(grid, torch.rand(7), side="first")


def test_invalid_arguments_raise_with_reason():
    grid = NodeGrid(0.0, 1.0, 5)
    with pytest.raises(InvalidArgumentError, match=r"same k, got \(2, 5\) and \(3,\)"):
        LinearConstraint(torch.ones(2, 5), torch.ones(3))
    with pytest.raises(InvalidArgumentError, match="G of the constraint holds 1 NaN or infinite"):
        LinearConstraint(torch.tensor([[1.0, torch.nan]]), torch.ones(1))
    with pytest.raises(InvalidArgumentError, match="b of the constraint holds 1 NaN or infinite"):
        integral(grid, torch.tensor(torch.inf))
    with pytest.raises(InvalidArgumentError, match="noise_variance must be finite and not negative"):
        integral(grid, 1.0, noise_variance=-1.0)
    with pytest.raises(InvalidArgumentError, match=r"noise_variance must be a number or .* k = 1"):
        LinearConstraint(torch.ones(1, 5), torch.ones(1), noise_variance=torch.ones(2))
    with pytest.raises(InvalidArgumentError, match="A row of G is zero"):
        LinearConstraint(torch.tensor([1.0, 1.0, 0.0])[:, None].expand(2, 3, 5), torch.ones(3))
    with pytest.raises(InvalidArgumentError, match="do not broadcast"):
        LinearConstraint(torch.ones(2, 1, 5), torch.ones(3, 1))
    with pytest.raises(InvalidArgumentError, match=r"batch axes broadcast, got \(3,\) and \(2,\)"):
        integral(grid, torch.rand(3)) & integral(grid, torch.rand(2))
    with pytest.raises(IncompatibleQueryError, match="acts on 5 points but the field has none"):
        integral(grid, 1.0).residual(torch.tensor(1.0))
    with pytest.raises(InvalidArgumentError, match="join only on the same points, got 5 and 4"):
        integral(grid, 1.0) & integral(NodeGrid(0.0, 1.0, 4), 1.0)
    with pytest.raises(IncompatibleQueryError, match="acts on 5 points but the field has 4"):
        integral(grid, 1.0).residual(torch.zeros(4))
    with pytest.raises(InvalidArgumentError, match="CellGrid has no unknown on its sides"):
        boundary_value(CellGrid(0.0, 1.0, 5), 1.0, side="first")
    with pytest.raises(InvalidArgumentError, match="needs a NodeGrid, got CellGrid"):
        boundary_gradient(CellGrid(0.0, 1.0, 5), 1.0, side="first")
    with pytest.raises(InvalidArgumentError, match="order 5 takes 6 nodes, axis 0 has 5"):
        boundary_gradient(grid, 1.0, side="first", order=5)
    with pytest.raises(InvalidArgumentError, match="at least 3 points and a correlation"):
        second_difference_variance(torch.ones(2))
    with pytest.raises(ValueError, match="strictly increasing"):
        integral(torch.tensor([0.0, 0.5, 0.4]), 1.0)


@pytest.mark.parametrize(
    "bounds", [(1.0, 0.0), (math.inf, math.inf), (-math.inf, -math.inf), (math.nan, 1.0), (0.0, math.nan)]
)
def test_bounds_that_leave_no_field_are_refused(bounds):
    with pytest.raises(InvalidArgumentError, match="bounds leave no field"):
        Bounded(*bounds)


def test_two_laws_joined_with_inequalities_both_stay():
    first, second = (LinearConstraint(torch.rand(1, 6), torch.rand(1)) for _ in range(2))
    joined = (first & NonNegative()) & (second & Bounded(upper=2.0))
    assert joined.law is not None
    assert torch.equal(joined.law.rows, torch.cat((first.rows, second.rows)))
    assert torch.equal(joined.law.b, torch.cat((first.b, second.b)))
    assert (joined.lower, joined.upper) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("G", "b"),
    [
        (torch.ones(4), torch.ones(1)),
        (torch.ones(1, 4), torch.tensor(1.0)),
        (torch.ones(0, 4), torch.ones(0)),
        (torch.ones(2, 0), torch.ones(2)),
        (torch.ones(2, 4), torch.ones(3)),
    ],
)
def test_shapes_that_are_none_of_a_constraint_are_refused(G, b):
    with pytest.raises(InvalidArgumentError, match=r"needs G \(\*batch, k, n\) and b"):
        LinearConstraint(G, b)


def test_a_batch_axis_may_be_empty():
    assert LinearConstraint(torch.ones(0, 1, 4), torch.ones(0, 1)).batch_shape == (0,)


def test_default_gradient_is_of_second_order_and_exact():
    grid = NodeGrid(0.0, 1.0, 6)
    law = boundary_gradient(grid, 0.5, side="first")
    assert torch.allclose(law.rows, boundary_gradient(grid, 0.5, side="first", order=2).rows)
    assert int((law.rows != 0).sum()) == 3
    assert float(law.noise) == 0.0


@pytest.mark.parametrize("correlation", [-1.0, 1.0])
def test_full_correlation_is_allowed_and_none_beyond(correlation):
    s = second_difference_variance(torch.ones(4, dtype=torch.float64), correlation)
    assert torch.allclose(s, torch.full((2,), (2 - 2 * correlation) ** 2, dtype=torch.float64))
    with pytest.raises(InvalidArgumentError, match=r"correlation in \[−1, 1\]"):
        second_difference_variance(torch.ones(4), 1.01 * correlation)


def test_rows_are_float64_and_exact_whatever_is_given():
    third = torch.full((3,), 1 / 3)
    for law in (integral(NodeGrid(0.0, 1.0, 5), third, dim=-1), smoothness(third)):
        assert law.rows.dtype == law.b.dtype == torch.float64
    assert torch.allclose(integral(NodeGrid(0.0, 0.3, 4), third, dim=-1).rows.sum(-1), torch.full((3,), 0.3).double())


COVARIANCE = torch.tensor([[1.0, 0.3], [0.3, 2.0]])


@pytest.mark.parametrize(
    ("b", "variance"),
    [
        (torch.ones(2), torch.ones(2, 2)),
        (torch.ones(2), COVARIANCE),
        (torch.ones(2, 2), COVARIANCE),
        (torch.ones(2, 2), torch.diag(torch.ones(2))),
        (torch.ones(3, 2), COVARIANCE.expand(3, 2, 2)),
    ],
)
@pytest.mark.parametrize("name", ["noise_variance", "rule_variance"])
def test_a_covariance_of_the_rows_is_not_taken_for_variances_of_several_laws(b, variance, name):
    with pytest.raises(InvalidArgumentError, match=rf"{name} .* may be a covariance matrix, .* of 2 laws.* L⁻¹ b"):
        LinearConstraint(torch.eye(2, 5), b, **{name: variance})


@pytest.mark.parametrize("variance", [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2, 2), torch.ones(1, 2)])
def test_variances_of_as_many_laws_as_rows_stay_what_they_are(variance):
    law = LinearConstraint(torch.eye(2, 5), torch.ones(2, 2), noise_variance=variance)
    assert torch.equal(law.noise, variance.double())


def test_whitened_rows_state_correlated_errors():
    # The way out that the message names equals dense Bayes with the covariance; a few roundings of a 2 × 2 solve.
    root, rows, b = torch.linalg.cholesky(COVARIANCE.double()), torch.rand(2, 5).double(), torch.ones(2).double()
    white = [torch.linalg.solve_triangular(root, part, upper=False) for part in (rows, b[:, None])]
    posterior = condition(
        Normal(torch.zeros(5).double(), 1.0), LinearConstraint(white[0], white[1][:, 0], noise_variance=1.0)
    )
    expected = rows.mT @ torch.linalg.solve(rows @ rows.mT + COVARIANCE.double(), b)
    torch.testing.assert_close(posterior.mean, expected, rtol=1e-13, atol=1e-14)


def test_what_the_caller_overwrites_later_does_not_change_a_law_or_an_observation() -> None:
    """Tensors like arrays; derivatives pass through the copy."""
    totals, noise = torch.ones(2, dtype=torch.float64), torch.full((2,), 0.1, dtype=torch.float64)
    points, values = torch.rand(3, 1, dtype=torch.float64), torch.rand(3, dtype=torch.float64, requires_grad=True)
    law = LinearConstraint(torch.eye(2, 5, dtype=torch.float64), totals, noise_variance=noise, rule_variance=noise)
    context, query = Context(points, values, noise_variance=points[:, 0]), Query(points)
    stored = (law.b, law.noise, law.rule_variance, context.values, context.noise, query.points)
    before = [part.clone() for part in stored]
    with torch.no_grad():
        for given in (totals, noise, points, values):
            given += 1.0
    assert all(torch.equal(first, last) for first, last in zip(before, stored, strict=True))
    assert torch.equal(context.points, query.points)
    context.values.sum().backward()
    assert torch.equal(values.grad, torch.ones_like(values))


def test_scipys_bounds_of_a_linear_constraint_are_named() -> None:
    """lb ≤ G u ≤ ub reads ub as a variance; a variance by position works until 0.6."""
    with pytest.warns(DeprecationWarning, match=r"takes noise_variance by keyword .*scipy.*are LinearInequality here"):
        law = LinearConstraint(torch.ones(1, 5), torch.zeros(1), torch.ones(1))
    assert torch.equal(law.noise, torch.ones(1))
