"""Samples of the boundary-condition problems: complete, repeatable, rebuilt when damaged, laid out for operators."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from experiments.boundary.cases import BoundaryDataConfig
from experiments.boundary.data import as_fields, boundary_samples, by_time
from solvers import Dirichlet
from solvers.problems.boundary_problems import BOUNDARY_PROBLEMS, stokes
from solvers.problems.boundary_samples import BoundaryProblem, Uniform
from tests.experiments.boundary.tiny import one

CONFIG = BoundaryDataConfig(samples=3, nodes=9, times=2, seed=4)


@pytest.mark.parametrize("problem", BOUNDARY_PROBLEMS.values(), ids=lambda problem: problem.name)
def test_stored_samples_are_those_of_the_problem(problem: BoundaryProblem, tmp_path: Path) -> None:
    built = boundary_samples(problem, CONFIG, tmp_path, version=1)
    fresh = problem.sample(3, 9, problem.multi_step(2), torch.Generator().manual_seed(4))
    assert torch.equal(built.output, fresh.output.float())
    assert torch.equal(built.input, fresh.input.float())
    for axis, pair in enumerate(problem.conditions):
        values = built.boundary[axis]
        if isinstance(pair[0], Dirichlet):
            assert values is not None
            assert torch.equal(values[1], built.output.select(2 + axis, -1))
    unreadable = replace(problem, fields=lambda *_: pytest.fail("the file was there"))
    read = boundary_samples(unreadable, CONFIG, tmp_path, version=1)
    assert torch.equal(read.output, built.output)
    assert read.parameters.keys() == built.parameters.keys()


def test_a_file_says_what_it_holds(tmp_path: Path) -> None:
    boundary_samples(BOUNDARY_PROBLEMS["cavity"], CONFIG, tmp_path, version=1)
    (path,) = tmp_path.glob("*.safetensors")
    with safe_open(path, framework="np") as file:
        notes = file.metadata()
        assert set(file.keys()) == {
            *("input", "output", "times", "parameter_lid_speed"),
            *(f"boundary_{axis}_{side}" for axis in (0, 1) for side in ("first", "last")),
        }
    assert notes["location"] == "node"
    assert notes["axes"] == "sample, t, x, y"
    assert notes["units"] == "dimensionless"
    assert notes["boundary_1_last"] == "Dirichlet"
    assert notes["reconstructed"] == "range of the lid speed"
    assert path.stem == f"cavity-{notes['config_hash']}"
    config = json.loads(notes["config"])
    assert config["data_version"] == 1
    assert config["samples"]["config"]["seed"] == 4
    assert config["samples"]["parameters"][0]["distribution"] == {"type": "Uniform", "low": 1.0, "high": 1.5}


def test_whatever_decides_the_samples_makes_another_file(tmp_path: Path) -> None:
    elsewhere = stokes().with_distribution("frequency", Uniform(4.0, 5.0))
    for problem, changes, version in (
        (stokes(), {}, 1),
        (stokes(), {}, 2),
        (stokes(), {"seed": 5}, 1),
        (stokes(), {"times": 1}, 1),
        (stokes(), {"final_time": 1.0}, 1),
        (stokes(0.1), {}, 1),
        (elsewhere, {}, 1),
    ):
        boundary_samples(problem, replace(CONFIG, **changes), tmp_path, version)
    assert len(list(tmp_path.glob("*.safetensors"))) == 7


@pytest.mark.parametrize("time_modes", [0, 2])
@pytest.mark.parametrize("name", ["cavity", "heat_neumann"])
def test_times_are_channels_or_the_last_axis(name: str, time_modes: int) -> None:
    case = one(name, "multi", time_modes)
    config = case.test_data(0)
    drawn = case.problem.sample(config.samples, config.nodes, config.output_times(case.problem), torch.Generator())
    fields, unit = as_fields(drawn, case), case.sizes.network.unit
    channel, later = (0, (..., 2)) if time_modes else (2, ())
    assert torch.equal(fields.output[1, channel][later], drawn.output[1, 2] / unit)
    assert torch.equal(fields.input[1, 0][later], drawn.input[1] / unit)
    assert len(fields.values) == fields.input.ndim - 2
    assert not time_modes or fields.values[-1] is None
    for pair, given in zip(drawn.boundary, fields.values, strict=False):
        assert pair is not None
        assert given is not None
        for side, values in zip(pair, given, strict=True):
            assert torch.equal(values[1, channel][later], side[1, 2] / unit)
    assert torch.equal(by_time(fields.output, case), drawn.output), "the unit is a power of two"
    part = fields.take(torch.tensor([2, 0]))
    assert len(part) == 2
    assert torch.equal(part.input, fields.input[[2, 0]])
    assert part.values[0] is not None
    assert fields.values[0] is not None
    assert torch.equal(part.values[0][1], fields.values[0][1][[2, 0]])
