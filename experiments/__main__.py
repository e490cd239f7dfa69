"""The command line: ``python -m experiments COMMAND``.

    list             the experiments and benchmarks, and how long they take
    run NAME         an experiment: data, training, scores, table and figures
    reproduce NAME   the same from the trained models that ship
    sweep NAMES      experiments on several seeds, on this machine or through SLURM
    train NAME       one neural process of a conservation problem, or the operators of another experiment
    choose NAME      boundary corrections ranked by validation
    study NAME       boundary corrections on few samples, out of range and on other grids
    bench NAME       a benchmark
    report           all results in one HTML file
    predict FILE     a field from your own observations

``COMMAND --help`` shows the options; all commands take ``--json``.
"""

import sys

from experiments.commands import main

if __name__ == "__main__":
    sys.exit(main())
