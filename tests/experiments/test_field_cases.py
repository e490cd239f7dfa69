"""Fields on nodes: their totals, and where training data come from."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from experiments.errors import InvalidArgumentError
from experiments.field_cases import FieldCase
from experiments.field_data import field_samples
from solvers import CellGrid
from tests.experiments.fields import CASES, TINY

EVERY = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def some(case: FieldCase) -> torch.Tensor:
    """Parameters of every interval of a case."""
    return torch.cat([case.parameters(interval, 3, seed=1) for interval in case.ranges.values()])


@EVERY
def test_the_trapezoid_total_of_the_truth_misses_the_law_by_its_half_cells_only(case: FieldCase) -> None:
    parameter, h = some(case), case.spacing
    missed = case.law(parameter).residual(case.truth(parameter))[..., 0].abs()
    # |∫ (u − u_end)| over a half cell, of a monotone field; nothing where the end is not given.
    bound = torch.full_like(missed, 1e-13)
    for known, end, inward in zip(case.known, case.problem.domain, (h / 2, -h / 2), strict=True):
        if known:
            values = [case.problem.solution(case.output_times, x, parameter[:, None]) for x in (end, end + inward)]
            bound += 0.5 * h * (values[0] - values[1]).abs()
    assert bool((missed <= bound).all())
    if case.name == "stefan":  # where point values miss by O(h) of the jump
        points = case.problem.solution(case.output_times[:, None], case.grid.points, parameter[:, None, None])
        assert float(case.law(parameter).residual(points).abs().max()) > 20 * float(missed.max())


@EVERY
def test_exact_averages_over_fine_cells_come_to_the_truth(case: FieldCase) -> None:
    parameter = some(case)
    cells = CellGrid(*case.problem.domain, case.refinement * (case.nodes - 1))
    averages = case.problem.averages(case.output_times, cells, parameter[:, None])
    torch.testing.assert_close(case.restricted(averages, parameter), case.truth(parameter), rtol=0, atol=1e-12)


@EVERY
def test_training_fields_are_solutions_near_the_closed_form_and_made_once(case: FieldCase, tmp_path: Path) -> None:
    case = TINY.sized(case)
    made = field_samples(case, 4, tmp_path)
    low, high = case.training_range
    assert bool(((made.parameter > low) & (made.parameter < high)).all())
    assert made.fields.shape == (4, case.times, len(case.grid.points))
    # A front may be one of the 32 cells off.
    assert float((made.fields - case.truth(made.parameter)).abs().mean()) < 1 / 32
    for place, known, end in zip((0, -1), case.known, case.ends(made.parameter), strict=True):
        if known:
            assert torch.equal(made.fields[..., place], end)
    (file,) = tmp_path.glob("*.h5")
    before = file.stat().st_mtime_ns
    assert torch.equal(field_samples(case, 4, tmp_path).fields, made.fields)
    assert file.stat().st_mtime_ns == before
    field_samples(replace(case, times=2), 4, tmp_path)
    assert len(list(tmp_path.glob("*.h5"))) == 2


@EVERY
def test_tested_intervals_adjoin_each_other_and_leave_the_test_time_inside(case: FieldCase) -> None:
    intervals = list(case.ranges.values())
    assert len(intervals) == 4
    for first, second in pairwise(intervals):
        assert first[1] == second[0] or first[0] == second[1]
    assert float(case.output_times[case.times // 2]) == pytest.approx(case.final_time / 2)
    assert float(case.output_times[-1]) < case.problem.final_time


@pytest.mark.parametrize("wrong", [{"nodes": 2}, {"times": 0}, {"refinement": 3}])
def test_sizes_that_make_no_case_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError, match="at least 3 nodes, one time and an even refinement"):
        replace(CASES["stefan"], **wrong)
