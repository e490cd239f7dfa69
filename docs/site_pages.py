"""Which files make the site: those of the repository under their own paths, so that links work here and there."""

from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "experiments/weights/README.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replaces the pages of ``docs`` by the same under ``docs/``, beside those outside it; keeps the theme's files.

    Args:
        files: What MkDocs found in ``docs`` and in the theme.
        config: Says where the site goes.

    Returns:
        All files of the site.
    """
    theme = [file for file in files if file.src_dir != config.docs_dir]
    own = [
        File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls)
        for path in _own_files()
    ]
    return Files([*theme, *own])


def _own_files() -> Iterator[Path]:
    yield from (ROOT / name for name in OUTSIDE)
    for pattern in ("*.md", "figures/*.png", "figures/*.gif", "reference/*.md", "tutorials/*.md"):
        yield from sorted((ROOT / "docs").glob(pattern))
