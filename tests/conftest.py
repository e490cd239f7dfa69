"""What all tests start from."""

import signal
from pathlib import Path

import pytest

_FIRST = "test_balance_law.py"
_ORDER = {"boon": 1, "fuzz": 1, "probconserv": 1, "solvers": 2}


def pytest_configure() -> None:
    """Lets interrupts through: a shell starts background processes with SIGINT ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Takes a file that compiles most kernels of the solvers first, and the other files of the solvers late.

    Workers take files in this order. While one compiles, the other needs few of these kernels, and later finds them on
    disk. In any other order both may compile the same at the same time.
    """
    folder = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        return 0 if item.path.name == _FIRST else _ORDER.get(item.path.relative_to(folder).parts[0], len(_ORDER))

    items.sort(key=place)
