"""What all tests start from."""

import signal
from pathlib import Path

import pytest

_ORDER = {"solvers": 0, "boon": 1, "fuzz": 1, "probconserv": 1}


def pytest_configure() -> None:
    """Lets interrupts through: a shell starts background processes with SIGINT ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Takes the tests of solvers first, and those of experiments and documents last.

    Each of two workers begins with one half. The first compiles the kernels of the solvers while the second needs few
    of them, and later finds them on disk. In any other order both may compile the same at the same time.
    """
    folder = Path(__file__).parent
    items.sort(key=lambda item: _ORDER.get(item.path.relative_to(folder).parts[0], len(_ORDER)))
