"""Studies of operators: what is trained on and what is tested on differ as the line says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.experiment import RunOptions
from experiments.operator_config import OperatorCase
from experiments.operator_data import load_fields
from experiments.operator_methods import CHANNELS, DEFAULT_NAME, PAPER
from experiments.operator_studies import ROWS, STUDIES, Trial, run_trials, trials
from tests.experiments.operators import one

STUDY = STUDIES["heat_independent"]


def lines(case: OperatorCase) -> tuple[Trial, ...]:
    return trials(case, STUDY, (6, 8))


def test_every_line_changes_what_it_says(tmp_path: Path) -> None:
    case = one("heat_independent", "single-values")
    fewer, _, outside, further, finer, finest = lines(case)
    assert (fewer.trained.sizes.samples, fewer.trained.sizes.validation, fewer.trained.sizes.batch) == (6, 1, 4)
    assert fewer.tested == outside.trained == finer.trained == case
    for line, low in ((outside, 1.0), (further, 2.0)):
        fields = load_fields(line.tested, line.tested.test_data(0), tmp_path)
        (pair,) = fields.values
        assert pair is not None
        values = torch.cat(pair)
        assert low <= float(values.min()) <= float(values.max()) <= low + 1
    assert [len(load_fields(x.tested, x.tested.test_data(0), tmp_path).output[0, 0]) for x in (finer, finest)] == [
        34,
        68,
    ]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_scores_every_row_on_every_line(name: str, tmp_path: Path) -> None:
    """Corrected rows meet the conditions at values and on grids that they were not trained on."""
    case = one(name, STUDIES[name].case)
    case = replace(case, sizes=replace(case.sizes, training=replace(case.sizes.training, steps=2)))
    own = trials(case, STUDIES[name], (6, 8))
    report = run_trials(name, (own[0], *own[2:5]), RunOptions(out=tmp_path))
    assert [row.parameter for row in report.rows[:: len(ROWS)]] == [line.label for line in (own[0], *own[2:5])]
    for row in report.rows:
        error = row.scores["boundary_relative_max"][0]
        assert (error > 1e-4) if row.method in ("FNO", CHANNELS) else error == 0.0
    assert {row.method for row in report.rows} == set(ROWS) >= {PAPER, DEFAULT_NAME}
    assert all(file.stat().st_size > 0 for file in (*report.tables, *report.figures))
    # samples-6 and the case itself: two trainings a row
    assert len(list(tmp_path.glob("**/weights.safetensors"))) == 2 * len(ROWS)
