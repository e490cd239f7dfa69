"""A process keeps the memory that it frees, so that the steps of a training reuse it."""

import ctypes
import sys
from functools import cache

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # parameters of glibc's mallopt, from malloc.h
_LARGEST_REUSED = 2**30
_MOST_KEPT = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Makes the C library of this process keep what it frees, up to 2 GiB, and use it again for arrays below 1 GiB.

    By default glibc returns large arrays to the kernel, which clears every page of the next one. A training allocates
    the same arrays in every step; without this an FNO in one dimension spends a quarter of a step on such pages. Other
    C libraries than glibc are left as they are; then the result is False.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_REUSED) and mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
