"""Interruption of a training by SIGINT."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from probconserv.training.distributed import launched


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Inside, the first SIGINT sets a flag, which the yielded function reads; a second one interrupts at once.

    Processes of ``torchrun`` and jobs of submitit receive one Ctrl-C twice, from the terminal and from the program that
    started them, so there any further SIGINT only sets the flag. Outside the main thread signals stay as they are.
    """
    # No threading.Event: a second signal inside its set would wait for a lock that the first one holds.
    stopped = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: stopped
        return
    before = signal.getsignal(signal.SIGINT)
    repeated = launched().world_size > 1 or "SUBMITIT_EXECUTOR" in os.environ

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        if not repeated:
            signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, before)
