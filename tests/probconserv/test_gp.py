"""The Gaussian-process surrogate interpolates, is unsure where it saw nothing, and refuses what does not fit."""

import pytest
import torch

from probconserv import condition, integral
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates.gp import GPConfig, GPSurrogate
from probconserv.surrogates.surrogate import Context, Query


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


def test_prediction_is_sure_at_the_data_and_unsure_far_away(context: Context) -> None:
    surrogate = GPSurrogate(GPConfig(smoothness=1.5, steps=5))
    near = surrogate.predict(context, Query(context.points))
    far = surrogate.predict(context, Query(context.points + 50.0))
    assert (near.variance < 0.05 * far.variance).all()
    torch.testing.assert_close(near.mean, context.values, atol=0.05, rtol=0.0)
    covariance = far.covariance_matrix
    torch.testing.assert_close(covariance, covariance.mT)
    assert torch.linalg.eigvalsh(covariance).min() > -1e-10 * covariance.diagonal(dim1=-2, dim2=-1).max()


def test_separate_hyper_parameters_do_not_couple_functions(context: Context) -> None:
    query = Query(scattered((3,), 10, seed=2))
    surrogate = GPSurrogate(GPConfig(shared=False, steps=20))
    together = surrogate.predict(context, query).mean
    alone = surrogate.predict(Context(context.points[1], context.values[1]), Query(query.points[1])).mean
    # Adam divides by a running gradient size, so the fits agree to its epsilon, not to round-off.
    torch.testing.assert_close(together[1], alone, atol=1e-6, rtol=0.0)


def test_result_does_not_depend_on_units(context: Context) -> None:
    query = Query(scattered((3,), 10, seed=2))
    surrogate = GPSurrogate(GPConfig(steps=20))
    plain = surrogate.predict(context, query)
    scale = torch.tensor([1e-3, 1e4], dtype=torch.float64)
    scaled = surrogate.predict(
        Context(context.points * scale, 7.0 + 100.0 * context.values), Query(query.points * scale)
    )
    torch.testing.assert_close(scaled.mean, 7.0 + 100.0 * plain.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(scaled.variance, 1e4 * plain.variance, rtol=1e-5, atol=1e-8)


def test_more_query_points_than_the_field_resolves_are_no_problem(context: Context) -> None:
    """The covariance at 1,001 places of a smooth process is singular to working precision."""
    positions = torch.linspace(0.0, 1.0, 1001, dtype=torch.float64)
    query = Query(torch.stack((torch.full_like(positions, 0.5), positions), dim=-1).expand(3, -1, -1))
    prediction = GPSurrogate(GPConfig(smoothness=2.5, steps=30)).predict(context, query)
    law = integral(positions, torch.tensor(0.3))
    assert law.residual(condition(prediction, law).mean).abs().max() < 1e-12


def test_precision_follows_the_values(context: Context) -> None:
    single = Context(context.points.float(), context.values.float())
    assert GPSurrogate(GPConfig(steps=2)).predict(single, Query(single.points)).mean.dtype == torch.float32


def test_context_of_another_problem_is_refused(context: Context) -> None:
    with pytest.raises(IncompatibleQueryError, match="problem 'smooth' but the query from 'stefan'"):
        GPSurrogate().predict(context, Query(context.points, problem="stefan"))


def test_query_with_other_coordinates_or_batch_is_refused(context: Context) -> None:
    with pytest.raises(IncompatibleQueryError, match="2 coordinates but query points 1"):
        GPSurrogate().predict(context, Query(context.points[..., :1]))
    with pytest.raises(IncompatibleQueryError, match="same batch shape"):
        GPSurrogate().predict(context, Query(context.points[:2]))


def test_bad_context_is_refused(context: Context) -> None:
    values = context.values.clone()
    values[1, 3] = torch.nan
    with pytest.raises(InvalidArgumentError, match="context values hold 1 NaN or infinite"):
        Context(context.points, values)
    with pytest.raises(InvalidArgumentError, match="to match the points"):
        Context(context.points, context.values[:, :-1])
    with pytest.raises(InvalidArgumentError, match="at least two context points"):
        GPSurrogate().predict(Context(context.points[:, :1], context.values[:, :1]), Query(context.points))


def test_bad_config_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="smoothness must be"):
        GPConfig(smoothness=2.0)
    with pytest.raises(InvalidArgumentError, match="must be positive"):
        GPConfig(steps=0)
