"""What kernels in Python need of a tile: which rows are in its lanes, and their values as rows."""

from typing import Any, NamedTuple

import numpy as np

from solvers.finite_volume._kernels import numbers_at

_Array = np.ndarray


class Lanes(NamedTuple):
    """The lanes of a tile that hold rows.

    Attributes:
        places: Their places in the tile.
        rows: The rows.
        times: Their times.
    """

    places: _Array | slice
    rows: _Array
    times: _Array

    def read(self, pointer: Any, size: int, width: int) -> _Array:
        """Values ``(rows, size)`` of an interleaved array."""
        return np.ascontiguousarray(numbers_at(pointer, size, width)[:, self.places].T)

    def write(self, pointer: Any, values: _Array, width: int) -> None:
        """Writes values ``(rows, size)`` to an interleaved array."""
        numbers_at(pointer, values.shape[1], width)[:, self.places] = values.T


def lanes_of(info: Any, width: int) -> Lanes:
    """The lanes by rows, times and marks ``(3, width)``."""
    rows, times, marks = numbers_at(info, 3, width)
    places = marks.nonzero()[0]
    if len(places) == width:
        return Lanes(slice(None), rows.astype(np.int64), times.copy())
    return Lanes(places, rows[places].astype(np.int64), times[places])
