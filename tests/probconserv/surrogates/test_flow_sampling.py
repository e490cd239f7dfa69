"""Samplers under laws: draws of a Gaussian model against its conditioned Gaussian, both metrics, messages."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from probconserv import Bounded, FlowMatching, LinearConstraint, Monotone, NonlinearLaw
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    IncompatibleQueryError,
    InfeasibleConstraintError,
    InvalidArgumentError,
)
from probconserv.fields import block_means
from probconserv.surrogates.flow import (
    KarhunenLoeve,
    Latent,
    ResidualVelocity,
    SamplingOptions,
    conditioned,
    eci,
    pcfm,
    unconstrained,
)
from probconserv.surrogates.flow.corrections import in_clean_metric, in_identity_metric
from probconserv.surrogates.flow.tasks import SamplingTask
from probconserv.training import TrainingConfig
from tests.probconserv.surrogates.exact_flows import of_gaussian
from tests.probconserv.surrogates.own_latent import Fields
from tests.strategies import normal

N = 21
QUICK = SamplingOptions(steps=40)


def smooth_fields(count: int = 300) -> Tensor:
    x = torch.linspace(0, 1, N, dtype=torch.float64)
    kernel = torch.exp(-8 * (x[:, None] - x).square()) + 1e-8 * torch.eye(N, dtype=torch.float64)
    return torch.sin(3 * x) + normal(count, N) @ torch.linalg.cholesky(kernel).mT


def gaussian_flow(fields: Tensor | None = None, size: int = 5) -> FlowMatching:
    """A flow whose velocity is the exact one for its own Gaussian N(m, B Bᵀ)."""
    latent = KarhunenLoeve.of(smooth_fields() if fields is None else fields, size)
    return of_gaussian(latent)


def of_energy(value: float) -> NonlinearLaw:
    return NonlinearLaw(residual_function=lambda u: u.square().mean(-1, keepdim=True) - value, points=N)


def prior_of(flow: FlowMatching) -> FieldGaussian:
    mean = flow.latent.decode(torch.zeros(1, *flow.latent.state_shape, dtype=torch.float64))[0]
    return FieldGaussian(mean, flow.covariance())


def total(value: float | Tensor = 0.9, noise: float = 0.0) -> LinearConstraint:
    return LinearConstraint(
        torch.full((1, N), 1 / N, dtype=torch.float64), torch.as_tensor(value).reshape(-1, 1), noise_variance=noise
    )


def values(noise: float = 0.0) -> LinearConstraint:
    rows = torch.eye(N, dtype=torch.float64)[[3, 10, 17]]
    return LinearConstraint(rows, torch.tensor([0.5, 1.0, -0.5]), noise_variance=noise)


# Exact: the conditioned Gaussian


@pytest.mark.parametrize("whitened", [True, False])
def test_corrections_of_coefficients_are_conditional_means(whitened: bool) -> None:
    """V Aᵀ (A V Aᵀ + G (RᵀR + D) Gᵀ + σ² I)⁻¹ with dense matrices."""
    latent = KarhunenLoeve.of(smooth_fields(), 5, whitened=whitened)
    law, z = total(0.9) & values(0.05), normal(3, 5) * latent.spread
    law = LinearConstraint(law.G, law.b.reshape(-1), noise_variance=law.noise_variance)
    correct = in_clean_metric(latent, law)
    assert correct is not None
    rows = law.rows @ latent.basis.mT
    left = latent.rest.mT @ latent.rest + torch.diag(latent.noise_variance)
    noise = law.rows @ left @ law.rows.mT + torch.diag(law.noise)
    for t in (0.0, 0.4, 0.9):
        v = 1 / (latent.spread**-2 + t**2 / (1 - t) ** 2)
        missed = law.residual(latent.decode(z))
        expected = z - torch.linalg.solve(rows * v @ rows.mT + noise, missed.mT).mT @ (rows * v)
        assert torch.allclose(correct(z, t), expected, rtol=0, atol=1e-6)  # D is 1e-9 of the variance: eps/1e-9


def test_corrections_in_the_identity_metric_are_projections_of_fields() -> None:
    latent, law, z = KarhunenLoeve.of(smooth_fields(), 5), values(), normal(3, 5)
    correct = in_identity_metric(latent, law)
    assert correct is not None
    fields = latent.decode(z)
    fields[:, [3, 10, 17]] = law.b
    assert torch.allclose(correct(z, 0.3), latent.encode(fields), rtol=0, atol=1e-12)


@pytest.mark.parametrize("coordinates", ["coefficients", "fields"])
@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e9])
def test_corrections_in_the_identity_metric_do_not_depend_on_the_unit(unit: float, coordinates: str) -> None:
    """Rows with noise too: the same fields in another unit, with the variances of the noise in its square."""

    def corrected(unit: float) -> Tensor:
        fields = smooth_fields() * unit
        latent = Fields(fields, 8) if coordinates == "fields" else KarhunenLoeve.of(fields, 5)
        given = values(0.05) & LinearConstraint(torch.full((1, N), 1 / N), torch.tensor([0.9]))
        correct = in_identity_metric(
            latent, LinearConstraint(given.G, given.b * unit, noise_variance=given.noise * unit**2)
        )
        assert correct is not None
        moved = fields[:2].roll(1, dims=1)
        return latent.decode(correct(latent.encode(moved), 0.3)) / unit

    # Modes and what is left of them are found by sums over 300 fields, the gain by solving 4 equations.
    assert torch.allclose(corrected(unit), corrected(1.0), rtol=0, atol=1e-11)


def test_fields_as_coordinates_are_overwritten_by_eci_and_moved_as_a_whole_by_ours() -> None:
    latent, z = Fields(smooth_fields(), 8), normal(2, N)
    law, fields = values(), latent.decode(z)
    overwritten, moved = in_identity_metric(latent, law), in_clean_metric(latent, law)
    assert overwritten is not None
    assert moved is not None
    other = torch.ones(N, dtype=torch.bool)
    other[[3, 10, 17]] = False
    first, second = latent.decode(overwritten(z, 0.2)), latent.decode(moved(z, 0.2))
    assert torch.allclose(first[:, other], fields[:, other], rtol=0, atol=1e-12)
    assert float((second - fields)[:, [2, 4, 9, 11]].abs().min()) > 1e-3
    for corrected in (first, second):
        assert float(law.residual(corrected).abs().max()) <= 1e-12


# Laws of all kinds


def test_bounds_alone_move_only_what_is_outside() -> None:
    flow = gaussian_flow()
    free = flow.sample(40, options=QUICK, seed=3)
    bounded = flow.sample(40, law=Bounded(0.0, 0.8), sampler=conditioned, options=QUICK, seed=3)
    assert bool((free < 0).any())
    assert bool((free > 0.8).any())
    torch.testing.assert_close(bounded, free.clamp(0.0, 0.8), rtol=0, atol=1e-12)


def test_beside_a_total_values_within_bounds_share_in_their_variances() -> None:
    flow, law = gaussian_flow(), total(0.3)
    under_law, bounded = (
        flow.sample(40, law=each, sampler=conditioned, options=QUICK, seed=3)
        for each in (law, law & Bounded(-0.5, 1.2))
    )
    moved = (bounded - under_law) / flow.covariance().diagonal()
    inside = (bounded > -0.5 + 1e-9) & (bounded < 1.2 - 1e-9)
    for field, free in zip(moved, inside, strict=True):
        torch.testing.assert_close(field[free], field[free][:1].expand(int(free.sum())), rtol=1e-6, atol=1e-9)


def test_beside_a_total_and_bounds_observations_keep_their_noise() -> None:
    """A last projection without their rows moved observed values by as much as all others."""
    flow, law = gaussian_flow(), total(0.3)
    bounds = Bounded(0.1, 0.5)
    seen = LinearConstraint(torch.eye(N, dtype=torch.float64)[4:5], torch.tensor([0.42]), noise_variance=1e-4)
    free = flow.sample(200, law=law & seen, sampler=conditioned, options=QUICK)
    bounded = flow.sample(200, law=law & seen & bounds, sampler=conditioned, options=QUICK)
    assert float((free - free.clamp(0.1, 0.5)).abs().mean()) > 0.1, "bounds move draws by many times the noise"
    assert float((bounded - free)[:, 4].square().mean().sqrt()) < 0.01
    assert float(law.residual(bounded).abs().max()) <= 1e-13
    torch.testing.assert_close(bounded, bounded.clamp(0.1, 0.5), rtol=0, atol=1e-13)


@pytest.mark.parametrize("sampler", [conditioned, eci, pcfm])
def test_every_sampler_meets_law_and_bounds_to_round_off(sampler: Any) -> None:
    flow, law = gaussian_flow(), total(0.3) & Bounded(-0.5, 1.2)
    draws = flow.sample(50, law=law, sampler=sampler, options=QUICK)
    assert float(draws.min()) >= -0.5
    assert float(draws.max()) <= 1.2
    assert law.law is not None
    assert float(law.law.residual(draws).abs().max()) <= 1e-13


@pytest.mark.parametrize("sampler", [conditioned, eci, pcfm])
def test_nonlinear_laws_are_met_to_round_off(sampler: Any) -> None:
    law = of_energy(1.5) & values()
    law = law if sampler is not conditioned else law & Bounded(-4.0, 4.0)
    draws = gaussian_flow().sample(6, law=law, sampler=sampler, options=SamplingOptions(steps=10))
    assert float(law.residual(draws).abs().max()) <= 1e-12
    assert float(draws.std(dim=0).max()) > 0.05


@pytest.mark.parametrize("sampler", [conditioned, eci])
def test_an_energy_is_met_by_fields_whose_mean_has_none(sampler: Any) -> None:
    """At the mean, where every draw begins, the derivatives of the energy vanish."""
    fields = smooth_fields() - smooth_fields().mean(dim=0)
    energy = float(fields.square().mean())
    law = of_energy(energy)
    draws = gaussian_flow(fields).sample(50, law=law, sampler=sampler, options=QUICK)
    assert float(law.residual(draws).abs().max()) <= 1e-12
    assert float(draws.std()) == pytest.approx(energy**0.5, rel=0.1)


@pytest.mark.parametrize("shared", ["rows", "totals", "noise", "bounds"])
def test_parts_of_a_law_that_all_draws_share_may_have_a_batch_axis(shared: str) -> None:
    rows, goals = torch.full((1, 1, N), 1 / N, dtype=torch.float64), torch.linspace(0.5, 1.0, 600).double()[:, None]
    law: Any = LinearConstraint(rows[0], goals)
    if shared == "rows":
        law = LinearConstraint(rows, goals)
    if shared == "totals":
        goals = goals[:1]
        law = LinearConstraint(rows[0], goals, noise_variance=torch.zeros(600, 1))
    if shared == "noise":
        law = LinearConstraint(rows[0], goals, noise_variance=torch.zeros(1, 1))
    if shared == "bounds":
        law = law & Bounded(torch.full((1, N), -50.0).double(), 50.0)
    draws = gaussian_flow().sample(600, law=law, options=SamplingOptions(steps=2))
    assert torch.allclose(draws.mean(dim=-1), goals[:, 0], rtol=0, atol=1e-13)


def test_coefficients_that_leave_nothing_out_meet_rows_that_overlap() -> None:
    flow = gaussian_flow(normal(50, 3) @ normal(3, 10, seed=1), 3)
    assert isinstance(flow.latent, KarhunenLoeve)
    assert not len(flow.latent.rest)
    law = LinearConstraint(normal(2, 10, seed=2), torch.zeros(2))
    draws = flow.sample(4, law=law, options=QUICK)
    assert float(law.residual(draws).abs().max()) <= 1e-13


def test_one_bound_for_every_draw_needs_no_law() -> None:
    draws = gaussian_flow().sample(2, law=Bounded(torch.tensor([[0.0], [0.25]]), 1.0), options=QUICK)
    assert draws.amin(dim=-1).tolist() == [0.0, 0.25]


def test_equal_seeds_give_equal_draws() -> None:
    flow = gaussian_flow()
    first = flow.sample(4, options=QUICK)
    assert torch.equal(first, flow.sample(4, options=QUICK))
    assert torch.equal(first, flow.sample(4, sampler=unconstrained, options=QUICK))
    assert not torch.equal(first, flow.sample(4, options=QUICK, seed=1))


# Bad input


class Broken(nn.Module):
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, z: Tensor, t: Tensor) -> Any:
        return self.result(z, t)


def with_weights(size: int) -> ResidualVelocity:
    """A network that is not as it was built, as after a training."""
    velocity = ResidualVelocity(size, width=4, blocks=1)
    nn.init.normal_(velocity.output.weight, generator=torch.Generator().manual_seed(0))
    return velocity


def test_a_network_that_was_not_trained_draws_nothing() -> None:
    flow = FlowMatching(KarhunenLoeve.of(smooth_fields(), 5), ResidualVelocity(5, width=4, blocks=1))
    task = SamplingTask(count=3, law=values())
    for draw in (
        lambda: flow.draw(3),
        lambda: flow.sample(3, law=values() & Bounded(-9.0, 9.0)),
        lambda: flow.evidence(values()),
        lambda: conditioned(flow, task),
        lambda: copy.deepcopy(flow).draw(3),
    ):
        with pytest.raises(InvalidArgumentError, match=r"has not been trained; call fit\(fields, config=…\) or load"):
            draw()


def test_networks_with_weights_draw_wherever_these_come_from() -> None:
    trained = FlowMatching(KarhunenLoeve.of(smooth_fields(), 5), with_weights(5))
    expected, given = trained.sample(3), copy.deepcopy(trained)
    with torch.no_grad():
        given.velocity.output.weight.zero_()  # type: ignore[union-attr,operator]
    given.load_state_dict(trained.state_dict())
    for flow in (given, copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        assert torch.equal(flow.sample(3), expected)
    fields, fitted = smooth_fields(), FlowMatching(trained.latent, ResidualVelocity(5, width=4, blocks=1))
    fitted.fit(fields, config=TrainingConfig(steps=1), progress=False)
    assert fitted.sample(3).isfinite().all()


@pytest.mark.parametrize(
    ("velocity", "message"),
    [
        (
            Broken(lambda z, t: torch.where(t[:, None] > 0.5, math.nan, z)),
            "NaN or infinite for 3 of 3 draws at t = 0.6",
        ),
        (Broken(lambda z, _: z[:, :2]), r"shape of z, \(3, 5\), got \(3, 2\)"),
        (Broken(lambda *_: None), "got NoneType"),
        (with_weights(4), "z must have 4 coefficients, got 5"),
    ],
)
def test_velocities_that_fail_are_named(velocity: nn.Module, message: str) -> None:
    flow = FlowMatching(KarhunenLoeve.of(smooth_fields(), 5), velocity)
    with pytest.raises(InvalidArgumentError, match=message):
        flow.sample(3, options=SamplingOptions(steps=5))


@pytest.mark.parametrize(
    ("law", "error", "message"),
    [
        (
            LinearConstraint(torch.ones(1, 7), torch.ones(1)),
            IncompatibleQueryError,
            "acts on 7 points but a field has 21",
        ),
        (Bounded(torch.zeros(7), 1.0), IncompatibleQueryError, "acts on 7 points"),
        (total(torch.zeros(4)), IncompatibleQueryError, "one entry for each of the 3 draws"),
        (total(2.0) & Bounded(0.0, 1.0), InfeasibleConstraintError, "between 0 and 1"),
        (NonlinearLaw(residual_function=lambda u: u[:, :1], points=7), IncompatibleQueryError, "acts on 7 points"),
        ("mass", InvalidArgumentError, "got str"),
    ],
)
def test_laws_that_do_not_fit_are_refused_before_anything_is_drawn(law: Any, error: type, message: str) -> None:
    flow = FlowMatching(KarhunenLoeve.of(smooth_fields(), 5), Broken(lambda *_: pytest.fail("the flow was started")))
    with pytest.raises(error, match=message):
        flow.sample(3, law=law)


CONTRADICTIONS = {
    "totals": (total(0.3), total(0.4)),
    "blocks": (block_means(torch.full((7,), 0.3), (3,)), total(0.4)),
    "bounded": (total(0.3) & Bounded(-9.0, 9.0), total(0.4)),
    "nonlinear": (total(0.3), total(0.4) & of_energy(1.5)),
}


@pytest.mark.parametrize("latent", [KarhunenLoeve.of(smooth_fields(), 5), Fields(smooth_fields(), 5)])
@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_rows_that_contradict_each_other_are_told_from_redundant_ones(case: str, latent: Latent) -> None:
    flow = FlowMatching(latent, Broken(lambda z, *_: torch.zeros_like(z)))
    first, second = CONTRADICTIONS[case]
    for sampler in (conditioned, eci):
        with pytest.raises(InfeasibleConstraintError, match="contradict each other"):
            flow.sample(2, law=first & second, sampler=sampler, options=SamplingOptions(steps=2))
        with pytest.raises(DependentConstraintsError, match="Drop redundant rows"):
            flow.sample(2, law=first & total(0.3), sampler=sampler, options=SamplingOptions(steps=2))


def test_an_order_of_fields_with_several_axes_names_one_of_them() -> None:
    fields = smooth_fields().reshape(-1, 3, 7)
    velocity = Broken(lambda z, *_: torch.zeros_like(z))
    flow = FlowMatching(KarhunenLoeve.of(fields, 5), velocity)
    with pytest.raises(InvalidArgumentError, match=r"the flattened field \(3, 7\) row by row; say along which axis"):
        flow.sample(3, law=Monotone())
    draws = flow.sample(3, law=Monotone(axis=1, shape=(3, 7)), options=SamplingOptions(steps=2))
    assert bool((draws.diff(dim=2) >= 0).all())
    assert not bool((draws.flatten(1).diff(dim=1) >= 0).all())


def test_invalid_arguments_raise_with_reason() -> None:
    flow = FlowMatching(KarhunenLoeve.of(smooth_fields().reshape(-1, 3, 7), 5), Broken(lambda z, *_: 0 * z))
    turned, right = (block_means(torch.full((1, 1), 0.3), shape) for shape in ((7, 3), (3, 7)))
    for law in (turned, turned & Bounded(-9.0, 9.0), turned & CONTRADICTIONS["nonlinear"][1]):
        with pytest.raises(IncompatibleQueryError, match=r"built for a field of the shape \(7, 3\), but fields have"):
            flow.sample(2, law=law, options=SamplingOptions(steps=2))
    flow.sample(2, law=right, options=SamplingOptions(steps=2))
    with pytest.raises(ConvergenceError, match=r"law and bounds may have no field in common|bound did not settle"):
        gaussian_flow().sample(1, law=of_energy(9.0) & Bounded(-1.0, 1.0), options=SamplingOptions(steps=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draws": 0}, "draws must be at least 1"),
        ({"draws": 3, "first": 1}, "a multiple of 512"),
        ({"draws": 3, "options": SamplingOptions(mixing=2)}, "mixing has no effect on conditioned"),
        ({"draws": 3, "options": SamplingOptions(mixing=2), "sampler": pcfm}, "one evaluation a step"),
        ({"draws": 3, "options": SamplingOptions(resample=2), "sampler": unconstrained}, "resample has no effect"),
        ({"draws": 3, "options": SamplingOptions(resample=2)}, "resample has no effect on conditioned"),
        ({"draws": 3, "options": SamplingOptions(local=True), "sampler": eci}, "local has no effect on eci"),
        ({"draws": 3, "options": SamplingOptions(local=True), "sampler": pcfm}, "local has no effect on pcfm"),
        ({"draws": 3, "sampler": "eci"}, "a function such as conditioned or eci.*got 'eci'"),
        ({"draws": 3, "options": {"steps": 3}}, "options SamplingOptions"),
    ],
)
def test_bad_options_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        gaussian_flow().sample(law=total(), **arguments)
