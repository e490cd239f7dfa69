"""The command line: ``python -m experiments list | run NAME | bench NAME | predict FILE``."""

import sys

from experiments.commands import main

if __name__ == "__main__":
    sys.exit(main())
