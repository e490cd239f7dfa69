"""What the figure of a boundary-condition case shows, read from the drawn artists."""

import numpy as np
import pytest

from experiments.boundary.figures import draw_case, problem_of
from experiments.boundary.methods import CHANNELS, DEFAULT, FNO, methods
from experiments.boundary.problems import PROBLEMS
from tests.experiments.boundary.tiny import one

X = np.linspace(0.0, 1.0, 21)
LINE, SQUARE = np.cos(np.pi * X), np.outer(X, 1 + X)


def test_every_problem_has_a_title_and_a_field() -> None:
    for name, row in PROBLEMS.items():
        assert ("_" in row.title, " " in row.field) == (False, True)
        assert (row.coordinate == "y") == (name == "stokes")
    assert problem_of("my_problem").title == "My problem"


@pytest.mark.parametrize(("name", "key", "true"), [("stokes", "multi-0.02", LINE), ("cavity", "multi", SQUARE)])
def test_a_sample_has_truth_prediction_and_errors_at_the_last_time(name: str, key: str, true: np.ndarray) -> None:
    """Of the first seed; the best baseline of the validation set is shown beside the default."""
    case = one(name, key)
    fields = np.stack([0 * true, true])[None]
    error = {FNO: 0.2, CHANNELS: 0.1, DEFAULT: 0.4}
    stored = {(each, 0): {"shown": fields + off, "validation": np.array(off)} for each, off in error.items()}
    stored |= {(each, 1): {**arrays, "shown": fields + 9} for (each, _), arrays in stored.items()}
    stored["truth", 0] = {"shown": fields, "input": true[None, None] + 1}
    (figure,) = draw_case(name, case, methods(case), stored).values()
    if true.ndim == 1:
        given, solution, missed = figure.axes
        assert np.array_equal(given.lines[0].get_ydata(), true + 1)
        labels = [line.get_label() for line in solution.lines]
        assert (solution.get_xlabel(), missed.get_title(), missed.get_yscale()) == ("y", "|u − truth|", "log")
        drawn = [line.get_ydata() for line in (*solution.lines, *missed.lines)]
    else:
        panels = [panel for panel in figure.axes if panel.images]
        assert np.array_equal(panels[0].images[0].get_array(), true.T + 1)
        labels = ["truth", panels[3].get_title().removeprefix("error of\n"), panels[2].get_title()]
        drawn = [panels[number].images[0].get_array().T for number in (1, 2, 2, 3, 4)]
        drawn[1] = true + 0.1
    assert labels == ["truth", "FNO + boundary channels", "BOON (default)"]
    for values, expected in zip(drawn, (true, true + 0.1, true + 0.4, 0 * true + 0.1, 0 * true + 0.4), strict=True):
        assert np.allclose(values, expected)
    assert draw_case(name, case, methods(case), {("truth", 0): stored["truth", 0]}) == {}
