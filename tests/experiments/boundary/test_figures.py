"""What the figures of the boundary-condition experiments show, read from the drawn artists."""

import numpy as np
import pytest

from experiments.boundary.figures import NAMES, Fields, Names, Shown, names_of, profiles, snapshots, space_time
from experiments.boundary.methods import DEFAULT, FNO, methods
from experiments.boundary.versions import VERSIONS
from solvers.stencils import one_sided_gradient
from tests.experiments.boundary.tiny import one

X = np.linspace(0.0, 1.0, 21)
TRUTH = np.cos(np.pi * X)
PLAIN, BOON = (method for method in methods(one("stokes", "single-0.02")) if method.key in (FNO, DEFAULT))


def shown(times: list[float], true: np.ndarray, fields: Fields) -> Shown:
    names = Names(title="title", field="velocity u", coordinate="y")
    return Shown(times=np.array(times), true=true, fields=fields, names=names, title="title")


def test_every_problem_has_a_title_and_a_field() -> None:
    assert NAMES.keys() == VERSIONS.keys()
    for name, names in NAMES.items():
        assert ("_" in names.title, " " in names.field) == (False, True)
        assert (names.coordinate == "y") == (name == "stokes")
    assert names_of("my_problem") == Names(title="My problem")


def test_a_profile_marks_where_its_error_is_exactly_zero() -> None:
    fields = {PLAIN: TRUTH[None] + 0.1, BOON: TRUTH[None] + 0.1 * X * (1 - X)}
    left, right = profiles(shown([2.0], TRUTH[None], fields), None).axes
    assert (left.get_title(), left.get_xlabel(), left.get_ylabel()) == ("t = 2", "y", "velocity u")
    assert (right.get_ylabel(), right.get_yscale()) == ("|u − truth|", "log")
    fno, boon, triangles = right.lines
    assert np.allclose(fno.get_ydata(), 0.1)
    assert np.isnan(boon.get_ydata()[[0, -1]]).all()
    assert np.allclose(boon.get_ydata()[1:-1], 0.1 * (X * (1 - X))[1:-1])
    assert list(triangles.get_xdata()) == [0.0, 1.0]
    assert triangles.get_color() == boon.get_color() == BOON.style.colour != fno.get_color()


def test_a_profile_at_an_insulator_shows_the_gradient_that_is_imposed_there() -> None:
    stencil = one_sided_gradient(4, "first").numpy()
    insulated = TRUTH + 0.1 * X**2
    insulated[0] = -(stencil[1:] @ insulated[1 : len(stencil)]) / stencil[0]
    _, right = profiles(shown([1.0], TRUTH[None], {PLAIN: TRUTH[None] + X, BOON: insulated[None]}), stencil).axes
    assert (right.get_ylabel(), right.get_title()) == ("∂u/∂y", "gradient at the insulator")
    fno, boon, *_ = (line.get_ydata() for line in right.lines)
    assert abs(boon[0]) < 1e-12
    assert fno[0] == pytest.approx(1.0, abs=1e-3)  # the gradient of the truth is 0 up to h⁴


def test_pixels_of_a_space_time_figure_are_centred_at_times_and_nodes() -> None:
    true = np.tile(TRUTH, (3, 1))
    first, error, *bars = space_time(shown([0.5, 1.0, 1.5], true, {PLAIN: true + 0.25})).axes
    assert first.get_title() == "truth"
    assert error.get_title().startswith("error of FNO\nrelative L2 0.3")
    left, right, low, high = first.images[0].get_extent()
    width, height = (right - left) / 3, (high - low) / 21
    assert (left + width / 2, right - width / 2) == pytest.approx((0.5, 1.5))
    assert (low + height / 2, high - height / 2) == pytest.approx((0.0, 1.0))
    assert np.allclose(error.images[0].get_array(), 0.25)
    assert {axes.get_ylabel() for axes in bars} == {"velocity u", "|u − truth|"}


def test_snapshots_show_the_truth_and_errors_of_methods_at_the_times_named() -> None:
    times = [0.1, 0.2, 0.3, 0.4]
    true = np.arange(1.0, 5.0)[:, None, None] * np.array([[1, 0, 0], [0, 0, 0], [0, 0, 2]])
    axes = np.array(snapshots(shown(times, true, {PLAIN: -true, BOON: true})).axes[:12]).reshape(3, 4)
    assert [panel.get_title() for panel in axes[0]] == [f"t = {t:.2f}" for t in times]
    labels = ["truth", "error of FNO\nrelative L2 2", "error of BOON (default)\nrelative L2 0"]
    assert [panel.get_ylabel() for panel in axes[:, 0]] == labels
    for line, factor in zip(axes, (1.0, 2.0, 0.0), strict=True):
        assert all(
            np.array_equal(panel.images[0].get_array(), factor * u.T) for panel, u in zip(line, true, strict=True)
        )
