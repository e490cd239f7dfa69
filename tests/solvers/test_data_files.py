"""Data files: what was written is read back, and by the loaders of others; damage, wrong input."""

import contextlib
import importlib.util
import io
import json

import h5py
import numpy as np
import pytest
import torch

from solvers import (
    CellGrid,
    Diffusion,
    Dirichlet,
    Neumann,
    NodeGrid,
    Outflow,
    Periodic,
    Reflecting,
    ShallowWater,
    solve,
    solve_steady,
    solve_system,
)
from solvers.data_files.field_set import FieldSet, collect
from solvers.data_files.files import PDEBench, TheWell, export, load
from solvers.errors import DataFileError, InvalidArgumentError, MissingFileError

LAYOUTS = [PDEBench, TheWell]


def example(d=2, samples=3, steps=5, **changes):
    """Random numbers that 32 bits hold, in every category."""
    generator = torch.Generator().manual_seed(d)
    counts = (6, 5, 4)[:d]

    def numbers(*shape):
        return torch.randn(shape, generator=generator).to(torch.float64)

    return FieldSet(
        **{
            "grid": CellGrid((0.0, -1.0, 2.0)[:d], (1.0, 1.0, 7.0)[:d], counts),
            "times": torch.linspace(0, 1, steps, dtype=torch.float64),
            "fields": {"h": numbers(samples, steps, *counts)},
            "coefficients": {"conductivity": numbers(samples, *counts), "bottom": numbers(samples, *counts)},
            "parameters": {"gravity": numbers(samples)},
            "extras": {"left": numbers(samples, 7, 2)},
            "boundary": (("Periodic", "Periodic"), ("Dirichlet", "Outflow"), ("Neumann", "Neumann"))[:d],
            "equation": "u_t = Δu, ∇·(k∇u) = s",
            "seed": 7,
        }
        | changes
    )


def assert_same(first, second):
    assert first.grid == second.grid
    assert torch.equal(first.times, second.times)
    for category in ("fields", "vectors", "coefficients", "parameters", "extras"):
        left, right = getattr(first, category), getattr(second, category)
        assert set(left) == set(right)
        assert all(torch.equal(left[name], right[name]) for name in left)
    for name in ("boundary", "equation", "seed", "versions"):
        assert getattr(first, name) == getattr(second, name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_file_read_back_is_what_was_written(layout, d, tmp_path):
    data = example(d)
    export(data, tmp_path / "a.h5", layout())
    assert_same(data, load(tmp_path / "a.h5"))
    exact = example(d, fields={"h": data.fields["h"] / 3})
    export(exact, tmp_path / "a.h5", layout(precision=torch.float64))
    assert_same(exact, load(tmp_path / "a.h5"))
    assert [item.name for item in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").stat().st_mode & 0o777 == 0o644


def test_solutions_of_every_kind_are_collected(tmp_path):
    grid = CellGrid(0.0, 1.0, 10)
    moving = solve(Diffusion(torch.tensor([0.1, 0.2])), grid, (Dirichlet(1.0), Neumann(flux=0.0)), 0.0, [0.1, 0.2])
    data = collect(moving, parameters={"k": torch.tensor([0.1, 0.2])}, equation="u_t = k u_xx", seed=3)
    assert torch.equal(data.fields["u"], moving.values)
    k = torch.rand(2, 10, dtype=torch.float64)
    assert torch.equal(collect(moving, coefficients={"k": k}).coefficients["k"], k)
    with pytest.raises(InvalidArgumentError, match=r"coefficients 'k' must have shape \(2, 10\), got \(10,\)"):
        collect(moving, coefficients={"k": k[0]})
    export(moving, tmp_path / "moving.h5", PDEBench(precision=torch.float64))
    assert torch.equal(load(tmp_path / "moving.h5").fields["u"], moving.values)
    square = CellGrid((0.0, 0.0), (1.0, 1.0), (4, 3))
    k = 1 + torch.rand((2, 3, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    still = solve_steady(k, square, [(Dirichlet(1.0), Dirichlet(0.0)), (Periodic(), Periodic())])
    data = collect(still)
    assert data.fields["u"].shape == (6, 1, 4, 3)
    assert torch.equal(data.coefficients["conductivity"], k.reshape(6, 4, 3))
    assert data.boundary == (("Dirichlet", "Dirichlet"), ("Periodic", "Periodic"))
    with pytest.raises(InvalidArgumentError, match="one entry per unknown, 1"):
        collect(still, names=("h", "hu"))
    with pytest.raises(InvalidArgumentError, match=r"must have the batch's shape \(2, 3\)"):
        collect(still, parameters={"k": torch.zeros(6)})
    with pytest.raises(InvalidArgumentError, match="parameter 'k' must be real"):
        collect(still, parameters={"k": torch.zeros((2, 3), dtype=torch.complex64)})


def test_conditions_of_a_set_are_those_that_its_solver_takes():
    grid = CellGrid(0.0, 1.0, 4)
    solution = solve(Diffusion(0.1), grid, (Dirichlet(0.0), Neumann(flux=0.0)), 0.0, [0.1])
    for boundary in ((Dirichlet(0.0), Neumann(flux=0.0)), [(Dirichlet(0.0), Neumann(flux=0.0))]):
        assert collect(solution, boundary=boundary).boundary == (("Dirichlet", "Neumann"),)
    assert collect(solution, boundary=()).boundary == collect(solution).boundary == ()
    with pytest.raises(InvalidArgumentError, match=r"must be a \(first, last\) pair of Dirichlet, Neumann"):
        collect(solution, boundary=(Reflecting(), Reflecting()))
    with pytest.raises(InvalidArgumentError, match="each of 1 axes"):
        collect(solution, boundary=[(Dirichlet(0.0), Dirichlet(0.0))] * 2)
    still = torch.tensor([[1.0], [0.0]])
    basin = solve_system(ShallowWater(1.0), grid, (Reflecting(), Outflow()), still, [0.1])
    data = collect(basin, names=("h", "hu"), boundary=(Reflecting(), Outflow()))
    assert data.boundary == (("Reflecting", "Outflow"),)


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_a_seed_may_be_any_integer(seed, tmp_path):
    export(example(1, seed=seed), tmp_path / "a.h5")
    read = load(tmp_path / "a.h5").seed
    assert (type(read), read) == (int, 3)


def test_an_unknown_is_not_dropped_for_a_name_that_occurs_twice():
    grid = CellGrid(0.0, 1.0, 4)
    initial = torch.stack([1 + grid.points, torch.zeros_like(grid.points)])
    waves = solve_system(ShallowWater(1.0), grid, (Periodic(), Periodic()), initial, [0.01])
    with pytest.raises(InvalidArgumentError, match=r"Names must be distinct identifiers .* got \('h', 'h'\)"):
        collect(waves, names=("h", "h"))


@pytest.mark.long
def test_unknowns_of_a_system_become_fields():
    grid = CellGrid(0.0, 1.0, 8)
    initial = torch.stack([1 + grid.points, torch.zeros_like(grid.points)])
    waves = solve_system(ShallowWater(1.0), grid, (Periodic(), Periodic()), initial, [0.01, 0.02])
    data = collect(waves, names=("h", "hu"))
    assert data.fields["h"].shape == (1, 2, 8)
    assert torch.equal(data.fields["hu"][0], waves.values[:, 1])


def test_the_layout_of_pdebench_is_as_its_loader_reads_it(tmp_path):
    """Its FNODatasetSingle takes tensor (b, t, x) and the coordinates; for Darcy flow tensor (b, 1, x, y) and nu."""
    data = example(1)
    export(data, tmp_path / "line.h5", PDEBench())
    with h5py.File(tmp_path / "line.h5") as file:
        assert file["tensor"].shape == (3, 5, 6)
        assert file["tensor"].dtype == np.float32
        np.testing.assert_array_equal(file["x-coordinate"], data.grid.axes[0].numpy().astype(np.float32))
        assert file["t-coordinate"].shape == (5,)
        assert file.attrs["equation"] == data.equation
        assert json.loads(file.attrs["boundary"]) == [["Periodic", "Periodic"]]
        assert file.attrs["seed"] == 7
        assert "torch" in json.loads(file.attrs["versions"])
    square = CellGrid((0.0, 0.0), (1.0, 1.0), (4, 3))
    k = torch.tensor([1.0, 2.0], dtype=torch.float64)[:, None, None]
    export(solve_steady(k, square, [(Dirichlet(1.0), Dirichlet(0.0))] * 2), tmp_path / "darcy.h5")
    with h5py.File(tmp_path / "darcy.h5") as file:
        assert file["tensor"].shape == (2, 1, 4, 3)
        assert file["nu"].shape == (2, 4, 3)
        assert file["y-coordinate"].shape == (3,)


@pytest.mark.skipif(importlib.util.find_spec("the_well") is None, reason="the_well is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_loader_of_the_well_reads_fields_grid_and_sides(tmp_path):
    from the_well.data import WellDataset

    vectors = {"velocity": torch.arange(3 * 5 * 6 * 5 * 2, dtype=torch.float64).reshape(3, 5, 6, 5, 2)}
    data = example(2, vectors=vectors)
    export(data, tmp_path / "part.hdf5", TheWell(name="basin"))
    well = WellDataset(path=str(tmp_path), n_steps_input=2, n_steps_output=1, use_normalization=False, return_grid=True)
    assert len(well) == 3 * 3
    assert well.metadata.dataset_name == "basin"
    assert well.metadata.field_names[1] == ["velocity_x", "velocity_y"]
    first, later = well[0], well[4]  # sample 1 from time 1
    torch.testing.assert_close(first["input_fields"][..., 0], data.fields["h"][0, :2].float())
    torch.testing.assert_close(later["output_fields"][0, ..., 0], data.fields["h"][1, 3].float())
    torch.testing.assert_close(later["output_fields"][0, ..., 1:], vectors["velocity"][1, 3].float())
    torch.testing.assert_close(later["constant_fields"][..., 1], data.coefficients["bottom"][1].float())
    torch.testing.assert_close(later["constant_scalars"], data.parameters["gravity"][1:2].float())
    torch.testing.assert_close(first["space_grid"], data.grid.points.float())
    assert first["boundary_conditions"].tolist() == [[2.0, 2.0], [0.0, 1.0]]  # periodic, wall and open


@pytest.mark.skipif(
    importlib.util.find_spec("the_well") is None or importlib.util.find_spec("neuralop") is None,
    reason="neuraloperator or the_well is not installed",
)
@pytest.mark.filterwarnings("ignore")
def test_the_loader_of_neuraloperator_reads_a_set(tmp_path):
    """Its TheWellDataset wants folders train and test beside a file of means and deviations."""
    from neuralop.data.datasets.the_well_dataset import TheWellDataset

    folder = tmp_path / "datasets" / "basin" / "data"
    data = example(2, coefficients={})
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        export(data, folder / split / "part.hdf5", TheWell(name="basin"))
    (folder.parent / "stats.yaml").write_text(json.dumps({"mean": {"h": 0.0}, "std": {"h": 1.0}}))
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = TheWellDataset(tmp_path, "basin", download=False)
    sample = loaded.train_db[5]  # four steps per sample: sample 1 from time 1
    torch.testing.assert_close(sample["input_fields"][0, ..., 0], data.fields["h"][1, 1].float())
    torch.testing.assert_close(sample["output_fields"][0, ..., 0], data.fields["h"][1, 2].float())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_changed_byte_is_found_and_the_file_named(layout, tmp_path):
    """In the numbers, in the text, and the end of the file."""
    data = example(1)
    path = tmp_path / "a.h5"
    export(data, path, layout())
    content = path.read_bytes()
    numbers = data.fields["h"][1].float().numpy().tobytes()
    place = content.index(numbers) + 5
    path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])
    with pytest.raises(DataFileError, match=r"a\.h5 is damaged"):
        load(path)
    place = content.index(b'"seed": 7') + 8
    path.write_bytes(content[:place] + b"8" + content[place + 1 :])
    with pytest.raises(DataFileError, match=r"a\.h5 is damaged \(its text"):
        load(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFileError, match=r"a\.h5 is damaged"):
        load(path)


def test_a_failed_export_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.h5"
    export(example(1), path)
    before = path.read_bytes()
    with pytest.raises(InvalidArgumentError, match="does not fit float32"):
        export(example(1, parameters={"p": torch.full((3,), 1e300, dtype=torch.float64)}), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.h5"]


def test_files_of_others_and_missing_files_are_named(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["tensor"] = np.zeros(3)
    with pytest.raises(DataFileError, match=r"b\.h5 .*not written by export"):
        load(tmp_path / "b.h5")
    with pytest.raises(MissingFileError, match=r"no file .*c\.h5"):
        load(tmp_path / "c.h5")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"fields": {}}, "at least one array"),
        ({"fields": {"h": torch.zeros(3, 4, 6)}}, r"fields 'h' must have shape \(3, 5, 6\)"),
        ({"fields": {"h": torch.full((3, 5, 6), float("nan"))}}, "'h' is not finite"),
        ({"fields": {"h": torch.zeros(3, 5, 6, dtype=torch.complex64)}}, "fields 'h' must be real"),
        ({"parameters": {"h": torch.zeros(3)}}, "distinct identifiers"),
        ({"parameters": {"a/b": torch.zeros(3)}}, "distinct identifiers"),
        ({"parameters": {"a": torch.zeros(2)}}, r"must have shape \(3,\)"),
        ({"times": torch.tensor([0.0, 1.0, 1.0, 2.0, 3.0])}, "increasing"),
        ({"times": torch.tensor([0.0, 1.0, 2.0, 3.0, float("nan")])}, r"times must be finite .* got \[0.0, .* nan\]"),
        ({"times": torch.full((1,), float("nan"))}, "times must be finite and increasing"),
        ({"times": [0.0, 1.0, 2.0, 3.0, 4.0]}, r"times must be a tensor \(t,\), got list; see torch.as_tensor"),
        ({"times": torch.tensor(1.0)}, r"times must be a tensor \(t,\), got shape \(\)"),
        ({"fields": {"h": np.zeros((3, 5, 6))}}, r"fields 'h' must be a tensor \(b, …\), got ndarray; see torch.as_"),
        ({"fields": {"h": torch.tensor(1.0)}}, r"fields 'h' must start with the samples, .* got shape \(\)"),
        ({"extras": {"left": [1.0, 2.0, 3.0]}}, "extras 'left' must be a tensor .* got list"),
        ({"boundary": ((Outflow(), Outflow()),) * 2}, "one pair of kinds for each of 1 axes"),
        ({"boundary": ((Outflow(), Outflow()),)}, "such as .'Dirichlet', 'Neumann'., .* collect makes them"),
        ({"boundary": (Outflow(),)}, "one pair of kinds for each of 1 axes"),
        ({"boundary": (("Outflow",),)}, "one pair of kinds for each of 1 axes"),
        ({"seed": 3.0}, "seed must be an integer or None, got 3.0"),
        ({"seed": "3"}, "seed must be an integer or None, got '3'"),
    ],
)
def test_wrong_sets_are_refused(changes, text):
    with pytest.raises(InvalidArgumentError, match=text):
        example(1, **changes)


def test_wrong_exports_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(InvalidArgumentError, match="must be a FieldSet"):
        export(torch.zeros(3), path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidArgumentError, match=r"must be PDEBench\(\) or TheWell\(\)"):
        export(example(1), path, "the_well")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidArgumentError, match="PDEBench has no vector fields"):
        export(example(1, vectors={"v": torch.zeros(3, 5, 6, 1)}), path, PDEBench())
    with pytest.raises(InvalidArgumentError, match="rename it"):
        export(example(1, parameters={"tensor": torch.zeros(3)}), path, PDEBench())
    with pytest.raises(InvalidArgumentError, match="precision must be"):
        TheWell(precision=torch.float16)
    four = NodeGrid((0.0,) * 4, (1.0,) * 4, (2,) * 4)
    wide = FieldSet(grid=four, times=torch.zeros(1), fields={"u": torch.zeros(1, 1, 2, 2, 2, 2)})
    with pytest.raises(InvalidArgumentError, match="up to 3 axes"):
        export(wide, path)
    assert not path.exists()
