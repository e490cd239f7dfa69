"""Cases and samples: presets, what is refused, complete files, fields laid out for operators, released trainings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.boundary import EXPERIMENTS
from experiments.boundary.cases import NetworkSizes
from experiments.boundary.data import as_fields, by_time
from experiments.boundary.equations.problem import BoundaryProblem, Uniform
from experiments.boundary.equations.standard import BOUNDARY_PROBLEMS, stokes
from experiments.boundary.problems import PROBLEMS
from experiments.boundary.samples import ClosedFormSource, DataStore, SampleConfig
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunContext, RunOptions
from solvers import Dirichlet
from tests.experiments.boundary.tiny import SIZES, one

CONFIG = SampleConfig(samples=3, nodes=9, times=2, seed=4)


@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
def test_versions_of_every_preset_can_be_told_apart(preset: Any) -> None:
    every = [row.cases(preset) for row in PROBLEMS.values()]
    for cases in every:
        assert len({case.key for case in cases}) == len({case.label for case in cases}) == len(cases)
        assert all(case.key.startswith("multi" if case.times > 1 else "single") for case in cases)
        assert all(case.training_data(0).split != case.test_data(0).split for case in cases)


def test_paper_preset_has_the_authors_sizes() -> None:
    (single, multi, *others), (square,) = PROBLEMS["stokes"].cases("paper"), PROBLEMS["cavity"].cases("paper")
    assert (single.sizes.samples, single.sizes.nodes, single.sizes.test, single.sizes.batch) == (500, 500, 100, 20)
    assert (single.sizes.network, len(others)) == (NetworkSizes(width=64, modes=16), 9)  # one of them a notebook's
    assert (multi.sizes.samples, multi.sizes.network.modes, multi.sizes.network.time_modes) == (1000, 12, 12)
    assert (square.sizes.nodes, square.sizes.network) == (50, NetworkSizes(width=20, modes=8, time_modes=8))


def test_versions_have_their_output_times() -> None:
    source = ClosedFormSource(BOUNDARY_PROBLEMS["heat_neumann"])
    assert source.times(SampleConfig(times=1)).tolist() == [0.5]
    assert source.times(SampleConfig(times=25, final_time=2.0))[-1].item() == 2.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(SIZES, batch=7), "batch must not exceed the 8 − 2 samples"),
        (lambda: replace(SIZES, validation=0), "validation must be at least 1, got 0"),
        (lambda: SampleConfig(nodes=4), "nodes must be at least 5"),
        (lambda: SampleConfig(samples=3, validation=4), "validation must not exceed the number of samples, 3, got 4"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()


@pytest.mark.parametrize("problem", BOUNDARY_PROBLEMS.values(), ids=lambda problem: problem.name)
def test_stored_samples_are_those_of_the_problem(problem: BoundaryProblem, tmp_path: Path) -> None:
    store = DataStore(folder=tmp_path, version=1)
    built = ClosedFormSource(problem).samples(CONFIG, store)
    fresh = problem.sample(3, 9, problem.multi_step(2), torch.Generator().manual_seed(8))
    assert torch.equal(built.output[:, :, 0], fresh.output.float())
    assert torch.equal(built.input[:, 0], fresh.input.float())
    for axis, (pair, values) in enumerate(zip(problem.conditions, built.values, strict=True)):
        if isinstance(pair[0], Dirichlet):
            assert torch.equal(values[1], built.output.select(3 + axis, -1))
    unreadable = replace(problem, fields=lambda *_: pytest.fail("the file was there"))
    read = ClosedFormSource(unreadable).samples(CONFIG, store)
    assert torch.equal(read.output, built.output)
    test = ClosedFormSource(problem).samples(replace(CONFIG, split="test"), store)
    assert not torch.equal(test.output, built.output)


def test_whatever_decides_the_samples_makes_another_file(tmp_path: Path) -> None:
    (frequency,) = stokes().parameters
    elsewhere = replace(stokes(), parameters=(replace(frequency, distribution=Uniform(4.0, 5.0)),))
    versions = [(stokes(), {}, 1), (stokes(), {}, 2), (stokes(0.1), {}, 1), (elsewhere, {}, 1)]
    changes = ({"seed": 5}, {"times": 1}, {"final_time": 1.0}, {"split": "test"})
    versions += [(stokes(), change, 1) for change in changes]
    for problem, changed, version in versions:
        ClosedFormSource(problem).samples(replace(CONFIG, **changed), DataStore(folder=tmp_path, version=version))
    assert len(list(tmp_path.glob("*.safetensors"))) == 8


@pytest.mark.parametrize("time_modes", [0, 2])
@pytest.mark.parametrize("name", ["cavity", "heat_neumann"])
def test_times_are_channels_or_the_last_axis(name: str, time_modes: int, tmp_path: Path) -> None:
    case = one(name, "multi", time_modes)
    drawn = case.source.samples(case.test_data(0), DataStore(folder=tmp_path, version=1))
    fields = as_fields(drawn, case)
    channel, later = (0, (..., 2)) if time_modes else (2, ())
    assert torch.equal(fields.output[1, channel][later], drawn.output[1, 2, 0])
    assert torch.equal(fields.input[1, 0][later], drawn.input[1, 0])
    assert len(fields.values) == fields.input.ndim - 2
    assert not time_modes or fields.values[-1] is None
    for pair, given in zip(drawn.values, fields.values, strict=False):
        for side, values in zip(pair, given, strict=True):
            assert torch.equal(values[1, channel][later], side[1, 2, 0])
    assert torch.equal(by_time(fields.output, case), drawn.output)
    part = fields.take(torch.tensor([2, 0]))
    assert len(part) == 2
    assert torch.equal(part.input, fields.input[[2, 0]])
    assert torch.equal(part.values[0][1], fields.values[0][1][[2, 0]])


def test_released_operators_are_those_of_the_problem_in_its_own_sizes() -> None:
    experiment, run = EXPERIMENTS["heat_independent"], RunContext(options=RunOptions(preset="laptop"))
    case = experiment.cases(run)[0]
    fewer = replace(case, sizes=replace(case.sizes, samples=100))
    (fno,) = (method for method in experiment.table.methods(case) if method.key == "fno")
    released = [experiment.trainings(each, fno, 0, run)[0].release for each in (case, fewer)]
    assert released == ["operators/heat_independent-single-values-fno.safetensors", None]
    assert experiment.trainings(case, fno, 1, run)[0].release is None, "another seed"
