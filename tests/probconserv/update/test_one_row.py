"""One row under independent values: equal in every shape, exact for long fields; no update is slower unchecked."""

import math
import os
import subprocess
import sys

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DiagLinearOperator
from torch.utils._python_dispatch import TorchDispatchMode

from probconserv import LinearConstraint, condition, from_samples
from probconserv.fields import block_means
from tests.strategies import seeds

few = settings(deadline=None, max_examples=25)


def problem(seed, *shape, noise=0.0):
    """A prior of independent values and one law of mixed signs."""
    generator = torch.Generator().manual_seed(seed)
    mean, row = (torch.randn(*size, dtype=torch.float64, generator=generator) for size in (shape, shape[-1:]))
    variance = torch.rand(*shape, dtype=torch.float64, generator=generator) + 0.1
    return MultivariateNormal(mean, DiagLinearOperator(variance)), LinearConstraint(
        row[None], row.sum()[None], noise_variance=noise
    )


@few
@given(seeds, st.integers(1, 3000), st.sampled_from([0.0, 0.3]), st.booleans())
def test_a_batch_of_one_and_no_checks_change_no_bit(seed, n, noise, validate):
    prior, law = problem(seed, n, noise=noise)
    one = MultivariateNormal(prior.mean[None], DiagLinearOperator(prior.variance[None]))
    expected, actual = condition(prior, law), condition(one, law, validate=validate)
    assert torch.equal(actual.mean[0], expected.mean)
    assert torch.equal(actual.variance[0], expected.variance)


class Count(TorchDispatchMode):
    """Counts the numbers that torch's operations read and write."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.numbers += sum(part.numel() for part in (*args, result) if isinstance(part, torch.Tensor))
        return result


class Arrays(TorchDispatchMode):
    """Counts the arrays of a size or more that torch's operations allocate."""

    def __init__(self, size):
        super().__init__()
        self.size, self.seen = size, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in (result,) if isinstance(result, torch.Tensor) else ():
            storage = part.untyped_storage()
            inputs = [each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)]
            if storage.nbytes() >= 8 * self.size and storage.data_ptr() not in (*inputs, *self.addresses()):
                self.seen.append(part)  # which keeps its address from being given again
        return result

    def addresses(self):
        return [each.untyped_storage().data_ptr() for each in self.seen]


@pytest.mark.parametrize("shape", [(70_000,), (1, 70_000), (300, 300)])
def test_an_update_allocates_its_results_alone(shape):
    # A fresh array costs as much as all passes over it, since the system clears its pages.
    prior, law = problem(3, *shape)
    condition(prior, law).variance  # noqa: B018 - what prior and law compute once does not count
    with Arrays(prior.mean.numel()) as arrays:
        posterior = condition(prior, law)
        results = posterior.mean, posterior.variance
    assert arrays.addresses() == [each.untyped_storage().data_ptr() for each in results]


def priors_and_laws():
    """One row in three shapes, rows that share no point, three rows of members."""
    yield from (problem(0, *shape) for shape in ((300,), (1, 300), (7, 300)))
    prior, _ = problem(1, 64)
    yield prior, block_means(torch.zeros(16, dtype=torch.float64), (4,))
    members = from_samples(torch.stack([prior.mean.roll(shift) for shift in range(9)]), noise_variance=0.1)
    yield members, LinearConstraint(torch.eye(3, 64).double(), torch.zeros(3).double())


@pytest.mark.parametrize(("prior", "law"), [*priors_and_laws()])
def test_an_update_without_checks_costs_no_more_than_with_them(prior, law):
    def cost(validate):
        with Count() as count:
            posterior = condition(prior, law, validate=validate)
            assert posterior.variance.shape == posterior.mean.shape
        return count.numbers

    cost(True)  # what prior and law compute once does not count
    assert cost(False) <= cost(True)


def test_residual_of_a_long_field_of_mixed_signs_is_round_off():
    prior, law = problem(0, 10**6)
    posterior = condition(MultivariateNormal(1e6 * prior.mean, prior.lazy_covariance_matrix), law)
    terms = [*(law.rows[0] * posterior.mean).tolist(), -float(law.b)]
    # A sum of n terms is rounded by about √n ε of the largest partial sum, which is far below Σ |terms|.
    assert abs(math.fsum(terms)) <= 1e-15 * sum(map(abs, terms))


def test_a_node_that_holds_all_the_variance_is_certain_afterwards():
    # v − (v/√v)² is a difference of equal numbers: zero or one rounding of either sign, of which none may be left.
    variance = torch.zeros(200, 300, dtype=torch.float64)
    variance[:, 7] = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.1
    law = LinearConstraint(torch.full((1, 300), 0.7).double(), torch.ones(1).double())
    posterior = condition(MultivariateNormal(torch.zeros(200, 300).double(), DiagLinearOperator(variance)), law)
    assert float(posterior.variance.min()) >= 0
    assert float(posterior.variance.max()) <= 1e-15


def test_a_variance_asked_for_after_an_update_without_gradients_has_those_of_one_with_them():
    variance = torch.linspace(0.2, 1.0, 9, dtype=torch.float64, requires_grad=True)
    law = LinearConstraint(torch.ones(1, 9).double(), torch.ones(1).double())

    def posterior():
        return condition(MultivariateNormal(torch.zeros(9).double(), DiagLinearOperator(variance)), law)

    with torch.no_grad():
        late = posterior()
        assert not late.mean.requires_grad
    gradients = [torch.autograd.grad(each.variance.square().sum(), variance)[0] for each in (late, posterior())]
    assert torch.equal(*gradients)


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


update(50_000)  # what is loaded once does not count
before = peak()
size, residual = update(10_000_000)
assert abs(float(residual)) < 1e-6, residual
print((peak() - before) / size)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_million_points_take_less_than_twice_their_input() -> None:
    """Mean, variance and row are 240 MB; results are two thirds of that; nothing is n × n."""
    finished = subprocess.run(
        [sys.executable, "-c", LONG_FIELD],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert 1.0 < float(finished.stdout) < 2.0
