"""Fields on nodes and operators that predict Gaussian fields: totals, data, composition, inputs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boon import BOON, FNO
from experiments.combined.fields import FieldProblem
from experiments.combined.networks import UNIT, Inputs, Network, build, inputs, surrogate
from experiments.combined.problems import BOUNDED, DIFFUSION_FIELDS, PLAIN
from experiments.combined.training import field_samples
from probconserv.surrogates.operator import as_gaussian
from solvers import CellGrid
from tests.experiments.combined.tiny import PROBLEMS, shrunk, tiny_problem

EVERY = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=list(PROBLEMS))


def some(problem: FieldProblem) -> torch.Tensor:
    """Parameters of every interval of a problem."""
    return torch.cat([problem.parameters(interval, 3, seed=1) for interval in problem.intervals])


@EVERY
def test_the_trapezoid_total_of_the_truth_misses_the_law_by_its_half_cells_only(problem: FieldProblem) -> None:
    parameter, ends = some(problem), problem.problem.domain
    h = (ends[1] - ends[0]) / (problem.nodes - 1)
    residual = problem.law(parameter).residual(problem.truth(parameter))[..., 0].abs()
    # |∫ (u − u_end)| over a half cell, of a monotone field; nothing where the end is not given.
    bound = torch.full_like(residual, 1e-13)
    for given, end, inward in zip(problem.given, ends, (h / 2, -h / 2), strict=True):
        if given:
            at = [problem.problem.solution(problem.output_times, x, parameter[:, None]) for x in (end, end + inward)]
            bound += 0.5 * h * (at[0] - at[1]).abs()
    assert bool((residual <= bound).all())
    if problem.name == "stefan":  # where point values miss by O(h) of the jump
        times, points = problem.output_times[:, None], problem.grid.points
        values = problem.problem.solution(times, points, parameter[:, None, None])
        assert float(problem.law(parameter).residual(values).abs().max()) > 20 * float(residual.max())


@EVERY
def test_exact_averages_over_fine_cells_come_to_the_truth(problem: FieldProblem) -> None:
    parameter = some(problem)
    cells = CellGrid(*problem.problem.domain, problem.refinement * (problem.nodes - 1))
    averages = problem.problem.averages(problem.output_times, cells, parameter[:, None])
    torch.testing.assert_close(problem.restricted(averages, parameter), problem.truth(parameter), rtol=0, atol=1e-12)


def test_training_fields_of_heat_are_far_closer_than_operators_come(tmp_path: Path) -> None:
    """Operators reach 1e-4 in range; with the usual time steps the data themselves miss the closed form by as much."""
    parameter, fields = field_samples(DIFFUSION_FIELDS, 3, tmp_path)
    assert float((fields - DIFFUSION_FIELDS.truth(parameter)).abs().mean()) < 1e-5


@pytest.mark.parametrize("name", PROBLEMS)
def test_training_fields_are_solutions_near_the_closed_form_and_made_once(name: str, tmp_path: Path) -> None:
    problem = tiny_problem(name)
    parameter, fields = field_samples(problem, 4, tmp_path)
    low, high = problem.training_range
    assert bool(((parameter > low) & (parameter < high)).all())
    assert fields.shape == (4, problem.times, len(problem.grid.points))
    # A front may be one of the 32 cells off.
    assert float((fields - problem.truth(parameter)).abs().mean()) < 1 / 32
    ends = zip(problem.given, fields[..., [0, -1]].unbind(-1), problem.ends(parameter), strict=True)
    assert all(torch.equal(values, end) for given, values, end in ends if given)
    (file,) = tmp_path.glob("*.safetensors")
    before = file.stat().st_mtime_ns
    assert torch.equal(field_samples(problem, 4, tmp_path)[1], fields)
    assert file.stat().st_mtime_ns == before
    field_samples(replace(problem, times=2), 4, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@EVERY
def test_fields_are_predicted_in_four_intervals_up_to_the_final_time(problem: FieldProblem) -> None:
    assert len(problem.intervals) == 4
    assert float(problem.output_times[problem.times // 2]) == pytest.approx(problem.final_time / 2)
    assert float(problem.output_times[-1]) < problem.problem.final_time


def untrained(network: Network, problem: FieldProblem, seed: int = 0) -> tuple[FNO | BOON, Inputs]:
    """An operator of the network, and its inputs for two parameters."""
    torch.manual_seed(seed)
    parameter = problem.parameters(problem.training_range, 2, seed=0)
    return build(shrunk(network), problem).double(), inputs(problem, network, parameter)


def test_operators_take_the_parameter_and_the_boundary_values() -> None:
    problem = PROBLEMS["porous_medium"]
    parameter = torch.linspace(*problem.training_range, 1001, dtype=torch.float64)
    a, ((first, last),) = inputs(problem, BOUNDED, parameter)
    assert a.shape == (1001, 1 + 2 * problem.times, problem.nodes)
    assert torch.equal(a, a[..., :1].expand_as(a))
    assert float(a[:, 0, 0].mean()) == pytest.approx(0, abs=1e-12)
    assert float(a[:, 0, 0].std()) == pytest.approx(1, abs=2e-3)  # a grid of 1001 points has not quite the density
    assert torch.equal(a[:, 1 : 1 + problem.times, 0], problem.ends(parameter)[0])
    assert torch.equal(first[:, : problem.times], problem.ends(parameter)[0])
    assert not bool(first[:, problem.times :].any())
    assert not bool(last.any())
    assert len(inputs(problem, PLAIN, parameter)) == 1
    advection, circle = (inputs(PROBLEMS[name], PLAIN, parameter)[0].shape[1] for name in ("advection", "diffusion"))
    assert (advection, circle) == (1 + problem.times, 1)


@torch.no_grad()
def test_operators_are_joined_as_an_ensemble_and_on_a_circle_every_point_counts_once() -> None:
    problem = tiny_problem("diffusion")
    (first, arguments), (second, _) = (untrained(PLAIN, problem, seed) for seed in (0, 1))
    whole = [operator(*arguments) for operator in (first, second)]
    prediction = surrogate([first, second], problem)(*arguments)
    torch.testing.assert_close(whole[0][..., 0], whole[0][..., -1], rtol=0, atol=1e-14)
    members = [as_gaussian(each[..., :-1], UNIT) for each in whole]
    means = torch.stack([member.mean for member in members])
    torch.testing.assert_close(prediction.mean, means.mean(dim=0), rtol=0, atol=1e-14)
    within = torch.stack([member.variance for member in members]).mean(dim=0)
    torch.testing.assert_close(prediction.variance, means.var(dim=0) + within, rtol=1e-10, atol=1e-16)
