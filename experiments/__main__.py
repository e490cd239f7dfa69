"""The command line: ``python -m experiments`` shows the commands."""

import os
import sys

from experiments.cli import main

READER_GONE = 141
"""Exit status of programs whose output nobody reads any more, 128 and the signal's number."""


def run() -> int:
    """Runs the command line of the process; ends without a word where the reader of its output has gone, as ``head``.

    Returns:
        Exit status of ``main``, or 141 if standard output was closed before its end.
    """
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes there when Python ends
        return READER_GONE


if __name__ == "__main__":
    sys.exit(run())
