"""ProbConserv around surrogates and other modules."""

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import nn
from torch.distributions import Normal

from probconserv import (
    Context,
    Ensemble,
    InvalidArgumentError,
    Mixture,
    NonNegative,
    ProbConserv,
    Query,
    Surrogate,
    boundary_value,
    from_samples,
    integral,
)
from probconserv.fields import FieldLayout, FieldPrediction

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
