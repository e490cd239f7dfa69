"""Coordinates of flows and their velocities: exact transforms, dense covariances, that of the clean field, messages."""

import math
from pathlib import Path

import pytest
import torch
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor, nn

from probconserv import FlowMatching, InvalidArgumentError, LinearConstraint
from probconserv.surrogates._interpolation import check_axes
from probconserv.surrogates.flow import (
    FieldLatent,
    KarhunenLoeve,
    Latent,
    ResidualFieldVelocity,
    ResidualVelocity,
    SamplingOptions,
    smooth_noise,
)
from probconserv.surrogates.flow.coefficients import information_of, local_correction
from probconserv.surrogates.flow.observations import interpolation_rows
from tests.strategies import normal

SHAPE = (4, 5)


def training_set(count: int = 60, rank: int = 6) -> Tensor:
    scale = 2.0 ** -torch.arange(rank, dtype=torch.float64)
    return 1 + ((normal(count, rank) * scale) @ normal(rank, 20, seed=1)).reshape(count, *SHAPE)


def spoilt() -> Tensor:
    fields = normal(5, 4)
    fields[1, :2], fields[4, 3] = math.nan, math.inf
    return fields


@pytest.mark.parametrize("kind", [KarhunenLoeve, FieldLatent])
def test_arrays_are_taken_as_tensors_are(kind: type[KarhunenLoeve | FieldLatent]) -> None:
    fields = training_set()
    latent, same = kind.of(fields, 4), kind.of(fields.numpy(), 4)  # type: ignore[arg-type]
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


@pytest.mark.parametrize("latent", [KarhunenLoeve.of(training_set(), 4), FieldLatent.of(training_set(), 4)])
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
    """Σ − t² Σ (t² Σ + (1 − t)² K)⁻¹ Σ with dense matrices."""
    unit = torch.eye(20, dtype=torch.float64)
    fields = FieldLatent.of(training_set(), 6, error=1e-4)
    data, noise = fields.clean_covariance(0.0).to_dense(), fields.scale**2 * unit
    expected = data - t**2 * data @ torch.linalg.solve(t**2 * data + (1 - t) ** 2 * noise, data)
    # The diagonal part is a millionth of the modes here and is added to them outside of the formula.
    assert torch.allclose(fields.clean_covariance(t).to_dense(), expected, rtol=0, atol=3e-6 * float(data.trace()))
    modes = KarhunenLoeve.of(training_set(), 3)
    root, left = modes.basis, modes.rest.mT @ modes.rest + torch.diag(modes.noise_variance)
    assert len(modes.rest) == 3
    variance = 1 - t**2 / (t**2 + (1 - t) ** 2)
    expected = variance * root.mT @ root + left
    assert torch.allclose(modes.clean_covariance(t).to_dense(), expected, rtol=0, atol=1e-13)


def test_fields_as_coordinates_have_unit_variance_and_their_own_noise() -> None:
    fields = training_set(400)
    latent = FieldLatent.of(fields, 6, noise_root=torch.ones(20, 1))
    z = latent.encode(fields.flatten(1))
    assert z.shape == (400, *SHAPE)
    assert float(z.flatten(1).var(dim=0).mean()) == pytest.approx(1.0, rel=1e-5)
    assert torch.allclose(latent.decode(z), fields.flatten(1), rtol=0, atol=1e-12)
    noise = latent.noise(3, torch.Generator().manual_seed(0))
    assert torch.equal(noise, noise[:, :1, :1].expand(3, *SHAPE))


@pytest.mark.parametrize("length", [0.1, 0.3])
def test_smooth_noise_has_variance_one_and_the_correlation_of_its_length(length: float) -> None:
    root = smooth_noise((30, 20), length, kept=1e-6)
    covariance = root @ root.mT
    assert torch.allclose(covariance.diagonal(), torch.ones(600, dtype=torch.float64))
    apart = math.exp(-0.5 * (3 / 29 / length) ** 2 - 0.5 * (2 / 19 / length) ** 2)
    assert float(covariance[10 * 20 + 7, 13 * 20 + 9]) == pytest.approx(apart, abs=2e-3)
    assert smooth_noise((30, 20), length).shape[1] < root.shape[1]


def test_a_mismatch_that_no_field_has_does_not_move_the_rest_of_a_field_without_limit() -> None:
    """The gain Σ Gᵀ (G Σ Gᵀ)⁻¹ of rough values at five points of twenty, for fields of smooth waves."""
    x, k = torch.linspace(0, 1, 20, dtype=torch.float64), torch.arange(8, dtype=torch.float64)
    fields = normal(100, 8) * 4.0**-k @ (torch.pi * k[:, None] * x).cos()
    mismatch = 0.05 * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    moved = []
    for error in (0.05, 1e-6):
        covariance = FieldLatent.of(fields, 8, error=error).clean_covariance(0.0).to_dense()
        moved.append(float((covariance[:, :5] @ torch.linalg.solve(covariance[:5, :5], mismatch)).abs().max()))
    assert moved[0] < 0.2
    assert moved[1] > 20


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
        (lambda: FieldLatent.of(spoilt()), "got 3 NaN or infinite values in 2 of 5 fields; drop"),
        (
            lambda: KarhunenLoeve(torch.zeros(4), torch.ones(2, 3), torch.ones(4), (4,)),
            r"basis \(r, n\) with the n = 4",
        ),
        (lambda: KarhunenLoeve(torch.zeros(4), torch.ones(2, 4), torch.zeros(4), (4,)), "must be positive"),
        (
            lambda: KarhunenLoeve(torch.zeros(4), torch.ones(2, 4), torch.ones(4), (4,), torch.ones(1, 3)),
            r"rest must be \(q, n\) with n = 4",
        ),
        (lambda: FieldLatent.of(training_set(), 6, noise_root=torch.ones(3, 2)), "with n = 20"),
        (lambda: FieldLatent.of(training_set(), 6, error=0.0), "error must be positive"),
        (lambda: smooth_noise((4, 5), 0.0), "length must be positive"),
        (lambda: ResidualVelocity(0), "at least 1"),
        (lambda: check_axes([torch.tensor([0.0, 0.0])], (2,)), "increasing coordinates"),
    ],
)
def test_bad_input_is_refused(build: object, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        build()  # type: ignore[operator]


@pytest.mark.parametrize("make", [KarhunenLoeve.of, FieldLatent.of])
def test_casts_leave_coordinates_in_float64(make) -> None:
    fields = training_set()
    latent = make(fields, 4)
    z = latent.encode(fields)
    for cast in (latent.float(), latent.half(), latent.to(torch.float32)):
        assert torch.equal(cast.encode(fields), z)
        assert cast.decode(z).dtype == torch.float64


class Zero(nn.Module):
    """Nothing, and keeps what it was given."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002
        self.seen = z
        return torch.zeros_like(z)


def test_the_velocity_of_fields_starts_as_that_of_a_gaussian_with_their_modes() -> None:
    data = (normal(200, 6) * 2.0 ** -torch.arange(6)) @ normal(6, 24, seed=1) + 1e-3 * normal(200, 24, seed=2)
    fields = FieldLatent.of(data, 6)
    velocity = ResidualFieldVelocity.of(fields, Zero()).double()
    flow = FlowMatching(fields, velocity, draws=2)
    draws = flow.sample(4000, options=SamplingOptions(steps=100)).flatten(1)
    expected = (data - data.mean(dim=0)).square().mean(dim=0).sqrt()
    assert float((draws.std(dim=0) / expected - 1).abs().max()) < 0.06
    assert float(((draws.mean(dim=0) - data.mean(dim=0)) / expected).abs().max()) < 0.08


def test_what_is_rough_does_not_reach_the_network_and_goes_away() -> None:
    data = normal(50, 3) @ normal(3, 24, seed=1)
    fields = FieldLatent.of(data + 1e-4 * normal(50, 24, seed=2), 3)
    network = Zero()
    velocity = ResidualFieldVelocity.of(fields, network).double()
    basis = fields.modes.basis
    rough = normal(4, 24, seed=3)
    rough = rough - rough @ torch.linalg.pinv(basis) @ basis
    z, t = normal(4, 24, seed=4), torch.full((4,), 0.6, dtype=torch.float64)
    seen = []
    for state in (z, z + 100 * rough):
        out = velocity(state, t)
        seen.append(network.seen)
    assert torch.allclose(*seen, atol=1e-4)
    clean = z + 100 * rough + 0.4 * out - (z + 0.4 * velocity(z, t))
    assert float(clean.abs().max()) < 1e-3 * float((100 * rough).abs().max())


def test_a_velocity_of_fields_is_stored_with_its_modes(tmp_path: Path) -> None:
    fields = FieldLatent.of(normal(50, 12), 3, smooth_noise((12,), 0.2))
    flow = FlowMatching(fields, ResidualFieldVelocity.of(fields, FieldNetwork()))
    flow.save(tmp_path / "flow.safetensors")
    again = FlowMatching.load(tmp_path / "flow.safetensors", ResidualFieldVelocity(FieldNetwork(), 3, 12))
    assert torch.equal(again.sample(3, seed=1), flow.sample(3, seed=1))
    with pytest.raises(InvalidArgumentError, match="size must lie between 1 and the 12 points"):
        ResidualFieldVelocity(FieldNetwork(), 12, 12)


class FieldNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.layer(z) * t[:, None]


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
