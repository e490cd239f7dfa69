"""Batches of functions: distribution of the points, agreement with the closed form, reproducibility."""

import dataclasses
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from solvers.errors import InvalidArgumentError
from solvers.problems import PROBLEMS, Problem
from solvers.problems.conservation import STEFAN
from solvers.problems.sampling import (
    Protocol,
    SolutionBank,
    end_weighted_parameters,
    product_points,
    random_parameters,
    sample_bank,
    sample_exact,
)

ALL = list(PROBLEMS.values())


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bank(problem: Problem, members: int = 5, times: int = 40, cells: int = 60) -> SolutionBank:
    parameter = random_parameters(problem, members, generator(0))
    t = (torch.arange(times, dtype=torch.float64) + 0.5) / times * problem.final_time
    low, high = problem.domain
    x = low + (high - low) * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    return SolutionBank(parameter, t, x, problem.solution(t[:, None], x, parameter[:, None, None]))


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 5), times=st.integers(1, 6), places=st.integers(1, 6))
def test_context_is_a_stratified_product_grid_of_the_solution(
    problem: Problem, seed: int, batch: int, times: int, places: int
) -> None:
    protocol = Protocol(context_times=times, context_places=places, target_times=3, target_places=2)
    parameter = random_parameters(problem, batch, generator(seed))
    low, high = problem.training_range
    assert bool(((parameter >= low) & (parameter <= high)).all())
    functions = sample_exact(problem, parameter, protocol, generator(seed))
    assert functions.context_points.shape == (batch, times * places, 2)
    assert functions.target_points.shape == (batch, 6, 2)
    grid = functions.context_points.reshape(batch, times, places, 2)
    t, x = grid[:, :, 0, 0], grid[:, 0, :, 1]
    torch.testing.assert_close(product_points(t, x), functions.context_points, rtol=0, atol=0)
    interval = (t / problem.final_time * times).floor()
    assert interval.tolist() == [list(range(times))] * batch
    assert bool((x.diff(dim=-1) >= 0).all())
    assert bool(((x >= problem.domain[0]) & (x <= problem.domain[1])).all())
    for points, values in (
        (functions.context_points, functions.context_values),
        (functions.target_points, functions.target_values),
    ):
        expected = problem.solution(points[..., 0], points[..., 1], parameter[:, None])
        # The same numbers in another layout, of which PyTorch computes powers and exponentials by another routine.
        torch.testing.assert_close(values, expected, rtol=1e-14, atol=1e-14)


def test_targets_cover_time_and_space_uniformly() -> None:
    parameter = random_parameters(STEFAN, 2000, generator(1))
    points = sample_exact(STEFAN, parameter, Protocol(), generator(2)).target_points
    scaled = points / torch.tensor([STEFAN.final_time, 1.0])
    # 20,000 independent draws a coordinate: the mean of a uniform variable has deviation 1/√12/√20000 = 0.002.
    assert scaled.mean(dim=(0, 1)).tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    assert scaled.var(dim=(0, 1)).tolist() == pytest.approx([1 / 12, 1 / 12], abs=0.005)


def test_equal_generators_give_equal_batches_and_unequal_ones_do_not() -> None:
    parameter = random_parameters(STEFAN, 3, generator(3))
    first, again, other = (sample_exact(STEFAN, parameter, Protocol(), generator(seed)) for seed in (4, 4, 5))
    for field in dataclasses.fields(first):
        assert torch.equal(getattr(first, field.name), getattr(again, field.name))
    assert not torch.equal(first.context_points, other.context_points)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 8))
def test_bank_samples_are_stored_values_at_stored_points(seed: int, count: int) -> None:
    stored = bank(STEFAN)
    functions = sample_bank(stored, count, Protocol(), generator(seed))
    assert functions.context_points.shape == (count, 100, 2)
    assert torch.isin(functions.parameter, stored.parameter).all()
    for points, values in (
        (functions.context_points, functions.context_values),
        (functions.target_points, functions.target_values),
    ):
        assert torch.isin(points[..., 0], stored.times).all()
        assert torch.isin(points[..., 1], stored.places).all()
        expected = STEFAN.solution(points[..., 0], points[..., 1], functions.parameter[:, None])
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-14)
    # 10 strata over 40 output times: 4 output times each.
    rows = (functions.context_points.reshape(count, 10, 10, 2)[:, :, 0, 0] / STEFAN.final_time * 10).floor()
    assert rows.tolist() == [list(range(10))] * count


def test_bank_uses_all_members_times_and_places() -> None:
    stored = bank(STEFAN)
    functions = sample_bank(stored, 500, Protocol(), generator(6))
    assert len(functions.parameter.unique()) == 5
    assert len(functions.target_points[..., 0].unique()) == 40
    assert len(functions.target_points[..., 1].unique()) == 60


def test_float32_bank_gives_float64_batches() -> None:
    stored = bank(STEFAN)
    single = SolutionBank(stored.parameter, stored.times, stored.places, stored.values.float())
    functions = sample_bank(single, 4, Protocol(), generator(7))
    assert functions.context_values.dtype == torch.float64
    reference = sample_bank(stored, 4, Protocol(), generator(7)).context_values
    torch.testing.assert_close(functions.context_values, reference, rtol=1e-7, atol=0)  # eps of float32


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="context_places must be at least 1, got 0"):
        Protocol(context_places=0)
    stored = bank(STEFAN)
    with pytest.raises(InvalidArgumentError, match=r"values of a solution bank must be \(members, t, n\)"):
        SolutionBank(stored.parameter[:-1], stored.times, stored.places, stored.values)
    with pytest.raises(InvalidArgumentError, match="must be finite"):
        SolutionBank(stored.parameter, stored.times, stored.places, stored.values * float("nan"))
    with pytest.raises(InvalidArgumentError, match="training_range of problem 'stefan' needs low < high"):
        dataclasses.replace(STEFAN, training_range=(0.7, 0.55))
    with pytest.raises(InvalidArgumentError, match="test_time of problem 'stefan' must lie within"):
        dataclasses.replace(STEFAN, test_time=0.2)
    with pytest.raises(InvalidArgumentError, match="needs front and front_level, or neither"):
        dataclasses.replace(STEFAN, front_level=None)


def test_end_weighted_parameters_have_the_arcsine_distribution() -> None:
    """P(k ≤ low + q·width) = (2/π) asin √q, within four standard errors of 20,000 draws."""
    drawn = end_weighted_parameters(PROBLEMS["diffusion"], 20_000, generator(0))
    low, high = PROBLEMS["diffusion"].training_range
    assert low <= float(drawn.min()) < low + 1e-6 * (high - low)
    assert high - 1e-6 * (high - low) < float(drawn.max()) <= high
    for fraction in (0.05, 0.25, 0.5, 0.9):
        expected = 2 / math.pi * math.asin(fraction**0.5)
        actual = float((drawn <= low + fraction * (high - low)).double().mean())
        assert actual == pytest.approx(expected, abs=4 * 0.5 / 20_000**0.5)
