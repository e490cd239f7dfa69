"""What is particular to a system, as kernels that the compiled core calls by their addresses.

A kernel gets ``count`` states of c components, those of one component next to each other and the components ``stride``
apart. ``numbers`` holds a scale of the states, the length of a cell and then the law's parameters.

* faces: states left (a) and right (b) of faces → flux (out) and largest speed (extra).
* check: whether states (a) are admissible → 1 or 0 (extra). It may mend their round-off, b being those before the step.
* reflect: states (a) → as a wall mirrors them (out).
* slopes: cells (a) → half the limited slopes of all but the first and the last (out), of one component.
* given: times (a) of some entries (b) → nothing; the states at the sides are where the core reads them.
"""

from typing import Any

import numpy as np
from numba import types

from solvers.finite_volume._kernels import numbers_at

_NUMBERS = types.CPointer(types.float64)
SWEEP = types.void(*[_NUMBERS] * 7, types.CPointer(types.int64))

_ARGUMENTS = "a, b, out, extra, numbers, count, stride"


def view(pointer: Any, components: int, count: int, stride: int) -> np.ndarray:
    """States behind a pointer ``(components, count)``."""
    return numbers_at(pointer, components, stride)[:, :count]
