"""Cached arrays and stored results: the damaged and the hostile are refused by name, nothing is run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.errors import DataFileError
from experiments.records.record import COLUMNS
from experiments.records.release import manifest
from experiments.records.storage import cached_arrays, read_arrays, read_object, write_arrays
from experiments.records.store import read_records, read_scores, scores_frame, write_scores
from solvers.tensor_files import encode_tensors
from tests.fuzz.damage import damaged, pickles


def attempt(read: Callable[[], Any]) -> Any:
    """What is read, or None where it is refused by the named error; any other exception is a failure."""
    try:
        return read()
    except DataFileError:
        return None


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for content in pickles(marker).values():
        for name, read in {"a.safetensors": read_arrays, "a.json": read_object}.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataFileError):
                read(tmp_path / name)
    assert not marker.exists()


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
