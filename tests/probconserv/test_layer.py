"""ProbConserv around surrogates, operators and other modules; with BOON inside, both constraints hold."""

import copy

import hypothesis.strategies as st
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from linear_operator.operators import DiagLinearOperator
from torch import Tensor, nn
from torch.distributions import Normal

from boon import BOON, FNO, Correction, FNOConfig, Prescription, SmoothExtension
from probconserv import (
    Bounded,
    Context,
    Ensemble,
    LinearConstraint,
    Mixture,
    NonlinearLaw,
    NonNegative,
    ProbConserv,
    Query,
    from_samples,
)
from probconserv.constraints import boundary_value, integral
from probconserv.errors import InvalidArgumentError
from probconserv.fields import FieldLayout
from probconserv.fields.prediction import FieldPrediction
from probconserv.sampling import draw
from probconserv.surrogates.operator import GaussianOperator, as_gaussian
from probconserv.surrogates.surrogate import Surrogate
from solvers import Dirichlet, NodeGrid

POINTS = torch.stack([torch.full((11,), 0.5), torch.linspace(0, 1, 11)], dim=-1).double().expand(2, 11, 2)
CONTEXT, QUERY = Context(POINTS[:, :3], torch.ones(2, 3).double()), Query(POINTS)


class Constant(Surrogate):
    """Predicts the mean of the context with unit variance."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()).double())

    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        mean = context.values.mean(-1, keepdim=True).expand(query.points.shape[:-1]) + self.shift
        return MultivariateNormal(mean, DiagLinearOperator(torch.ones_like(mean)))


def law_of(context: Context, query: Query):
    return integral(query.points[..., 1], context.values.sum(-1) / 4)


def test_wrappers_nest_and_both_constraints_hold():
    ends = boundary_value(POINTS[0, :, 1], 2.0, side="first")
    nested = ProbConserv(ProbConserv(Constant(), ends), law_of)
    assert isinstance(nested, Surrogate)
    mean = nested.predict(CONTEXT, QUERY).mean.detach()
    assert float(law_of(CONTEXT, QUERY).residual(mean).abs().max()) <= 1e-14
    assert float((mean[:, 0] - 2).abs().max()) <= 1e-14
    assert torch.equal(nested(CONTEXT, QUERY).mean, mean)


GRID = NodeGrid(0.0, 1.0, 11)
SPHERE = NonlinearLaw(residual_function=lambda u: u.square().sum(-1, keepdim=True) - 1, points=11)
PARAMETERS = {
    "a total": lambda p: integral(GRID, p),
    "a positive total": lambda p: integral(GRID, p.exp()),
    "of single precision": lambda p: integral(GRID, nn.Parameter(p.detach().float())),
    "a noise variance": lambda p: integral(GRID, 0.3, p.square()),
    "a row": lambda p: LinearConstraint(p * torch.ones(1, 11).double(), torch.ones(1).double()),
    "sparse rows": lambda p: boundary_value(GRID, p, side="first"),
    "itself": lambda p: LinearConstraint(torch.ones(1, 11).double(), nn.Parameter(p.detach()[None])),
    "a bound": lambda p: integral(GRID, 0.3) & Bounded(p),
    "a law under bounds": lambda p: integral(GRID, p) & NonNegative(),
    "rows of a nonlinear law": lambda p: integral(GRID, p) & SPHERE,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_constraint_that_depends_on_a_parameter_is_refused(name) -> None:
    law = PARAMETERS[name](nn.Parameter(torch.tensor(0.3, dtype=torch.float64)))
    with pytest.raises(InvalidArgumentError, match=r"not depend on an nn\.Parameter, got one in its .* an nn\.Module"):
        ProbConserv(Constant(), law)


class Total(nn.Module):
    """A law with a total that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.total = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, _context: Context, query: Query) -> LinearConstraint:
        return integral(query.points[..., 1], self.total.expand(2))


def test_parameters_of_a_module_that_builds_the_law_are_those_of_the_layer() -> None:
    layer = ProbConserv(Constant(), Total())
    assert len(list(layer.parameters())) == 2
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):  # every step sees the total of the step before
        optimizer.zero_grad()
        (layer.predict(CONTEXT, QUERY).mean.mean() - 2).square().backward()
        optimizer.step()
    for other in (copy.deepcopy(layer), ProbConserv(Constant(), Total())):
        other.load_state_dict(layer.state_dict())
        mean = other.predict(CONTEXT, QUERY).mean
        assert torch.equal(mean, layer.predict(CONTEXT, QUERY).mean)
    total = torch.trapezoid(mean, QUERY.points[..., 1])
    learned = next(parameter for name, parameter in layer.named_parameters() if name.endswith("total"))
    assert float(learned.detach()) != 0.3
    assert torch.allclose(total, learned, rtol=1e-14, atol=0)


def test_a_law_with_derivatives_of_tensors_that_are_no_parameters_is_a_value() -> None:
    total = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    layer = ProbConserv(Constant(), integral(GRID, 2 * total))
    (slope,) = torch.autograd.grad(layer.predict(CONTEXT, QUERY).mean.mean(), total)
    weights = integral(GRID, 0.0).rows[0]  # unit variances: the mean moves by w/|w|² for every unit of the total
    assert torch.allclose(slope, 2 * (weights / weights.square().sum()).mean(), rtol=1e-13, atol=0)


def test_any_module_that_predicts_can_be_wrapped():
    law = integral(POINTS[0, :, 1], 0.3)

    class Net(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.linear, self.wrap = nn.Linear(4, 11).double(), wrap

        def forward(self, x):
            return self.wrap(self.linear(x))

    x = torch.rand(5, 4, dtype=torch.float64)
    kinds = {
        "normal": lambda out: Normal(out, torch.ones_like(out)),
        "samples": lambda out: from_samples(out + torch.arange(4.0)[:, None, None] * torch.linspace(1, 2, 11)),
        "mixture": lambda out: Mixture(Normal(out.expand(3, 5, 11), torch.ones(3, 5, 11))),
    }
    for wrap in kinds.values():
        prediction = ProbConserv(Net(wrap), law)(x)
        assert prediction.mean.shape == (5, 11)
        assert float(law.residual(prediction.mean.detach()).abs().max()) <= 1e-13


@pytest.mark.parametrize("more", [(), (None,)])
def test_an_ensemble_of_operators_takes_what_its_operators_take(more):
    class Operator(nn.Conv1d):
        def forward(self, field, boundary=None):
            assert boundary is None
            return super().forward(field)

    torch.manual_seed(0)
    ensemble = Ensemble([Operator(1, 1, 3, padding=1).double() for _ in range(3)])
    field = torch.rand(4, 1, 11, dtype=torch.float64)
    with torch.no_grad():
        prediction = ProbConserv(ensemble, lambda a, *_: integral(POINTS[0, :, 1], a.mean(dim=(1, 2))))(field, *more)
    total = torch.trapezoid(prediction.mean, POINTS[0, :, 1])
    torch.testing.assert_close(total, field.mean(dim=(1, 2)), rtol=0, atol=1e-14)


def test_draws_are_counted_for_mixtures_too() -> None:
    class Two(nn.Module):
        def forward(self) -> Mixture:
            return Mixture(Normal(torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.1, 0.0]]), torch.ones(2, 3)))

    prediction = ProbConserv(Two(), NonNegative(), draws=7)()
    assert prediction.components.draws == 7
    layout = FieldLayout(channels=1, shape=(3,))
    assert FieldPrediction(prediction, layout).with_draws(9, seed=1).points.components.draws == 9
    with pytest.raises(InvalidArgumentError, match="need no draws"):
        FieldPrediction(Two()(), layout).with_draws(9)


def draws(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def member(times: int, correction: Correction | None = None) -> GaussianOperator:
    """An untrained operator under Dirichlet conditions, in double precision."""
    fno = FNO(FNOConfig(in_channels=1, out_channels=2 * times, width=4, modes=(3,), depth=2))
    return GaussianOperator(BOON(fno, [(Dirichlet(), Dirichlet())], correction=correction)).double()


def sides(left: Tensor, right: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Boundary values of the means, and deviations 0, ``(batch, 2·times)`` on each side."""
    return [(torch.cat([left, 0 * left], dim=1), torch.cat([right, 0 * right], dim=1))]


def test_half_of_the_channels_are_means_and_half_deviations() -> None:
    field = draws(0, 2, 6, 3, 5)
    prediction = as_gaussian(field, unit=0.2)
    assert prediction.mean.shape == (2, 3, 15)
    assert torch.equal(prediction.mean, field[:, :3].reshape(2, 3, 15))
    assert torch.equal(prediction.stddev, 0.2 * field[:, 3:].reshape(2, 3, 15) ** 2)


@pytest.mark.filterwarnings("ignore:The members cannot explain the law")  # their totals are random
@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    members=st.integers(2, 5),
    batch=st.integers(1, 3),
    times=st.integers(1, 4),
    nodes=st.integers(9, 33),
    correction=st.sampled_from([None, Prescription(), Prescription(hidden=True), SmoothExtension(length=0.02)]),
)
def test_both_constraints_hold_at_once_whatever_the_weights(
    seed: int, members: int, batch: int, times: int, nodes: int, correction: Correction | None
) -> None:
    torch.manual_seed(seed)
    ensemble = Ensemble([member(times, correction) for _ in range(members)], own_variance=True)
    a, left, right, total = draws(seed, batch, 1, nodes), *draws(seed + 1, 3, batch, times)
    law = integral(NodeGrid(0.0, 1.0, nodes), total)
    prediction = ProbConserv(ensemble, lambda *_: law)(a, sides(left, right))
    for field in (prediction.mean, draw(prediction, (3,), torch.Generator().manual_seed(seed))):
        assert bool((field[..., 0] == left).all())
        assert bool((field[..., -1] == right).all())
        # Round-off of a sum of `nodes` values, relative to their size.
        assert float(law.residual(field).detach().abs().max()) <= 1e-13 * (1 + float(field.detach().abs().max()))
    bare = ensemble(a, sides(left, right))
    for variance in (bare.variance, prediction.variance):
        assert bool((variance[..., [0, -1]] == 0).all())
        assert bool((variance[..., 1:-1] > 0).all())


def test_gradients_reach_every_member_through_the_update() -> None:
    torch.manual_seed(0)
    ensemble = Ensemble([member(2), member(2)], own_variance=True)
    law = integral(NodeGrid(0.0, 1.0, 9), draws(0, 3, 2))
    boundary = sides(draws(1, 3, 2), draws(2, 3, 2))
    prediction = ProbConserv(ensemble, lambda *_: law)(draws(3, 3, 1, 9), boundary)
    (prediction.mean.square() + prediction.variance).sum().backward()
    gradients = [parameter.grad for parameter in ensemble.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 4)])
def test_output_that_cannot_be_halved_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"must be \(batch, 2c, \*space\)"):
        GaussianOperator(nn.Identity())(torch.zeros(shape))


@pytest.mark.parametrize("unit", [0.0, -1.0, float("inf"), float("nan")])
def test_units_that_are_no_size_are_refused(unit: float) -> None:
    with pytest.raises(InvalidArgumentError, match="unit must be positive and finite"):
        GaussianOperator(nn.Identity(), unit)


@pytest.mark.parametrize("law", [integral(NodeGrid(0.0, 1.0, 11), 1.0), NonNegative()])
def test_a_constraint_in_the_place_of_the_surrogate_is_refused(law) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"comes before the constraint; got {type(law).__name__}, then Con"):
        ProbConserv(law, Constant())


@pytest.mark.parametrize("law", [integral(NodeGrid(0.0, 1.0, 11), 1.0), NonNegative()])
@pytest.mark.parametrize("draws", [-3, 1])
def test_numbers_of_draws_are_checked_when_the_layer_is_built(law, draws: int) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"draws.*got {draws}"):
        ProbConserv(Constant(), law, draws=draws)
