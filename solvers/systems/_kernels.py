"""What is particular to a system, as kernels that the compiled core calls by their addresses.

A kernel gets ``count`` states of c components, those of one component next to each other and the components ``stride``
apart. ``numbers`` holds a scale of the states, the length of a cell and then the law's parameters.

* faces: states left (a) and right (b) of faces → flux (out) and largest speed (extra).
* check: whether states (a) are admissible → 1 or 0 (extra). It may mend their round-off, b being those before the step.
* reflect: states (a) → as a wall mirrors them (out).
* slopes: cells (a) → half the limited slopes of all but the first and the last (out), of one component.
* given: times (a) of some entries (b) → nothing; the states at the sides are where the core reads them.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numba import types

from solvers.finite_volume._kernels import KERNEL, kernel, numbers_at
from solvers.finite_volume.convection.reconstruction_kernels import LIMITERS

_NUMBERS = types.CPointer(types.float64)
SWEEP = types.void(*[_NUMBERS] * 7, types.CPointer(types.int64))

_ARGUMENTS = "a, b, out, extra, numbers, count, stride"


def written_kernel(name: str, lines: Sequence[str], names: dict[str, Any], *, cache: bool) -> Any:
    """A kernel from the lines of its body.

    Args:
        name: Name of the kernel, different for every body and every set of functions if it is kept on disk.
        lines: Lines of the body.
        names: Compiled functions that the lines call.
        cache: Whether to keep the machine code on disk: for functions of this package alone, since numba does not
            see that a function has changed that a kernel calls.

    Returns:
        The kernel.
    """
    source = "\n    ".join([f"def {name}({_ARGUMENTS}):", *lines])
    names["__name__"] = __name__  # where numba looks for the globals of code that it kept
    exec(compile(source, __file__, "exec"), names)
    return kernel(KERNEL, names[name], cache=cache)


@lru_cache
def slopes_kernel(limiter: Any) -> Any:
    """Half the slopes by a limiter."""
    lines = [
        "for k in range(count):",
        "    out[k] = 0.5 * limiter(a[k + 1] - a[k], a[k + 2] - a[k + 1])",
    ]
    ours = limiter in LIMITERS
    name = f"slopes_{limiter.__name__}" if ours else "slopes"
    return written_kernel(name, lines, {"limiter": limiter}, cache=ours)


def view(pointer: Any, components: int, count: int, stride: int) -> np.ndarray:
    """States behind a pointer ``(components, count)``."""
    return numbers_at(pointer, components, stride)[:, :count]
