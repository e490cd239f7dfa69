"""A surrogate as an estimator of scikit-learn: ``fit``, ``predict(return_std=True)``, cross-validation, pipelines."""

import copy
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from probconserv._linalg.gaussian import variance_of
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities.inequality import Inequality
from probconserv.sampling import draw
from probconserv.surrogates.gp import GPSurrogate
from probconserv.surrogates.surrogate import Context, Query, Surrogate
from probconserv.update import condition

Law = LinearConstraint | Inequality


class SurrogateRegressor(RegressorMixin, BaseEstimator):
    """Predicts values at points from observed ones, under a law if there is one, with the methods of scikit-learn.

    Args:
        surrogate: A ``Surrogate``, ``GPSurrogate()`` by default; it is copied, and stays as it is.
        law: What holds for the values at the points of a prediction: a function from their coordinates ``(n, d)``, a
            tensor, to the law, such as ``lambda x: integral(x[:, 0], 1.0)``; or the law, for points that stay the same.
        noise_variance: Variance of the error of every observation, where it is known.
    """

    def __init__(
        self,
        surrogate: Surrogate | None = None,
        law: Law | Callable[[Tensor], Law] | None = None,
        noise_variance: float | None = None,
    ) -> None:
        self.surrogate = surrogate
        self.law = law
        self.noise_variance = noise_variance

    def fit(self, X: Any, y: Any) -> Self:
        """Takes observed values ``(n,)`` at points ``(n, d)``; a ``GPSurrogate`` is fitted to them."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        self.surrogate_ = GPSurrogate() if self.surrogate is None else copy.deepcopy(self.surrogate)
        self.context_ = Context(X, y.astype(np.float64), noise_variance=self.noise_variance)
        if isinstance(self.surrogate_, GPSurrogate):
            self.surrogate_.fit(self.context_)
        return self

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        """Means ``(n,)`` at points ``(n, d)``, and their standard deviations or their covariance if asked for."""
        if return_std and return_cov:
            raise InvalidArgumentError("predict returns standard deviations or the covariance, not both.")
        prediction = self._prediction(X)
        mean = prediction.mean.numpy(force=True)
        if return_cov and not hasattr(prediction, "covariance_matrix"):
            raise InvalidArgumentError(f"A {type(prediction).__name__} has no covariance; use return_std or sample_y.")
        if return_cov:
            return mean, prediction.covariance_matrix.numpy(force=True)
        return (mean, variance_of(prediction).sqrt().numpy(force=True)) if return_std else mean

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Draws ``(n, n_samples)`` of the values at points ``(n, d)``; all meet the law."""
        seed = int(check_random_state(random_state).randint(2**31))
        draws = draw(self._prediction(X), (n_samples,), generator=torch.Generator().manual_seed(seed))
        return draws.numpy(force=True).T

    def _prediction(self, X: Any) -> Any:
        check_is_fitted(self)
        points = torch.from_numpy(np.array(validate_data(self, X, dtype=np.float64, reset=False)))
        prediction = self.surrogate_.predict(self.context_, Query(points))
        if self.law is None:
            return prediction
        return condition(prediction, self.law if isinstance(self.law, Law) else self.law(points))
