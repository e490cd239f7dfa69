"""What every experiment shares on its way to files."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from experiments.stages import free_first, made_once, one_thread, stage_progress
from experiments.storage import alone_with


def test_of_two_runs_that_want_weights_one_makes_them(tmp_path: Path) -> None:
    path, made, go = tmp_path / "training" / "weights", list[int](), threading.Event()

    def make() -> None:
        made.append(1)
        go.wait(10)
        path.write_text("weights")

    with ThreadPoolExecutor() as pool:
        both = [pool.submit(made_once, path, make, path.exists) for _ in range(2)]
        go.set()
        assert [one.result(10) for one in both] == [path, path]
    assert made == [1]
    made_once(path, make, lambda: path.read_text() == "better weights")
    assert made == [1, 1], "what is there but not whole is made again"


def test_what_another_run_is_making_comes_last(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name / "weights" for name in "abc")
    with alone_with(second):
        order = free_first([first, second, third])
        assert [next(order), next(order)] == [first, third]
        third.write_text("made meanwhile")
    assert list(order) == [second]
    assert list(free_first([first, second, third])) == [first, second, third]


def test_one_thread_is_given_back() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def test_progress_names_the_stages_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with stage_progress(2) as begin:
        begin("first of two")
        begin("second of two")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "second of two" in printed.err
