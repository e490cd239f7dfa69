"""Conditioning inside other people's models: compiled, exported, vectorised, differentiated, and moved."""

import copy
import itertools
import warnings

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator
from torch import nn
from torch.distributions import Normal
from torch.func import vmap

from probconserv import Bounded, Mixture, Monotone, NonNegative, ProbConserv, condition, conservation, from_samples
from probconserv.constraints import LinearConstraint, boundary_gradient, boundary_value, integral
from probconserv.errors import InvalidArgumentError
from probconserv.fields import block_means
from probconserv.sampling import normals_of_seed
from solvers import NodeGrid
from tests.recording import records
from tests.strategies import positive_definite

GRID = NodeGrid(0.0, 1.0, 16)
PLANE = NodeGrid((0.0, 0.0), (1.0, 1.0), (4, 4))
ONE_ROW = integral(GRID, 0.3)
TWO_ROWS = ONE_ROW & boundary_value(GRID, 0.2, side="first")
MEMBERS = torch.randn(5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
DENSE = positive_definite(16, torch.Generator().manual_seed(1))


def members_around(mean):
    return mean + MEMBERS.reshape(5, *[1] * (mean.ndim - 1), 16)


def independent(mean, scale):
    return Normal(mean, scale, validate_args=False)  # torch.export refuses the check of the scale


PRIORS = {
    "normal": lambda mean, scale: independent(mean, scale),
    "single precision": lambda mean, scale: independent(mean.float(), scale.float()),
    "samples": lambda mean, _: members_around(mean),
    "samples and noise": lambda mean, _: from_samples(members_around(mean), 0.1),
    "dense": lambda mean, _: MultivariateNormal(mean, DenseLinearOperator(DENSE.expand(*mean.shape, 16))),
    "a matrix": lambda mean, _: MultivariateNormal(mean, DENSE.expand(*mean.shape, 16)),
    "a matrix of torch": lambda mean, _: torch.distributions.MultivariateNormal(mean, DENSE, validate_args=False),
    "of rank 5": lambda mean, _: MultivariateNormal(mean, DenseLinearOperator(MEMBERS.mT @ MEMBERS)),
    "mixture": lambda mean, scale: Mixture(independent(members_around(mean), scale)),
}
LAWS = {"one row": ONE_ROW, "two rows": TWO_ROWS, "from the input": lambda x: integral(GRID, x.sum(-1))}
TIMES = torch.tensor([0.0, 0.2, 0.7], dtype=torch.float64)
LAWS_BUILT_INSIDE = {
    "value": lambda x: boundary_value(GRID, x.sum(-1), side="first"),
    "gradient": lambda x: boundary_gradient(GRID, x.sum(-1), side="last", order=3),
    "gradients of a side": lambda x: boundary_gradient(PLANE, x, side="last", axis=1),
    "fluxes as values": lambda x: conservation(GRID, TIMES, x[0, 0], x[0, 1:], 0 * TIMES),
    "fluxes as functions": lambda x: conservation(GRID, TIMES, x[0, 0], lambda t: x[0, 1] * t, torch.cos),
    "times": lambda x: conservation(GRID, x[0, :3].cumsum(0), x[0, 3], TIMES, 0 * TIMES),
}


class Predictor(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(4, 32).double()

    def forward(self, x):
        mean, scale = self.linear(x).chunk(2, dim=-1)
        return PRIORS[self.kind](mean, scale.exp())


class Moments(nn.Module):
    """A model as a user would export it: tensors in, tensors out."""

    def __init__(self, kind="normal", law=TWO_ROWS, **options):
        super().__init__()
        torch.manual_seed(0)
        self.layer = ProbConserv(Predictor(kind), law, **options)

    def forward(self, x):
        prediction = self.layer(x)
        return prediction.mean, prediction.variance


X = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
CASES = [("normal", name) for name in LAWS] + [(kind, "two rows") for kind in list(PRIORS)[1:]]


def assert_same(actual, expected):
    for first, second in zip(actual, expected, strict=True):
        assert first.dtype == second.dtype
        rounding = 1e-12 if first.dtype == torch.float64 else 1e-6
        torch.testing.assert_close(first, second, rtol=rounding, atol=rounding)


def exported(model):
    return torch.export.export(model, (X,)).module()


def compiled(model):
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend="eager")


@pytest.mark.parametrize("way", [pytest.param(exported, marks=records), pytest.param(compiled, marks=records), vmap])
@pytest.mark.parametrize(("kind", "law"), CASES)
def test_a_recorded_model_gives_what_the_model_gives(kind, law, way):
    model = Moments(kind, LAWS[law])
    recorded, other = way(model), 3 * X - 1
    assert_same(recorded(X), model(X))
    assert_same(recorded(other), model(other))  # nothing of the recorded input has become a constant


@records
@pytest.mark.parametrize("law", ["one row", "two rows"])
def test_export_for_batches_of_any_size(law):
    model, batch = Moments("normal", LAWS[law]), {0: torch.export.Dim("batch")}
    exported = torch.export.export(model, (X,), dynamic_shapes=(batch,)).module()
    assert_same(exported(X[:2]), model(X[:2]))


@pytest.mark.long
@records
@pytest.mark.parametrize("law", LAWS_BUILT_INSIDE)
def test_laws_are_built_inside_of_graphs(law):
    model, other = Moments(law=LAWS_BUILT_INSIDE[law]), X.flip(0) + 0.1
    for way in (exported, compiled):
        assert_same(way(model)(other), model(other))


BLOCKS = block_means(torch.tensor([[0.1, 0.2], [0.3, 0.4]]), 2)
LAWS_IN_GRAPHS = {
    "integral": ONE_ROW,
    "blocks": BLOCKS,
    "side": boundary_value(GRID, 0.2, side="first"),
    "joined": TWO_ROWS,
    "with axes": integral(PLANE, 0.3) & boundary_value(PLANE, 0.2, side="first"),
    "blocks and a side": BLOCKS & boundary_value(PLANE, 0.2, side="first"),
    "joined inside": lambda x: integral(PLANE, x.sum(-1)) & boundary_value(PLANE, 0.2, side="first"),
    "blocks joined inside": lambda x: block_means(x, (4,)) & boundary_value(GRID, 0.2, side="first"),
}


@pytest.mark.long
@records
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("law", LAWS_IN_GRAPHS)
def test_a_compiled_model_takes_batches_of_several_sizes(law, dynamic):
    torch._dynamo.reset()
    model = Moments("normal", LAWS_IN_GRAPHS[law])
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=dynamic)
    for batch in (X, X[:2]):
        assert_same(compiled(batch), model(batch))


@pytest.mark.bits("torch.func.jvp of addcmul ends the process within any dispatch mode")
@pytest.mark.parametrize("law", LAWS)
def test_forward_and_reverse_derivatives_agree_with_difference_quotients(law):
    model = Moments(law=LAWS[law])
    tangent = torch.linspace(-1, 1, 12).double().reshape(3, 4)
    value, forward = torch.func.jvp(model, (X,), (tangent,))
    reverse = torch.func.jacrev(model)(X)
    step = 1e-5
    for i in range(2):
        quotient = (model(X + step * tangent)[i] - model(X - step * tangent)[i]) / (2 * step)
        # Truncation of order step² and cancellation of order eps/step.
        torch.testing.assert_close(forward[i], quotient, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close((reverse[i] * tangent).sum((-1, -2)), forward[i], rtol=1e-11, atol=1e-12)
    assert_same(value, model(X))
    gradient = torch.func.grad(lambda x: model(x)[0].square().sum())(X)
    torch.testing.assert_close(gradient, torch.einsum("bn,bnij->ij", 2 * value[0], reverse[0]), rtol=1e-11, atol=0)


def test_jit_trace_takes_totals_from_its_input():
    model = Moments(law=LAWS["from the input"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated, and that shapes become constants
        traced = torch.jit.trace(model, (X,))
    assert_same(traced(2 * X), model(2 * X))


@records
def test_draws_and_densities_compile():
    mean, scale = X, 0.3 + X
    law = LinearConstraint(torch.ones(1, 4).double(), torch.ones(1).double(), noise_variance=0.1)
    field = torch.linspace(-1, 1, 4).double().expand(3, 4)
    normals = torch.randn(7, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def draws_and_density(mean, scale):
        posterior = condition(Normal(mean, scale), law)
        return posterior.rsample(base_samples=normals), posterior.log_prob(field)

    assert_same(compiled(draws_and_density)(mean, scale), draws_and_density(mean, scale))


@records
def test_a_field_far_from_the_law_meets_it_in_a_graph_too():
    mean = torch.full((50,), 1e9, dtype=torch.float64)
    law = LinearConstraint(torch.ones(1, 50).double(), torch.tensor([1e-3]).double())
    update = compiled(lambda mean: condition(Normal(mean, torch.ones_like(mean)), law).mean)
    assert float(law.residual(update(mean)).abs() / mean.sum()) <= 1e-16


def test_a_fixed_law_moves_with_the_module_and_stays_in_double_precision():
    model = Moments(law=TWO_ROWS & NonNegative())
    buffers = dict(model.named_buffers())
    assert {name.rsplit("_", 1)[-1] for name in buffers} >= {"G", "b", "lower", "upper"}
    assert not any("constraint" in name for name in model.state_dict())
    for moved in (model.float(), model.half(), copy.deepcopy(model).to("meta")):
        assert all(buffer.dtype == torch.float64 for buffer in moved.buffers())
    assert copy.deepcopy(model).to("meta").layer.constraint.law.G.is_meta
    single = Moments().float()
    mean = single(X.float())[0].detach()
    assert float(TWO_ROWS.residual(mean).abs().max()) <= 1e-6


def test_a_layer_that_loads_weights_keeps_its_own_law():
    first, second = (Moments(law=integral(GRID, total)) for total in (0.3, 0.7))
    with torch.no_grad():
        first.layer.surrogate.linear.bias.add_(1.0)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.layer.surrogate.linear.bias, first.layer.surrogate.linear.bias)
    assert float(integral(GRID, 0.7).residual(second(X)[0].detach()).abs().max()) <= 1e-14


RECORDINGS = {
    "export": lambda model: exported(model)(X),
    "vmap": lambda model: vmap(model)(X),
    "jvp": lambda model: torch.func.jvp(model, (X,), (X,))[0],
}


@pytest.mark.parametrize(
    "law", [NonNegative(), TWO_ROWS & NonNegative(), lambda x: LAWS["from the input"](x) & Bounded(-9.0)]
)
@pytest.mark.parametrize("way", [pytest.param("export", marks=records), "vmap", "jvp", "derivatives"])
def test_inequalities_are_recorded(way, law):
    class Mode(Moments):
        def forward(self, x):
            return self.layer(x).mode

    model = Mode(law=law)
    if way != "derivatives":
        torch.testing.assert_close(RECORDINGS[way](model), model(X), rtol=0, atol=1e-12)
        return
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sin().sum(), x)
    torch.testing.assert_close(torch.func.grad(lambda x: model(x).sin().sum())(X), slope, rtol=0, atol=1e-12)
    along = torch.func.jvp(lambda x: model(x).sin().sum(), (X,), (X,))[1]
    torch.testing.assert_close(along, (slope * X).sum(), rtol=1e-12, atol=1e-12)


UNDER_INEQUALITIES = {
    "no law": NonNegative(),
    "a law": TWO_ROWS & NonNegative(),
    "a noisy law": LinearConstraint(ONE_ROW.rows, ONE_ROW.b, noise_variance=0.01) & Bounded(-1.0, 1.5),
    "joined inside": lambda x: integral(GRID, 0.1 * x.sum(-1)) & Monotone(),
}
SHORT = [("normal", "a law"), ("of rank 5", "a noisy law")]
LONG = [case for case in itertools.product(PRIORS, UNDER_INEQUALITIES) if case not in SHORT]


@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")  # by torch.compile
@pytest.mark.parametrize("way", [pytest.param(exported, marks=records), pytest.param(compiled, marks=records), vmap])
@pytest.mark.parametrize(("kind", "law"), [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)])
def test_moments_under_inequalities_are_recorded(kind, law, way):
    """The recorded layer has the same draws, those of its seed; vmap gives every entry the draws of the first."""
    model = Moments(kind, UNDER_INEQUALITIES[law], draws=20, validate=False)
    recorded, other = way(model), X + 0.1
    for x in (X[:, None], other[:, None]) if way is vmap else (X, other):
        expected = [torch.stack(parts) for parts in zip(*map(model, x), strict=True)] if way is vmap else model(x)
        assert_same(recorded(x), expected)


@records
def test_draws_of_moments_go_on_where_the_call_before_ended():
    """Noise of a law is drawn after the fields, in a graph too: the normal numbers of one generator, call by call."""

    def numbers(x):
        normals = normals_of_seed(7, x)
        return normals((2, 3)), normals((4,))

    generator = torch.Generator().manual_seed(7)
    for shape, recorded in zip([(2, 3), (4,)], compiled(numbers)(X), strict=True):
        assert torch.equal(recorded, torch.randn(shape, dtype=torch.float64, generator=generator))


def test_checks_can_be_switched_off():
    prior = Normal(torch.full((16,), torch.nan).double(), torch.ones(16).double(), validate_args=False)
    with pytest.raises(InvalidArgumentError, match="not finite"):
        condition(prior, ONE_ROW)
    assert bool(condition(prior, ONE_ROW, validate=False).mean.isnan().all())
    once = condition(Normal(torch.zeros(16).double(), torch.ones(16).double()), ONE_ROW & ONE_ROW)
    assert bool(torch.isfinite(once.mean).all())
    twice = condition(Normal(torch.zeros(16).double(), torch.ones(16).double()), ONE_ROW & ONE_ROW, validate=False)
    assert bool(twice.mean.isnan().all())
    negative = MultivariateNormal(torch.zeros(16).double(), DiagLinearOperator(torch.linspace(-1, 1, 16).double()))
    assert bool(condition(negative, ONE_ROW, validate=False).variance.isnan().any())
    unchecked = Moments(validate=False)
    assert_same(unchecked(X), Moments()(X))
