"""The papers' numbers, as records beside ours."""

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def published(paper: str) -> dict[str, Any]:
    """The numbers of a paper: ``probconserv``, ``boon`` or ``probharde2e``."""
    return json.loads(resources.files("experiments").joinpath(f"reference/{paper}.json").read_text(encoding="utf-8"))
