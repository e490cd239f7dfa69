"""Principal components of fields that consist of blocks: channels, and boundary data of single sides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

_SMALLEST = 1e-9  # singular values below this times the largest are rounding of float32 data

Rows = Float[np.ndarray, "samples numbers"]


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
        kept = values > _SMALLEST * values[0]
        kept[0] = True
        deviation = np.sqrt(pca.explained_variance_[kept])
        return cls(mean=mean, scale=scale, directions=np.asarray(pca.components_)[kept], deviation=deviation)

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
