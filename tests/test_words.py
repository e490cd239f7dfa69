"""Phrases that puzzle a reader stay out of code, messages and pages."""

import re
from pathlib import Path

import pytest

from tests.documents import DOCS, README, ROOT

PHRASES = (
    *("plays no part", "play no part", "asks for nothing", "so many space axes", "search, told", "not told the law"),
    *("as_known", "free_first", "made_once", "steered", "settled(", "def kept("),
)
FILES = [
    *(path for folder in ("boon", "experiments", "probconserv", "solvers") for path in (ROOT / folder).rglob("*.py")),
    *DOCS.rglob("*.md"),
    README,
    ROOT / "CONTRIBUTING.md",
]


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_that_puzzles_readers_does_not_come_back(phrase: str) -> None:
    found = [str(path) for path in map(Path, FILES) if re.search(re.escape(phrase), path.read_text(encoding="utf-8"))]
    assert not found, f"say it as one would to a colleague: {found}"
