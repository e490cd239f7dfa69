"""Which sampler a law chooses, what samplers refuse, and sampling that is interrupted."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from probconserv import (
    Bounded,
    FlowMatching,
    LinearConstraint,
    LinearInequality,
    Monotone,
    NonlinearLaw,
    NonNegative,
)
from probconserv._linalg.rows import as_sparse_rows
from probconserv.errors import InvalidArgumentError, SamplingInterruptedError
from probconserv.surrogates.flow import (
    KarhunenLoeve,
    SamplingOptions,
    conditioned,
    eci,
    particles,
    pcfm,
    twisted,
    unconstrained,
)
from tests.probconserv.surrogates.exact_flows import SEEN, UNIT, Mixed, coordinates, of_gaussian, smooth, two_bumps
from tests.probconserv.surrogates.own_latent import Fields
from tests.strategies import normal


@pytest.mark.parametrize(
    ("law", "options", "sampler", "local"),
    [
        (None, {}, "conditioned", False),
        (SEEN, {}, "twisted", False),
        (NonNegative(), {}, "twisted", False),
        (SEEN & Bounded(-9.0, 9.0), {}, "twisted", False),
        (SEEN, {"local": True}, "conditioned", True),
        (SEEN, {"order": 1}, "conditioned", False),
        (SEEN & Monotone(), {}, "conditioned", True),
        (Monotone(), {}, "conditioned", False),
        (LinearConstraint(UNIT[:5], torch.zeros(5)), {}, "conditioned", True),
        (LinearConstraint(UNIT[:5], torch.zeros(5), noise_variance=1e-3), {}, "twisted", False),
        (LinearConstraint(UNIT[:1], torch.zeros(2, 1)), {}, "conditioned", True),
        (LinearConstraint(UNIT, torch.zeros(12), noise_variance=4.0), {}, "twisted", False),
        (LinearConstraint(UNIT[None, :1].expand(2, -1, -1), torch.zeros(2, 1)), {}, "conditioned", False),
        (NonlinearLaw(residual_function=lambda u: u[:, :1], points=12), {}, "conditioned", False),
    ],
)
def test_the_law_chooses_the_sampler_and_the_result_says_which(
    law: Any, options: dict[str, Any], sampler: str, local: bool
) -> None:
    drawn = smooth().draw(2, law=law, options=SamplingOptions(steps=4, particles=200, **options))
    assert (drawn.sampler, drawn.options.local) == (sampler, local)
    assert (drawn.particles is not None) == (sampler == "twisted")
    assert drawn.fields.shape == (2, 12)


FIRST = LinearConstraint(UNIT[:1], torch.ones(1), noise_variance=0.1)
TIED = NonlinearLaw(residual_function=lambda u: u[:, 1:2] * u[:, 2:3] - 0.1, points=12)
DIFFERENCE = UNIT[:1] - UNIT[1:2]


@pytest.mark.parametrize(
    ("law", "of_one"),
    [
        (FIRST, LinearConstraint(UNIT[:1], torch.ones(1, 1), noise_variance=0.1)),
        (
            FIRST,
            LinearConstraint(
                UNIT[None, :1], torch.ones(1), noise_variance=torch.full((1, 1), 0.1, dtype=torch.float64)
            ),
        ),
        (FIRST, LinearConstraint(as_sparse_rows(UNIT[None, :1]), torch.ones(1), noise_variance=0.1)),
        (SEEN & NonNegative(), LinearConstraint(UNIT[[2, 7]], SEEN.b[None], noise_variance=SEEN.noise) & NonNegative()),
        (Bounded(torch.zeros(12), 2.0), Bounded(torch.zeros(1, 12), 2.0)),
        (LinearInequality(DIFFERENCE, torch.zeros(1)), LinearInequality(DIFFERENCE[None], torch.zeros(1, 1))),
        (FIRST & Monotone(), LinearConstraint(UNIT[:1], torch.ones(1, 1), noise_variance=0.1) & Monotone()),
        (TIED & LinearConstraint(UNIT[:1], [1.0]), TIED & LinearConstraint(UNIT[:1], torch.ones(1, 1))),
    ],
)
def test_a_law_with_a_batch_axis_of_one_is_the_law_of_all_draws(law: Any, of_one: Any) -> None:
    """Bit for bit, since the axis is dropped before anything is drawn."""
    options = SamplingOptions(steps=4, particles=200)
    drawn, alike = (smooth().draw(3, law=each, options=options) for each in (law, of_one))
    assert (alike.sampler, alike.options) == (drawn.sampler, drawn.options)
    assert torch.equal(alike.fields, drawn.fields)
    for sampler in (conditioned, eci, pcfm):
        drawn, alike = (
            smooth().sample(3, law=each, sampler=sampler, options=SamplingOptions(steps=4)) for each in (law, of_one)
        )
        assert torch.equal(alike, drawn)


def test_the_evidence_of_a_law_with_a_batch_axis_of_one() -> None:
    of_one = LinearConstraint(UNIT[[2, 7]], SEEN.b[None], noise_variance=SEEN.noise)
    assert smooth().evidence(of_one).log_evidence == smooth().evidence(SEEN).log_evidence


def test_inequalities_between_values_may_differ_from_draw_to_draw() -> None:
    """Also beyond the 512 that are drawn at a time."""
    least = torch.linspace(0.0, 1.0, 600, dtype=torch.float64)
    law = LinearInequality(-UNIT[:1], -least[:, None])
    fields = smooth().sample(600, law=law, options=SamplingOptions(steps=2))
    assert bool((fields[:, 0] >= least - 1e-9).all())  # the inequalities are met to 1e-10 of the fields' deviation


def test_the_evidence_takes_the_options_of_the_flow() -> None:
    few, plain = SamplingOptions(steps=5, particles=64, tolerance=0.2), smooth()
    flow = FlowMatching(plain.latent, plain.velocity, options=few)
    assert len(flow.evidence(SEEN).log_weights) == 64
    assert flow.evidence(SEEN).log_evidence == plain.evidence(SEEN, options=few).log_evidence
    of_draws = SamplingOptions(steps=5, local=True, order=1)
    flow = FlowMatching(plain.latent, plain.velocity, options=of_draws)
    assert flow.evidence(SEEN).log_evidence == plain.evidence(SEEN, options=SamplingOptions(steps=5)).log_evidence
    with pytest.raises(InvalidArgumentError, match="order has no effect on twisted"):
        flow.evidence(SEEN, options=SamplingOptions(order=1))


@pytest.mark.parametrize("law", [None, SEEN & Monotone(), LinearConstraint(UNIT[:5], torch.zeros(5))])
def test_where_the_law_chooses_conditioned_options_of_particles_wait(law: Any) -> None:
    options = SamplingOptions(steps=4, particles=200, tolerance=0.3)
    drawn = smooth().draw(2, law=law, options=options)
    assert (drawn.options.particles, drawn.options.tolerance) == (1024, 0.0)
    assert torch.equal(drawn.fields, smooth().sample(2, law=law, options=SamplingOptions(steps=4)))


def test_where_few_ancestors_are_left_conditioned_draws() -> None:
    law = LinearConstraint(UNIT[:2, :2], torch.tensor([-0.6, 0.4]), noise_variance=1e-4)
    drawn = FlowMatching(coordinates(2), two_bumps()).draw(2, law=law, options=SamplingOptions(particles=4))
    assert (drawn.sampler, drawn.options.local) == ("conditioned", True)
    assert drawn.particles is not None
    assert drawn.particles.ancestors < 5
    assert float(law.residual(drawn.fields).abs().max()) <= 0.1


def test_many_exact_rows_are_left_to_conditioned_however_little_they_say() -> None:
    modes = KarhunenLoeve.of(normal(60, 2) @ normal(2, 30, seed=1), 2)
    rows = torch.eye(30, dtype=torch.float64)
    for count, sampler in ((12, "twisted"), (13, "conditioned")):
        law = LinearConstraint(rows[:count], modes.mean[:count])
        assert of_gaussian(modes).draw(2, law=law, options=SamplingOptions(steps=4)).sampler == sampler


def test_fields_as_coordinates_are_left_to_conditioned() -> None:
    latent = Fields(normal(30, 12), 4)
    assert (
        FlowMatching(latent, Mixed(torch.ones(1).double(), 0 * UNIT[:1], UNIT[None])).draw(2, law=SEEN).sampler
        == "conditioned"
    )


@pytest.mark.parametrize(
    ("law", "options", "message"),
    [
        (None, {}, "linear rows and bounds, not for NoneType"),
        (Monotone(), {}, "not for an order"),
        (LinearConstraint(UNIT[:1], torch.zeros(3, 1)), {}, "one law of all draws"),
        (SEEN, {"local": True}, "local has no effect on twisted"),
        (SEEN, {"resample": 2}, "resample has no effect on twisted"),
        (SEEN, {"order": 1}, "order has no effect on twisted"),
    ],
)
def test_what_particles_are_not_for_is_refused(law: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        smooth().draw(3, law=law, sampler=twisted, options=SamplingOptions(**options))


@pytest.mark.parametrize("sampler", [conditioned, eci, pcfm, unconstrained])
@pytest.mark.parametrize("options", [{"particles": 50}, {"tolerance": 0.3}])
def test_options_of_particles_are_refused_by_samplers_without(sampler: Any, options: dict[str, Any]) -> None:
    law = None if sampler is unconstrained else SEEN
    with pytest.raises(InvalidArgumentError, match=f"{next(iter(options))} has no effect on {sampler.__name__}"):
        smooth().draw(3, law=law, sampler=sampler, options=SamplingOptions(**options))


def test_unconstrained_refuses_a_law_and_local() -> None:
    with pytest.raises(InvalidArgumentError, match="unconstrained draws miss the law; leave law out"):
        smooth().draw(3, law=SEEN, sampler=unconstrained)
    with pytest.raises(InvalidArgumentError, match="local has no effect on unconstrained"):
        smooth().draw(3, sampler=unconstrained, options=SamplingOptions(local=True))


def test_other_coordinates_are_refused() -> None:
    latent = Fields(normal(30, 12), 4)
    with pytest.raises(InvalidArgumentError, match="KarhunenLoeve coefficients, not for Fields; use conditioned"):
        FlowMatching(latent, nn.Identity()).draw(2, law=SEEN, sampler=twisted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps, mixing and resample must be at least 1"),
        ({"particles": 1}, "particles must be at least 2, got 1"),
        ({"tolerance": -0.1}, "tolerance must be a finite number, not negative, got -0.1"),
        ({"tolerance": math.nan}, "tolerance must be a finite number, not negative, got nan"),
        ({"order": 3}, "order must be 1 or 2, got 3"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        SamplingOptions(**options)


@pytest.mark.parametrize(
    ("sampler", "of_particles", "after", "done"),
    [(None, True, 2, 0), (None, False, 2, 512), (conditioned, True, 5, 512)],
)
def test_an_interrupted_sampling_keeps_what_was_drawn_and_goes_on(
    sampler: Any, of_particles: bool, after: int, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps of particles belong to one population; then fields are drawn from it in parts."""
    flow, options, calls = smooth(), SamplingOptions(steps=3), []
    whole = flow.sample(1100, law=SEEN, sampler=sampler, options=options)
    original = flow.evaluate if of_particles else particles.final_fields

    def interrupting(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(*((flow, "evaluate") if of_particles else (particles, "final_fields")), interrupting)
    with pytest.raises(SamplingInterruptedError, match=rf"after {done} of 1100 draws.*first={done}") as caught:
        flow.sample(1100, law=SEEN, sampler=sampler, options=options)
    monkeypatch.undo()
    rest = flow.sample(1100, law=SEEN, sampler=sampler, options=options, first=done)
    assert torch.equal(torch.cat([caught.value.draws, rest]), whole)
