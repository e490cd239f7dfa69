"""One field under a constraint with every matrix formed: NumPy, float64, no line shared with the library.

A prior is Σ_c w_c N(μ_c, Σ_c), with a lower bound or not. Rows that follow from others are left out; bounds are
met by trying every set of active ones; the field of least distance on a sphere comes from its secular equation.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multivariate_normal

Array = np.ndarray


@dataclass(frozen=True)
class Rows:
    """G u = b + ε with variances σ²: (k, n), (k,), (k,)."""

    G: Array
    b: Array
    noise: Array

    def __and__(self, other: "Rows") -> "Rows":
        return Rows(*(np.concatenate(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))

    def independent(self) -> "Rows":
        """Rows that imply the others, those with fewest entries first; noisy rows are all kept."""
        order = sorted(range(len(self.b)), key=lambda row: int(np.count_nonzero(self.G[row])))
        kept: list[int] = []
        for row in order:
            unit = [self.G[each] / np.linalg.norm(self.G[each]) for each in [*kept, row]]
            if self.noise[row] or np.linalg.matrix_rank(np.array(unit), tol=1e-9) == len(unit):
                kept.append(row)
        return Rows(self.G[kept], self.b[kept], self.noise[kept])


@dataclass(frozen=True)
class Field:
    """Weights (c,), means (c, n), covariances (c, n, n), and a bound u ≥ lower."""

    weights: Array
    means: Array
    covariances: Array
    lower: float | None = None

    @property
    def components(self) -> list["Field"]:
        """Every component as a field of weight one."""
        parts = zip(self.means, self.covariances, strict=True)
        return [Field(np.ones(1), mean[None], covariance[None], self.lower) for mean, covariance in parts]

    @property
    def mean(self) -> Array:
        """Mean (n,)."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Array:
        """Covariance (n, n): within components and between them."""
        apart = self.means - self.mean
        return np.einsum("c,cij->ij", self.weights, self.covariances + apart[:, :, None] * apart[:, None, :])


@dataclass(frozen=True)
class Conditioned:
    """A field under rows, before bounds: what it was, the rows, what it is, and its evidence, one per component."""

    prior: Field
    rows: Rows
    field: Field
    log_evidences: Array

    @property
    def log_evidence(self) -> float:
        """log Σ_c w_c N(b; G μ_c, S_c)."""
        return float(np.logaddexp.reduce(np.log(self.prior.weights) + self.log_evidences))


def conditioned(prior: Field, rows: Rows) -> Conditioned:
    """Bayes' theorem for every component and for their weights."""
    kept = rows.independent()
    means, covariances, evidences = [], [], []
    for mean, covariance in zip(prior.means, prior.covariances, strict=True):
        cross = covariance @ kept.G.T
        S = kept.G @ cross + np.diag(kept.noise)
        gain = cross @ np.linalg.inv(S)
        means.append(mean - gain @ (kept.G @ mean - kept.b))
        covariances.append(covariance - gain @ cross.T)
        evidences.append(multivariate_normal.logpdf(kept.b, kept.G @ mean, S))
    logs = np.log(prior.weights) + evidences
    weights = np.exp(logs - logs.max())
    field = replace(prior, weights=weights / weights.sum(), means=np.array(means), covariances=np.array(covariances))
    return Conditioned(prior, rows, field, np.array(evidences))


def matheron(prior: Field, rows: Rows, fields: Array, errors: Array) -> Array:
    """What rows make of draws (s, n) of a single Gaussian, given the errors of those that are kept (s, k)."""
    kept = rows.independent()
    cross = prior.covariance @ kept.G.T
    S = kept.G @ cross + np.diag(kept.noise)
    return fields - (fields @ kept.G.T + errors - kept.b) @ np.linalg.inv(S) @ cross.T


def projected(y: Array, variance: Array, rows: Rows, lower: float) -> Array:
    """argmin Σ (u − y)²/v + Σ_noisy (g (u − y))²/σ² over u ≥ lower on exact rows, for fields (s, n)."""
    best, least = np.full(y.shape, np.nan), np.full(len(y), np.inf)
    target = np.where(rows.noise > 0, y @ rows.G.T, rows.b)
    for active in itertools.product((False, True), repeat=y.shape[1]):
        held = np.array(active)
        begin = np.where(held, lower, y)
        G = np.where(held, 0.0, rows.G)
        S = (G * variance) @ G.T + np.diag(rows.noise)
        u = begin - (begin @ rows.G.T - target) @ np.linalg.pinv(S, 1e-12, hermitian=True) @ (G * variance)
        exact = rows.noise == 0
        missed = np.abs(u @ rows.G.T - target)[:, exact].max(axis=1, initial=0)
        value = ((u - y) ** 2 / variance).sum(1)
        value += (((u - y) @ rows.G.T)[:, ~exact] ** 2 / rows.noise[~exact]).sum(1)
        size = 1e-9 * np.abs(y).max()
        better = (u.min(axis=1) >= lower - size) & (missed <= size * np.abs(rows.G).sum()) & (value < least)
        best[better], least[better] = u[better], value[better]
    return best


def on_sphere(prior: Field, level: float, unit: float) -> Rows:
    """(mean(u²) − level)/unit = 0, linearised at the field nearest in the metric of Σ; at u ≥ 0 for a prior with it."""
    mean, covariance, n = prior.means[0], prior.covariances[0], prior.means.shape[1]
    patterns = [(False,) * n] if prior.lower is None else itertools.product((False, True), repeat=n)
    best, least = mean, np.inf
    for pattern in patterns:
        held = np.array(pattern)
        u, value = _nearest_on_sphere(mean, covariance, held, level)
        if value < least and (prior.lower is None or u.min() >= -1e-12):
            best, least = u, value
    row = 2 * best[None] / n / unit
    return Rows(row, row @ best, np.zeros(1))


def _nearest_on_sphere(mean: Array, covariance: Array, held: Array, level: float) -> tuple[Array, float]:
    """The nearest field with some values held at 0, and its squared distance.

    The others are u = (I + λ Σ)⁻¹ μ of the Gaussian given the held ones, with the λ that meets the level.
    """
    free = ~held
    cross = covariance[np.ix_(free, held)] @ np.linalg.inv(covariance[np.ix_(held, held)])
    centre = mean[free] - cross @ mean[held]
    part = covariance[np.ix_(free, free)] - cross @ covariance[np.ix_(held, free)]
    if not free.any():
        return mean, np.inf

    def u(multiplier: float) -> Array:
        return np.linalg.solve(np.eye(len(part)) + multiplier * part, centre)

    lowest = -1 / np.linalg.eigvalsh(part)[-1]
    missed = lambda multiplier: u(multiplier) @ u(multiplier) - level * len(mean)  # noqa: E731
    ends = lowest * (1 - 1e-9), 1e9 * abs(lowest)
    if missed(ends[0]) < 0 or missed(ends[1]) > 0:
        return mean, np.inf
    multiplier = brentq(missed, *ends, xtol=1e-300, rtol=8.9e-16, maxiter=500)
    field = np.zeros(len(mean))
    field[free] = u(multiplier)
    distance = multiplier**2 * field[free] @ part @ field[free]
    return field, distance + mean[held] @ np.linalg.solve(covariance[np.ix_(held, held)], mean[held])


def entropy(field: Field) -> float:
    """½ log det 2πe Σ of one Gaussian; −∞ where exact rows leave no density."""
    if not has_density(field):
        return -np.inf
    return 0.5 * np.linalg.slogdet(2 * np.pi * np.e * field.covariances[0])[1]


def divergence(first: Field, second: Field) -> float:
    """KL(first ‖ second) of two Gaussians; ∞ if one of them alone has a density."""
    if not has_density(first) or not has_density(second):
        return np.inf
    inverse, apart = np.linalg.inv(second.covariances[0]), (second.means - first.means)[0]
    determinants = np.linalg.slogdet(second.covariances[0])[1] - np.linalg.slogdet(first.covariances[0])[1]
    return 0.5 * (np.trace(inverse @ first.covariances[0]) + apart @ inverse @ apart - len(apart) + determinants)


def has_density(field: Field) -> bool:
    """Whether the covariance of a Gaussian is regular."""
    return np.linalg.matrix_rank(field.covariances[0], hermitian=True, rtol=1e-10) == field.means.shape[1]
