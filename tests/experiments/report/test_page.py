"""The page of results: rows, trainings, commands and figures."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.errors import DataFileError
from experiments.records.run import FILE, open_run
from experiments.report import comparisons, page, picture
from experiments.report.results import newest_runs, of_run, released
from tests.experiments.report.example import Example, results, stored


def draw(path: Path, width: int = 1800, seed: int = 0) -> None:
    """Coloured noise, which compresses badly."""
    noise = np.random.default_rng(seed).integers(0, 255, (width // 4, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def run_with_figure(out: Path, preset: str = "laptop", key: str = "abc", verdict: str = "") -> Path:
    folder = out / "example" / key
    folder.mkdir(parents=True)
    draw(folder / "profile-a.png")
    figures, made = ["profile-a.png", "other.png"], {"date": "2026-01-02T00:00:00Z"}
    stored(Example(), preset=preset, verdict=verdict, figures=figures, environment=made).write(folder)
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


def test_an_experiment_that_left_has_its_rows_and_no_commands() -> None:
    left = results()
    left = replace(left, description=replace(left.description, durations={}, summary="What it was (0.4)"))
    html = page.render({"studies": [left]})
    assert "a=1 &lt;in range&gt;" in html
    assert "What it was (0.4)." in html
    assert "python -m experiments" not in html.split("<footer>")[0]
    assert "How to make it" not in html


def test_a_figure_stands_below_the_numbers_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Released numbers have the figure of the library, those of a run its own one or none."""
    run = run_with_figure(tmp_path)
    monkeypatch.setattr(picture, "FOLDER", tmp_path / "library")
    lead = picture.WIDTH
    assert widths(page.render({"examples": [results()]})) == [lead]
    assert widths(page.render({"examples": [results(), results(run=run)]})) == [lead, picture.WIDTH]
    picture.keep_figure("example", run, picture.FOLDER)
    assert widths(page.render({"examples": [results()]})) == [lead, picture.WIDTH]
    assert widths(page.render({"examples": [results(run=run)]})) == [lead, picture.WIDTH]
    (run / FILE).write_text("{}")
    assert widths(page.render({"examples": [results(run=run)]})) == [lead]


@pytest.fixture
def only_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """One experiment, with released results, is all there is."""
    monkeypatch.setattr(page, "released_names", lambda: ["example"])
    monkeypatch.setattr(page, "released", lambda name: results(Example(name=name)))


@pytest.mark.long
@pytest.mark.usefixtures("only_the_example")
def test_the_newest_run_has_a_section_of_its_own_below_the_released_results(tmp_path: Path) -> None:
    run, file = run_with_figure(tmp_path, preset="smoke"), tmp_path / "report.html"
    assert [shown.run for shown in page.write_report(tmp_path, file)[0]] == [None, run]
    html = file.read_text(encoding="utf-8")
    assert re.findall("<h3[^>]*>(.*)</h3>", html) == ["Example", "Example: stored run, preset smoke"]
    first, *anchors = re.findall('href="#([^"]*)"', html)
    assert first == "compared"
    assert anchors == re.findall('<section id="([^"]*)"', html) == ["example", "example-run"]
    _, below = html.split('<section id="example-run"')
    assert f"Not part of the release: the newest finished run, <code>{run}</code>." in below
    assert "Not part of" not in html.partition('<section id="example-run"')[0]
    assert "Results of a stored run (preset smoke, 2026-01-02)" in below
    reproduced = run_with_figure(tmp_path, key="reproduced", verdict="Reproduced: all rows.")
    assert [shown.run for shown in page.write_report(tmp_path, file)[0]] == [None, reproduced]
    html = file.read_text(encoding="utf-8")
    assert "Example: reproduction, preset laptop" in html
    assert f"the newest reproduction, <code>{reproduced}</code>. Reproduced: all rows." in html


@pytest.mark.long
@pytest.mark.usefixtures("only_the_example")
def test_runs_of_experiments_that_are_not_here_are_shown_and_those_of_older_releases_named(
    tmp_path: Path, command: Callable
) -> None:
    """A page needs no code of an experiment, only what its run stored."""
    run, file = run_with_figure(tmp_path), tmp_path / "report.html"
    mine = run.parents[1] / "mine" / "abc"
    shutil.copytree(run, mine)
    own = Example(name="mine")
    stored(own, description=replace(own.described(), family="", summary="my own")).write(mine)
    old = shutil.copytree(run, run.parents[1] / "old" / "abc", ignore=shutil.ignore_patterns(FILE))
    (old / "metrics.json").write_text("{}")
    shown, left_out = page.write_report(tmp_path, file)
    assert [(results.name, results.run) for results in shown] == [("example", None), ("example", run), ("mine", mine)]
    assert left_out == [old]
    html = file.read_text(encoding="utf-8")
    assert f"Left out, since a release before 0.5 made them: {old}. Run them again." in html
    assert re.findall("<h2>(.*)</h2>", html)[len(page.COMPARED) :] == ["Examples", "Further experiments"]
    assert "<p>My own.</p>" in html
    printed = command("report", "--out", tmp_path, "--file", file)
    assert f"a release before 0.5 made them: {old}. Run them again." in printed.err


@pytest.mark.usefixtures("only_the_example")
def test_report_says_how_many_runs_it_shows_and_where_there_are_none(tmp_path: Path, command: Callable) -> None:
    file = str(tmp_path / "report.html")
    for folder, why in (("nowhere", "does not exist"), ("empty", "holds no finished run")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        out = tmp_path / folder
        said = f"The folder '{out}' {why}: the page shows released results alone.\n"
        shown = f"Page with 1 experiments, 0 of them with a stored run: {file}\n"
        shown += "Words that you type on it pick problems, methods and scores.\n"
        assert command("report", "--out", out, "--file", file) == (0, shown, said)
    run = run_with_figure(tmp_path / "out")
    printed = command("report --json", "--out", tmp_path / "out", "--file", file)
    assert (printed.status, printed.err) == (0, "")
    said = json.loads(printed.out)
    assert (said["experiments"], said["runs"]) == (["example"], [str(run)])


def test_a_run_shows_what_it_stored(tmp_path: Path) -> None:
    folder = run_with_figure(tmp_path)
    assert newest_runs(tmp_path) == ([folder], [])
    old = tmp_path / "another" / "of_0_1"
    old.mkdir(parents=True)
    (old / "metrics.json").write_text("{}")  # as releases up to 0.4 wrote it
    assert newest_runs(tmp_path) == ([folder], [old])
    open_run(tmp_path, "another", {})[0].replace(old.parent / "again")
    (old.parent / "again" / FILE).replace(old / FILE)
    assert newest_runs(tmp_path) == ([folder], [old]), "begun again, not finished"
    shown = of_run(folder)
    assert shown.run == folder
    assert shown.origin == "preset laptop, 2026-01-02"
    assert "Results of a stored run" in page.render({"e": [shown]})


def test_a_released_figure_has_the_width_of_the_page(tmp_path: Path) -> None:
    folder = run_with_figure(tmp_path)
    (kept,) = picture.keep_figure("example", folder, tmp_path)
    stokes = released("stokes")
    assert stokes is not None
    drawn = picture.redraw(stokes, folder=tmp_path / "example")
    for file in (kept, drawn):
        with Image.open(file) as shown:
            assert shown.width == picture.WIDTH
    (folder / FILE).write_text("{}")
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
    assert max(sizes.values()) <= 400_000, sizes


@pytest.mark.long
def test_rows_of_readme_come_first_and_studies_last(tmp_path: Path) -> None:
    page.write_report(tmp_path, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings[: len(page.COMPARED)] == list(page.COMPARED)
    assert headings[-1].lower() == page.STUDIES
    assert re.findall(r'<section id="([^"]+)"', html)[0] == comparisons.LAWS[0].experiment
    assert "random media, 10 observations" in html.split("<section")[0]
