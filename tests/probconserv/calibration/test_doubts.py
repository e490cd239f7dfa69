"""Predictions that doubt their position as far as a law says."""

import math

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DenseLinearOperator
from torch import Tensor
from torch.distributions import Normal

from probconserv import LinearConstraint, Mixture, NonNegative, condition, integral, scores
from probconserv.calibration import doubt, law_misfit
from probconserv.calibration.marginals import marginal_log_likelihood
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from tests.strategies import COVARIANCES, make_covariance

N = 102
X = torch.linspace(0.0, 1.0, N, dtype=torch.float64)


def step(front: float, x: Tensor = X) -> Tensor:
    return torch.sigmoid((front - x) / 0.005)


def total_of(u: Tensor, x: Tensor = X) -> Tensor:
    return torch.trapezoid(u, x)


def sure(mean: Tensor, deviation: float = 0.002) -> Normal:
    return Normal(mean, torch.full_like(mean, deviation))


def moments_of_shifts(mean: Tensor, x: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of μ(x − δ), δ ~ N(0, s²), by NumPy's interpolation at many shifts."""
    z = np.linspace(-8, 8, 4001)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    moved = np.stack([np.interp(x.numpy() - s * shift, x.numpy(), mean.numpy()) for shift in z])
    centre = weight @ moved
    return torch.from_numpy(centre), torch.from_numpy((moved - centre).T * weight @ (moved - centre))


def test_a_displaced_front_is_doubted_and_one_in_order_is_not() -> None:
    prediction, truth = sure(step(0.5)), step(0.51)
    law = integral(X, total_of(truth), rule_variance=1e-8)
    plain, doubted = condition(prediction, law), doubt(prediction, law, X)
    assert float(doubted.displaced_weight) > 0.9
    assert scores.crps(truth, doubted.mean, doubted.variance) < scores.crps(truth, plain.mean, plain.variance)
    in_order = integral(X, total_of(step(0.5)), rule_variance=1e-8)
    left = doubt(prediction, in_order, X)
    assert float(left.displaced_weight) <= 0.01  # no more than before the law
    assert isinstance(left, Mixture)


@pytest.mark.parametrize("c", [1.0, 3.0])
@pytest.mark.parametrize("rows", [1, 2])
def test_weights_and_moments_are_those_of_the_stated_model(c: float, rows: int) -> None:
    """Against dense matrices, on unequally spaced points, with a correlated prior and its scale-by-scale evidence.

    Shifts are summed a point apart and finer, which is exact to the second order in their spacing over s.
    """
    x = X + 0.003 * torch.sin(9 * X) * X * (1 - X)
    generator = torch.Generator().manual_seed(0)
    dense = 1e-5 * make_covariance("dense", N, generator).to_dense()
    G = torch.stack([torch.ones(N).double() / N, (x < 0.4).double() / N])[:rows]
    law = LinearConstraint(G, G @ step(0.52, x), rule_variance=1e-9)
    scales = {0.01: 0.1, 0.03: 0.2}
    mean = step(0.5, x)
    got = doubt(MultivariateNormal(mean, DenseLinearOperator(dense)), law, x, usual_misfit=c, scales=scales)
    logs, means, covariances = [], [], []
    within = G @ dense @ G.T + 1e-9 * torch.eye(rows)
    for s, weight in {0.0: 0.7, **scales}.items():
        length = float(x[-1] - x[0])
        centre, moved = moments_of_shifts(mean, x, s * length) if s else (mean, torch.zeros(N, N).double())
        variance, _ = moments_of_shifts(dense.diagonal(), x, s * length) if s else (dense.diagonal(), None)
        covariance = dense + torch.diag(moved.diagonal() + (variance - dense.diagonal()).clamp_min(0.0))
        S = c * within + G @ moved @ G.T
        density = torch.distributions.MultivariateNormal(G @ centre, S).log_prob(law.b)
        logs.append(math.log(weight) + density)
        gain = covariance @ G.T @ torch.linalg.inv(G @ covariance @ G.T)
        means.append(centre - gain @ (G @ centre - law.b))
        covariances.append(covariance - gain @ G @ covariance)
    weights = torch.softmax(torch.stack(logs), dim=0)
    # 101 shifts are s/10 apart: the trapezoid rule is off by (1/10)²/12 at most per kink, the steps' slopes times it
    torch.testing.assert_close(got.weights, weights, rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(got.components.mean, torch.stack(means), rtol=0, atol=1e-3)
    diagonal = torch.stack([matrix.diagonal() for matrix in covariances])
    torch.testing.assert_close(got.components.variance, diagonal, rtol=0, atol=1e-3)
    assert isinstance(got.components, MultivariateNormal)
    torch.testing.assert_close(got.components[0].covariance_matrix, covariances[0], rtol=1e-8, atol=1e-14)
    assert float(got.displaced_weight) == pytest.approx(1 - float(got.weights[0]))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31 - 1), st.sampled_from(COVARIANCES), st.sampled_from([(), (1,), (3,), (2, 3)]))
def test_every_component_and_draw_meets_the_law(seed: int, kind: str, batch: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    covariance = 1e-3 * make_covariance(kind, N, generator, batch)
    mean = step(0.5) + 0.01 * torch.randn(*batch, N, dtype=torch.float64, generator=generator)
    law = integral(X, 0.5 + 0.02 * torch.randn(batch, dtype=torch.float64, generator=generator))
    doubted = doubt(MultivariateNormal(mean, covariance), law, X)
    assert doubted.mean.shape == mean.shape
    assert doubted.displaced_weight.shape == batch
    assert law.residual(doubted.components.mean).abs().max() < 1e-13
    assert law.residual(doubted.sample(torch.Size([5]))).abs().max() < 1e-10
    plain = condition(MultivariateNormal(mean, covariance), law)
    torch.testing.assert_close(doubted.components.mean[0], plain.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(doubted.components.variance[0], plain.variance, rtol=1e-6, atol=1e-13)


def test_the_law_is_met_in_single_precision() -> None:
    mean = step(0.5).float().expand(4, N)
    law = integral(X, torch.tensor([0.48, 0.5, 0.505, 0.52]))
    doubted = doubt(Normal(mean, torch.full_like(mean, 0.01)), law, X)
    assert doubted.mean.dtype == torch.float32
    size = total_of(doubted.mean.double().abs())
    assert (law.residual(doubted.mean)[:, 0].abs() <= 4 * torch.finfo(torch.float32).eps * size).all()
    double = doubt(Normal(mean.double(), torch.full_like(mean, 0.01).double()), law, X)
    # Both start from the same float32 numbers; the standard deviation of 0.01 is rounded by ε of itself.
    torch.testing.assert_close(doubted.displaced_weight, double.displaced_weight, rtol=1e-4, atol=1e-6)


def test_functions_do_not_depend_on_their_company_nor_on_the_unit_of_points() -> None:
    means = torch.stack([step(0.5), step(0.3), torch.sin(math.pi * X)])
    x = torch.stack([X, 3 * X - 1, 1e-6 * X])  # every function on a domain of its own
    b = torch.stack([total_of(step(0.51)), 3 * total_of(step(0.29)), torch.tensor(7e-7).double()])
    together = doubt(sure(means), integral(x, b), x)
    for number in range(3):
        alone = doubt(sure(means[number]), integral(x[number], b[number]), x[number])
        one = doubt(sure(means[number][None]), integral(x[number], b[number][None]), x[number])
        for other in (alone.mean, one.mean[0]):
            torch.testing.assert_close(together.mean[number], other, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(together.displaced_weight[number], alone.displaced_weight, rtol=1e-8, atol=1e-12)
    several = doubt(sure(step(0.5)), integral(X, torch.tensor([0.49, 0.52])), X)  # one prediction, two totals
    assert several.mean.shape == (2, N)


@pytest.mark.parametrize(
    "field", [torch.exp(-(((X - 0.5) / 0.05) ** 2)), 0.2 * torch.sin(2 * math.pi * X)], ids=["bump", "wave"]
)
def test_a_field_whose_total_does_not_tell_its_position_is_conditioned_alone(field: Tensor) -> None:
    law = integral(X, total_of(field) + 0.01)
    prediction = sure(torch.stack([field, step(0.5)]))
    doubted, plain = doubt(prediction, law, X), condition(prediction, law)
    assert float(doubted.displaced_weight[0]) == 0
    torch.testing.assert_close(doubted.mean[0], plain.mean[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(doubted.variance[0], plain.variance[0], rtol=1e-8, atol=1e-14)


def test_prescribed_values_stay() -> None:
    """A step next to a wall, whose value is certain."""
    mean, deviation = step(0.01), torch.full((N,), 0.01).double()
    deviation[[0, -1]] = 0.0
    doubted = doubt(Normal(mean, deviation, validate_args=False), integral(X, 0.03), X)
    assert float(doubted.displaced_weight) > 0.5
    assert torch.equal(doubted.components.mean[:, [0, -1]], mean[[0, -1]].expand(8, 2))
    assert float(doubted.components.variance[:, [0, -1]].max()) == 0


def test_components_of_a_mixture_have_their_weights_under_every_scale() -> None:
    parts = torch.stack([step(0.48), step(0.5)])[:, None]
    weights = torch.tensor([0.3, 0.7]).double()
    law = integral(X, total_of(step(0.495))[None], rule_variance=1e-8)
    doubted = doubt(Mixture(sure(parts, 0.02), weights), law, X)
    of_scale = doubted.weights.unflatten(0, (8, 2))
    torch.testing.assert_close(of_scale / of_scale.sum(dim=1, keepdim=True), weights[:, None].expand(8, 2, 1))
    single = doubt(Mixture(sure(step(0.5)[None, None])), law, X)
    alone = doubt(sure(step(0.5)[None]), law, X)
    torch.testing.assert_close(single.mean, alone.mean)
    torch.testing.assert_close(single.displaced_weight, alone.displaced_weight)


def test_derivatives_are_those_of_differences() -> None:
    x = torch.linspace(0.0, 1.0, 12, dtype=torch.float64)
    mean = torch.sigmoid((0.5 - x) / 0.1).requires_grad_()
    deviation = (0.05 + 0.01 * x).requires_grad_()  # of equal ones the larger has no derivative
    total = torch.tensor(0.55).double().requires_grad_()

    def outcome(mean: Tensor, deviation: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        doubted = doubt(Normal(mean, deviation), integral(x, total), x, scales={0.05: 0.3})
        return doubted.mean, doubted.displaced_weight

    assert torch.autograd.gradcheck(outcome, (mean, deviation, total))


def test_a_broad_component_bounds_the_loss_of_a_density_and_keeps_the_law() -> None:
    truth, law, scales = step(0.8), integral(X, total_of(step(0.8)), rule_variance=1e-8), {0.01: 0.01}
    plain = doubt(sure(step(0.5)), law, X, scales=scales)
    broad = doubt(sure(step(0.5)), law, X, scales=scales, broad=0.01)
    assert float(broad.weights[-1]) == pytest.approx(0.01)
    torch.testing.assert_close(broad.weights[:-1], 0.99 * plain.weights)
    torch.testing.assert_close(broad.displaced_weight, plain.displaced_weight)
    assert law.residual(broad.components.mean).abs().max() < 1e-13
    # At every point the density is at least a hundredth of that of N(μ, v), with |u − μ| ≤ 1.1 and v near 1/4.
    assert marginal_log_likelihood(truth, broad) > math.log(0.01) - 0.5 * 1.21 / 0.2 - 0.92
    assert marginal_log_likelihood(truth, plain) < -100


def test_the_usual_misfit_is_the_mean_square_of_residuals_and_at_least_one() -> None:
    noise = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prediction = Normal(torch.zeros(400, N).double(), torch.ones(400, N).double())
    row = torch.full((1, N), 1 / N, dtype=torch.float64)
    deviation = (1 / N + 0.02) ** 0.5
    law = LinearConstraint(row, 3 * deviation * noise[:, None], rule_variance=0.02)
    assert law_misfit(prediction, law) == pytest.approx(9 * float(noise.square().mean()), rel=1e-12)
    assert law_misfit(prediction, LinearConstraint(row, 0 * noise[:, None])) == 1.0
    far = integral(X, total_of(step(0.504)), rule_variance=1e-8)
    weights = [float(doubt(sure(step(0.5)), far, X, usual_misfit=c).displaced_weight) for c in (1.0, 10.0, 1e6)]
    assert weights[0] > weights[1] > weights[2]


def test_what_cannot_be_doubted_is_refused() -> None:
    prior, law = sure(step(0.5)), integral(X, 0.5)
    for bad in (X.flip(-1), X[1:], torch.zeros(N), torch.tensor(1.0)):
        with pytest.raises(InvalidArgumentError, match=f"points must be {N} increasing positions"):
            doubt(prior, law, bad)
    for posterior in (condition(prior, law), condition(prior, NonNegative())):
        with pytest.raises(InvalidArgumentError, match="before any law"):
            doubt(posterior, law, X)
    with pytest.raises(InvalidArgumentError, match="takes a LinearConstraint"):
        doubt(prior, NonNegative(), X)  # pyright: ignore[reportArgumentType] - what users try
    for c, broad in ((0.5, 0.0), (math.nan, 0.0), (1.0, 1.0), (1.0, -0.1)):
        with pytest.raises(InvalidArgumentError, match=f"got {c} and {broad}"):
            doubt(prior, law, X, usual_misfit=c, broad=broad)
    for scales in ({0.1: 1.0}, {0.0: 0.1}, {0.1: -0.1}):
        with pytest.raises(InvalidArgumentError, match="scales must map standard deviations above 0"):
            doubt(prior, law, X, scales=scales)
    mixture = Mixture(sure(torch.zeros(2, N, dtype=torch.float64)))
    with pytest.raises(IncompatibleQueryError, match="one total per function"):
        doubt(mixture, integral(X, torch.tensor([0.5, 0.6])), X)
