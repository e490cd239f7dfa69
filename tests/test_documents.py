"""The documents show what their code prints and fit the page."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.documents import (
    DOCS,
    GUIDES,
    ROOT,
    agree,
    missing_packages,
    pages_with_output,
    reads_records,
    run_blocks,
    shown_code,
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


@pytest.mark.parametrize("page", pages_with_output(), ids=lambda page: str(page.relative_to(ROOT).with_suffix("")))
def test_a_page_shows_what_its_blocks_print(page: Path, run: Callable[[Path], dict]) -> None:
    for code, shown, printed in zip(shown_code(page), shown_output(page), run(page)["printed"], strict=True):
        assert printed is None or agree(shown, printed, exactly=reads_records(code)), (
            f"{page.name} is stale; python -m tests.documents {page.relative_to(ROOT)} renews it. It shows\n{shown}\n"
            f"where the code prints\n{printed}"
        )


def test_output_is_compared_up_to_what_processors_change() -> None:
    text = "off by 3e-17, MSE 0.0089, 66% of 8"
    assert agree(text, "off by -2e-16, MSE 0.0092, 65% of 8")
    for other in (
        "off by 3e-5, MSE 0.0089, 66% of 8",
        "off by 3e-17, MSE 0.0095, 66% of 8",
        "off by 3e-17, MSE 0.0089, 62% of 8",
        "by 3e-17, MSE 0.0089, 66% of 8",
    ):
        assert not agree(text, other), other
    assert not agree("(8, 1, 33)", "(8, 1, 34)")


def test_output_of_blocks_that_read_records_is_compared_exactly() -> None:
    assert reads_records("import torch\nfrom experiments.records.release import released_results\n")
    assert not reads_records("from experiments import load_operator\n"), "a network is evaluated on this processor"
    assert agree("MSE 6.50e-04", "MSE 6.50e-04", exactly=True)
    assert not agree("MSE 6.50e-04", "MSE 6.51e-04", exactly=True)


def test_output_is_put_below_its_block() -> None:
    page = "```python\nprint(1)\n```\n\nText.\n\n```python\nx = 1\n```\n"
    renewed = with_output(page, ["1\n", ""])
    assert '```python\nprint(1)\n```\n\n```text title="Output"\n1\n```\n\nText.' in renewed
    assert with_output(renewed, ["", None]) == page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_fits_eighty_columns(page: Path) -> None:
    blocks = re.findall(r"^```\w.*?\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not [line for block in blocks for line in block.splitlines() if len(line) > 80]


def test_the_navigation_has_every_page_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = re.findall(r"[\w./]+\.md", navigation)
    assert len(pages) == len(set(pages))
    assert {page.relative_to(ROOT).as_posix() for page in DOCS.rglob("*.md")} <= set(pages)


def test_every_figure_of_a_guide_is_drawn_by_it(run: Callable[[Path], dict]) -> None:
    for page in sorted(GUIDES.glob("*.md")):
        shown = set(re.findall(r"\(\.\./figures/(tutorial-[\w-]+\.png)\)", page.read_text(encoding="utf-8")))
        if shown:
            assert shown == {path.name for path in run(page)["folder"].glob("*.png")}
            assert all((DOCS / "figures" / name).is_file() for name in shown)
