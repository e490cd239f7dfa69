"""Stored samples of the boundary-condition problems: complete, repeatable, and rebuilt when damaged."""

import json
from pathlib import Path

import h5py
import pytest
import torch

from experiments import boundary_data
from experiments.boundary_data import BoundaryDataConfig, boundary_samples
from experiments.errors import InvalidArgumentError
from solvers import Dirichlet
from solvers.problems.boundary_problems import BOUNDARY_PROBLEMS, stokes
from solvers.problems.boundary_samples import BoundaryProblem, BoundarySamples, Uniform

CONFIG = BoundaryDataConfig(samples=3, nodes=9, times=2, seed=4)


def assert_equal(a: BoundarySamples, b: BoundarySamples) -> None:
    assert (a.grid, len(a.boundary)) == (b.grid, len(b.boundary))
    for name in ("times", "input", "output"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    for first, second in zip(a.boundary, b.boundary, strict=True):
        assert (first is None) == (second is None)
        for one, other in zip(first or (), second or (), strict=True):
            assert torch.equal(one, other)
    assert a.parameters.keys() == b.parameters.keys()
    assert all(torch.equal(values, b.parameters[name]) for name, values in a.parameters.items())


@pytest.mark.parametrize("problem", BOUNDARY_PROBLEMS.values(), ids=lambda problem: problem.name)
def test_stored_samples_are_those_of_the_problem(
    problem: BoundaryProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = boundary_samples(problem, CONFIG, tmp_path)
    fresh = problem.sample(3, 9, problem.multi_step(2), torch.Generator().manual_seed(4))
    assert torch.equal(built.output, fresh.output.float())
    assert torch.equal(built.input, fresh.input.float())
    for axis, pair in enumerate(problem.conditions):
        values = built.boundary[axis]
        if isinstance(pair[0], Dirichlet):
            assert values is not None
            assert torch.equal(values[1], built.output.select(2 + axis, -1))

    def refuse(*_: object) -> None:
        raise AssertionError("the file was there")

    monkeypatch.setattr(boundary_data, "_build", refuse)
    assert_equal(boundary_samples(problem, CONFIG, tmp_path), built)


def test_a_file_says_what_it_holds(tmp_path: Path) -> None:
    boundary_samples(BOUNDARY_PROBLEMS["cavity"], CONFIG, tmp_path)
    (path,) = tmp_path.glob("*.h5")
    with h5py.File(path) as file:
        attributes = dict(file.attrs)
        assert set(file) == {
            *("input", "output", "times", "parameter_lid_speed"),
            *(f"boundary_{axis}_{side}" for axis in (0, 1) for side in ("first", "last")),
        }
    assert attributes["location"] == "node"
    assert attributes["axes"] == "sample, t, x, y"
    assert attributes["units"] == "dimensionless"
    assert attributes["boundary_1_last"] == "Dirichlet"
    assert attributes["reconstructed"] == "range of the lid speed"
    assert path.stem == f"cavity-{attributes['config_hash']}"
    config = json.loads(attributes["config"])
    assert config["config"]["seed"] == 4
    assert config["parameters"][0]["distribution"] == {"type": "Uniform", "low": 1.0, "high": 1.5}


def test_a_damaged_file_is_noticed_and_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = boundary_samples(stokes(), CONFIG, tmp_path)
    (path,) = tmp_path.glob("*.h5")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert_equal(boundary_samples(stokes(), CONFIG, tmp_path), built)
    assert f"{path.name}' is damaged" in capsys.readouterr().err
    assert path.read_bytes() != bytes(content)
    boundary_samples(stokes(), CONFIG, tmp_path)
    assert capsys.readouterr().err == ""


def test_whatever_decides_the_samples_makes_another_file(tmp_path: Path) -> None:
    elsewhere = stokes().with_distribution("frequency", Uniform(4.0, 5.0))
    for problem, changes in (
        (stokes(), {}),
        (stokes(), {"seed": 5}),
        (stokes(), {"times": 1}),
        (stokes(), {"final_time": 1.0}),
        (stokes(0.1), {}),
        (elsewhere, {}),
    ):
        config = BoundaryDataConfig(**({"samples": 3, "nodes": 9, "times": 2, "seed": 4} | changes))
        boundary_samples(problem, config, tmp_path)
    assert len(list(tmp_path.glob("*.h5"))) == 6


def test_groups_do_not_change_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = boundary_samples(BOUNDARY_PROBLEMS["heat_independent"], CONFIG, tmp_path / "whole")
    monkeypatch.setattr(boundary_data, "_GROUP", 2)
    groups = boundary_samples(BOUNDARY_PROBLEMS["heat_independent"], CONFIG, tmp_path / "groups")
    assert_equal(whole, groups)


def test_versions_have_their_output_times() -> None:
    problem = BOUNDARY_PROBLEMS["heat_neumann"]
    assert BoundaryDataConfig(times=1).output_times(problem).tolist() == [0.5]
    assert BoundaryDataConfig(times=25, final_time=2.0).output_times(problem)[-1].item() == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"nodes": 4}, "nodes must be at least 5"),
        ({"final_time": 0.0}, "final_time must be positive"),
    ],
)
def test_impossible_configs_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        BoundaryDataConfig(**change)
