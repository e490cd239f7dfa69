"""A user's file is read whole, or refused with the place of the fault."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from experiments.errors import DataFileError
from experiments.observations import read_observations


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_csv_columns_come_back(tmp_path: Path) -> None:
    data = read_observations(write_csv(tmp_path / "a.csv", "t, x,u,inflow", "0,0.5,1,3", "0,1,2,3", "1,0,-1e-3,4"))
    np.testing.assert_array_equal(data.points, [[0, 0.5], [0, 1], [1, 0]])
    np.testing.assert_array_equal(data.columns["u"], [1, 2, -1e-3])
    times, fluxes = data.series("inflow")
    np.testing.assert_array_equal(times, [0, 1])
    np.testing.assert_array_equal(fluxes, [3, 4])


def test_csv_as_a_spreadsheet_writes_it_is_read(tmp_path: Path) -> None:
    """With a byte-order mark at the start and an empty line at the end."""
    (tmp_path / "a.csv").write_text("t,x,u\n0,0,1\n0,1,2\n\n", encoding="utf-8-sig")
    np.testing.assert_array_equal(read_observations(tmp_path / "a.csv").columns["u"], [1, 2])


def test_scalars_and_texts_in_hdf5_are_passed_over(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update({"t": [0.0, 1.0], "x": [0.0, 1.0], "u": [1.0, 2.0], "diffusivity": 1.0, "note": "sensor 3"})
    assert list(read_observations(tmp_path / "a.h5").columns) == ["t", "u", "x"]


def test_hdf5_product_grid_is_flattened(tmp_path: Path) -> None:
    field = np.arange(6.0).reshape(2, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update({"t": [0.0, 1.0], "x": [0.0, 0.5, 1.0], "u": field, "inflow": [5.0, 6.0]})
    data = read_observations(tmp_path / "a.h5")
    np.testing.assert_array_equal(data.points[4], [1.0, 0.5])
    assert data.columns["u"][4] == field[1, 1]
    np.testing.assert_array_equal(data.series("inflow")[1], [5.0, 6.0])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["t,x,u", "0,0,1", "0,one,2"], r"line 3: needs 3 numbers \(t, x, u\), got '0,one,2'"),
        (["t,x,u", "0,0,1", "0,1"], r"line 3: needs 3 numbers"),
        (["t,x,u", "0,0,1", "0,1,nan"], r"column u holds NaN or infinity in 1 rows, first in data row 2"),
        (["t,x", "0,0", "0,1"], r"lacks the column u; it needs t, x and u and has t, x"),
        (["t,x,u", "0,0,1"], r"at least 2 rows"),
        (["t,x,u,u", "0,0,1,9", "0,1,2,9"], r"column names must be different and not empty, got t, x, u, u"),
    ],
)
def test_faulty_csv_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataFileError, match=message):
        read_observations(write_csv(tmp_path / "a.csv", *lines))


def test_empty_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataFileError, match="is empty; it needs a header line"):
        read_observations(tmp_path / "a.csv")


def test_damaged_hdf5_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.update({"t": np.zeros(9), "x": np.arange(9.0), "u": np.ones(9)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataFileError, match=r"a\.h5' is damaged or no HDF5 file"):
        read_observations(path)


def test_hdf5_that_is_no_product_grid_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update({"t": np.zeros(2), "x": np.zeros(4), "u": np.zeros((2, 3))})
    with pytest.raises(DataFileError, match=r"'x' \(4,\) does not fit u \(2, 3\)"):
        read_observations(tmp_path / "a.h5")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"must end in \.csv, \.h5 or \.hdf5"):
        read_observations(tmp_path / "a.txt")
    with pytest.raises(DataFileError, match="There is no file"):
        read_observations(tmp_path / "a.csv")


def test_fluxes_with_two_values_at_one_time_are_refused(tmp_path: Path) -> None:
    data = read_observations(write_csv(tmp_path / "a.csv", "t,x,u,inflow", "0,0,1,3", "0,1,2,4"))
    with pytest.raises(DataFileError, match="'inflow' has different values at one time"):
        data.series("inflow")
    with pytest.raises(DataFileError, match="no column 'outflow'; it has t, x, u, inflow"):
        data.series("outflow")
