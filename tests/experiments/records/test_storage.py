"""Files are whole or not there, and damage is noticed."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments.errors import DataFileError, OutputFolderError
from experiments.records.storage import (
    Arrays,
    alone_with,
    cached_arrays,
    is_taken,
    read_arrays,
    write_arrays,
    write_bytes,
)
from probconserv.training.files import writable_folder

ARRAYS = {"u": np.linspace(0.0, 1.0), "backwards": np.arange(6.0)[::-2], "gap": np.array(np.nan), "count": np.array(3)}


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.safetensors", ARRAYS, {"units": "dimensionless"})
    for name, array in read_arrays(tmp_path / "a.safetensors").items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_a_damaged_cache_is_named_and_made_again_and_a_whole_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.safetensors"
    write_arrays(path, ARRAYS)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (bytes(flipped), whole[:-10]):
        path.write_bytes(content)
        with pytest.raises(DataFileError, match=r"a\.safetensors' is damaged"):
            read_arrays(path)
        built = cached_arrays(path, lambda: {"u": np.zeros(2)})
        assert "a.safetensors' is damaged" in capsys.readouterr().err
        np.testing.assert_array_equal(built["u"], np.zeros(2))
        assert cached_arrays(path, lambda: ARRAYS).keys() == {"u"}


def test_a_missing_checksum_is_an_error(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "a.safetensors")
    with pytest.raises(DataFileError, match=r"a\.safetensors' is damaged: it has no checksum"):
        read_arrays(tmp_path / "a.safetensors")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_files_can_be_read_by_others_and_folders_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"content")
    assert (tmp_path / "file").stat().st_mode & 0o444 == 0o444
    with pytest.raises(OutputFolderError, match=r"file/below' cannot be written .*; choose another one"):
        writable_folder(tmp_path / "file" / "below")


def test_of_two_that_want_a_file_one_builds_it_and_the_other_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, started, go = tmp_path / "new" / "a.safetensors", threading.Event(), threading.Event()

    def build() -> Arrays:
        assert not started.is_set(), "it is built once"
        started.set()
        go.wait(10)
        return ARRAYS

    with ThreadPoolExecutor() as pool:
        first = pool.submit(cached_arrays, path, build)
        started.wait(10)
        second = pool.submit(cached_arrays, path, build)
        while "Another process makes" not in capsys.readouterr().err:
            assert not second.done()
            time.sleep(0.05)  # what is printed while it is read may be lost
        go.set()
        np.testing.assert_array_equal(second.result(10)["u"], first.result(10)["u"])


def test_a_lock_is_released_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone_with(tmp_path / "file"):
        raise ZeroDivisionError
    with alone_with(tmp_path / "file"):
        assert is_taken(tmp_path / "file")
    assert not is_taken(tmp_path / "file")


def test_a_folder_without_locks_is_named(tmp_path: Path) -> None:
    (tmp_path / ".file.lock").mkdir()
    for locked in (is_taken, lambda path: alone_with(path).__enter__()):
        with pytest.raises(OutputFolderError, match=r"file' cannot be locked .*; choose another folder"):
            locked(tmp_path / "file")
