"""Surrogates as estimators of scikit-learn."""

import pickle

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from probconserv import (
    Bounded,
    Context,
    EmpiricalGP,
    GPSurrogate,
    LinearConstraint,
    LinearInequality,
    Monotone,
    NonNegative,
    Query,
    condition,
    integral,
)
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates.gp import GPConfig
from probconserv.surrogates.surrogate import Surrogate
from probconserv.tools import SurrogateRegressor
from solvers import NodeGrid

RANDOM = np.random.default_rng(0)
X = RANDOM.random((30, 1))
Y = np.sin(3 * X[:, 0]) + 0.01 * RANDOM.standard_normal(30)
GRID = NodeGrid(0.0, 1.0, 41)
PLACES = GRID.points[:, None].numpy()
QUICK = GPSurrogate(GPConfig(steps=20))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([SurrogateRegressor(GPSurrogate(GPConfig(steps=5)))])
def test_it_is_an_estimator_as_scikit_learn_checks_them(estimator, check):
    check(estimator)


def test_predictions_are_those_of_the_surrogate():
    regressor = SurrogateRegressor(QUICK).fit(X, Y)
    mean, std = regressor.predict(PLACES, return_std=True)
    expected = GPSurrogate(QUICK.config).fit(Context(X, Y)).predict(Context(X, Y), Query(PLACES))
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(std, expected.stddev, rtol=1e-10)
    np.testing.assert_allclose(regressor.predict(PLACES, return_cov=True)[1].diagonal(), std**2, rtol=1e-8)
    assert QUICK.process is None, "the surrogate that was given stays as it was"


@pytest.mark.parametrize("law", [integral(GRID, 0.6), lambda x: integral(x[:, 0], 0.6)], ids=["law", "function"])
def test_means_and_draws_meet_the_law(law):
    regressor = SurrogateRegressor(QUICK, law).fit(X, Y)
    mean, std = regressor.predict(PLACES, return_std=True)
    assert np.trapezoid(mean, PLACES[:, 0]) == pytest.approx(0.6, abs=1e-12)
    assert (std < SurrogateRegressor(QUICK).fit(X, Y).predict(PLACES, return_std=True)[1] + 1e-12).all()
    draws = regressor.sample_y(PLACES, 5, random_state=1)
    assert draws.shape == (41, 5)
    np.testing.assert_allclose(np.trapezoid(draws, PLACES[:, 0], axis=0), 0.6, atol=1e-12)
    np.testing.assert_array_equal(draws, regressor.sample_y(PLACES, 5, random_state=1))


def test_inequalities_and_other_surrogates():
    functions = torch.rand(200, 1, dtype=torch.float64) * torch.sin(3 * GRID.points)
    empirical = EmpiricalGP(functions, (GRID.points,))
    regressor = SurrogateRegressor(empirical, lambda _: NonNegative(), noise_variance=1e-4).fit(X, 0.5 * Y)
    mean, std = regressor.predict(PLACES, return_std=True)
    assert mean.min() >= 0
    assert std.shape == (41,)
    np.testing.assert_allclose(mean, 0.5 * np.sin(3 * PLACES[:, 0]), atol=0.02)


def test_pipelines_and_cross_validation():
    model = make_pipeline(StandardScaler(), SurrogateRegressor(QUICK))
    assert cross_val_score(model, X, Y, cv=3).min() > 0.95


TOTAL = float((1 - np.cos(3)) / 3)  # ∫ sin 3x dx


def whole(x):
    """The total of the field of Y over [0, 1]; a function that can be pickled."""
    return integral(x[:, 0], TOTAL)


@pytest.mark.parametrize("order", ["as drawn", "ascending"])
@pytest.mark.parametrize("folds", [KFold(5), KFold(5, shuffle=True, random_state=0)], ids=["in order", "shuffled"])
def test_folds_meet_the_law_of_the_whole_field(order, folds):
    rank = np.argsort(X[:, 0]) if order == "ascending" else slice(None)
    found, free = (
        cross_val_score(SurrogateRegressor(QUICK, **law), X[rank], Y[rank], cv=folds, error_score="raise")
        for law in ({"law": whole, "places": PLACES}, {})
    )
    assert (found >= free - 0.02).all()


def test_predictions_at_places_and_points_are_one_update():
    regressor = SurrogateRegressor(QUICK, whole, places=PLACES).fit(X, Y)
    points = np.array([[0.31], [0.5], [0.123], [0.5]])  # 0.5 is also a place
    mean, std = regressor.predict(points, return_std=True)
    prior = regressor.surrogate_.predict(regressor.context_, Query(np.concatenate([PLACES, points])))
    row = torch.cat([whole(torch.as_tensor(PLACES)).rows, torch.zeros(1, 4)], dim=1)
    expected = condition(prior, LinearConstraint(row, torch.tensor([TOTAL], dtype=torch.float64)))
    np.testing.assert_allclose(mean, expected.mean[41:], rtol=1e-12)
    np.testing.assert_allclose(std, expected.stddev[41:], rtol=1e-9)
    np.testing.assert_allclose(regressor.predict(points, return_cov=True)[1].diagonal(), std**2, rtol=1e-8)
    assert mean[1] == pytest.approx(mean[3], abs=1e-12)
    one_by_one = [float(regressor.predict(point[None])[0]) for point in points]
    np.testing.assert_allclose(one_by_one, mean, rtol=1e-9)
    draws = regressor.sample_y(np.concatenate([PLACES, points]), 5)
    np.testing.assert_allclose(np.trapezoid(draws[:41], PLACES[:, 0], axis=0), TOTAL, atol=1e-12)


@pytest.mark.parametrize("fixed", [False, True], ids=["function", "law"])
def test_bounds_hold_at_points_and_rows_at_places(fixed):
    law = integral(GRID, 0.0) & Bounded(-0.4, 0.4)
    regressor = SurrogateRegressor(QUICK, law if fixed else lambda _: law, places=PLACES).fit(X, Y - 0.5)
    mean, std = regressor.predict(X, return_std=True)
    assert np.abs(mean).max() <= 0.4
    assert mean.shape == std.shape == (30,)
    pairs = LinearInequality(torch.eye(41) - torch.eye(41).roll(1, 1), torch.full((41,), 0.5)) & Bounded(
        torch.full((41,), -0.4), 0.4
    )
    found = SurrogateRegressor(QUICK, pairs, places=PLACES).fit(X, Y - 0.5)
    assert found.predict(PLACES).max() <= 0.4


def test_a_law_with_places_is_cloned_pickled_and_searched():
    model = SurrogateRegressor(QUICK, whole, places=PLACES)
    copied = pickle.loads(pickle.dumps(model.fit(X, Y)))
    np.testing.assert_array_equal(copied.predict(X), model.predict(X))
    again = clone(model)
    assert not hasattr(again, "places_")
    np.testing.assert_array_equal(again.fit(X, Y).predict(X), model.predict(X))
    grids = [np.linspace(0, 1, count)[:, None] for count in (3, 41)]
    search = GridSearchCV(SurrogateRegressor(QUICK, whole), {"places": grids}, cv=3, error_score="raise").fit(X, Y)
    assert len(search.best_params_["places"]) == 41


def test_a_law_on_a_part_of_the_field_is_no_silent_one():
    """Folds without places, and scaled coordinates with them."""
    with pytest.warns(UserWarning, match="leave out a part of the range .* give the points that it is about as places"):
        SurrogateRegressor(QUICK, whole).fit(X, Y).predict(np.sort(X[:6], axis=0))
    for scaler in (StandardScaler(), MinMaxScaler()):
        far = 10 * X if isinstance(scaler, MinMaxScaler) else X
        model = make_pipeline(scaler, SurrogateRegressor(QUICK, whole, places=10 * PLACES[::5]))
        with pytest.warns(UserWarning, match=r"(beyond|less than half of) the range .* put no scaler before"):
            model.fit(far, Y)
    wall = SurrogateRegressor(QUICK, LinearConstraint(torch.ones(1, 1), torch.zeros(1)), places=[[0.0]]).fit(X, Y)
    assert float(wall.predict([[0.0]])[0]) == pytest.approx(0.0, abs=1e-12)


class Independent(Surrogate):
    """Zero with a deviation of one at every point."""

    def predict(self, context, query):  # noqa: ARG002
        return MultivariateNormal(zeros := torch.zeros(len(query.points)), DiagLinearOperator(torch.ones_like(zeros)))


def predicted(law, places, surrogate=QUICK):
    return SurrogateRegressor(surrogate, law, places=places).fit(X, Y).predict(X)


FITTED = SurrogateRegressor(QUICK).fit(X, Y)
LAWFUL = SurrogateRegressor(QUICK, integral(GRID, 0.6)).fit(X, Y)
UNDER_A_NUMBER = SurrogateRegressor(QUICK, lambda _: 0.6).fit(X, Y)
SIGNED = SurrogateRegressor(QUICK, lambda _: NonNegative()).fit(X, Y)
WRONG = {
    "one observation": (lambda: SurrogateRegressor().fit(X[:1], Y[:1]), "minimum of 2"),
    "both at once": (lambda: FITTED.predict(X, return_std=True, return_cov=True), "not both"),
    "a covariance under a sign": (lambda: SIGNED.predict(PLACES, return_cov=True), "has no covariance; use return_std"),
    "a law of other points": (lambda: LAWFUL.predict(X), "41"),
    "a law that is none": (lambda: UNDER_A_NUMBER.predict(X), "must be a LinearConstraint"),
    "places without a law": (lambda: SurrogateRegressor(places=PLACES).fit(X, Y), "places are the points of a law"),
    "places of another dimension": (
        lambda: SurrogateRegressor(law=whole, places=np.zeros((3, 2))).fit(X, Y),
        r"must have the 1 coordinates of X, \(p, 1\), got \(3, 2\)",
    ),
    "a law of other places": (
        lambda: predicted(integral(GRID, 1.0), PLACES[:40]),
        r"acts on \[41\] points, .* 40 places",
    ),
    "an order of places": (lambda: predicted(Monotone(), PLACES), "leave places out"),
    "no law of places": (lambda: predicted(lambda _: 0.6, PLACES), "must be a LinearConstraint"),
    "independent values": (lambda: predicted(whole, PLACES, Independent()), "of Independent are independent"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    call, message = WRONG[case]
    with pytest.raises((ValueError, InvalidArgumentError, IncompatibleQueryError), match=message):
        call()
