"""SIGTERM ends a command as Ctrl-C does, in its worker processes as well."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Inside, SIGTERM does what SIGINT does there; outside the main thread signals stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def handle_in_worker() -> None:
    """The same for the rest of a process, which also takes SIGINT where the shell that started all ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Calls what handles SIGINT now: a training's handler waits for the end of its step."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # a shell starts commands in the background with SIGINT ignored
        raise KeyboardInterrupt
    handler(number, frame)
