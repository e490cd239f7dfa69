"""What rows say of coefficients, and the covariance of the clean field by the Jacobian of the velocity."""

import pytest
import torch
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor, nn

from probconserv import FlowMatching, InvalidArgumentError, LinearConstraint
from probconserv.surrogates.flow import KarhunenLoeve, Latent, ResidualVelocity, SamplingOptions
from probconserv.surrogates.flow.coefficients import information_of, local_correction
from tests.strategies import normal

N = 20
UNIT = torch.eye(3, dtype=torch.float64)
LOCAL = SamplingOptions(steps=40, local=True)


def latent(size: int = 3, *, whitened: bool = True) -> KarhunenLoeve:
    scale = 2.0 ** -torch.arange(8, dtype=torch.float64)
    fields = 1 + (normal(80, 8) * scale) @ normal(8, N, seed=1) + 0.01 * normal(80, N, seed=2)
    return KarhunenLoeve.of(fields, size, whitened=whitened)


def some_rows(noise: float = 0.1) -> LinearConstraint:
    return LinearConstraint(normal(6, N, seed=3), normal(6, seed=4), noise)


class Linear(nn.Module):
    """The velocity that transports N(0, I) to N(0, C): v = (t C − (1 − t) I) (t² C + (1 − t)² I)⁻¹ z."""

    def __init__(self, covariance: Tensor) -> None:
        super().__init__()
        self.register_buffer("covariance", covariance)
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        unit, moment = torch.eye(len(self.covariance), dtype=torch.float64), t[0]
        spread = moment**2 * self.covariance + (1 - moment) ** 2 * unit
        return z @ torch.linalg.solve(spread, moment * self.covariance - (1 - moment) * unit)


def linear_flow(*, whitened: bool = True) -> FlowMatching:
    root = normal(3, 3, seed=5)
    return FlowMatching(latent(whitened=whitened), Linear(root @ root.mT + 0.1 * torch.eye(3, dtype=torch.float64)))


@pytest.mark.parametrize(("t", "whitened"), [(0.3, True), (0.7, True), (0.95, True), (0.7, False)])
def test_the_local_correction_is_the_conditional_mean_of_a_gaussian_that_is_not_white(t: float, whitened: bool) -> None:
    flow = linear_flow(whitened=whitened)
    C, law, z = flow.velocity.covariance, some_rows(), normal(5, 3, seed=6)
    information = information_of(flow.latent, law)
    clean = z + (1 - t) * flow.evaluate(z, t)
    # Covariance of z₁ given z_t, with the part that the correction adds.
    given = C - t**2 * C @ torch.linalg.solve(t**2 * C + (1 - t) ** 2 * UNIT, C)
    given = given + 0.01 * torch.diag(flow.latent.clean_variances(t))
    H = information.vectors * information.values @ information.vectors.mT
    goal = information.vectors @ information.goal
    expected = clean + (goal - clean @ H) @ torch.linalg.solve(UNIT + given @ H, given).mT
    corrected = local_correction(flow, information)(clean, z, t)
    assert torch.allclose(corrected, expected, rtol=1e-9, atol=1e-9)


def test_draws_of_a_gaussian_that_is_not_white_are_those_of_its_conditional() -> None:
    """In coefficients, whose covariance C differs from that of the latent; isotropic v_t misses the mean."""
    flow, law = linear_flow(), some_rows(noise=1.0)
    information = information_of(flow.latent, law)
    H = information.vectors * information.values @ information.vectors.mT
    precision = torch.linalg.inv(flow.velocity.covariance) + H
    mean = torch.linalg.solve(precision, information.vectors @ information.goal)
    spread = torch.linalg.inv(precision).diagonal().sqrt()
    errors = []
    for options in (LOCAL, SamplingOptions(steps=40)):
        z = flow.latent.encode(flow.sample(3000, law=law, options=options))
        errors.append(float(((z.mean(dim=0) - mean) / spread).abs().max()))
    assert errors[0] <= 5 / 3000**0.5 + 0.05  # five standard errors, and steps of 1/40
    assert errors[1] > 2 * errors[0]


def test_laws_and_coordinates_that_it_is_not_for_are_refused() -> None:
    flow = FlowMatching(latent(), ResidualVelocity(3, width=4, blocks=1))
    batched = LinearConstraint(normal(2, 1, N), torch.zeros(2, 1))
    with pytest.raises(InvalidArgumentError, match="local=True is for linear rows that are the same for all draws"):
        flow.sample(2, law=batched, options=LOCAL)
    coordinates = FlowMatching(Plain((N,), (N,)), Linear(torch.eye(N, dtype=torch.float64)))
    with pytest.raises(InvalidArgumentError, match="LinearConstraint in Plain"):
        coordinates.sample(2, law=some_rows(), options=LOCAL)


class Plain(Latent):
    """Fields of unit variance as they are."""

    def encode(self, fields: Tensor) -> Tensor:
        return fields

    def decode(self, z: Tensor) -> Tensor:
        return z

    def clean_covariance(self, t: float) -> LinearOperator:
        return DiagLinearOperator(torch.full((N,), 1.0 - 0.5 * t, dtype=torch.float64))


def test_rows_too_noisy_to_say_anything_leave_the_draws_as_they_are() -> None:
    flow = linear_flow()
    free = flow.sample(4, seed=1, options=SamplingOptions(steps=10))
    told = flow.sample(4, seed=1, law=some_rows(noise=1e12), options=SamplingOptions(steps=10, local=True))
    assert torch.allclose(told, free, rtol=0, atol=1e-4)
