"""What the figures of the boundary-condition experiments show, read from the drawn artists."""

import numpy as np
import pytest

from experiments.boundary.figures import NAMES, Fields, Names, Shown, names_of, profiles, snapshots, space_time
from experiments.boundary.methods import DEFAULT, FNO, methods
from experiments.boundary.versions import VERSIONS
from solvers.stencils import one_sided_gradient
from tests.experiments.boundary.tiny import one

PLACEHOLDER = Names(title="title", field="velocity u", coordinate="y")
X = np.linspace(0.0, 1.0, 21)
TRUTH = np.cos(np.pi * X)
BY_KEY = {method.key: method for method in methods(one("stokes", "single-0.02"))}
PLAIN, BOON = BY_KEY[FNO], BY_KEY[DEFAULT]


def shown(times: list[float], true: np.ndarray, fields: Fields) -> Shown:
    return Shown(times=np.array(times), true=true, fields=fields, names=PLACEHOLDER, title="title")


def test_every_problem_has_a_title_and_a_field() -> None:
    assert NAMES.keys() == VERSIONS.keys()
    for name, names in NAMES.items():
        assert "_" not in names.title
        assert " " in names.field
        assert (names.coordinate == "y") == (name == "stokes")
    assert names_of("my_problem") == Names(title="My problem")


def test_a_profile_marks_where_its_error_is_exactly_zero() -> None:
    fields = {PLAIN: TRUTH[None] + 0.1, BOON: TRUTH[None] + 0.1 * X * (1 - X)}
    left, right = profiles(shown([2.0], TRUTH[None], fields), None).axes
    assert left.get_title() == "t = 2"
    assert (left.get_xlabel(), left.get_ylabel()) == ("y", "velocity u")
    assert (right.get_ylabel(), right.get_yscale()) == ("|u − truth|", "log")
    fno, boon, triangles = right.lines
    assert np.allclose(fno.get_ydata(), 0.1)
    assert np.isnan(np.asarray(boon.get_ydata())[[0, -1]]).all()
    assert np.allclose(np.asarray(boon.get_ydata())[1:-1], 0.1 * (X * (1 - X))[1:-1])
    assert list(np.asarray(triangles.get_xdata())) == [0.0, 1.0]
    assert triangles.get_color() == boon.get_color() == BOON.style.colour != fno.get_color()


def test_a_profile_at_an_insulator_shows_the_gradient_that_is_imposed_there() -> None:
    stencil = one_sided_gradient(4, "first").numpy()
    insulated = TRUTH + 0.1 * X**2
    insulated[0] = -(stencil[1:] @ insulated[1 : len(stencil)]) / stencil[0]
    _, right = profiles(shown([1.0], TRUTH[None], {PLAIN: TRUTH[None] + X, BOON: insulated[None]}), stencil).axes
    assert (right.get_ylabel(), right.get_title()) == ("∂u/∂y", "gradient at the insulator")
    fno, boon, *_ = (np.asarray(line.get_ydata()) for line in right.lines)
    assert abs(boon[0]) < 1e-12
    assert fno[0] == pytest.approx(1.0, abs=1e-3)  # the gradient of the truth is 0 up to h⁴


def test_pixels_of_a_space_time_figure_are_centred_at_times_and_nodes() -> None:
    true = np.tile(TRUTH, (3, 1))
    figure = space_time(shown([0.5, 1.0, 1.5], true, {PLAIN: true + 0.25}))
    first, error = figure.axes[:2]
    assert first.get_title() == "truth"
    assert error.get_title().startswith("error of FNO\nrelative L2 0.3")
    left, right, low, high = first.images[0].get_extent()
    width, height = (right - left) / 3, (high - low) / 21
    assert (left + width / 2, right - width / 2) == pytest.approx((0.5, 1.5))
    assert (low + height / 2, high - height / 2) == pytest.approx((0.0, 1.0))
    assert np.allclose(np.asarray(error.images[0].get_array()), 0.25)
    assert {axes.get_ylabel() for axes in figure.axes[2:]} == {"velocity u", "|u − truth|"}


def test_snapshots_show_the_truth_and_errors_of_methods_at_the_times_named() -> None:
    times = [0.1, 0.2, 0.3, 0.4]
    true = np.arange(1.0, 5.0)[:, None, None] * np.array([[1, 0, 0], [0, 0, 0], [0, 0, 2]])
    figure = snapshots(shown(times, true, {PLAIN: -true, BOON: true}))
    lines = (figure.axes[:4], figure.axes[4:8], figure.axes[8:12])
    assert [axes.get_title() for axes in lines[0]] == [f"t = {t:.2f}" for t in times]
    assert [line[0].get_ylabel() for line in lines] == [
        *("truth", "error of FNO\nrelative L2 2", "error of BOON (default)\nrelative L2 0"),
    ]
    for line, factor in zip(lines, (1.0, 2.0, 0.0), strict=True):
        for axes, u in zip(line, true, strict=True):
            assert np.array_equal(np.asarray(axes.images[0].get_array()), factor * u.T)
