"""Random media: totals of the functions, what cases see, rows under the law, a run from data to figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import driver
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunContext, RunOptions
from experiments.gpme.cases import Case, Sizes
from experiments.gpme.experiment import RandomMediaExperiment
from experiments.gpme.functions import MEMBERS, Member
from experiments.gpme.methods import BOUNDS, METHODS, drawn
from experiments.gpme.networks import sample

TINY = Sizes(training=30, validation=4, test=3, draws=20)
SMALL = {member.name: replace(member, cells=12 if member.name == "plume" else 24) for member in MEMBERS}
MEDIUM, PLUME = SMALL["insulated"], SMALL["plume"]
UNTRAINED = [method for method in METHODS if not method.box.networks]


def case(folder: Path, member: Member = MEDIUM, count: int = 6) -> Case:
    return Case(member=member, count=count, sizes=TINY, seed=0, folder=folder)


@pytest.mark.parametrize("member", SMALL.values(), ids=SMALL)
def test_functions_have_the_total_that_is_known_of_them(member: Member, tmp_path: Path) -> None:
    functions = member.functions("test", 3, 0, tmp_path)
    field = functions.values[:, member.wanted].flatten(1)
    assert torch.allclose(field.mean(dim=-1), functions.total, rtol=1e-9)
    assert bool((functions.values >= -1e-12).all())
    again = member.functions("test", 3, 0, tmp_path)
    assert torch.equal(again.values, functions.values)
    other = member.functions("validation", 3, 0, tmp_path)
    assert not torch.equal(other.values, functions.values)


def test_a_case_is_seen_with_noise_at_points_of_its_functions(tmp_path: Path) -> None:
    own = case(tmp_path)
    observed = own.observed("test", 0)
    functions = own.member.functions("test", TINY.test, 0, tmp_path).values
    grid = torch.cartesian_prod(*own.axes)
    for number, (points, values) in enumerate(zip(observed.context.points, observed.context.values, strict=True)):
        rows = [int((grid == point).all(dim=-1).nonzero()) for point in points]
        assert float((functions[number].flatten()[rows] - values).abs().max()) < 6 * own.member.noise
    assert torch.equal(observed.truth, functions[:, own.member.wanted])
    assert torch.allclose(observed.law.residual(observed.truth), torch.zeros(TINY.test, 1).double(), atol=1e-9)


def test_functions_out_of_range_are_never_learnt_from(tmp_path: Path) -> None:
    shifted = case(tmp_path, replace(SMALL["shifted"], trained_on=MEDIUM))
    assert shifted.source == MEDIUM
    assert not torch.equal(shifted.observed("test", 0).truth, shifted.observed("validation", 0).truth)


@pytest.mark.parametrize("member", [MEDIUM, PLUME], ids=lambda member: member.name)
def test_rows_keep_the_law_and_their_bounds(member: Member, tmp_path: Path) -> None:
    own = case(tmp_path, member)
    for method in UNTRAINED:
        draws, observed, _ = drawn(own, method, 0, [])
        residual = observed.law.residual(draws).abs().max()
        assert draws.shape[1:] == observed.truth.shape
        if method.treatment:
            assert residual < 1e-9
        if method.treatment in ("bounded", *BOUNDS):
            assert float(draws.min()) >= -1e-12


def test_targets_of_a_batch_are_values_of_its_functions(tmp_path: Path) -> None:
    own = case(tmp_path)
    experiment, context = RandomMediaExperiment(), RunContext(options=RunOptions(out=tmp_path))
    method = next(method for method in METHODS if method.key == "anp")
    (training,) = experiment.trainings(own, method, 0, context)
    functions = own.functions("training", 0)
    batch = sample(functions, own.axes, training.config, torch.Generator().manual_seed(0), 5)
    grid, flat = torch.cartesian_prod(*own.axes), functions.flatten(1)
    rows = [[int((grid == point).all(dim=-1).nonzero()) for point in points] for points in batch.target_points]
    own_values = flat[:, torch.tensor(rows)]  # (functions, batch, targets)
    assert bool((own_values == batch.target_values).all(dim=-1).any(dim=0).all())


def test_a_run_trains_scores_and_draws(tmp_path: Path) -> None:
    experiment = RandomMediaExperiment(sizes={"smoke": TINY}, members=(MEDIUM,), counts=(5, 6))
    options = RunOptions(out=tmp_path, methods=("empirical", "bounded-empirical", "bounded-gaussian"))
    result = driver.run(experiment.table, options)
    records = result.records
    law = records[(records["score"] == "CE") & (records["method"] != "empirical")]
    assert len(law) == 4
    assert float(law["mean"].max()) < 1e-12
    assert np.isfinite(records["mean"]).all()
    assert list(tmp_path.glob("gpme/*/observations.png"))


def test_all_rows_of_the_first_member_are_scored_on_the_functions_of_every_seed(tmp_path: Path) -> None:
    context = RunContext(options=RunOptions(preset="laptop", out=tmp_path))
    jobs = driver.plan(RandomMediaExperiment().table, context)
    for method in ("search", "anp"):
        assert [job.seed for job in jobs if job.case.key == "insulated-5" and job.method.key == method] == [0, 1, 2]
        assert [job.seed for job in jobs if job.case.key == "plume-5" and job.method.key == method] == [0]


def test_sizes_are_checked() -> None:
    with pytest.raises(InvalidArgumentError, match="training"):
        Sizes(training=2)
    with pytest.raises(InvalidArgumentError, match="cells"):
        replace(MEDIUM, cells=4)
