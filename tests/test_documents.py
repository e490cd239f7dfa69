"""The documents show what their code prints and fit the page."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch

from docs.gallery_drawings import DRAWINGS
from tests.documents import (
    DOCS,
    ROOT,
    TUTORIALS,
    agree,
    missing_packages,
    pages_with_output,
    run_blocks,
    shown_output,
    with_output,
)

pytestmark = pytest.mark.long

PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "CONTRIBUTING.md"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], dict]]:
    """Runs a page once in an empty folder, on one thread; gives its names, ``folder`` and ``printed``."""
    threads = torch.get_num_threads()

    @cache
    def run_page(page: Path) -> dict:
        defined: dict = {}
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.chdir(tmp_path_factory.mktemp(page.stem))
            printed = list(run_blocks(page, defined, missing_packages()))
            return defined | {"printed": printed, "folder": Path.cwd()}

    torch.set_num_threads(1)
    yield run_page
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", pages_with_output(), ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
def test_a_page_shows_what_its_blocks_print(page: Path, run: Callable[[Path], dict]) -> None:
    for shown, printed in zip(shown_output(page), run(page)["printed"], strict=True):
        assert printed is None or agree(shown, printed), (
            f"{page.name} is stale; python -m tests.documents {page.relative_to(ROOT)} renews it. It shows\n{shown}\n"
            f"where the code prints\n{printed}"
        )


def test_output_is_compared_up_to_what_processors_change() -> None:
    assert agree("off by 3e-17, MSE 0.0089, 66% of 8\n", "off by -2e-16, MSE 0.0100, 65% of 8\n")
    for other in ("off by 3e-5, MSE 0.0089, 66% of 8", "off by 3e-17, MSE 0.0189, 66% of 8", "by 3e-17, MSE 0.0089"):
        assert not agree("off by 3e-17, MSE 0.0089, 66% of 8", other)
    assert not agree("(8, 1, 33)", "(8, 1, 34)")


def test_output_is_put_below_its_block() -> None:
    page = "```python\nprint(1)\n```\n\nText.\n\n```python\nx = 1\n```\n"
    renewed = with_output(page, ["1\n", ""])
    assert '```python\nprint(1)\n```\n\n```text title="Output"\n1\n```\n\nText.' in renewed
    assert with_output(renewed, ["", None]) == page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_fits_eighty_columns(page: Path) -> None:
    blocks = re.findall(r"^```\w.*?\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not [line for block in blocks for line in block.splitlines() if len(line) > 80]


def test_names_that_moved_are_where_the_page_sends_them() -> None:
    text = (DOCS / "from_0_2_to_0_3.md").read_text(encoding="utf-8")
    moved = text.partition("| import it from |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`([\w.]+)`", row) for row in moved.splitlines() if "`" in row]
    assert len(rows) > 5
    for *names, module in rows:
        assert all(hasattr(import_module(module), name) for name in names)


def test_pictures_of_the_gallery_are_described_and_lead_to_code() -> None:
    entries = (DOCS / "gallery.md").read_text(encoding="utf-8").split("\n### ")[1:]
    shown = set()
    for entry in entries:
        (picture,) = re.findall(r"^!\[(.+)\]\((.+)\)$", entry, flags=re.MULTILINE)
        assert len(picture[0]) > 40
        assert re.search(r"(Code|Commands|Results): \[", entry), entry
        shown.add(picture[1])
    assert {f"figures/gallery-{name}.png" for name in DRAWINGS} == {name for name in shown if "gallery-" in name}


def test_the_navigation_has_every_page_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = re.findall(r"[\w./]+\.md", navigation)
    assert len(pages) == len(set(pages))
    assert {page.relative_to(ROOT).as_posix() for page in DOCS.rglob("*.md")} <= set(pages)


def test_every_figure_of_a_tutorial_is_drawn_by_it(run: Callable[[Path], dict]) -> None:
    for page in sorted(TUTORIALS.glob("*.md")):
        shown = set(re.findall(r"\(\.\./figures/(tutorial-[\w-]+\.png)\)", page.read_text(encoding="utf-8")))
        if shown:
            assert shown == {path.name for path in run(page)["folder"].glob("*.png")}
            assert all((DOCS / "figures" / name).is_file() for name in shown)


def test_the_closed_form_of_the_new_law_is_a_weak_solution(run: Callable[[Path], dict]) -> None:
    new_law = run(TUTORIALS / "new_law.md")
    density, cars_before, rear = new_law["density"], new_law["cars_before"], new_law["rear"]
    x = torch.linspace(0.0, 1.0, 2001, dtype=torch.float64)
    inner = 0.5 * (x[1:] + x[:-1])
    for time in (0.1, 0.3, 0.5):
        contents = cars_before(time, x, 0.2).diff() * 2000
        # Equal in every interval but that of the last car, since the density is linear in between.
        assert ((contents - density(time, inner, 0.2)).abs() > 1e-9).sum() <= 2
        assert float(cars_before(time, x, 0.2)[-1] - cars_before(time, x, 0.2)[0]) == pytest.approx(0.2, abs=1e-12)
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    position = rear(t, torch.tensor(0.2, dtype=torch.float64))
    (speed,) = torch.autograd.grad(position, t)
    behind_the_shock = float(density(0.4, position.detach() + 0.5 + 1e-9, 0.2))
    assert float(speed) == pytest.approx(1 - behind_the_shock, abs=1e-6)  # Rankine–Hugoniot, nothing behind
