"""Flows are trained, interrupted, stored, and predict from observations; how far off these may be."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from probconserv import Context, FlowMatching, LinearConstraint, ProbConserv, Query, condition
from probconserv.errors import DataFileError, IncompatibleQueryError, InvalidArgumentError
from probconserv.posterior import Posterior
from probconserv.surrogates.flow import KarhunenLoeve, ResidualVelocity, SamplingOptions
from probconserv.surrogates.flow.observations import DrawnFields, given_observations, interpolation_rows
from probconserv.surrogates.weights import Weights, read_weights, write_weights
from probconserv.training import TrainingConfig
from tests.probconserv.surrogates.exact_flows import of_gaussian
from tests.probconserv.surrogates.own_latent import Fields
from tests.probconserv.surrogates.test_flow_sampling import N, gaussian_flow, prior_of, smooth_fields
from tests.strategies import normal

TRAINING = TrainingConfig(steps=9, peak_rate=1e-2, checkpoint_every=3, precision="32-true")
X = torch.linspace(0, 1, N, dtype=torch.float64)


def two_groups(count: int) -> Tensor:
    """Fields ± sin(πx) with some spread: far from Gaussian."""
    generator = torch.Generator().manual_seed(0)
    sign = 2.0 * torch.randint(2, (count, 1), generator=generator) - 1
    return (sign + 0.1 * torch.randn(count, 1, generator=generator)) * torch.sin(torch.pi * X) + 0.1 * torch.randn(
        count, 1, generator=generator
    ) * torch.cos(torch.pi * X)


def small(fields: Tensor, size: int = 2) -> FlowMatching:
    torch.manual_seed(0)
    velocity = ResidualVelocity(size, width=24, blocks=1)
    return FlowMatching(KarhunenLoeve.of(fields, size), velocity, options=SamplingOptions(steps=20))


def test_a_trained_flow_draws_both_groups(tmp_path: Path) -> None:
    fields = two_groups(400)
    flow = small(fields)
    latent = flow.latent
    assert isinstance(latent, KarhunenLoeve)
    before = of_gaussian(latent).sample(200)[:, N // 2].abs()
    state = flow.fit(fields, config=replace(TRAINING, steps=240), folder=tmp_path, batch=128, progress=False)
    after = flow.sample(200)[:, N // 2].abs()
    assert state.step == 240
    assert not flow.velocity.training
    near = [float(((part > 0.6) & (part < 1.4)).double().mean()) for part in (before, after)]
    assert near[0] < 0.6
    assert near[1] > 0.75, near
    assert 0.3 < float((flow.sample(200)[:, N // 2] > 0).double().mean()) < 0.7


def test_an_interrupted_fit_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    fields = two_groups(50)
    whole, broken = small(fields), small(fields)
    whole.fit(fields, config=TRAINING, folder=tmp_path / "whole", batch=8, progress=False)

    def interrupt(step: int, *_: float) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.fit(fields, config=TRAINING, folder=tmp_path / "broken", batch=8, progress=interrupt)
    again = small(fields)
    again.fit(fields, config=TRAINING, folder=tmp_path / "broken", batch=8, progress=False)
    for name, value in whole.velocity.state_dict().items():
        assert torch.equal(value, again.velocity.state_dict()[name])
    with pytest.raises(DataFileError, match=r"task\.data"):
        again.fit(fields + 1, config=TRAINING, folder=tmp_path / "broken", batch=8, progress=False)
    with pytest.raises(DataFileError, match=r"data\.validation is None there and 'float32 \(50, 2\)"):
        again.fit(fields, fields, config=TRAINING, folder=tmp_path / "broken", batch=8, progress=False)
    spread = FlowMatching(again.latent, ResidualVelocity(2, width=24, blocks=1, spread=[1.0, 0.5]))
    with pytest.raises(DataFileError, match=r"network\.model\.spread is 'float32 \(2,\)"):
        spread.fit(fields, config=TRAINING, folder=tmp_path / "broken", batch=8, progress=False)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(N + 1, N)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.linear(torch.cat([z, t[:, None]], dim=-1))


class Bent(Plain):
    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return super().forward(z, t).tanh()


class Narrow(nn.Module):
    """On four coefficients, with real and complex weights as a Fourier layer has them."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, dtype=dtype))
        self.phase = nn.Parameter(torch.polar(torch.ones(4, dtype=dtype), torch.arange(4, dtype=dtype)))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.scale * (self.phase * z).real * t[:, None]


class Dropped(Plain):
    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(z, t), 0.5, self.training)


def test_dropout_of_a_velocity_plays_no_part_in_draws() -> None:
    flow = FlowMatching(Fields(smooth_fields(), 4), Dropped())
    assert torch.equal(flow.sample(2), flow.sample(2))
    assert flow.velocity.training


# Files


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stored_flows_draw_the_same_fields(tmp_path: Path, dtype: torch.dtype) -> None:
    flow = small(two_groups(50))
    flow.velocity.to(dtype)
    flow.axes = (X,)
    nn.init.normal_(flow.velocity.output.weight)  # type: ignore[union-attr,arg-type]
    flow.save(tmp_path / "flow.safetensors", steps=3)
    again = FlowMatching.load(tmp_path / "flow.safetensors")
    assert torch.equal(flow.sample(3), again.sample(3))
    assert {each.dtype for each in (*again.velocity.parameters(), *again.velocity.buffers())} == {dtype}
    assert again.axes is not None
    assert torch.equal(again.axes[0], X)
    assert again.options == flow.options


@pytest.mark.parametrize(("stored", "steps"), [(100, 50), (20, 20)])
def test_files_of_the_last_release_take_the_present_default(tmp_path: Path, stored: int, steps: int) -> None:
    flow = small(two_groups(50))
    old = {"steps": stored, "mixing": 1, "renewal": 0.0, "local": False, "resample": None}
    flow._settings = lambda: {"axes": None, "draws": 100, "seed": 0, "options": old}  # type: ignore[method-assign]
    flow.save(tmp_path / "flow.safetensors")
    assert FlowMatching.load(tmp_path / "flow.safetensors").options == SamplingOptions(steps=steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules_from_outside_are_given_to_load(tmp_path: Path, dtype: torch.dtype) -> None:
    path, latent = tmp_path / "flow.safetensors", Fields(smooth_fields(), 4)
    flow = FlowMatching(latent, Plain().to(dtype))
    flow.save(path, steps=np.int64(3))
    again = FlowMatching.load(path, Plain(), Fields(smooth_fields(), 4))
    assert torch.equal(flow.sample(3), again.sample(3))
    with pytest.warns(UserWarning, match="holds a velocity Plain and fills a Bent"):
        FlowMatching.load(path, Bent(), latent)
    with pytest.raises(DataFileError, match=r"holds a latent Fields, .* give load a module .* as latent=\.$"):
        FlowMatching.load(path, Plain())
    with pytest.raises(DataFileError, match=r"holds a velocity Plain, .* give load a module .* as velocity=\.$"):
        FlowMatching.load(path, latent=latent)
    with pytest.raises(DataFileError, match=r"does not fit.*give, as velocity=, a Plain of the sizes that were saved"):
        FlowMatching.load(path, ResidualVelocity(3), latent)
    with pytest.raises(DataFileError, match="no file of weights"):
        FlowMatching.load(tmp_path / "other")


SETTINGS = {"axes": None, "draws": 5, "seed": 0, "options": {"steps": 9}}
NETWORK = {"width": 24, "blocks": 1, "frequencies": 8, "spread": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [2.0, 1.0]}, r"shape is \[2\.0, 1\.0\], of the wrong type"),
        ({"shape": "two"}, "is not that of a flow"),
        ({"network": NETWORK | {"blocks": 10**8}}, r"holds \d+ numbers in \d+ tensors, but .* in 100000000 blocks"),
        ({"network": NETWORK | {"width": 10**9}}, r"holds \d+ numbers in \d+ tensors, but a network .* at least"),
        ({"network": NETWORK | {"width": 24.0}}, r"width is 24\.0, of the wrong type"),
        ({"network": NETWORK | {"spread": ["a", 1.0]}}, "spread is .*, of the wrong type"),
        ({"network": NETWORK | {"width": -24, "blocks": -1}}, "must be at least 1"),
        ({"network": [1]}, "is not that of a flow"),
        ({"settings": None}, "is not that of a flow"),
        ({"settings": {}}, "is not that of a flow"),
        ({"settings": SETTINGS | {"colour": 1}}, "is not that of a flow .*colour"),
        ({"settings": SETTINGS | {"draws": 1}}, "draws must be at least 2"),
        ({"settings": SETTINGS | {"draws": None}}, "is not that of a flow"),
        ({"settings": SETTINGS | {"seed": "1"}}, "seed is '1', of the wrong type"),
        ({"settings": SETTINGS | {"axes": [[1.0, 0.0]]}}, "axes must be increasing coordinates"),
        ({"settings": SETTINGS | {"axes": [[0.0, "a"]]}}, "axes is .*, of the wrong type"),
        ({"settings": SETTINGS | {"options": {}}}, "is not that of a flow"),
        ({"settings": SETTINGS | {"options": {"steps": "9"}}}, "steps is '9', of the wrong type"),
        ({"settings": SETTINGS | {"options": {"steps": 9, "stepz": 3}}}, "is not that of a flow .*stepz"),
        ({"settings": SETTINGS | {"options": {"steps": 0}}}, "steps, mixing and resample must be at least 1"),
    ],
)
def test_a_config_that_is_not_that_of_a_flow_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Before memory is taken for the network that it names."""
    path, stored = tmp_path / "flow.safetensors", small(two_groups(50))
    stored.save(path)
    weights = read_weights(path, "FlowMatching")
    assert weights.config["network"] == NETWORK
    write_weights(path, replace(weights, config=weights.config | changes))
    with pytest.raises(DataFileError, match=message):
        FlowMatching.load(path)


def test_coordinates_that_the_file_holds_need_not_be_given(tmp_path: Path) -> None:
    path, fields = tmp_path / "flow.safetensors", smooth_fields()
    latent = KarhunenLoeve.of(fields, 4)
    FlowMatching(latent, Narrow()).save(path)
    again = FlowMatching.load(path, Narrow()).latent
    assert isinstance(again, KarhunenLoeve)
    assert torch.equal(again.clean_covariance(0.3).to_dense(), latent.clean_covariance(0.3).to_dense())
    other = KarhunenLoeve.of(fields[:9], 4)
    assert len(other.rest) != len(latent.rest)
    with pytest.raises(DataFileError, match="leave latent= out, since the file has all that a KarhunenLoeve needs"):
        FlowMatching.load(path, Narrow(), other)


def test_complex_weights_of_a_velocity_keep_double_precision(tmp_path: Path) -> None:
    path, latent = tmp_path / "flow.safetensors", KarhunenLoeve.of(smooth_fields(), 4)
    flow = FlowMatching(latent, Narrow(torch.float64))
    flow.save(path)
    again = FlowMatching.load(path, Narrow())
    assert torch.complex128 in {each.dtype for each in again.velocity.parameters()}
    assert torch.equal(flow.sample(3), again.sample(3))


@pytest.mark.parametrize(("part", "kind"), [("latent", "FieldLatent"), ("velocity", "ResidualFieldVelocity")])
def test_files_with_a_class_that_left_name_the_release_that_reads_them(part: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "flow.safetensors"
    small(two_groups(50)).save(path)
    stored = read_weights(path, "FlowMatching")
    write_weights(path, replace(stored, config=stored.config | {part: kind}))
    with pytest.raises(DataFileError, match=rf"holds a {part} {kind}, .* with release 0\.3, or give .* as {part}=\."):
        FlowMatching.load(path)


# Predictions


def observed(batch: int = 2) -> tuple[Context, Query]:
    places = torch.tensor([0.12, 0.5, 0.83], dtype=torch.float64)[:, None].expand(batch, 3, 1)
    values = torch.tensor([[0.5, 1.0, -0.5]], dtype=torch.float64) * torch.arange(1, batch + 1)[:, None]
    query = torch.linspace(0, 1, 8, dtype=torch.float64)[:, None].expand(batch, 8, 1)
    return Context(places, values, noise_variance=torch.full_like(values, 0.01)), Query(query)


def predictor(draws: int = 1500) -> FlowMatching:
    flow = gaussian_flow()
    return FlowMatching(flow.latent, flow.velocity, axes=(X,), draws=draws, options=SamplingOptions(steps=40))


def test_predictions_are_the_conditioned_gaussian_of_a_gaussian_flow() -> None:
    flow, (context, query) = predictor(), observed()
    prediction = flow.predict(context, query)
    assert isinstance(prediction, DrawnFields)
    for entry in range(2):
        rows = interpolation_rows((X,), context.points[entry])
        posterior = Posterior(prior_of(flow), LinearConstraint(rows, context.values[entry], noise_variance=0.01))
        between = interpolation_rows((X,), query.points[entry]).to_dense()
        covariance = between @ posterior.covariance_matrix @ between.mT
        slack = 5 / 1500**0.5 + 0.02  # five standard errors and steps of 1/40, in units of the prior, about 1
        assert torch.allclose(prediction.mean[entry], between @ posterior.mean, rtol=0, atol=slack)
        actual = prediction.fields[:, entry].mT.cov()
        assert torch.allclose(actual, covariance, rtol=0, atol=2 * slack * float(covariance.diagonal().max()) ** 0.5)


def test_one_noise_variance_is_that_of_all_observations_and_arrays_are_taken() -> None:
    (context, query), flow = observed(), predictor(4)
    points, values = context.points.numpy(), context.values.numpy()
    other: Any = Context(points, values, noise_variance=0.01)  # type: ignore[arg-type]
    assert torch.equal(other.noise, context.noise)
    drawn = flow.predict(other, Query(query.points.numpy()))  # type: ignore[arg-type]
    assert torch.allclose(drawn.fields, flow.predict(context, query).fields, rtol=0, atol=1e-12)
    assert torch.equal(other.part(torch.tensor([0, 2])).noise, other.noise[:, [0, 2]])
    with pytest.raises(InvalidArgumentError, match="must not be negative, got -1"):
        replace(context, noise_variance=-1)
    with pytest.raises(InvalidArgumentError, match=r"\(2, 3\), .* or a number for all, got \(2,\)"):
        replace(context, noise_variance=torch.ones(2))


def test_draws_of_a_prediction_are_whole_fields() -> None:
    prediction = predictor(20).predict(*observed())
    samples = prediction.rsample(torch.Size([7]), generator=torch.Generator().manual_seed(0))
    assert samples.shape == (7, 2, 8)
    for sample in samples[:, 1]:
        assert bool((prediction.fields[:, 1] == sample).all(dim=-1).any())
    with pytest.raises(InvalidArgumentError, match="base_samples"):
        prediction.rsample(base_samples=torch.zeros(3))


def test_another_batch_or_part_of_the_points_of_a_prediction_are_draws_with_the_same_moments() -> None:
    prediction = DrawnFields(normal(9, 2, 8), 0.1 * torch.arange(1.0, 17.0, dtype=torch.float64).reshape(2, 8))
    larger, second, part = prediction.expand(torch.Size([3, 2])), prediction[1], prediction[:, 2:5]
    for found, mean, draws in (
        (larger, prediction.mean.expand(3, 2, 8), prediction.fields[:, None].expand(9, 3, 2, 8)),
        (second, prediction.mean[1], prediction.fields[:, 1]),
        (part, prediction.mean[:, 2:5], prediction.fields[..., 2:5]),
    ):
        assert isinstance(found, DrawnFields)
        assert torch.equal(found.fields, draws)
        assert torch.allclose(found.mean, mean, rtol=0, atol=1e-15)
        assert bool((found.rsample()[None] == draws).all(dim=-1).any(dim=0).all())
    covariance = prediction.covariance_matrix
    assert torch.allclose(larger.covariance_matrix[2], covariance, rtol=0, atol=1e-15)
    assert torch.allclose(part.covariance_matrix, covariance[:, 2:5, 2:5], rtol=0, atol=1e-15)


def test_draws_that_cannot_explain_a_law_are_named_in_a_warning() -> None:
    far = LinearConstraint(torch.ones(1, 8), torch.tensor([1e3]))
    with pytest.warns(UserWarning, match="members cannot explain the law in 1 of 1 fields"):
        condition(DrawnFields(normal(9, 8)), far)


def test_a_prediction_can_be_wrapped_in_a_law() -> None:
    context, query = observed()
    law = LinearConstraint(torch.full((1, 8), 1 / 8), torch.tensor([[0.4], [0.8]]))
    posterior = ProbConserv(predictor(50), law).predict(context, query)
    assert float(law.residual(posterior.mean).abs().max()) <= 1e-13


def test_observations_that_no_field_of_the_model_explains_are_named() -> None:
    places = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[None, :, None]
    values = 3 * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(5)[None, :9]
    with pytest.warns(UserWarning, match="miss the observations by .* of the fields' standard deviation"):
        predictor(5).predict(Context(places, values), Query(places))
    predictor(5).predict(Context(places, values, noise_variance=torch.full_like(values, 20.0)), Query(places))


@pytest.mark.parametrize("count", [1, 3, 9])
def test_values_that_draws_meet_outside_of_the_range_are_named(count: int) -> None:
    options, latent = SamplingOptions(steps=20), KarhunenLoeve.of(smooth_fields(), 9)
    flow = of_gaussian(latent, axes=(X,), draws=20, options=options)
    places = torch.linspace(0.1, 0.9, count, dtype=torch.float64)[:, None]
    row = interpolation_rows((X,), places)
    for field in smooth_fields(310)[300:]:
        flow.predict(Context(places, row.functional(field[None])[0]), Query(places))
    met = r"outside of what the flow knows: .* standard deviations .*where its draws"
    for size in (10.0, 100.0, 1e4):
        with pytest.warns(UserWarning, match=rf"{met}|miss the observations"):
            flow.predict(Context(places, torch.full((count,), size).double()), Query(places))


def test_one_warning_says_where_a_batch_is_out_of_range(recwarn: pytest.WarningsRecorder) -> None:
    places = torch.tensor([[0.5]], dtype=torch.float64).expand(2, 1, 1)
    predictor(20).predict(Context(places, torch.tensor([[1.0], [50.0]]).double()), Query(places))
    assert len(recwarn) == 1
    assert recwarn[0].filename == __file__


def test_single_precision_comes_back_in_single_precision() -> None:
    context, query = observed(1)
    single = Context(context.points, context.values.float())
    prediction = predictor(10).predict(single, query)
    assert prediction.fields.dtype == torch.float32
    middle = prediction.fields[:, 0].mean(dim=-1)
    assert bool(torch.isfinite(middle).all())


def test_invalid_arguments_raise_with_reason(tmp_path: Path) -> None:
    fields = smooth_fields()
    FlowMatching(Fields(fields, 4), Plain()).fit(fields, config=TRAINING, folder=tmp_path, progress=False)
    with pytest.raises(DataFileError, match=r"network\.model\.type is 'Plain\(\)' there and 'Bent\(\)' here"):
        FlowMatching(Fields(fields, 4), Bent()).fit(fields, config=TRAINING, folder=tmp_path, progress=False)
    with pytest.raises(InvalidArgumentError, match="notes takes what JSON knows"):
        small(two_groups(50)).save(tmp_path / "flow", folder=tmp_path)
    write_weights(tmp_path / "flow", Weights("FlowMatching", {"latent": "KarhunenLoeve"}, {}, {}))
    with pytest.raises(DataFileError, match="is not that of a flow"):
        FlowMatching.load(tmp_path / "flow")
    fields = two_groups(20)
    flow = small(fields)
    fields[3, 2] = float("nan")
    with pytest.raises(InvalidArgumentError, match="fields hold 1 NaN"):
        flow.fit(fields.numpy(), config=TRAINING, folder=tmp_path)  # type: ignore[arg-type]
    context, query = observed()
    with pytest.raises(IncompatibleQueryError, match="fields are known from 0 to 1; ask within them"):
        predictor(5).predict(context, Query(query.points + 0.5))
    with pytest.raises(IncompatibleQueryError, match="d = 1 coordinates"):
        predictor(5).predict(
            Context(context.points.repeat(1, 1, 2), context.values), Query(query.points.repeat(1, 1, 2))
        )
    with pytest.raises(InvalidArgumentError, match="give FlowMatching"):
        gaussian_flow().predict(*observed())
    with pytest.raises(InvalidArgumentError, match="increasing coordinates"):
        FlowMatching(KarhunenLoeve.of(smooth_fields(), 3), Plain(), axes=(X[:4],))
    with pytest.raises(InvalidArgumentError, match="draws must be at least 2"):
        FlowMatching(KarhunenLoeve.of(smooth_fields(), 3), Plain(), draws=1)


NOISE, VARIANCE = 0.01, 4.0


def told(*offsets: float) -> tuple[list[float], float]:
    """The noise of every sampling, whose draws miss all observations by these offsets in turn, and the offset taken."""
    values = torch.tensor([1.0, -2.0], dtype=torch.float64)
    observations = LinearConstraint(
        torch.eye(2, 3, dtype=torch.float64), values, noise_variance=torch.full_like(values, NOISE)
    )
    seen: list[float] = []

    def sample(observed: LinearConstraint) -> torch.Tensor:
        seen.append(float(observed.noise[0]))
        return (torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64) + offsets[len(seen) - 1]).expand(5, 3)

    draws = given_observations(sample, observations, VARIANCE)
    assert draws.shape == (5, 3)
    return seen, float(draws[0, 0]) - 1.0


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_observations_near_the_draws_keep_their_noise(offset: float) -> None:
    with warnings.catch_warnings(action="error"):
        assert told(offset) == ([NOISE], offset)


def test_the_discrepancy_is_added_to_the_noise_as_long_as_draws_come_closer() -> None:
    with pytest.warns(UserWarning, match=r"by 1\.5 of the fields' standard deviation.* in the end by 0\.99"):
        seen, offset = told(3.0, 2.5, 2.0, 1.98)
    assert seen == pytest.approx([NOISE, 9.0, 6.25, 4.0])
    assert offset == 1.98


def test_draws_that_are_farther_off_by_a_tenth_are_not_taken() -> None:
    with pytest.warns(UserWarning, match=r"in the end by 1\.5"):
        seen, offset = told(3.0, 3.4)
    assert (len(seen), offset) == (2, 3.0)


def test_draws_are_taken_anew_at_most_five_times() -> None:
    with pytest.warns(UserWarning, match="drawn again"):
        seen, offset = told(*(10.0 * 0.8**k for k in range(6)))
    assert len(seen) == 6
    assert offset == pytest.approx(10.0 * 0.8**5)


def test_latent_and_velocity_in_the_other_order_are_refused() -> None:
    flow = small(two_groups(20))
    with pytest.raises(InvalidArgumentError, match=r"comes before velocity; got ResidualVelocity, then KarhunenLoeve"):
        FlowMatching(flow.velocity, flow.latent)  # type: ignore[arg-type]


def test_former_names_of_a_number_of_draws_and_of_drawn_fields_warn() -> None:
    flow, former = gaussian_flow(), {"count": 3}
    with pytest.warns(DeprecationWarning, match="count of FlowMatching.sample is draws since release 0.5"):
        assert torch.equal(flow.sample(**former), flow.sample(draws=3))
    with pytest.warns(DeprecationWarning, match="count of FlowMatching.draw is draws"):
        assert torch.equal(flow.draw(**former).fields, flow.sample(3))
    fields = torch.rand(4, 8, dtype=torch.float64)
    with pytest.warns(DeprecationWarning, match="draws of DrawnFields.__init__ is fields"):
        drawn = DrawnFields(draws=fields)  # type: ignore[call-arg]
    with pytest.warns(DeprecationWarning, match="draws of DrawnFields is fields"):
        assert torch.equal(drawn.draws, drawn.fields)
