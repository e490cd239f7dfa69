"""Samples from recipes, and from the files of others."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.boundary.data import as_fields, by_time
from experiments.boundary.sources import DarcyFiles, DataStore, RecipeSource, SampleConfig
from experiments.boundary.versions import HARD, source_of
from experiments.errors import DataFileError, InvalidArgumentError, MissingFilesError
from solvers import Dirichlet, Neumann
from solvers.problems.operator_problems import operator_samples
from tests.experiments.boundary.tiny import one

GROWTH = source_of("reaction_diffusion", "smoke")
CONFIG = SampleConfig(samples=5, validation=2, nodes=17, times=2, final_time=0.2, seed=3)
SIZE = 4
"""Points along an axis of the files."""


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
    darcy = source_of("darcy", "smoke")
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


@pytest.fixture
def files(tmp_path: Path) -> tuple[DarcyFiles, DataStore]:
    """A set of random files in the format of neuraloperator's."""
    generator, checksums = torch.Generator().manual_seed(0), {}
    for name, count in (("darcy_train_4.pt", 6), ("darcy_test_4.pt", 3)):
        fields = {"x": torch.rand(count, SIZE, SIZE, generator=generator) > 0.5}
        fields["y"] = torch.randn(count, SIZE, SIZE, generator=generator)
        torch.save(fields, tmp_path / name)
        checksums[name] = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    return DarcyFiles(checksums=checksums), DataStore(folder=tmp_path, version=1, given=tmp_path)


def test_files_are_continued_to_the_last_walls(files: tuple[DarcyFiles, DataStore], tmp_path: Path) -> None:
    source, store = files
    samples = source.samples(SampleConfig(samples=4, validation=1, nodes=5, times=1), store)
    stored = torch.load(tmp_path / "darcy_train_4.pt", weights_only=True)
    rows = [0, 1, 2, 5]
    assert torch.equal(samples.output[:, 0, 0, :-1, :-1], stored["y"][rows])
    assert not samples.output[..., -1, :].any()
    assert not samples.output[..., :, -1].any()
    assert torch.equal(samples.input[:, 0, :-1, :-1], stored["x"][rows].float())
    assert torch.equal(samples.input[..., -1, :], samples.input[..., -2, :])
    assert source.conditions == (((Dirichlet(0.0),) * 2,) * 2,)


def test_files_that_are_missing_or_others_are_refused(files: tuple[DarcyFiles, DataStore], tmp_path: Path) -> None:
    source, store = files
    config = SampleConfig(samples=3, nodes=5, split="test")
    with pytest.raises(MissingFilesError, match=r"reads 'darcy_test_4.pt'.*give its folder as --files FOLDER"):
        source.samples(config, replace(store, given=None))
    with pytest.raises(DataFileError, match=r"cannot be read .*give its folder as --files FOLDER"):
        source.samples(config, replace(store, given=tmp_path / "elsewhere"))
    with pytest.raises(DataFileError, match=r"darcy_test_4.pt' has 3 samples, not 4"):
        source.samples(replace(config, samples=4), store)
    with pytest.raises(DataFileError, match=r"There is no 'darcy_test_8.pt' in this set"):
        source.samples(replace(config, nodes=9), store)
    (tmp_path / "darcy_test_4.pt").write_bytes((tmp_path / "darcy_train_4.pt").read_bytes())
    with pytest.raises(DataFileError, match="is damaged or another file"):
        source.samples(config, store)


def test_the_small_set_is_trained_on_16_points_and_tested_on_32_too() -> None:
    first, finer = HARD["darcy_small"]("laptop")
    assert (first.training_data(0).nodes, first.test_data(0).nodes, finer.test_data(0).nodes) == (17, 17, 33)
    assert finer.training_case == first
    assert first.training_data(0).samples == 1000
