"""The results page: what stands in it, and which of ours and the paper's is marked."""

import io
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import report
from experiments.commands import main
from experiments.errors import DataFileError, OutputFolderError
from experiments.field_figures import colour_of_field
from experiments.operator_methods import DEFAULT_NAME
from experiments.registry import BENCHMARKS, EXPERIMENTS
from experiments.report_costs import BENCHMARKS_PAGE, measured_costs
from experiments.report_figures import KINDS, Fineness, encode, sources
from experiments.report_sections import page_sections
from experiments.report_tables import CORE, result_tables
from experiments.tables import Row, beside_paper
from tests.experiments.reports import OPERATORS, OURS, PAPER, Written, picture, write_example, write_run


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_example(tmp_path_factory.mktemp("report"))


class Read(HTMLParser):
    """All ids, targets of links and alternative texts of a page, and the text that is read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.targets += [found["href"] or ""] if tag == "a" else []
        self.alts += [found.get("alt") or ""] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_better_of_ours_and_the_papers_is_marked_by_the_direction_of_its_score() -> None:
    known = beside_paper([Row("u*=0.6", "HardC-ANP", {}), *PAPER])[0].scores
    tie = Row("u*=0.6", "HardC-ANP", {name: known[f"paper_{name}"] for name in ("LL", "MSE")})
    (table,) = result_tables("Stefan", beside_paper([*OURS, tie, *PAPER]), {}, {}, CORE["law"])
    names = [heading.text for heading in table.headings]
    marks = {
        row[0].text: {name: cell.mark for name, cell in zip(names, row, strict=True) if cell.mark} for row in table.rows
    }
    assert marks["ANP"] == {"LL ↑": "ours", "paper's MSE": "paper"}
    assert marks["ProbConserv-ANP"] == {"paper's LL": "paper", "MSE ↓": "ours"}
    assert marks["truth"] == marks["Ensemble"] == marks["HardC-ANP"] == {}
    assert (table.better, table.compared) == (2, 4)


def test_numbers_of_the_paper_for_other_set_ups_have_a_table_of_their_own() -> None:
    ours, others = result_tables("Stokes", beside_paper(OPERATORS), {}, {}, CORE["boundary"])
    assert [row[0].text for row in ours.rows] == ["FNO", DEFAULT_NAME]
    assert [row[0].text for row in others.rows] == ["ν=0.1, 500 nodes"]
    assert "Saad et al., notebook" in others.rows[0][0].note


def test_the_page_holds_scores_sources_commands_and_counts(written: Written) -> None:
    text = written.file.read_text(encoding="utf-8")
    assert text.count('class="number ours"') == 2 + 2 + 1  # in the two tables of the problem, and at a glance
    assert "better than the paper's</span>" in text
    assert "<small>of 4</small>" in text
    assert "Results that ship with the library (2026-01-02, a machine, abc)" in text
    assert f"Results of the stored run <code>{written.out / 'stokes' / 'bbb'}</code>" in text
    assert "20 min" in text
    read = Read(text).text
    for name in EXPERIMENTS:
        for preset in ("smoke", "laptop", "paper"):
            assert f"python -m experiments run {name} --preset {preset} --out {written.out}" in read
    for name in BENCHMARKS:
        assert f"python -m experiments bench {name}" in read


def test_the_page_needs_nothing_but_itself(written: Written) -> None:
    text = written.file.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:|https://)[^"]*"', text)
    assert not re.findall(r'<(?:img|script|link)[^>]*(?:src|href)="http', text)


def test_every_link_leads_to_a_place_that_is_there_once(written: Written) -> None:
    found = Read(written.file.read_text(encoding="utf-8"))
    assert len(found.ids) == len(set(found.ids))
    assert {target for target in found.targets if target.startswith("#")} <= {f"#{name}" for name in found.ids}
    assert set(EXPERIMENTS) <= {target.removeprefix("#") for target in found.targets}


def test_figures_are_named_and_told_in_words(written: Written) -> None:
    alts = Read(written.file.read_text(encoding="utf-8")).alts
    assert alts == [
        f"Stefan, Profiles, u* = 0.6: {KINDS['profile'].text}",
        f"Stefan, Observations, u* = 0.6: {KINDS['context'].text}",
        f"Stefan, Face means: {KINDS['face-means'].text}",
        f"Stokes' second problem, Fields, ν=0.02, 25 times to t = 2: {KINDS['fields'].text}",
        f"Stokes' second problem, Animation, ν=0.02, 25 times to t = 2: {KINDS['animation'].text}",
    ]


def test_a_figure_of_another_name_is_shown_last(tmp_path: Path) -> None:
    for name in ("extra.png", "over-time-multi.png", "profile-b.png", "profile-a.png"):
        picture().save(tmp_path / name)
    titles = [source.title for source in sources(tmp_path, {"b": "second", "a": "first", "multi": "many"})]
    assert titles == ["Profiles, second", "Profiles, first", "Error over time, many", "Figure, extra"]


def test_without_anything_stored_the_page_says_how_to_make_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "none", tmp_path / "report.html"
    assert main(["report", "--out", str(out), "--file", str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in printed["experiments"] if entry["name"] in EXPERIMENTS] == list(EXPERIMENTS)
    assert {entry["figures"] for entry in printed["experiments"]} == {0}
    assert printed["bytes"] == file.stat().st_size
    read = Read(file.read_text(encoding="utf-8")).text
    assert f"type python -m experiments reproduce stefan --out {out}, then" in read
    assert not out.exists()
    assert main(["report", "--out", str(out), "--file", str(file)]) == 0
    assert f"No stored run in {out} has figures of diffusion, porous_medium" in capsys.readouterr().out


def test_what_is_missing_is_scored_where_models_ship_and_trained_elsewhere(tmp_path: Path, written: Written) -> None:
    missing = {section.name: section.remedy.text for section in page_sections(Path("results"), written.shipped)}
    assert missing["stefan"] == "python -m experiments reproduce stefan"
    assert missing["cavity"] == "python -m experiments run cavity --preset laptop"
    (tmp_path / "cavity.json").write_text(json.dumps({"rows": [row.as_json() for row in OPERATORS]}))
    missing = {section.name: section.remedy.text for section in page_sections(Path("results"), tmp_path)}
    assert missing["cavity"] == "python -m experiments reproduce cavity"


def test_figures_come_from_the_run_whose_scores_are_those_of_the_tables(tmp_path: Path, written: Written) -> None:
    other = [Row(row.parameter, row.method, {"MSE": (7.0, 1.0)}) for row in OURS]
    out = tmp_path / "out"
    same, newer = write_run(out / "stefan" / "same", OURS, {}), write_run(out / "stefan" / "newer", other, {})
    chosen = {section.name: section for section in page_sections(out, written.shipped)}["stefan"]
    assert (chosen.run, chosen.relation) == (same, "whose scores are those of the tables")
    shutil.rmtree(same)
    chosen = {section.name: section for section in page_sections(out, written.shipped)}["stefan"]
    assert chosen.run == newer
    assert chosen.relation == "whose scores are not those of the tables: it is of another preset or version"
    assert chosen.rows[1].scores["MSE"] == (9.0, 0.1)
    picture().save(newer / "profile-0.6.png")
    report.write_report(out, tmp_path / "report.html", written.shipped)
    assert "whose scores are not those of the tables" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_of_what_ships_is_not_taken_for_the_run_that_ships(tmp_path: Path, written: Written) -> None:
    """``reproduce`` stores the shipped rows beside those that it scored."""
    again = [replace(row, scores={"MSE": (7.0, None)}, source="scored now") for row in OURS]
    copies = [replace(row, source="stored run, laptop") for row in OURS]
    out = tmp_path / "out"
    scored = write_run(out / "stefan" / "scored", [*again, *copies], {})
    chosen = {section.name: section for section in page_sections(out, written.shipped)}["stefan"]
    assert (chosen.run, chosen.relation) == (scored, "which scored the trained models that ship, of the first seed")
    os.utime(write_run(out / "stefan" / "same", OURS, {}) / "metrics.json", (0, 0))
    chosen = {section.name: section for section in page_sections(out, written.shipped)}["stefan"]
    assert chosen.run == out / "stefan" / "same", "though it is older"


def test_means_over_seeds_stand_beside_the_papers_numbers(tmp_path: Path, written: Written) -> None:
    sections = {section.name: section for section in page_sections(tmp_path, written.shipped)}
    assert sections["diffusion"].over_seeds == ()
    (table,) = sections["stefan"].over_seeds
    assert table.caption == "Stefan, mean over the seeds 0, 1, u* = 0.6"
    (line,) = [row for row in table.rows if row[0].text == "ProbConserv-ANP"]
    cells = dict(zip((heading.text for heading in table.headings), line, strict=True))
    assert (cells["LL ↑"].text, cells["LL ↑"].error, cells["LL ↑"].mark) == ("-8", "1.41", "")
    assert cells["MSE ↓"].mark == "ours"
    assert cells["paper's LL"].mark == "paper"
    text = written.file.read_text(encoding="utf-8")
    assert text.count("Over several seeds") == 1
    assert "standard deviation over seeds" in text


def test_operators_under_both_constraints_have_a_part_of_their_own(tmp_path: Path) -> None:
    scores = {"MSE": 1.0, "CRPS": 0.2, "coverage90": 0.9, "boundary": 0.1, "conservation": 0.3}
    rows = [
        Row("stefan, u* in [0.6, 0.65]", method, {name: (value / part, None) for name, value in scores.items()})
        for part, method in ((1, "FNO"), (2, "ProbConserv-BOON"))
    ]
    shipped, out = tmp_path / "shipped", tmp_path / "out"
    shipped.mkdir()
    (shipped / "combined.json").write_text(json.dumps({"rows": [row.as_json() for row in rows]}))
    write_run(out / "combined" / "aaa", rows, {"profile-stefan-0.png": picture(), "shift-stefan.png": picture(seed=1)})
    section = {section.name: section for section in page_sections(out, shipped)}["combined"]
    (table,) = section.tables
    assert {heading.text for heading in table.headings if heading.extra} == {"MSE ↓"}
    assert [row[0].colour for row in table.rows] == [colour_of_field("FNO"), colour_of_field("BOON")]
    assert [figure.title for figure in section.figures] == [
        "Profiles, Stefan, u* in [0.6, 0.65], trained on",
        "Shifted parameters, Stefan",
    ]
    report.write_report(out, tmp_path / "report.html", shipped)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.index('id="boundary"') < text.index('id="both"') < text.index('<section id="combined"')
    assert "Both constraints: an ensemble of operators without and with them" in text


def test_a_study_is_shown_where_it_has_results(tmp_path: Path, written: Written) -> None:
    names = [section.name for section in page_sections(tmp_path, written.shipped)]
    assert "heat_independent-study" not in names
    write_run(tmp_path / "heat_independent-study" / "aaa", OPERATORS[:2], {"study.png": picture()})
    names = [section.name for section in page_sections(tmp_path, written.shipped)]
    assert names[names.index("heat_independent") + 1] == "heat_independent-study"


@pytest.mark.parametrize("content", ["{}", '{"rows": [{"method": "FNO"}]}', "not JSON"])
def test_damaged_results_are_named(tmp_path: Path, written: Written, content: str) -> None:
    folder = write_run(tmp_path / "stokes" / "aaa", OPERATORS, {})
    (folder / "metrics.json").write_text(content)
    with pytest.raises(DataFileError, match=re.escape(str(folder / "metrics.json"))):
        page_sections(tmp_path, written.shipped)


def test_the_page_goes_into_a_new_folder_but_not_over_one(tmp_path: Path, written: Written) -> None:
    assert written.file.parent.name == "page"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputFolderError, match="folder"):
        report.write_report(tmp_path, tmp_path / "folder", written.shipped)


def test_pictures_are_kept_in_few_bytes_on_white(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    clear = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    clear.save(path)
    media, content, width, height = encode(path, Fineness(width=100, quality=85))
    assert (media, width, height) == ("image/webp", 100, 50)
    assert len(content) < path.stat().st_size
    with Image.open(io.BytesIO(content)) as image:
        assert np.asarray(image.convert("RGB")).min() == 255


def test_a_picture_that_webp_would_enlarge_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    dots = np.random.default_rng(0).random((90, 80)) < 0.5
    Image.fromarray(dots).save(path)
    media, content, *size = encode(path, Fineness(width=100, quality=70))
    assert (media, content, size) == ("image/png", path.read_bytes(), [80, 90])


def test_an_animation_keeps_its_frames(tmp_path: Path) -> None:
    frames = [picture(seed=seed) for seed in range(4)]
    write_run(tmp_path / "run", OPERATORS, {"animation.gif": frames})
    _, content, *_ = encode(tmp_path / "run" / "animation.gif", Fineness(width=200, quality=70))
    with Image.open(io.BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == 4


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"\x89PNG")
    with pytest.raises(DataFileError, match=r"figure\.png' is no picture"):
        encode(path, Fineness(width=100, quality=85))


def test_a_page_that_would_be_too_large_holds_coarser_pictures(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LARGEST_PAGE", 1)
    report.write_report(written.out, tmp_path / "report.html", written.shipped)
    assert 'width="1000"' in written.file.read_text(encoding="utf-8")
    coarse = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'width="1000"' not in coarse
    assert 'width="800"' in coarse


def test_measured_costs_keep_their_tables_and_lose_their_title() -> None:
    source, html = BENCHMARKS_PAGE.read_text(encoding="utf-8"), measured_costs(BENCHMARKS_PAGE)
    assert html.count("<table>") == html.count("<caption") == len(re.findall(r"^\|[-:|]+\|$", source, re.MULTILINE)) > 0
    assert html.count("<h3>") == len(re.findall(r"^## ", source, re.MULTILINE)) > 0
    assert "<h1" not in html
    assert "<h2" not in html


def test_links_of_the_costs_that_lead_to_other_files_become_text(tmp_path: Path) -> None:
    page = tmp_path / "costs.md"
    page.write_text("# Costs\n\n[here](design.md) and [there](https://example.org) & <b>\n")
    assert measured_costs(page) == '<p>here and <a href="https://example.org">there</a> &amp; &lt;b&gt;</p>\n'


def test_a_page_without_measured_costs_says_how_to_measure_them(tmp_path: Path, written: Written) -> None:
    report.write_report(written.out, tmp_path / "report.html", written.shipped, costs=tmp_path / "none.md")
    assert "To measure them here, run the benchmarks below" in (tmp_path / "report.html").read_text(encoding="utf-8")
