"""The update in numbers that a training or a long field relies on: derivatives, float32, memory."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from linear_operator.operators import (
    DenseLinearOperator,
    DiagLinearOperator,
    KroneckerProductLinearOperator,
    LinearOperator,
    PsdSumLinearOperator,
    RootLinearOperator,
)
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import Normal

from probconserv import LinearConstraint, Mixture, condition
from tests.strategies import conditioning_problems

N = 6

COVARIANCES: dict[str, Callable[[Tensor], LinearOperator]] = {
    "diagonal": lambda root: DiagLinearOperator(root[0].square() + 0.2),
    "low rank": lambda root: RootLinearOperator(root[:, :4]),
    "low rank and noise": lambda root: PsdSumLinearOperator(
        RootLinearOperator(root[:, :2]), DiagLinearOperator(root[0].square() + 0.2)
    ),
    "kronecker": lambda root: KroneckerProductLinearOperator(
        DenseLinearOperator(root[:2, :2] @ root[:2, :2].mT + torch.eye(2, dtype=torch.float64)),
        DenseLinearOperator(root[:3, 3:] @ root[:3, 3:].mT + torch.eye(3, dtype=torch.float64)),
    ),
    "dense": lambda root: DenseLinearOperator(root @ root.mT + torch.eye(N, dtype=torch.float64)),
}


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("k", [1, 2])
def test_mean_and_variance_are_differentiable_in_everything_they_depend_on(kind: str, k: int) -> None:
    """Mean, parameters of the covariance, rows, b and σ², one variance a row."""

    def update(mean: Tensor, root: Tensor, rows: Tensor, b: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        prior = MultivariateNormal(mean, COVARIANCES[kind](root))
        posterior = condition(prior, LinearConstraint(rows, b, noise.square() + 0.1))
        draws = posterior.rsample(base_samples=torch.ones(1, *posterior.base_sample_shape, dtype=torch.float64))
        return posterior.mean, posterior.variance, draws

    inputs = (draw(N, seed=0), draw(N, N, seed=1), draw(k, N, seed=2), draw(k, seed=3), draw(k, seed=4))
    assert gradcheck(update, inputs, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in COVARIANCES if kind != "low rank"])
def test_the_density_of_an_exact_law_is_differentiable(kind: str) -> None:
    """In what a training fits: mean and covariance, for a field that keeps the law; low rank alone has no density."""
    rows = torch.ones(1, N, dtype=torch.float64)
    u = draw(2, N, seed=5).detach()
    u = u - u.mean(-1, keepdim=True) + 0.5

    def density(mean: Tensor, root: Tensor) -> Tensor:
        prior = MultivariateNormal(mean, COVARIANCES[kind](root))
        return condition(prior, LinearConstraint(rows, torch.tensor([3.0], dtype=torch.float64), 0.0)).log_prob(u)

    assert gradcheck(density, (draw(N, seed=0), draw(N, N, seed=1)), atol=1e-6)


def test_the_update_of_a_mixture_is_differentiable() -> None:
    rows = torch.ones(1, N, dtype=torch.float64)

    def update(mean: Tensor, scale: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        prior = Mixture(Normal(mean, scale.abs() + 0.2))
        posterior = condition(prior, LinearConstraint(rows, b))
        return posterior.mean, posterior.variance

    assert gradcheck(update, (draw(3, N, seed=0), draw(3, N, seed=1), draw(1, seed=2)), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(conditioning_problems(dtype=torch.float32) | conditioning_problems(dtype=torch.float32, noise_variance=0.3))
def test_float32_gives_the_float64_update_rounded_once(problem: tuple[MultivariateNormal, LinearConstraint]) -> None:
    prior, law = problem
    covariance = prior.lazy_covariance_matrix.double()
    single, double = condition(prior, law), condition(MultivariateNormal(prior.mean.double(), covariance), law)
    # Half an ulp, 6e-8, of each number; products of factors are taken in another order.
    for actual, expected, atol in (
        (single.mean, double.mean, 1e-12 * float(double.mean.abs().max())),
        (single.variance, double.variance, 1e-12 * float(prior.variance.max())),
    ):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), expected, rtol=1.2e-7, atol=atol)


LONG_FIELD = """
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from probconserv import LinearConstraint, condition


def peak():
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def update(n):
    arrays = [torch.rand(n, dtype=torch.float64) for _ in range(3)]
    law = LinearConstraint(arrays[2][None], torch.tensor([0.3], dtype=torch.float64))
    posterior = condition(MultivariateNormal(arrays[0], DiagLinearOperator(arrays[1])), law)
    posterior.mean, posterior.variance
    return 8 * n * len(arrays), law.residual(posterior.mean)


update(50_000)  # what is loaded and compiled once does not count
before = peak()
size, residual = update(10_000_000)
assert abs(float(residual)) < 1e-6, residual
print((peak() - before) / size)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_million_points_take_less_than_four_times_their_input() -> None:
    """Mean, variance and row are 240 MB; results are two thirds of that; nothing is n × n."""
    finished = subprocess.run(
        [sys.executable, "-c", LONG_FIELD],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert 1.0 < float(finished.stdout) < 4.0
