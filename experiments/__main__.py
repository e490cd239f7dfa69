"""The command line: ``python -m experiments`` shows the commands."""

import sys

from experiments.cli import main

if __name__ == "__main__":
    sys.exit(main())
