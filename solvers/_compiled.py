"""Compilation of inner loops by numba, with the same options everywhere."""

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A decorator that compiles a function and caches the machine code on disk.

    Where no cache can be written (a read-only installation, a user without a home), each process compiles anew; set
    ``NUMBA_CACHE_DIR`` to a folder that can be written to avoid that.

    Args:
        function: The function; None where options follow, as in ``@compiled(inline="always")``.
        options: Options of ``numba.njit`` beside, or in place of, ``nogil=True`` and ``error_model="numpy"``.

    Returns:
        The compiled function, or the decorator.
    """
    if function is None:
        return partial(compiled, **options)
    options = {"nogil": True, "error_model": "numpy"} | options
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return njit(**options)(function)


inner = partial(compiled, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""``compiled`` for functions that only compiled functions call, without the wrapper that Python needs."""
