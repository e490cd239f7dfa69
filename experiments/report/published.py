"""BOON as Saad et al. publish it beside what we get with their correction, as a table of a document."""

import numpy as np
import pandas as pd

from experiments.records.table import format_score
from experiments.report.tables import markdown, results_of, score_of

CASES = (
    ("stokes", "single-paper"),
    ("stokes", "single-0.02"),
    ("stokes", "multi-notebook"),
    ("heat_neumann", "multi-notebook"),
    ("burgers_dirichlet", "single-paper"),
    ("burgers_periodic", "single-paper"),
)
"""Experiments and cases, all with the authors' nodes but ``single-0.02``."""
METHODS = {"FNO": "fno", "BOON (Elimination, as published)": "boon-paper", "BOON (default)": "boon-default"}


def boon() -> str:
    """Relative L2 of the paper and ours, a dash for what was not published or not run."""
    lines = list[dict[str, str]]()
    for experiment, case in CASES:
        results = results_of(experiment)
        described = results.description
        printed = described.published.set_index("case")["mean"].get(case, np.nan)
        line = {"relative L2": f"{experiment}, {described.cases[case]}", "published BOON": format_score(printed)}
        for heading, key in METHODS.items():
            mean, error = score_of(results, case, key, "relative_l2")
            line[heading] = format_score(mean, None if np.isnan(error) else error)
        lines.append(line)
    return markdown(pd.DataFrame(lines))
