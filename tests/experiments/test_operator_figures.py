"""What the figures of the boundary-condition experiments show, read from the drawn artists."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.operator_figures import Labels, labels_of, profiles, snapshots, space_time
from experiments.operator_methods import DEFAULT_NAME
from experiments.operator_problems import CASES
from solvers.stencils import one_sided_gradient
from tests.experiments.operators import tiny_cases

LABELS = Labels(title="title", field="velocity u", place="y")
X = np.linspace(0.0, 1.0, 21)
TRUTH = np.cos(np.pi * X)


@pytest.mark.parametrize("name", CASES)
def test_every_problem_has_a_title_and_a_field_of_its_own(name: str) -> None:
    for case in tiny_cases(name):
        labels = labels_of(case)
        assert labels.title.endswith(f", {case.label}")
        assert "_" not in labels.title
        assert " " in labels.field
        assert (labels.place == "y") == ("u_yy" in case.problem.equation)


def test_a_problem_of_your_own_goes_by_its_name() -> None:
    case = tiny_cases("stokes")[0]
    own = replace(case, problem=replace(case.problem, name="my_problem"))
    assert labels_of(own) == Labels(title=f"My problem, {case.label}")


def test_a_profile_marks_where_its_error_is_exactly_zero() -> None:
    exact_at_ends = TRUTH + 0.1 * X * (1 - X)
    fields = {"truth": TRUTH, "FNO": TRUTH + 0.1, DEFAULT_NAME: exact_at_ends}
    left, right = profiles(2.0, fields, LABELS, None).axes
    assert (left.get_title(), left.get_xlabel(), left.get_ylabel()) == ("t = 2", "y", "velocity u")
    assert (right.get_ylabel(), right.get_yscale()) == ("|u − truth|", "log")
    fno, boon, triangles = right.lines
    assert np.allclose(fno.get_ydata(), 0.1)
    assert np.isnan(np.asarray(boon.get_ydata())[[0, -1]]).all()
    assert np.allclose(np.asarray(boon.get_ydata())[1:-1], 0.1 * (X * (1 - X))[1:-1])
    assert list(np.asarray(triangles.get_xdata())) == [0.0, 1.0]
    assert triangles.get_color() == boon.get_color() != fno.get_color()


def test_a_profile_at_an_insulator_shows_the_gradient_that_is_imposed_there() -> None:
    stencil = one_sided_gradient(4, "first").numpy()
    insulated = TRUTH + 0.1 * X**2
    insulated[0] = -(stencil[1:] @ insulated[1 : len(stencil)]) / stencil[0]
    _, right = profiles(0.5, {"truth": TRUTH, "FNO": TRUTH + X, DEFAULT_NAME: insulated}, LABELS, stencil).axes
    assert (right.get_ylabel(), right.get_title()) == ("∂u/∂y", "gradient at the insulator")
    _, fno, boon, _ = (np.asarray(line.get_ydata()) for line in right.lines)
    assert abs(boon[0]) < 1e-12
    assert fno[0] == pytest.approx(1.0, abs=1e-3)  # the truth's own gradient is 0 up to h⁴


def test_pixels_of_a_space_time_figure_are_centred_at_times_and_nodes() -> None:
    times = np.array([0.5, 1.0, 1.5])
    fields = {"truth": np.tile(TRUTH, (3, 1)), "FNO": np.tile(TRUTH, (3, 1)) + 0.25}
    figure = space_time(times, fields, LABELS)
    first, second, corner, error = figure.axes[:4]
    assert (first.get_title(), second.get_title(), error.get_title()) == ("truth", "FNO", "absolute error")
    assert first.get_ylabel() == error.get_ylabel() == "y"
    assert not corner.images
    left, right, low, high = first.images[0].get_extent()
    width, height = (right - left) / 3, (high - low) / 21
    assert (left + width / 2, right - width / 2) == pytest.approx((0.5, 1.5))
    assert (low + height / 2, high - height / 2) == pytest.approx((0.0, 1.0))
    assert np.allclose(np.asarray(error.images[0].get_array()), 0.25)
    assert {axes.get_ylabel() for axes in figure.axes[4:]} == {"velocity u", "|u − truth|"}


def test_snapshots_show_the_initial_field_and_every_method_at_the_times_named() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    first = np.zeros((3, 3))
    true = np.arange(1.0, 5.0)[:, None, None] * np.array([[1, 0, 0], [0, 0, 0], [0, 0, 2]])
    figure = snapshots(times, first, {"truth": true, "FNO": -true}, LABELS)
    rows = (figure.axes[:5], figure.axes[5:10])
    assert [axes.get_title() for axes in rows[0]] == ["initial field, t = 0.00", *(f"t = {t:.2f}" for t in times[1:])]
    assert [row[1].get_ylabel() for row in rows] == ["truth", "FNO"]
    for row, sign in zip(rows, (1.0, -1.0), strict=True):
        for axes, u in zip(row[1:], true, strict=True):
            assert np.array_equal(np.asarray(axes.images[0].get_array()), sign * u.T)
    assert not rows[1][0].images
    assert figure.axes[10].get_ylabel() == "velocity u"
