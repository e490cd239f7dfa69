"""The files of the site, under their paths in the repository.

So links between pages work on the site and on a code host.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation, Section
from mkdocs.structure.pages import Page

from docs.notebooks import guides, notebook
from experiments.report.page import write_report

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "experiments/weights/README.md",
)
REPORT = "report.html"
PATTERNS = (
    "docs/*.md",
    "docs/*drawings.py",
    "docs/assets/*",
    "docs/figures/*.png",
    "docs/figures/*.gif",
    "docs/reference/**/*.md",
    "docs/guides/*.md",
    "docs/results/*.md",
    "experiments/report/figures/*.png",
    "experiments/results/**/*.csv",
    "experiments/results/**/*.csv.gz",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Puts the pages of ``docs`` under ``docs/``, beside those outside it.

    Guides are there as notebooks, too.

    Args:
        files: What MkDocs found in ``docs`` and in the theme.
        config: Says where the site goes.

    Returns:
        All files of the site, those of the theme among them.
    """
    theme = [file for file in files if file.src_dir != config.docs_dir]
    pages = [
        File(
            path.relative_to(ROOT).as_posix(),
            str(ROOT),
            config.site_dir,
            config.use_directory_urls,
        )
        for path in _pages()
    ]
    notebooks = [
        File.generated(
            config,
            page.relative_to(ROOT).with_suffix(".ipynb").as_posix(),
            content=nbformat.writes(notebook(page)),
        )
        for page in guides()
    ]
    return Files([*theme, *pages, *notebooks])


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Puts the link to its notebook below the title of a guide.

    Args:
        markdown: The page.
        page: Says which one it is.

    Returns:
        The page, with a link if it is a guide.
    """
    source = ROOT / page.file.src_uri
    if source not in guides():
        return markdown
    title, line_end, rest = markdown.partition("\n")
    file = f"({source.stem}.ipynb){{ download }}"
    link = f"[Download this page as a notebook]{file}"
    return f"{title}{line_end}\n{link}\n{rest}"


def on_nav(nav: Navigation, **_: object) -> Navigation:
    """Puts the report, which is no page of MkDocs, among the results.

    Args:
        nav: The navigation of ``mkdocs.yml``.

    Returns:
        The same with one more link.
    """
    for item in nav.items:
        if isinstance(item, Section) and item.title == "Results":
            item.children.insert(0, Link("All results on one page", REPORT))
    return nav


def on_post_build(config: MkDocsConfig, **_: object) -> None:
    """Writes the report of the released results beside the pages.

    Args:
        config: Says where the site goes.
    """
    with TemporaryDirectory() as no_runs:
        write_report(Path(no_runs), Path(config.site_dir, REPORT))


def _pages() -> Iterator[Path]:
    yield from (ROOT / name for name in OUTSIDE)
    for pattern in PATTERNS:
        yield from sorted(ROOT.glob(pattern))
