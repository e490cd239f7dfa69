"""Principal components of fields, and the regressions between them that are tried: linear, polynomial and kernel ridge.

Fields consist of blocks: channels, and boundary data of single sides. Regressions take components in units in which
their squares sum to 1 in the mean over the training samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.gaussian_process.kernels import Matern
from sklearn.preprocessing import PolynomialFeatures
from typing_extensions import override

Features = Float[np.ndarray, "samples features"]
Targets = Float[np.ndarray, "samples targets"]
Deviation = Float[np.ndarray, " components"]
Rows = Float[np.ndarray, "samples numbers"]
RIDGES = (1e-15, 1e-12, 1e-9, 1e-6, 1e-4, 1e-2)
"""Penalties per training sample that are tried; kernel matrices are singular up to rounding below 1e-15."""
COUNTS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Numbers of components of the input that linear regressions take, and all there are."""
DEGREES = {2: (4, 8, 16, 24), 3: (2, 4, 8, 12)}
"""By degree of the polynomials, how many components enter them."""
LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Lengths of the kernels."""
_SMALLEST = 1e-9  # singular values below this times the largest are rounding of float32 data


@dataclass(frozen=True, kw_only=True)
class Components:
    """x = x̄ + s (z D) with the mean x̄, one scale s per block and orthonormal rows D of falling variance.

    ``deviation`` is that of every component z over the training samples.
    """

    mean: Float[np.ndarray, " numbers"]
    scale: Float[np.ndarray, " numbers"]
    directions: Float[np.ndarray, "components numbers"]
    deviation: Float[np.ndarray, " components"]

    @classmethod
    def fit(cls, samples: Rows, blocks: Sequence[int]) -> Self:
        """The components of training samples in float64, at least two rows, each of ``blocks`` of numbers.

        The scale of a block is the root mean square of its deviations from the mean, and 1 for one that is constant.
        """
        mean = samples.mean(axis=0)
        parts = np.split(samples - mean, np.cumsum(blocks)[:-1], axis=1)
        scale = np.concatenate([np.full(part.shape[1], np.sqrt(np.square(part).mean()) or 1.0) for part in parts])
        pca = PCA(svd_solver="full").fit((samples - mean) / scale)
        values = np.asarray(pca.singular_values_)
        significant = values > _SMALLEST * values[0]
        significant[0] = True
        deviation = np.sqrt(pca.explained_variance_[significant])
        return cls(mean=mean, scale=scale, directions=np.asarray(pca.components_)[significant], deviation=deviation)

    def __len__(self) -> int:
        return len(self.directions)

    def compress(self, samples: Rows) -> Float[np.ndarray, "samples components"]:
        """z of samples."""
        return ((samples - self.mean) / self.scale) @ self.directions.T

    def expand(self, z: Float[np.ndarray, "samples some"]) -> Rows:
        """The samples with these leading components, all others 0."""
        return self.mean + self.scale * (z @ self.directions[: z.shape[1]])

    def leading(self, count: int) -> Self:
        """The first components alone."""
        return type(self)(
            mean=self.mean, scale=self.scale, directions=self.directions[:count], deviation=self.deviation[:count]
        )


class Solutions(NamedTuple):
    """Coefficients V (λ + penalty)⁻¹ Y of a ridge regression for every penalty of their squares."""

    vectors: Float[np.ndarray, "features rank"]
    values: Float[np.ndarray, " rank"]
    targets: Float[np.ndarray, "rank targets"]

    def weighted(self, penalty: float) -> Float[np.ndarray, "rank targets"]:
        """(λ + penalty)⁻¹ Y; the coefficients are V times it."""
        return self.targets / (self.values + penalty)[:, None]


@dataclass(frozen=True, kw_only=True)
class Regression(ABC):
    """Targets as a linear combination of features of the leading components.

    ``inputs`` is how many of them are used.
    """

    inputs: int

    @abstractmethod
    def features(self, z: Features, deviation: Deviation, centres: Features) -> Features:
        """Features of samples, from their first ``inputs`` components and the deviations of these in training."""

    def centres(self, z: Features) -> Features:
        """The training samples that features refer to; none here."""
        return z[:0]

    def solve(self, features: Features, targets: Targets) -> Solutions:
        """Ridge regression of the training samples; the mean of the targets is 0."""
        left, values, right = np.linalg.svd(features, full_matrices=False)
        return Solutions(right.T, values**2, values[:, None] * (left.T @ targets))


@dataclass(frozen=True, kw_only=True)
class Linear(Regression):
    """Linear ridge regression."""

    @override
    def features(self, z: Features, deviation: Deviation, centres: Features) -> Features:
        return z


@dataclass(frozen=True, kw_only=True)
class Polynomial(Regression):
    """Ridge regression on the monomials of the leading components up to a degree, and on further components.

    Args:
        degree: Largest degree; the constant is a monomial too.
        leading: Components in the monomials, each divided by its standard deviation.
    """

    degree: int
    leading: int

    @override
    def features(self, z: Features, deviation: Deviation, centres: Features) -> Features:
        leading = z[:, : self.leading] / deviation[: self.leading]
        monomials = PolynomialFeatures(self.degree).fit_transform(leading)
        return np.concatenate([monomials, z[:, self.leading :]], axis=1)


@dataclass(frozen=True, kw_only=True)
class Kernel(Regression):
    """Kernel ridge regression, whose features are the values of a kernel with all training samples.

    Args:
        smoothness: ν of the Matérn kernel; None for the squared exponential (RBF), its limit ν → ∞.
        length: Correlation length; the mean square of the distance from the mean input is 1.
        whitened: Whether each component is divided by its standard deviation.
    """

    smoothness: float | None
    length: float
    whitened: bool

    def features(self, z: Features, deviation: Deviation, centres: Features) -> Features:
        kernel = Matern(length_scale=self.length, nu=np.inf if self.smoothness is None else self.smoothness)
        unit = deviation * np.sqrt(self.inputs) if self.whitened else 1.0
        return np.asarray(kernel(z / unit, centres / unit))

    def centres(self, z: Features) -> Features:
        return z

    def solve(self, features: Features, targets: Targets) -> Solutions:
        values, vectors = np.linalg.eigh(features)
        return Solutions(vectors, values.clip(min=0.0), vectors.T @ targets)


def candidates(available: int) -> Iterator[Regression]:
    """All regressions that are tried, by the number of components of the input."""
    for inputs in (*(count for count in COUNTS if count < available), available):
        yield Linear(inputs=inputs)
    for degree, counts in DEGREES.items():
        for leading in (count for count in counts if count <= available):
            for inputs in sorted({leading, min(64, available)}):
                yield Polynomial(inputs=inputs, degree=degree, leading=leading)
    few = sorted({min(count, available) for count in (4, 16, 64)})
    for inputs, whitened, smoothness, length in product(few, (False, True), (2.5, None), LENGTHS):
        yield Kernel(inputs=inputs, smoothness=smoothness, length=length, whitened=whitened)
