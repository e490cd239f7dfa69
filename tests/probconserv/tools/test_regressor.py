"""Surrogates as estimators of scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from probconserv import Context, EmpiricalGP, GPSurrogate, NonNegative, Query, integral
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates.gp import GPConfig
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
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    call, message = WRONG[case]
    with pytest.raises((ValueError, InvalidArgumentError, IncompatibleQueryError), match=message):
        call()
