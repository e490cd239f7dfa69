"""What every experiment shares on its way to files."""

from pathlib import Path

import torch

from experiments.stages import one_thread, stage_progress, write_tables
from experiments.tables import Row


def test_one_thread_is_given_back() -> None:
    threads = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads


def test_tables_are_three_files(tmp_path: Path) -> None:
    files = write_tables(tmp_path, "Title", [Row("a=1", "GP", {"MSE": (0.5, 0.1)})])
    assert [file.name for file in files] == ["table.md", "table.csv", "table.json"]
    assert all(file.stat().st_size for file in files)


def test_progress_names_the_stages_on_standard_error(capsys) -> None:
    with stage_progress(2) as begin:
        begin("first of two")
        begin("second of two")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "second of two" in printed.err
