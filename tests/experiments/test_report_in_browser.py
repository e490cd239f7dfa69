"""The results page in a browser: it loads without complaint, shows every figure, sorts, and can be read by everyone."""

import re
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.experiments.reports import Written, write_example

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 300_000  # milliseconds; a browser starts slowly on a busy machine
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: install Debian's package chromium, or Google Chrome"
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_example(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=options, timeout=PATIENCE)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, written: Written, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page in a window with the parameters of the test, everything on it unfolded; it must not complain."""
    context = browser.new_context(**{"reduced_motion": "reduce", **getattr(request, "param", {})})
    context.set_default_timeout(PATIENCE)
    page, complaints, requests = context.new_page(), [], []

    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url.partition(":")[0]))
    page.goto(written.file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((box) => (box.open = true))")
    yield page
    context.close()
    assert complaints == []
    assert set(requests) <= {"file", "data"}


def column(page: Page, table: str, number: int) -> list[str]:
    """Texts of a column from above to below, without standard errors and marks."""
    cells = page.locator("table", has=page.locator("caption", has_text=table)).locator(
        f"tbody tr > :nth-child({number})"
    )
    return [re.sub(r"\s*\(.*|\s*better than.*|[▲△]", "", text).strip() for text in cells.all_text_contents()]


def test_every_picture_is_seen(opened: Page) -> None:
    sizes = opened.evaluate(
        "Promise.all([...document.images].map(async (image) =>"
        " { await image.decode(); return [image.naturalWidth, image.clientWidth] }))"
    )
    assert len(sizes) == 5
    assert all(natural > 0 and shown > 0 for natural, shown in sizes)


def test_tables_sort_by_click_and_by_keyboard(opened: Page) -> None:
    heads = opened.locator("table", has=opened.locator("caption", has_text="Stefan, u* = 0.6")).locator("thead th")
    order = ["truth", "ANP", "ProbConserv-ANP", "Ensemble"]
    assert column(opened, "Stefan, u* = 0.6", 1)[:4] == order
    heads.nth(2).get_by_role("button").click()  # log-likelihood: the best first, what is unknown last
    assert column(opened, "Stefan, u* = 0.6", 3) == ["10", "9", "1.98", "1.43", "-9", "—"]
    assert heads.nth(2).get_attribute("aria-sort") == "descending"
    heads.nth(2).get_by_role("button").focus()
    opened.keyboard.press("Enter")
    assert column(opened, "Stefan, u* = 0.6", 3) == ["-9", "1.43", "1.98", "9", "10", "—"]
    assert opened.locator("#said").text_content() == "Sorted by LL ↑, ascending"
    opened.keyboard.press("Space")
    assert column(opened, "Stefan, u* = 0.6", 1)[:4] == order
    heads.nth(1).get_by_role("button").click()  # conservation errors by size
    sorted_names = [name for name in column(opened, "Stefan, u* = 0.6", 1) if name in order]
    assert sorted_names == ["ProbConserv-ANP", "ANP", "truth", "Ensemble"]
    assert heads.nth(2).get_attribute("aria-sort") == "none"


def test_times_sort_by_their_length_in_whatever_unit(opened: Page) -> None:
    opened.locator("table", has=opened.locator("caption", has_text="Training of the neural")).get_by_role(
        "button", name="time"
    ).click()
    assert column(opened, "Training of the neural", 3) == ["61 s", "20 min"]
    opened.locator("table", has=opened.locator("caption", has_text="Time of every preset")).get_by_role(
        "button", name="paper"
    ).click()
    unit = {"s": 1, "min": 60, "h": 3600, "days": 86400}
    times = [float(number) * unit[name] for number, name in map(str.split, column(opened, "Time of every preset", 5))]
    assert times == sorted(times)
    assert times[0] < times[-1]


def test_a_box_shows_the_other_scores(opened: Page) -> None:
    head = opened.locator("#stefan th", has_text="CRPS").first
    assert head.is_hidden()
    opened.locator("#stefan").get_by_label("All scores").check()
    assert head.is_visible()
    assert opened.locator("#stokes th", has_text="method").first.is_visible()


@pytest.mark.parametrize("opened", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_nothing_but_tables_and_figures_scrolls_sideways_on_a_phone(opened: Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    table = opened.locator("#stefan .scroll").first
    assert table.evaluate("(box) => box.scrollWidth > box.clientWidth")
    table.focus()
    assert table.evaluate("(box) => box === document.activeElement")


@pytest.mark.parametrize("opened", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_the_page_breaks_no_rule_of_accessibility(opened: Page) -> None:
    found = Axe().run(opened)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("opened", [{"color_scheme": "dark"}], indirect=True)
def test_the_page_is_dark_where_that_is_preferred(opened: Page) -> None:
    colour = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", colour)) < 60
