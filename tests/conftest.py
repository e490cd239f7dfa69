"""What all tests start from."""

import signal
from collections.abc import Generator
from pathlib import Path

import pytest

_ORDER = {"solvers": 0, "boon": 1, "fuzz": 1, "probconserv": 1}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--perturb``: one more rounding in sums and products of torch."""
    parser.addoption("--perturb", action="store_true", help="run the tests within tests/perturbation.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Perturbs a test and what it prepares, unless it has the mark ``bits``."""
    if not item.config.getoption("--perturb") or item.get_closest_marker("bits"):
        return (yield)
    from tests.perturbation import Perturbation

    with Perturbation():
        return (yield)


def pytest_configure() -> None:
    """Lets interrupts through: a shell starts background processes with SIGINT ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives all tests of solvers to one worker, and every other file to one.

    One worker compiles the kernels of the solvers while the other needs few of them, and later finds them on disk. In
    any other order both compile the same at the same time. What a file prepares for its tests is prepared once.
    """
    folder = Path(__file__).parent

    def first(item: pytest.Item) -> str:
        return item.path.relative_to(folder).parts[0]

    items.sort(key=lambda item: _ORDER.get(first(item), len(_ORDER)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(first(item) if first(item) == "solvers" else str(item.path)))
