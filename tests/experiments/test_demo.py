"""The first minute of a new user: what ``demo`` prints, and how wide."""

from pathlib import Path

import pytest

from experiments.cli import main


def test_the_demo_shows_one_prediction_without_and_with_its_law(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 or str(tmp_path) in max(lines, key=len)
    assert len(lines) <= 14
    first = next(number for number, line in enumerate(lines) if line.startswith("total is off by"))
    rows = {line[:24].strip(): [float(word) for word in line[24:].split()] for line in lines[first : first + 3]}
    before, after = rows["total is off by"]
    assert abs(after) < 1e-12 < 1e-4 < abs(before)
    assert rows["mean squared error"][1] < rows["mean squared error"][0]
    assert (tmp_path / "demo" / "stefan.png").is_file()
    assert lines[-1].startswith("Next: python -m experiments")
