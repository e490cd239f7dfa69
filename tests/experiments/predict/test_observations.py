"""A user's file is read, or refused with the position of the fault."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from experiments.errors import DataFileError
from experiments.predict import read_observations


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_csv_columns_come_back(tmp_path: Path) -> None:
    data = read_observations(write_csv(tmp_path / "a.csv", "t, x,u,q", "0,0.5,1,3", "0,1,2,3", "1,0,-1e-3,4"), ["q"])
    np.testing.assert_array_equal(data.points, [[0, 0.5], [0, 1], [1, 0]])
    np.testing.assert_array_equal(data.columns["u"], [1, 2, -1e-3])
    times, fluxes = data.series("q")
    np.testing.assert_array_equal(times, [0, 1])
    np.testing.assert_array_equal(fluxes, [3, 4])


def test_csv_as_a_spreadsheet_writes_it_is_read(tmp_path: Path) -> None:
    """With a byte-order mark at the start and an empty line at the end."""
    (tmp_path / "a.csv").write_text("t,x,u\n0,0,1\n0,1,2\n\n", encoding="utf-8-sig")
    np.testing.assert_array_equal(read_observations(tmp_path / "a.csv").columns["u"], [1, 2])


@pytest.mark.parametrize("separator", [";", "\t"])
def test_numbers_have_decimal_commas_where_columns_have_other_separators(tmp_path: Path, separator: str) -> None:
    lines = [separator.join(cells) for cells in (("t", "x", "u"), ("0", "0,5", "-1,5e-3"), ("0,1", "1", "2.5"))]
    columns = read_observations(write_csv(tmp_path / "a.csv", *lines)).columns
    assert [columns[name].tolist() for name in "txu"] == [[0.0, 0.1], [0.5, 1.0], [-1.5e-3, 2.5]]


def test_columns_may_have_other_names_and_rows_without_a_number_be_left_out(tmp_path: Path) -> None:
    names = {"t": "time", "u": "T"}
    table = write_csv(tmp_path / "a.csv", "time,x,T,q", "0,0,1,3", "0,1,,3", "1,0,nan,4", "1,1,2,", "1,2,5,4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        u = np.array([[1.0, np.nan, 7.0], [np.inf, 2.0, 5.0]])
        file.update({"time": [0.0, 1.0], "x": [0.0, 1.0, 2.0], "T": u, "q": [3.0, np.nan]})
    for path, fields, left_out in ((table, [1.0, 5.0], 3), (tmp_path / "a.h5", [1.0, 7.0], 4)):
        data = read_observations(path, ["q"], names, skip_missing=True)
        assert data.columns["u"].tolist() == fields
        assert data.left_out == left_out
        with pytest.raises(DataFileError, match="column T holds no number"):
            read_observations(path, ["q"], names)


def test_columns_that_are_not_needed_may_hold_anything(tmp_path: Path) -> None:
    """As pandas writes a table: with an unnamed index; and a text, a gap and a name twice."""
    data = read_observations(write_csv(tmp_path / "a.csv", ",t,x,u,note,note", "0,0,0,1,cold,nan", "1,0,1,2,,"))
    assert list(data.columns) == ["t", "x", "u"]
    assert data.unused == ("(no name)", "note")


def test_scalars_and_texts_in_hdf5_are_passed_over(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update({"t": [0.0, 1.0], "x": [0.0, 1.0], "u": [1.0, 2.0], "k": 1.0, "note": "sensor 3", "p": np.ones(5)})
    data = read_observations(tmp_path / "a.h5")
    assert list(data.columns) == ["t", "x", "u"]
    assert data.unused == ("p",)


def test_hdf5_grids_are_flattened(tmp_path: Path) -> None:
    """Arrays of meshgrid in either order of the axes, their axes, or both; fluxes of their shape or along t."""
    times, places = np.array([0.0, 1.0]), np.array([0.0, 0.5, 1.0])
    for indexing in ("ij", "xy"):
        t, x = np.meshgrid(times, places, indexing=indexing)  # type: ignore[call-overload]
        u = 10 * t + x
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.update({"t": t, "x": x, "u": u, "inflow": 5 + t})
        data = read_observations(tmp_path / "a.h5", ["inflow"])
        np.testing.assert_array_equal(data.columns["u"], 10 * data.columns["t"] + data.columns["x"])
        np.testing.assert_array_equal(data.series("inflow")[1], [5.0, 6.0])
    t, x = np.meshgrid(times, places, indexing="ij")
    for first in (t, times):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.update({"t": first, "x": places, "u": 10 * t + x, "inflow": [5.0, 6.0]})
        mixed = read_observations(tmp_path / "a.h5", ["inflow"])
        np.testing.assert_array_equal(mixed.columns["u"], 10 * mixed.columns["t"] + mixed.columns["x"])
        np.testing.assert_array_equal(mixed.series("inflow")[1], [5.0, 6.0])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["t,x,u", "0,0,1", "0,one,2"], r"line 3: needs 3 cells with numbers in t, x, u, got '0,one,2'"),
        (["t,x,u", "0,0,1", "0,1"], r"line 3: needs 3 cells"),
        (
            ["t,x,u", "0,0,1", "0,1,nan"],
            r"column u holds no number, NaN or infinity in 1 rows, first in data row 2; .* --skip",
        ),
        (["t,x,u", "0,0,1", "0,,2"], r"column x holds no number, NaN or infinity in 1 rows"),
        (["t,x,u", "0,0,5,1", "0,1,2"], r"line 2: needs 3 cells .* Decimal commas need semicolons or tabs between"),
        (["t,x", "0,0", "0,1"], r"lacks the column u, which is required; --columns u=NAME says .*; it has t, x\.$"),
        (["t x u", "0 0 1"], r"lacks the column t, .* it has t x u\.$"),
        (["t,x,u", "0,0,1"], r"at least 2 rows"),
        (["t,x,u,u", "0,0,1,9", "0,1,2,9"], r"has more than one column u, which is required; .* it has t, x, u\.$"),
        ([], r"is empty; it needs a header line"),
    ],
)
def test_faulty_csv_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataFileError, match=message):
        read_observations(write_csv(tmp_path / "a.csv", *lines))


def test_invalid_arguments_raise_with_reason(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("run").update({"t": [0.0, 1.0], "x": [0.0, 1.0], "u": [1.0, 2.0]})
    with pytest.raises(DataFileError, match=r"lacks the column t, which is required; .*; it has none\.$"):
        read_observations(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update({"t": np.zeros(2), "x": np.zeros(4), "u": np.zeros((2, 3))})
    with pytest.raises(DataFileError, match=r"'x' \(4,\) does not fit u \(2, 3\)"):
        read_observations(tmp_path / "a.h5")
    with pytest.raises(DataFileError, match=r"must end in \.csv, \.h5 or \.hdf5"):
        read_observations(tmp_path / "a.txt")
    with pytest.raises(DataFileError, match="There is no file"):
        read_observations(tmp_path / "a.csv")
    path = write_csv(tmp_path / "a.csv", "t,x,u,inflow", "0,0,1,3", "0,1,2,4")
    with pytest.raises(DataFileError, match="'inflow' has different values at one time"):
        read_observations(path, ["inflow"]).series("inflow")
    with pytest.raises(
        DataFileError, match=r"column outflow, which --flux-left or --flux-right names .*; it has t, x, u"
    ):
        read_observations(path, ["outflow"])
