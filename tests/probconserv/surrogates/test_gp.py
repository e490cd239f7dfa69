"""The Gaussian-process surrogate interpolates, is unsure where it saw nothing, and refuses what does not fit."""

from dataclasses import replace
from pathlib import Path

import gpytorch
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probconserv import ProbConserv, condition, integral
from probconserv.errors import DataFileError, IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates import gp
from probconserv.surrogates._gp_process import spread_points
from probconserv.surrogates.gp import GPConfig, GPSurrogate
from probconserv.surrogates.surrogate import Context, Query
from probconserv.surrogates.weights import read_weights, write_weights


def smooth_field(points: torch.Tensor) -> torch.Tensor:
    return torch.exp(-points[..., 0]) * torch.sin(3.0 * points[..., 1])


def scattered(batch: tuple[int, ...], n: int, seed: int) -> torch.Tensor:
    return torch.rand(*batch, n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def context() -> Context:
    points = scattered((3,), 60, seed=0)
    return Context(points, smooth_field(points), problem="smooth")


def test_smooth_field_is_recovered(context: Context) -> None:
    query = Query(0.1 + 0.8 * scattered((3,), 40, seed=1), problem="smooth")
    prediction = GPSurrogate(GPConfig(smoothness=2.5)).predict(context, query)
    error = prediction.mean - smooth_field(query.points)
    assert prediction.mean.shape == (3, 40)
    # Sixty scattered points resolve this field to about a per cent; a fit that failed misses by its size, about 0.5.
    assert error.abs().max() < 0.02


def test_the_likelihood_settles(context: Context) -> None:
    process = GPSurrogate(GPConfig(smoothness=2.5)).fit(context).process
    assert process is not None
    (points,), values = process.requires_grad_().train().train_inputs, process.train_targets
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(process.likelihood, process)(process(points), values)
    slopes = torch.autograd.grad(likelihood.sum(), list(process.parameters()))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-3


def test_separate_hyper_parameters_do_not_couple_functions(context: Context) -> None:
    query = Query(scattered((3,), 10, seed=2))
    surrogate = GPSurrogate(GPConfig(shared=False, steps=20))
    together = surrogate.predict(context, query).mean
    alone = surrogate.predict(Context(context.points[1], context.values[1]), Query(query.points[1])).mean
    # Adam divides by a running gradient size, so the fits agree to its epsilon, not to round-off.
    torch.testing.assert_close(together[1], alone, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("noise", [0.0, 1e-2])
def test_result_does_not_depend_on_units(context: Context, noise: float) -> None:
    query = Query(scattered((3,), 10, seed=2))
    surrogate = GPSurrogate(GPConfig(steps=20))
    plain = surrogate.predict(replace(context, noise_variance=noise), query)
    scale = torch.tensor([1e-3, 1e4], dtype=torch.float64)
    other = Context(context.points * scale, 7.0 + 100.0 * context.values, noise_variance=1e4 * noise)
    scaled = surrogate.predict(other, Query(query.points * scale))
    torch.testing.assert_close(scaled.mean, 7.0 + 100.0 * plain.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(scaled.variance, 1e4 * plain.variance, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_variances_do_not_depend_on_units_either(context: Context, dtype: torch.dtype) -> None:
    query = Query(scattered((3,), 10, seed=2))
    surrogate = GPSurrogate(GPConfig(steps=5))
    plain = surrogate.predict(context, query)
    small = surrogate.predict(replace(context, values=(1e-7 * context.values).to(dtype)), query)
    assert small.variance.dtype == dtype
    torch.testing.assert_close(small.variance.double(), 1e-14 * plain.variance, rtol=1e-3, atol=0)


def test_more_query_points_than_the_field_resolves_are_no_problem(context: Context) -> None:
    """The covariance at 1,001 places of a smooth process is singular to working precision."""
    positions = torch.linspace(0.0, 1.0, 1001, dtype=torch.float64)
    query = Query(torch.stack((torch.full_like(positions, 0.5), positions), dim=-1).expand(3, -1, -1))
    prediction = GPSurrogate(GPConfig(smoothness=2.5, steps=30)).predict(context, query)
    law = integral(positions, torch.tensor(0.3))
    assert law.residual(condition(prediction, law).mean).abs().max() < 1e-12


def test_invalid_arguments_raise_with_reason(context: Context) -> None:
    for query, message in (
        (Query(context.points, problem="stefan"), "problem 'smooth', but the query of 'stefan'"),
        (Query(context.points[..., :1]), "2 coordinates but query points 1"),
        (Query(context.points[:2]), "same batch shape"),
    ):
        with pytest.raises(IncompatibleQueryError, match=message):
            GPSurrogate().predict(context, query)
    values = context.values.clone()
    values[1, 3] = torch.nan
    with pytest.raises(InvalidArgumentError, match="context values hold 1 NaN or infinite"):
        Context(context.points, values)
    with pytest.raises(InvalidArgumentError, match="to match the points"):
        Context(context.points, context.values[:, :-1])
    with pytest.raises(InvalidArgumentError, match="at least two context points"):
        GPSurrogate().predict(Context(context.points[:, :1], context.values[:, :1]), Query(context.points))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smoothness": 2.0}, "smoothness must be"),
        ({"steps": 0}, "must be positive"),
        ({"exact_up_to": 300}, "inducing_points must not exceed exact_up_to = 300, got 400"),
        ({"inducing_points": 0}, "inducing_points must be positive"),
        ({"inducing_points": 2000}, "must not exceed exact_up_to = 1000, got 2000"),
    ],
)
def test_bad_config_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        GPConfig(**options)


class TestFit:
    """Fitted once: hyper-parameters stay, other observations of the same functions enter by conditioning alone."""

    @pytest.fixture
    def query(self) -> Query:
        return Query(scattered((3,), 15, seed=2))

    def test_a_fit_is_what_every_prediction_does_and_is_done_once(
        self, context: Context, query: Query, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = GPConfig(steps=10)
        expected = GPSurrogate(config).predict(context, query)
        surrogate = GPSurrogate(config).fit(context)
        monkeypatch.setattr(gp, "fit_process", None)
        for prediction in (surrogate.predict(context, query), surrogate.predict(surrogate.context, query)):
            assert torch.equal(prediction.mean, expected.mean)
            torch.testing.assert_close(prediction.covariance_matrix, expected.covariance_matrix, rtol=0.0, atol=1e-12)

    @pytest.mark.parametrize("shared", [True, False])
    @pytest.mark.parametrize("noisy", [True, False])
    def test_other_observations_of_the_functions_keep_units_and_hyper_parameters(
        self, context: Context, query: Query, shared: bool, noisy: bool
    ) -> None:
        surrogate = GPSurrogate(GPConfig(smoothness=0.5, steps=10, shared=shared)).fit(context)
        noise = 1e-3 * torch.arange(1.0, 21.0, dtype=torch.float64).expand(3, -1) if noisy else None
        other = replace(context.part(torch.arange(20)), noise_variance=noise)
        assert_as_written_out(surrogate, other, query)

    def test_hyper_parameters_of_one_function_serve_a_batch(self, context: Context, query: Query) -> None:
        one = Context(context.points[0], context.values[0])
        surrogate = GPSurrogate(GPConfig(steps=10)).fit(one)
        alone = surrogate.predict(one, Query(query.points[0]))
        torch.testing.assert_close(surrogate.predict(context, query).mean[0], alone.mean, rtol=0.0, atol=1e-10)

    @pytest.mark.parametrize("config", [GPConfig(steps=5), GPConfig(steps=5, exact_up_to=30, inducing_points=12)])
    @pytest.mark.parametrize("noisy", [True, False])
    def test_a_stored_process_predicts_the_same(
        self, context: Context, query: Query, config: GPConfig, noisy: bool, tmp_path: Path
    ) -> None:
        if noisy:
            context = replace(context, noise_variance=torch.full_like(context.values, 1e-3))
        surrogate = GPSurrogate(config).fit(context)
        surrogate.save(tmp_path / "gp.safetensors", place="here")
        loaded = GPSurrogate.load(tmp_path / "gp.safetensors")
        assert (loaded.config, loaded.context.problem) == (config, "smooth")
        for seen in (context, context.part(torch.arange(40))):
            assert torch.equal(loaded.predict(seen, query).mean, surrogate.predict(seen, query).mean)
            assert torch.equal(loaded.predict(seen, query).variance, surrogate.predict(seen, query).variance)

    def test_it_stays_as_it_is_inside_other_modules(self, context: Context, query: Query) -> None:
        surrogate = GPSurrogate(GPConfig(steps=5)).fit(context)
        expected = surrogate.predict(context, query).mean
        layer = ProbConserv(surrogate, integral(torch.linspace(0, 1, 15, dtype=torch.float64), torch.tensor(0.3)))
        layer.float().train()
        assert torch.equal(surrogate.predict(context, query).mean, expected)
        assert not [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def test_a_second_fit_starts_again(self, context: Context, query: Query) -> None:
        other = Context(context.points, 1.0 - context.values)
        twice = GPSurrogate(GPConfig(steps=5)).fit(other).fit(context)
        expected = GPSurrogate(GPConfig(steps=5)).predict(context, query).mean
        assert torch.equal(twice.predict(context, query).mean, expected)

    def test_what_does_not_fit_is_refused(self, context: Context, query: Query, tmp_path: Path) -> None:
        surrogate, path = GPSurrogate(GPConfig(steps=1)), tmp_path / "gp.safetensors"
        for unfitted in (lambda: surrogate.context, lambda: surrogate.save(path)):
            with pytest.raises(InvalidArgumentError, match=r"not fitted; call fit\(context\) before"):
                unfitted()
        surrogate.fit(context)
        two = Context(context.points[:2], context.values[:2])
        with pytest.raises(
            IncompatibleQueryError, match=r"fitted to functions .* = \(3, 2\), the context holds \(2, 2\)"
        ):
            surrogate.predict(two, Query(query.points[:2]))
        with pytest.raises(IncompatibleQueryError, match="process is of problem 'smooth', but the context of 'rough'"):
            surrogate.predict(replace(context, problem="rough"), query)
        with pytest.raises(InvalidArgumentError, match="at least two context points"):
            surrogate.fit(context.part(torch.arange(1)))

    def test_files_that_hold_no_process_are_refused(self, context: Context, tmp_path: Path) -> None:
        path = tmp_path / "gp.safetensors"
        with pytest.raises(DataFileError, match="There is no file of weights"):
            GPSurrogate.load(path)
        GPSurrogate(GPConfig(steps=1)).fit(context).save(path)
        weights = read_weights(path, "GPSurrogate")
        for change, message in (
            ({"config": {**weights.config, "smoothness": 2.0}}, "smoothness must be"),
            ({"config": {"steps": 1}}, "config .* does not fit this version"),
            ({"kind": "ANP"}, "holds weights of ANP"),
            (
                {"tensors": {**weights.tensors, "length_scales": torch.ones(3)}},
                "1 tensors differ, first 'length_scales'",
            ),
            ({"tensors": {**weights.tensors, "context_values": torch.ones(3)}}, "to match the points"),
            ({"tensors": {}}, "not that of a fitted Gaussian process"),
        ):
            write_weights(path, replace(weights, **change))
            with pytest.raises(DataFileError, match=message):
                GPSurrogate.load(path)


def kernel_written_out(surrogate: GPSurrogate, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """s² exp(−r), r the distance in length scales: the Matérn kernel with ν = 1/2, for standardised points."""
    assert surrogate.process is not None
    raw = {name: torch.nn.functional.softplus(value) for name, value in surrogate.process.raw.items()}
    difference = (first[..., :, None, :] - second[..., None, :, :]) / raw["length_scales"][..., None, :]
    return raw["variance"][..., None, None] * torch.exp(-difference.square().sum(dim=-1).sqrt())


def posterior_written_out(surrogate: GPSurrogate, context: Context, query: Query) -> tuple[torch.Tensor, torch.Tensor]:
    """c + K_q (K + N)⁻¹ (u − c) and K_qq − K_q (K + N)⁻¹ K_qᵀ by dense matrices, with ν = 1/2.

    With inducing points K and K_q are their part seen through those, and K has its own diagonal.
    """
    assert surrogate.process is not None
    fit, raw = surrogate.context, surrogate.process.raw
    low, high = fit.points.amin(dim=-2, keepdim=True), fit.points.amax(dim=-2, keepdim=True)
    offset, spread = fit.values.mean(dim=-1, keepdim=True), fit.values.std(dim=-1, keepdim=True)
    p, q = ((points - low) / (high - low) for points in (context.points, query.points))
    noise = surrogate.config.noise_floor + torch.nn.functional.softplus(raw["noise_variance"])
    noise = noise + (0.0 if context.noise_variance is None else context.noise_variance / spread.square())
    k, kq, kqq = (kernel_written_out(surrogate, *pair) for pair in ((p, p), (q, p), (q, q)))
    if surrogate.process.inducing is not None:
        z = surrogate.process.inducing
        kz, kp, ku = (kernel_written_out(surrogate, points, z) for points in (z, p, q))
        kz = kz + 1e-6 * kqq[..., :1, :1] * torch.eye(z.shape[-2], dtype=torch.float64)
        seen = kp @ torch.linalg.solve(kz, kp.mT)
        k = seen + torch.diag_embed((k - seen).diagonal(dim1=-2, dim2=-1))
        kq = ku @ torch.linalg.solve(kz, kp.mT)
    gain = torch.linalg.solve(k + torch.diag_embed(noise.expand(context.values.shape)), kq.mT).mT
    mean, values = raw["mean"][..., None], (context.values - offset) / spread
    standard = mean + (gain @ (values - mean)[..., None])[..., 0]
    return offset + spread * standard, (kqq - gain @ kq.mT) * spread.square()[..., None]


def assert_as_written_out(surrogate: GPSurrogate, context: Context, query: Query, atol: float = 1e-10) -> None:
    """Condition numbers of 1e4 or so times eps."""
    mean, covariance = posterior_written_out(surrogate, context, query)
    prediction = surrogate.predict(context, query)
    torch.testing.assert_close(prediction.mean, mean, rtol=0.0, atol=atol)
    torch.testing.assert_close(prediction.covariance_matrix, covariance, rtol=0.0, atol=atol)


THROUGH_POINTS = GPConfig(smoothness=0.5, steps=10, exact_up_to=40, inducing_points=20)


# gpytorch's distance of an inducing point from itself among the context is √eps.
@pytest.mark.parametrize(("config", "atol"), [(GPConfig(smoothness=0.5, steps=10), 1e-10), (THROUGH_POINTS, 1e-7)])
def test_posterior_is_that_of_the_formula(context: Context, config: GPConfig, atol: float) -> None:
    noise, query = torch.linspace(0.0, 0.1, 60, dtype=torch.float64).expand(3, -1), Query(scattered((3,), 10, seed=4))
    for seen in (context, replace(context, noise_variance=noise)):
        assert_as_written_out(GPSurrogate(config).fit(seen), seen, query, atol)


class TestNoise:
    """Known variances of the observations' errors."""

    def test_a_bad_thermometer_does_not_pull_the_field(self) -> None:
        """Its error is known to be large: the prediction beside it stays with the others, and is less sure."""
        points = scattered((), 60, seed=0)
        values, noise = smooth_field(points), torch.full((60,), 1e-6, dtype=torch.float64)
        values[10], noise[10] = values[10] + 1.0, 1.0
        query, config = Query(points[10:11]), GPConfig(smoothness=2.5, steps=50)
        trusted = GPSurrogate(config).predict(Context(points, values), query)
        known = GPSurrogate(config).predict(Context(points, values, noise_variance=noise), query)
        truth = smooth_field(query.points)
        assert (known.mean - truth).abs() < 0.05 < (trusted.mean - truth).abs()

    @pytest.mark.parametrize(
        ("noise", "message"),
        [
            (torch.zeros(3), r"noise_variance must be \(\*batch, n\) = \(3, 60\), .* got \(3,\)"),
            (torch.full((3, 60), torch.nan), "noise variances hold 180 NaN"),
            (torch.full((3, 60), -1.0), "must not be negative, got -1"),
        ],
    )
    def test_what_is_no_variance_is_refused(self, context: Context, noise: torch.Tensor, message: str) -> None:
        with pytest.raises(InvalidArgumentError, match=message):
            replace(context, noise_variance=noise)


class TestInducingPoints:
    """Above a stated size the process sees its context through inducing points."""

    def test_an_approximation_that_nobody_chose_is_named(
        self, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(GPConfig, "exact_up_to", 40)
        with pytest.warns(UserWarning, match=r"sees the 60 observations .* through 20 points .*exact_up_to=60"):
            GPSurrogate(GPConfig(steps=2, exact_up_to=40, inducing_points=20)).fit(context)

    @given(n=st.integers(1, 30), count=st.integers(1, 30), repeated=st.booleans(), seed=st.integers(0, 99))
    def test_inducing_points_are_distinct_context_points(self, n: int, count: int, repeated: bool, seed: int) -> None:
        points = scattered((2,), n, seed)
        points = torch.cat((points, points), dim=-2) if repeated else points
        chosen = spread_points(points, count)
        assert chosen.shape == (2, min(n, count), 2)
        distances = torch.cdist(chosen, points, compute_mode="donot_use_mm_for_euclid_dist")
        assert (distances.amin(dim=-1) == 0).all()
        assert all(len(some.unique(dim=0)) == len(some) for some in chosen)


@pytest.mark.parametrize("value", [0.1, 0.3, 1.7, -1.7e-12, 300.0])
def test_equal_values_leave_a_field_unsure_whatever_their_rounding(value: float) -> None:
    query = Query(torch.tensor([[0.5], [3.0]], dtype=torch.float64))
    for count in (7, 8, 13):
        points = torch.linspace(0, 1, count, dtype=torch.float64)[:, None]
        prediction = GPSurrogate().predict(Context(points, torch.full((count,), value, dtype=torch.float64)), query)
        assert torch.allclose(prediction.mean, torch.full((2,), value, dtype=torch.float64), rtol=1e-4, atol=0)
        assert bool((prediction.variance.sqrt() > 5e-4 * abs(value)).all()), count
