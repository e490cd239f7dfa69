import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import registry
from experiments.errors import DataFileError
from experiments.report import page, picture
from experiments.report.results import newest_run, of_run
from tests.experiments.report.example import Example, results


def draw(path: Path, width: int = 1800, seed: int = 0) -> None:
    """Coloured noise, which compresses badly."""
    noise = np.random.default_rng(seed).integers(0, 255, (width // 4, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def run_with_figure(out: Path) -> Path:
    folder = out / "example" / "abc"
    folder.mkdir(parents=True)
    draw(folder / "profile-a.png")
    metrics = {"preset": "laptop", "seed": 0, "trainings": [], "figures": ["profile-a.png", "other.png"]}
    metrics["environment"] = {"date": "2026-01-02T00:00:00Z"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def widths(html: str) -> list[int]:
    """Widths of the pictures on a page."""
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(text))).width for text in pictures]


def test_the_page_has_the_rows_the_trainings_and_the_commands() -> None:
    html = page.render({"examples": [results()], "nothing": []})
    assert "a=1 &lt;in range&gt;" in html
    assert "Hard &amp; fast" in html
    assert "<in range>" not in html
    assert html.count('class="better') > 0 < html.count('class="worse')
    assert "CRPS" in html.split("All rows")[1]
    assert re.search(r"<td>net</td>|<td>5,000</td>\s*<td>1</td>\s*<td>1.5</td>", html)
    assert "python -m experiments reproduce example" in html
    assert "Nothing" not in html
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html)


def test_a_figure_stands_below_the_numbers_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Released numbers have the figure of the library, those of a run its own one or none."""
    run = run_with_figure(tmp_path)
    monkeypatch.setattr(picture, "FOLDER", tmp_path / "library")
    monkeypatch.setattr(registry, "families", lambda: {"examples": {"example": Example()}})
    monkeypatch.setattr(page, "released", lambda entry: results(entry) if isinstance(entry, Example) else None)
    assert page.write_report(tmp_path, tmp_path / "report.html") == ["example"]
    lead = picture.SMALL
    assert widths((tmp_path / "report.html").read_text()) == [lead], "the run's figure is not that of these numbers"
    picture.keep_figure("example", run, picture.FOLDER)
    assert widths(page.render({"examples": [results()]})) == [lead, picture.SMALL]
    assert widths(page.render({"examples": [results(run=run)]})) == [lead, picture.LARGE]
    (run / "metrics.json").write_text("{}")
    assert widths(page.render({"examples": [results(run=run)]})) == [lead]


def test_studies_and_choices_have_commands_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    study, choice = Example(name="heat-study"), Example(name="heat-choice")
    monkeypatch.setitem(registry.STUDIES, "heat", study)
    monkeypatch.setitem(registry.CHOICES, "heat", choice)
    html = page.render({"s": [results(study), results(choice)]})
    assert "python -m experiments study heat --preset laptop" in html
    assert "python -m experiments choose heat --preset laptop" in html
    assert "python -m experiments reproduce heat-study" in html


def test_the_newest_run_stands_in_for_released_results(tmp_path: Path) -> None:
    from experiments.records.store import write_records

    folder, entry = run_with_figure(tmp_path), Example()
    write_records(folder / "records.csv", entry.records())
    assert newest_run("example", tmp_path) == folder
    assert newest_run("another", tmp_path) is None
    shown = of_run(entry, folder)  # type: ignore[arg-type]
    assert shown.run == folder
    assert shown.origin == "preset laptop, 2026-01-02"
    assert "Results of a stored run" in page.render({"e": [shown]})


def test_a_released_figure_is_small(tmp_path: Path) -> None:
    folder = run_with_figure(tmp_path)
    (kept,) = picture.keep_figure("example", folder, tmp_path)
    assert kept.stat().st_size <= 16 * picture.LARGEST  # noise is the worst there is
    with Image.open(kept) as shown:
        assert shown.width == picture.SMALL
    (folder / "metrics.json").write_text("{}")
    assert picture.keep_figure("example", folder, tmp_path) == []


def test_a_damaged_figure_is_named(tmp_path: Path) -> None:
    folder = run_with_figure(tmp_path)
    (folder / "profile-a.png").write_bytes(b"no picture")
    with pytest.raises(
        DataFileError, match=r"profile-a\.png\' cannot be read as a picture .* run the experiment again"
    ):
        picture.leading_figure("example", folder)


def test_every_released_figure_is_small_enough() -> None:
    sizes = {file.name: file.stat().st_size for file in picture.FOLDER.glob("*.png")}
    assert sizes
    assert max(sizes.values()) <= picture.LARGEST, sizes
    assert sum(sizes.values()) <= 32_500 * len(sizes), sizes
