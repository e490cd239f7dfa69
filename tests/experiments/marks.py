"""Marks the slow cases of a parametrised test."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(names: Iterable[str], usual: Collection[str]) -> list[Any]:
    """The names as parameters; all but the usual ones are slow tests, since each is like one of these."""
    return [name if name in usual else pytest.param(name, marks=pytest.mark.slow) for name in names]
