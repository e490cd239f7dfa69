"""The results page in a browser: it loads without complaint, fits a phone, is searched, and is accessible."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from experiments.report import page
from tests.experiments.report.example import results
from tests.experiments.report.test_page import run_with_figure

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 300_000  # milliseconds; a browser starts slowly on a busy machine
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine: install Debian's package chromium, or Google Chrome"
    ),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    file = folder / "report.html"
    both = [results(), results(run=run_with_figure(folder))]
    file.write_text(page.render({"examples": both}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=options, timeout=PATIENCE)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, written: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page in a window with the parameters of the test, everything on it unfolded; it must not complain."""
    context = browser.new_context(**{"reduced_motion": "reduce", **getattr(request, "param", {})})
    context.set_default_timeout(PATIENCE)
    shown, complaints, requests = context.new_page(), [], []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("request", lambda asked: requests.append(asked.url.partition(":")[0]))
    shown.goto(written.as_uri())
    shown.evaluate("document.querySelectorAll('details').forEach((box) => (box.open = true))")
    yield shown
    context.close()
    assert complaints == []
    assert set(requests) <= {"file", "data"}


@pytest.mark.parametrize("opened", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_the_page_breaks_no_rule_of_accessibility(opened: Page) -> None:
    found = Axe().run(opened)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("opened", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_only_tables_scroll_sideways_on_a_phone_and_their_first_column_stays(opened: Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    table = opened.locator("#example .scroll").nth(1)
    assert table.evaluate("(box) => box.scrollWidth > box.clientWidth")
    first, last = table.locator("td").first, table.locator("tr td:last-child").first
    before = (first.bounding_box(), last.bounding_box())
    table.evaluate("(box) => (box.scrollLeft = 100)")
    after = (first.bounding_box(), last.bounding_box())
    assert before[0] is not None
    assert before[0] == after[0]
    assert before[1] != after[1]
    table.focus()
    assert table.evaluate("(box) => box === document.activeElement")


@pytest.mark.parametrize("opened", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_a_long_name_of_a_case_leaves_the_numbers_their_room_on_a_phone(opened: Page) -> None:
    opened.evaluate("document.querySelector('#example .case span').textContent = 'initial value and mass '.repeat(9)")
    name = opened.locator("#example .scroll").first.locator("tr:not(.case) > th[scope=row]").first.bounding_box()
    assert name is not None
    assert name["width"] < 0.5 * 360


@pytest.mark.parametrize("opened", [{"color_scheme": "dark"}], indirect=True)
def test_every_picture_is_seen_and_the_page_is_dark_where_that_is_preferred(opened: Page) -> None:
    sizes = opened.evaluate(
        "Promise.all([...document.images].map(async (image) =>"
        " { await image.decode(); return [image.naturalWidth, image.clientWidth] }))"
    )
    assert len(sizes) == 2
    assert all(natural > 0 and shown > 0 for natural, shown in sizes)
    colour = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", colour)) < 60


def test_words_pick_rows_and_scores_pick_columns(opened: Page) -> None:
    table = opened.locator("#example .rows").first
    every, headings = table.locator("tbody tr").count(), table.locator("thead th").all_inner_texts()
    opened.get_by_label("Rows with").fill("ours b=2")
    shown = table.locator("tbody tr:visible").all_inner_texts()
    assert len(shown) == 1
    assert "Ours" in shown[0]
    opened.get_by_label("Scores with").fill(headings[-1].split()[0])
    kept = table.locator("thead th:visible").all_inner_texts()
    assert headings[-1] in kept
    assert 2 < len(kept) < len(headings)
    opened.get_by_label("Rows with").fill("nothing of this name")
    assert opened.locator("section:visible").count() == opened.locator("h2:visible").count() == 0
    assert opened.locator("#found").inner_text() == "0 rows"
    opened.get_by_label("Rows with").fill("")
    opened.get_by_label("Scores with").fill("")
    assert table.locator("tbody tr:not([hidden])").count() == every
    assert table.locator("thead th:not([hidden])").count() == len(headings)
