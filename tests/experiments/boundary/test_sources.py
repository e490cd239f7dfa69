"""Samples of random problems."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.boundary.data import as_fields, by_time
from experiments.boundary.problems import PROBLEMS
from experiments.boundary.samples import CellSource, DataStore, RecipeSource, SampleConfig, averages
from experiments.errors import InvalidArgumentError
from solvers import Dirichlet, Neumann
from solvers.problems.operator_problems.samples import operator_samples
from tests.experiments.boundary.tiny import one

GROWTH = PROBLEMS["reaction_diffusion"].cases("smoke")[0].source
CONFIG = SampleConfig(samples=5, validation=2, nodes=17, times=2, final_time=0.2, seed=3)


@pytest.fixture
def store(tmp_path: Path) -> DataStore:
    return DataStore(folder=tmp_path, version=1)


def test_samples_are_those_of_the_recipe_with_the_validation_split_last(store: DataStore) -> None:
    built, problem = GROWTH.samples(CONFIG, store), GROWTH.on_grid(CONFIG)
    for rows, split in ((slice(3), "train"), (slice(3, None), "validation")):
        drawn = operator_samples(problem.sample(3 if split == "train" else 2, split=split, seed=3))  # type: ignore[arg-type]
        assert torch.equal(built.input[rows], drawn.inputs.float())
        assert torch.equal(built.output[rows], drawn.outputs.float())
        ((left, right),) = built.values
        assert torch.equal(left[rows], drawn.boundary[0][0].float())
        assert torch.equal(right[rows], drawn.boundary[0][1].float())
    assert torch.equal(built.values[0][0], built.output[..., 0]), "the node holds its value in float32 as well"
    assert built.times.tolist() == [0.1, 0.2]
    assert GROWTH.conditions == (((Dirichlet(), Neumann()),),)


def test_sets_of_any_size_share_their_files_and_test_samples_are_others(store: DataStore) -> None:
    many = GROWTH.samples(replace(CONFIG, samples=25, validation=2), store)
    files = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.safetensors")}
    assert len(files) == 3, "20, 3 and 2 samples"
    fewer = GROWTH.samples(replace(CONFIG, samples=22, validation=2), store)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert len(list(store.folder.rglob("*.safetensors"))) == 3
    assert torch.equal(fewer.output[:20], many.output[:20])
    assert torch.equal(fewer.output[20:], many.output[-2:])
    test = GROWTH.samples(replace(CONFIG, samples=2, validation=0, split="test"), store)
    assert not torch.equal(test.output, many.output[:2])
    alone = GROWTH.samples(replace(CONFIG, samples=2), store)
    assert torch.equal(alone.output, many.output[-2:])


def test_samples_on_other_grids_are_the_same_functions(store: DataStore) -> None:
    """Inputs to rounding, outputs to a few times the error of 128 cells."""
    usual, coarse, beside = (GROWTH.samples(replace(CONFIG, nodes=nodes), store) for nodes in (33, 17, 34))
    assert GROWTH.on_grid(replace(CONFIG, nodes=17)).recipe.refinement == 8
    assert torch.allclose(usual.input[..., ::2], coarse.input, atol=1e-6)
    assert torch.allclose(usual.output[..., ::2], coarse.output, atol=2e-3)
    assert torch.allclose(usual.input[..., 0], beside.input[..., 0], atol=1e-6)
    assert torch.allclose(usual.output[..., -1], beside.output[..., -1], atol=2e-2)


@pytest.mark.long
def test_several_processes_make_the_same_samples(store: DataStore, tmp_path: Path) -> None:
    alone = GROWTH.samples(replace(CONFIG, nodes=9), store)
    joined = GROWTH.samples(replace(CONFIG, nodes=9), DataStore(folder=tmp_path / "other", version=1, jobs=2))
    assert torch.equal(alone.output, joined.output)


def test_a_steady_problem_has_one_output() -> None:
    darcy = PROBLEMS["darcy"].cases("smoke")[0].source
    assert darcy.times(SampleConfig(times=1)).tolist() == [0.0]
    with pytest.raises(InvalidArgumentError, match="darcy is steady and has no 3 times"):
        darcy.on_grid(SampleConfig(times=3))


def test_the_basin_gives_deviations_from_rest_that_meet_the_walls(store: DataStore) -> None:
    case = one("basin", "single")
    assert isinstance(case.source, RecipeSource)
    config = case.test_data(0)
    drawn = case.source.samples(config, store)
    raw = operator_samples(case.source.on_grid(config).sample(config.samples, split="test"))
    assert torch.allclose(drawn.input[:, 0] + 1.0, raw.inputs[:, 0].float(), atol=1e-7)
    assert torch.allclose(drawn.output[:, :, 0] + 1.0, raw.outputs[:, :, 0].float(), atol=1e-7)
    assert drawn.values == ((None, None), (None, None))
    momentum_x, momentum_y = drawn.output[:, 0, 1], drawn.output[:, 0, 2]
    assert not momentum_x[:, [0, -1]].any()
    assert not momentum_y[..., [0, -1]].any()
    assert momentum_x.abs().max() > 1e-3
    fields = as_fields(drawn, case)
    assert fields.output.shape == (3, 3, 9, 9)
    assert torch.equal(by_time(fields.output, case), drawn.output)


def test_averages_over_cells_of_cubics_are_exact() -> None:
    """Simpson's rule on (0, 1/4), … of x³ (1 − y) is the integral up to rounding."""
    x = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    primitives = x**4 / 4, x - x**2 / 2
    along_x, along_y = (4.0 * primitive[::2].diff() for primitive in primitives)
    u = (x**3)[:, None] * (1.0 - x)
    torch.testing.assert_close(averages(u, 2), along_x[:, None] * along_y, rtol=1e-14, atol=1e-15)


def test_cells_are_averages_of_nodes_also_along_the_sides(store: DataStore) -> None:
    case = one("darcy", "single-cells")
    assert isinstance(case.source, CellSource)
    config = replace(case.test_data(0), nodes=8)
    cells = case.source.samples(config, store)
    nodes = case.source.nodes.samples(replace(config, nodes=17), store)
    assert cells.output.shape == (3, 1, 1, 8, 8)
    assert torch.equal(cells.output, averages(nodes.output, 2))
    assert torch.equal(cells.input, averages(nodes.input, 2))
    for side, fine in zip(sum(cells.values, ()), sum(nodes.values, ()), strict=True):  # type: ignore[arg-type]
        assert torch.equal(side, averages(fine, 1))
    assert case.source.describe(config) != case.source.nodes.describe(replace(config, nodes=17))
