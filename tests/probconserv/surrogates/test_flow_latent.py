"""Coordinates of flows and their velocities: exact transforms, dense covariances, that of the clean field, messages."""

import math

import pytest
import torch
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor, nn

from probconserv import FlowMatching, LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.surrogates._interpolation import check_axes
from probconserv.surrogates.flow import (
    KarhunenLoeve,
    Latent,
    ResidualVelocity,
    SamplingOptions,
)
from probconserv.surrogates.flow.coefficients import information_of, local_correction
from probconserv.surrogates.flow.observations import interpolation_rows
from tests.probconserv.surrogates.exact_flows import of_gaussian
from tests.probconserv.surrogates.own_latent import Fields
from tests.strategies import normal

SHAPE = (4, 5)


def training_set(count: int = 60, rank: int = 6) -> Tensor:
    scale = 2.0 ** -torch.arange(rank, dtype=torch.float64)
    return 1 + ((normal(count, rank) * scale) @ normal(rank, 20, seed=1)).reshape(count, *SHAPE)


def spoilt() -> Tensor:
    fields = normal(5, 4)
    fields[1, :2], fields[4, 3] = math.nan, math.inf
    return fields


def test_arrays_are_taken_as_tensors_are() -> None:
    fields = training_set()
    latent, same = KarhunenLoeve.of(fields, 4), KarhunenLoeve.of(fields.numpy(), 4)  # type: ignore[arg-type]
    assert torch.equal(same.encode(fields.numpy()), latent.encode(fields))  # type: ignore[arg-type]


def test_coefficients_are_white_and_give_the_fields_back() -> None:
    fields = training_set()
    latent = KarhunenLoeve.of(fields, 6)
    z = latent.encode(fields.flatten(1))
    assert torch.allclose(z.mT.cov(), torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-11)
    assert torch.allclose(latent.decode(z), fields.flatten(1), rtol=0, atol=1e-12)
    few = KarhunenLoeve.of(fields, 3)
    assert torch.allclose(few.encode(few.decode(z[:, :3])), z[:, :3], rtol=0, atol=1e-12)
    variance = few.clean_covariance(0.0).diagonal()
    assert torch.allclose(variance, fields.flatten(1).var(dim=0), rtol=0, atol=1e-6 * float(variance.mean()))


@pytest.mark.parametrize("latent", [KarhunenLoeve.of(training_set(), 4), Fields(training_set(), 4)])
def test_fields_are_encoded_with_their_axes_or_flattened(latent: Latent) -> None:
    fields = training_set()
    z = latent.encode(fields)
    assert z.shape == (60, *latent.state_shape)
    assert torch.equal(z, latent.encode(fields.flatten(1)))
    for wrong in (fields.mT, fields[:, None], fields[..., 0]):
        with pytest.raises(InvalidArgumentError, match=r"fields must be \(s, \*\(4, 5\)\) or \(s, 20\), got"):
            latent.encode(wrong)


def test_noise_of_one_variance_leaves_weak_modes_weak() -> None:
    fields = training_set()
    white, latent = KarhunenLoeve.of(fields, 6), KarhunenLoeve.of(fields, 6, whitened=False)
    z = latent.encode(fields.flatten(1))
    assert torch.allclose(z.std(dim=0), latent.spread, rtol=1e-9)
    assert float(latent.spread[0]) == 1.0 > 10 * float(latent.spread[-1])
    assert torch.allclose(latent.decode(z), fields.flatten(1), rtol=0, atol=1e-12)
    sizes = torch.linalg.vector_norm(latent.basis, dim=-1)
    assert torch.allclose(sizes, sizes[:1].expand(6), rtol=1e-12)
    assert torch.allclose(latent.root, white.basis, rtol=1e-12)
    for t in (0.0, 0.6):
        data, noise = latent.root.mT @ latent.root, latent.basis.mT @ latent.basis
        middle = torch.linalg.pinv(t**2 * data + (1 - t) ** 2 * noise, hermitian=True)
        expected = data - t**2 * data @ middle @ data + torch.diag(latent.noise_variance)
        expected = expected + latent.rest.mT @ latent.rest
        assert torch.allclose(latent.clean_covariance(t).to_dense(), expected, rtol=0, atol=1e-10)


def test_modes_that_are_round_off_of_single_precision_are_refused() -> None:
    fields = training_set()
    assert len(KarhunenLoeve.of(fields.float(), 5).rest) == 1
    with pytest.raises(InvalidArgumentError, match=r"fewer than 7 modes above round-off: 6 in torch.float32"):
        KarhunenLoeve.of(fields.float(), 7)


def test_many_fields_have_the_modes_of_the_exact_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probconserv.surrogates.flow.latent._EXACT", 50)
    fields = normal(120, 6) * (2.0 ** -torch.arange(6)) @ normal(6, 80, seed=1)
    latent, exact = KarhunenLoeve.of(fields, 4), torch.linalg.svdvals(fields - fields.mean(dim=0))
    sizes = torch.linalg.vector_norm(latent.basis, dim=-1) * 119**0.5
    assert torch.allclose(sizes, exact[:4], rtol=1e-9)
    assert torch.equal(latent.basis, KarhunenLoeve.of(fields, 4).basis)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.9])
def test_covariances_of_the_clean_field_are_those_of_the_joint_gaussian(t: float) -> None:
    """Of whitened coefficients: 1 − t²/(t² + (1 − t)²) of the variance in each."""
    modes = KarhunenLoeve.of(training_set(), 3)
    root, left = modes.basis, modes.rest.mT @ modes.rest + torch.diag(modes.noise_variance)
    assert len(modes.rest) == 3
    variance = 1 - t**2 / (t**2 + (1 - t) ** 2)
    expected = variance * root.mT @ root + left
    assert torch.allclose(modes.clean_covariance(t).to_dense(), expected, rtol=0, atol=1e-13)


def test_the_velocity_starts_as_that_of_a_gaussian() -> None:
    """v = (2t − 1)/(t² + (1 − t)²) z transports N(0, I) to itself: |z_t| depends on t through √(t² + (1 − t)²) only."""
    network, z = ResidualVelocity(3, width=8, blocks=1), normal(4, 3).float()
    for t in (0.0, 0.5, 1.0):
        expected = (2 * t - 1) / (t**2 + (1 - t) ** 2) * z
        assert torch.allclose(network(z, torch.full((4,), t)), expected, rtol=1e-6)


def test_interpolation_is_exact_for_bilinear_fields() -> None:
    axes = (torch.tensor([0.0, 0.4, 1.0]), torch.linspace(-1, 1, 5))
    points = torch.rand(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    points[:, 0].abs_()
    points[0] = torch.tensor([1.0, 1.0])

    def bilinear(first: Tensor, second: Tensor) -> Tensor:
        return 1 + 2 * first - second + 3 * first * second

    field = bilinear(axes[0].double()[:, None], axes[1].double()[None, :]).flatten()
    checked = check_axes([axes[0].numpy(), axes[1].tolist()], (3, 5))  # type: ignore[list-item]
    values = interpolation_rows(checked, points).functional(field[None])[0]
    assert torch.allclose(values, bilinear(points[:, 0], points[:, 1]), rtol=0, atol=1e-6)  # float32 coordinates


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KarhunenLoeve.of(training_set(), 59), "size must lie between 1 and 20"),
        (lambda: KarhunenLoeve.of(training_set(), 9), "fewer than 9 modes above round-off"),
        (
            lambda: KarhunenLoeve(torch.ones(4), torch.ones(2, 4), torch.ones(4), (4,), spread=torch.zeros(2)),
            r"spread must be \(2,\) and positive",
        ),
        (lambda: ResidualVelocity(2, spread=[1.0, 0.0]), "spread must be 2 positive numbers"),
        (lambda: KarhunenLoeve.of(torch.ones(2, 4), 1), "at least three fields"),
        (lambda: KarhunenLoeve.of(spoilt(), 1), "got 3 NaN or infinite values in 2 of 5 fields; drop"),
        (
            lambda: KarhunenLoeve(torch.zeros(4), torch.ones(2, 3), torch.ones(4), (4,)),
            r"basis \(r, n\) with the n = 4",
        ),
        (lambda: KarhunenLoeve(torch.zeros(4), torch.ones(2, 4), torch.zeros(4), (4,)), "must be positive"),
        (
            lambda: KarhunenLoeve(torch.zeros(4), torch.ones(2, 4), torch.ones(4), (4,), torch.ones(1, 3)),
            r"rest must be \(q, n\) with n = 4",
        ),
        (lambda: ResidualVelocity(0), "at least 1"),
        (lambda: check_axes([torch.tensor([0.0, 0.0])], (2,)), "increasing coordinates"),
    ],
)
def test_bad_input_is_refused(build: object, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        build()  # type: ignore[operator]


@pytest.mark.parametrize("make", [KarhunenLoeve.of, Fields])
def test_casts_leave_coordinates_in_float64(make) -> None:
    fields = training_set()
    latent = make(fields, 4)
    z = latent.encode(fields)
    for cast in (latent.float(), latent.half(), latent.to(torch.float32)):
        assert torch.equal(cast.encode(fields), z)
        assert cast.decode(z).dtype == torch.float64


N = 20
UNIT = torch.eye(3, dtype=torch.float64)
LOCAL = SamplingOptions(steps=40, local=True)


def latent(size: int = 3, *, whitened: bool = True) -> KarhunenLoeve:
    scale = 2.0 ** -torch.arange(8, dtype=torch.float64)
    fields = 1 + (normal(80, 8) * scale) @ normal(8, N, seed=1) + 0.01 * normal(80, N, seed=2)
    return KarhunenLoeve.of(fields, size, whitened=whitened)


def some_rows(noise: float = 0.1) -> LinearConstraint:
    return LinearConstraint(normal(6, N, seed=3), normal(6, seed=4), noise_variance=noise)


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
    flow = of_gaussian(latent())
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
