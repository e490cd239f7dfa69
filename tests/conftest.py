"""What all tests start from."""

import signal


def pytest_configure() -> None:
    """Lets interrupts through: a shell starts background processes with SIGINT ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
