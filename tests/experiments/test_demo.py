"""The first minute of a new user: what ``demo`` prints, and how wide."""

from collections.abc import Callable
from pathlib import Path


def test_the_demo_shows_one_prediction_without_and_with_its_law(tmp_path: Path, command: Callable) -> None:
    lines = command("demo --out", tmp_path).out.splitlines()
    assert max(map(len, lines)) <= 80 or str(tmp_path) in max(lines, key=len)
    assert len(lines) <= 14
    first = next(number for number, line in enumerate(lines) if line.startswith("total is off by"))
    rows = {line[:24].strip(): [float(word) for word in line[24:].split()] for line in lines[first : first + 3]}
    before, after = rows["total is off by"]
    assert abs(after) < 1e-12 < 1e-4 < abs(before)
    assert rows["mean squared error"][1] < rows["mean squared error"][0]
    assert (tmp_path / "demo" / "stefan.png").is_file()
    assert lines[-1].startswith("Next: python -m experiments")
