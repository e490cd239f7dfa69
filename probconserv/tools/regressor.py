"""A surrogate as an estimator of scikit-learn: ``fit``, ``predict(return_std=True)``, cross-validation, pipelines."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from linear_operator.operators import DiagLinearOperator
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import pad

from probconserv._linalg.gaussian import variance_of
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.inequalities.inequality import Inequality, JoinedConstraint, LinearInequality
from probconserv.sampling import draw
from probconserv.surrogates.gp import GPSurrogate
from probconserv.surrogates.surrogate import Context, Query, Surrogate
from probconserv.update import condition

Law = LinearConstraint | Inequality
_MARGIN = 0.05  # of an extent, by which the points of a law may leave out observations at either end
_SCALED = (
    "Points are those that this estimator sees: put no scaler before it, since GPSurrogate scales coordinates itself, "
    "or scale places as well."
)


class SurrogateRegressor(RegressorMixin, BaseEstimator):
    """Predicts values at points from observed ones, under a law if there is one, with the methods of scikit-learn.

    A law is about a whole field, but cross-validation predicts some points of it at a time. ``places`` are the points
    of the law, on which every prediction is joint, whatever its own points are:

        grid = np.linspace(0, 1, 101)[:, None]
        SurrogateRegressor(law=lambda x: integral(x[:, 0], 1.0), places=grid)

    Args:
        surrogate: A ``Surrogate``, ``GPSurrogate()`` by default; it is copied, and stays as it is.
        law: A function from the coordinates of ``places`` ``(p, d)``, a tensor, to the law that holds there; or the
            law. Bounds that are numbers hold at the points of a prediction as well. Without ``places`` it is about the
            points of each prediction, as for ``lambda _: NonNegative()``. Coordinates are those that this estimator
            sees, and behind a scaler scaled ones: put none before it, since ``GPSurrogate`` scales them itself.
        noise_variance: Variance of the error of every observation, where it is known.
        places: Points ``(p, d)`` in these coordinates. Values at other points follow by their correlations, so
            that the surrogate must have some; predictions cost as much as p more points.
    """

    def __init__(
        self,
        surrogate: Surrogate | None = None,
        law: Law | Callable[[Tensor], Law] | None = None,
        noise_variance: float | None = None,
        places: Any = None,
    ) -> None:
        self.surrogate = surrogate
        self.law = law
        self.noise_variance = noise_variance
        self.places = places

    def fit(self, X: Any, y: Any) -> Self:
        """Takes observed values ``(n,)`` at points ``(n, d)``; a ``GPSurrogate`` is fitted to them.

        Warns:
            UserWarning: If places and observations lie in different ranges, as behind a scaler.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        self.places_ = self._checked_places(X)
        self.surrogate_ = GPSurrogate() if self.surrogate is None else copy.deepcopy(self.surrogate)
        self.context_ = Context(X, y.astype(np.float64), noise_variance=self.noise_variance)
        if isinstance(self.surrogate_, GPSurrogate):
            self.surrogate_.fit(self.context_)
        return self

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        """Means ``(n,)`` at points ``(n, d)``, and their standard deviations or their covariance if asked for.

        Warns:
            UserWarning: If a law with rows is about the points of a prediction, which leave out a part of the range of
                the observations, as folds of cross-validation do.
        """
        if return_std and return_cov:
            raise InvalidArgumentError("predict returns standard deviations or the covariance, not both.")
        prediction, own = self._prediction(X)
        mean = prediction.mean.numpy(force=True)[own]
        if return_cov and not hasattr(prediction, "covariance_matrix"):
            raise InvalidArgumentError(f"A {type(prediction).__name__} has no covariance; use return_std or sample_y.")
        if return_cov:
            return mean, prediction.covariance_matrix.numpy(force=True)[own, own]
        return (mean, variance_of(prediction).sqrt().numpy(force=True)[own]) if return_std else mean

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Draws ``(n, n_samples)`` of the values at points ``(n, d)``; all meet the law."""
        seed = int(check_random_state(random_state).randint(2**31))
        prediction, own = self._prediction(X)
        draws = draw(prediction, (n_samples,), generator=torch.Generator().manual_seed(seed))
        return draws.numpy(force=True).T[own]

    def _prediction(self, X: Any) -> tuple[Any, slice]:
        """A prediction under the law, over places and points together, and which of its values are at the points."""
        check_is_fitted(self)
        points = torch.from_numpy(np.array(validate_data(self, X, dtype=np.float64, reset=False)))
        places = points[:0] if self.places_ is None else torch.from_numpy(self.places_)
        prediction = self.surrogate_.predict(self.context_, Query(torch.cat([places, points])))
        own = slice(len(places), None)
        if self.law is None:
            return prediction, own
        law: Any = self.law
        if self.places_ is None:
            law = law if isinstance(law, Law) else law(points)
            self._warn_of_part(law, points)
            return condition(prediction, law), own
        if isinstance(prediction, Normal) or _is_diagonal(prediction):
            raise InvalidArgumentError(
                f"The values of {type(self.surrogate_).__name__} are independent, so that a law on places says nothing "
                "of other points; use a surrogate with correlations, such as GPSurrogate."
            )
        law = law if isinstance(law, Law) else law(places)
        return condition(prediction, _extended(law, len(places), len(points))), own

    def _checked_places(self, X: np.ndarray) -> np.ndarray | None:
        """Places ``(p, d)``, refused if they do not fit to points; warns if they lie in another range."""
        if self.places is None:
            return None
        if self.law is None:
            raise InvalidArgumentError("places are the points of a law, but law is None; give both, or no places.")
        places = np.array(check_array(self.places, dtype="float64"))
        if places.shape[1] != X.shape[1]:
            raise InvalidArgumentError(
                f"places must have the {X.shape[1]} coordinates of X, (p, {X.shape[1]}), got {places.shape}."
            )
        (low, high), (first, last) = _range(places), _range(X)
        slack = _MARGIN * (high - low)
        beyond = ((first < low - slack) | (last > high + slack)) & (high > low)
        wrong = beyond | (last - first < 0.5 * (high - low))
        if wrong.any():
            axis = int(wrong.argmax())
            said = "beyond" if beyond[axis] else "less than half of"
            warnings.warn(
                f"Coordinate {axis} of the observations is in [{first[axis]:g}, {last[axis]:g}], {said} the range "
                f"[{low[axis]:g}, {high[axis]:g}] of places. {_SCALED}",
                stacklevel=3,
            )
        return places

    def _warn_of_part(self, law: Any, points: Tensor) -> None:
        """Warns of a law with rows on points that leave out a part of the range of the observations."""
        joined = law.joined() if isinstance(law, Inequality) else law
        if isinstance(joined, JoinedConstraint) and joined.law is None:
            return
        (low, high), (first, last) = _range(points.numpy()), _range(self.context_.points.numpy(force=True))
        slack = _MARGIN * (last - first)
        if bool(((low > first + slack) | (high < last - slack)).any()):
            warnings.warn(
                "The law is imposed on the points of this prediction, which leave out a part of the range of the "
                "observations, as folds of cross-validation do; give the points that it is about as places=.",
                stacklevel=4,
            )


def _range(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest coordinates ``(d,)``."""
    return points.min(axis=0), points.max(axis=0)


def _is_diagonal(prediction: Any) -> bool:
    """Whether values of a Gaussian are independent; of a mixture they are related by its weights."""
    return isinstance(getattr(prediction, "lazy_covariance_matrix", None), DiagLinearOperator)


def _extended(law: Any, places: int, points: int) -> Any:
    """A law on places as one on these and further points, where bounds that are numbers hold as well."""
    if not isinstance(law, Law):
        return law
    joined = law.joined() if isinstance(law, Inequality) else JoinedConstraint(law=law)
    if joined.order:
        raise InvalidArgumentError(
            "An order is one of all points of a prediction, in the order in which they are given; leave places out."
        )
    bounds = {name: getattr(joined, name) for name in ("lower", "upper")}
    widths = {bound.shape[-1] for bound in bounds.values() if bound.ndim} - {1}
    widths |= {part.shape[-1] for part in joined.parts}
    if widths - {places}:
        raise IncompatibleQueryError(f"The law acts on {sorted(widths)} points, but there are {places} places.")
    for name, bound in bounds.items():
        if bound.ndim and bound.shape[-1] != 1:
            bounds[name] = pad(bound, (0, points), value=-torch.inf if name == "lower" else torch.inf)
    linear, rows = joined.law, joined.rows
    if linear is not None:
        linear = replace(linear, G=pad(linear.rows, (0, points)), shape=None)
    if rows is not None:
        A = rows.A if isinstance(rows.A, Tensor) else rows.A.to_dense()
        rows = LinearInequality(pad(A, (0, points)), rows.c)
    return replace(joined, law=linear, rows=rows, **bounds) if isinstance(law, Inequality) else linear
