"""Observations, cached arrays and stored results: the damaged and the hostile are refused by name, nothing is run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.errors import DataFileError
from experiments.predict import read_observations
from experiments.records.record import COLUMNS
from experiments.records.release import manifest
from experiments.records.storage import cached_arrays, read_arrays, read_object, write_arrays
from experiments.records.store import read_records, read_scores, scores_frame, write_scores
from solvers.tensor_files import encode_tensors
from tests.fuzz.damage import damaged, peak_growth, pickles

CSV = b"t,x,u,inflow\n0,0.5,1,3\n0,1,2,3\n1,0,-1e-3,4\n"


def attempt(read: Callable[[], Any]) -> Any:
    """What is read, or None where it is refused by the named error; any other exception is a failure."""
    try:
        return read()
    except DataFileError:
        return None


def observations_file(path: Path, **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name in ("t", "x", "u"):
            file.create_dataset(name, data=np.arange(9.0), **options)
    return path


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"chunks": (4,), "fletcher32": True}])
def test_damaged_observations_in_hdf5_are_refused_or_read(tmp_path: Path, options: dict[str, Any]) -> None:
    """Flipped bits may give other numbers: the format has no checksum of its own."""
    path = observations_file(tmp_path / "a.h5", **options)
    content = path.read_bytes()

    @settings(max_examples=3, deadline=None)
    @given(damaged(content))
    def check(other: bytes) -> None:
        path.write_bytes(other)
        attempt(lambda: read_observations(path))

    check()


def test_a_file_that_crashes_the_hdf5_library_is_refused(tmp_path: Path) -> None:
    """A chunk with a checksum that is said to be shorter than the checksum itself ends the process that reads it."""
    path = observations_file(tmp_path / "a.h5", chunks=(4,), fletcher32=True)
    length = (4 * 8 + 4).to_bytes(4, "little")  # of a chunk and its checksum, in the index of chunks
    assert path.read_bytes().count(length) >= 9
    path.write_bytes(path.read_bytes().replace(length, (1).to_bytes(4, "little")))
    with pytest.raises(DataFileError, match=r"a\.h5' is damaged or no HDF5 file of numbers \(the HDF5 library crashed"):
        read_observations(path)


def deflated_twice(file: h5py.File) -> None:
    """Two numbers in a chunk of half a gigabyte of ones, packed in a few kilobytes; only its description matters."""
    options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    options.set_chunk((2**26,))
    options.set_deflate(9)
    options.set_deflate(9)
    space = h5py.h5s.create_simple((2,), (h5py.h5s.UNLIMITED,))
    h5py.h5d.create(file.id, b"u", h5py.h5t.IEEE_F64LE, space, options)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2,), "f8")
    layout[:] = h5py.VirtualSource("secret.h5", "u", (2,))
    file.create_virtual_dataset("u", layout)


HOSTILE_HDF5: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external values": (
        lambda file: file.create_dataset("u", (2,), "f8", external=[("secret.bin", 0, 16)]),
        "link or has its values in another file",
    ),
    "external link": (lambda f: f.__setitem__("u", h5py.ExternalLink("secret.h5", "u")), "'u' is a link"),
    "soft link": (lambda file: file.__setitem__("u", h5py.SoftLink("/x")), "'u' is a link"),
    "soft link to nothing": (lambda file: file.__setitem__("u", h5py.SoftLink("/nothing")), "'u' is a link"),
    "virtual values": (virtual, "'u' is a link or has its values in another file"),
    "huge": (lambda file: file.create_dataset("u", (2**40,), "f8", chunks=(1000,)), "declares"),
    "huge field": (lambda file: file.create_dataset("u", (2**20, 2**20), "f8", chunks=(1000, 1)), "declares"),
    "huge chunk": (deflated_twice, "declares"),
    "texts": (lambda f: f.create_dataset("u", data=["a", "b"], dtype=h5py.string_dtype()), "lacks"),
    "references": (lambda file: file.create_dataset("u", data=[file["x"].ref] * 2, dtype=h5py.ref_dtype), "lacks"),
    "records": (lambda f: f.create_dataset("u", data=np.zeros(2, [("a", "f8")])), "lacks"),
    "dates": (
        lambda file: file.create_dataset("u", data=np.zeros(2, "M8[s]").astype(h5py.opaque_dtype("M8[s]"))),
        "lacks",
    ),
    "complex": (lambda file: file.create_dataset("u", data=[1j, 2.0]), "lacks"),
    "nothing": (lambda file: file.create_dataset("u", data=h5py.Empty("f8")), "lacks"),
    "a name that is no text": (lambda file: file.__setitem__(b"\xff\xfe", [1.0, 2.0]), "no HDF5 file of"),
}


@pytest.mark.parametrize(("make", "message"), HOSTILE_HDF5.values(), ids=HOSTILE_HDF5)
def test_hostile_hdf5_is_refused(tmp_path: Path, make: Callable[[h5py.File], object], message: str) -> None:
    (tmp_path / "secret.bin").write_bytes(np.ones(2).tobytes())
    observations_file(tmp_path / "secret.h5")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.update({"t": [0.0, 1.0], "x": [0.0, 1.0]})
        make(file)

    def read() -> None:
        with pytest.raises(DataFileError, match=message):
            read_observations(path)

    assert peak_growth(read) < 2**26


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    readers = {
        "a.h5": read_observations,
        "a.safetensors": read_arrays,
        "a.csv": read_observations,
        "a.json": read_object,
    }
    for content in pickles(marker).values():
        for name, read in readers.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataFileError):
                read(tmp_path / name)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update({"t": [0.0, 1.0], "x": [0.0, 1.0]})
        file.create_dataset("u", data=[np.void(content)] * 2)
    with pytest.raises(DataFileError, match="lacks the column u"):
        read_observations(tmp_path / "a.h5")
    assert not marker.exists()


@settings(max_examples=100, deadline=None)
@given(damaged(CSV))
def test_damaged_csv_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.csv"
    path.write_bytes(content)
    result = attempt(lambda: read_observations(path))
    assert result is None or all(np.isfinite(column).all() for column in result.columns.values())


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"t,x,u\n0,0," + b"9" * 200_000,
        b'"' * 200_001,
        b"t,x,u\n0,0,1\n0,1," + b"9" * 5000,
        b"t,x,u\n" + b"1," * 100_000,
        b"t,x,u\n\x00,0,0\n0,0,0",
        b",".join(b"c%d" % index for index in range(10_000)) + b"\n",
        b"t,x,u\n0,0,=cmd()\n0,1,2\n",
    ],
)
def test_hostile_csv_is_refused_in_a_few_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataFileError) as refused:
        read_observations(tmp_path / "a.csv")
    assert len(str(refused.value)) < 1000 + len(str(tmp_path))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_arrays_are_built_again(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """What comes back is what was stored, or was made again."""
    path = tmp_path_factory.getbasetemp() / "arrays.safetensors"
    stored = {"u": np.linspace(0.0, 1.0, 7)}
    write_arrays(path, stored)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    made = {"u": np.zeros(3)}
    result = cached_arrays(path, lambda: made)["u"]
    assert np.array_equal(result, stored["u"]) or np.array_equal(result, made["u"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_arrays_that_numpy_does_not_have_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    (tmp_path / "a.safetensors").write_bytes(encode_tensors({"u": torch.ones(3, dtype=dtype)}, {}))
    with pytest.raises(DataFileError, match=r"a\.safetensors' is damaged or no file of arrays"):
        read_arrays(tmp_path / "a.safetensors")


HOSTILE_JSON = [b"", b"{", b"\xff", b"[" * 200_000, b'{"a":' * 200_000, b"9" * 5000, b'"\\ud800', b"nul"]


@pytest.mark.parametrize("content", HOSTILE_JSON)
def test_files_that_are_no_json_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataFileError, match=r"a\.json' cannot be read as JSON"):
        read_object(tmp_path / "a.json")


HEADER, RECORD = ",".join(COLUMNS), "stokes,multi,fno,0,relative_l2,0.5,,computed,"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as a table"),
        ("\x00\xff", "lacks the column"),
        ("experiment,case\na,b\n", "lacks the column 'method'"),
        (f"{HEADER}\n{RECORD.replace('computed', 'rumoured')}\n", "holds no records"),
        (f"{HEADER}\n{RECORD.replace('0.5', 'half')}\n", "holds no records"),
        (f"{HEADER}\n{RECORD.replace(',0,', ',first,')}\n", "holds no records"),
        (f"{HEADER}\n{RECORD}\n{RECORD},,,\n", "cannot be read as a table"),
        ("\udcff\udcfe,\x00", "cannot be read as a table"),  # no UTF-8
    ],
)
def test_records_of_another_form_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "over_seeds.csv"
    path.write_text(f"{HEADER}\n{RECORD}\n")
    assert read_records(path)["mean"].tolist() == [0.5]
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(DataFileError, match=rf"(?s)over_seeds\.csv'.*{message}.*delete it and run again"):
        read_records(path)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_damaged_scores_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "scores.csv.gz"
    write_scores(path, scores_frame([("multi", "fno", 0, {"relative_l2": np.arange(3.0)})]))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    attempt(lambda: read_scores(path))


@pytest.mark.parametrize("content", [[], None, 3, {}, {"weights": {}}])
def test_manifests_of_another_form_are_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataFileError, match=r"manifest\.json' (lacks data_versions|must hold a JSON object)"):
        manifest(tmp_path)
