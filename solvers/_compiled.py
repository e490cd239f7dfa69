"""Compilation of inner loops by numba, with the same options everywhere."""

import gc
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from numba import cfunc, njit
from numba.core import event

_log = logging.getLogger(__name__)


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A decorator that compiles a function and caches the machine code on disk.

    Where no cache can be written (a read-only installation, a user without a home), each process compiles anew; set
    ``NUMBA_CACHE_DIR`` to a folder that can be written to avoid that.

    Args:
        function: The function; None where options follow, as in ``@compiled(inline="always")``.
        options: Options of ``numba.njit`` beside, or in place of, ``nogil=True`` and ``error_model="numpy"``; with a
            ``signature`` it is compiled at once.

    Returns:
        The compiled function, or the decorator.
    """
    if function is None:
        return partial(compiled, **options)
    signature = options.pop("signature", None)
    usual: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "cache": True,
        "no_cfunc_wrapper": signature is None,
    }
    options = usual | options
    try:
        return njit(signature, **options)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        options["cache"] = False
        return njit(signature, **options)(function)


inner = partial(compiled, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""``compiled`` for functions that only compiled functions call, without the wrapper that Python needs."""


on_views = partial(compiled, _nrt=False)
"""``compiled`` for functions that make no arrays: numba then counts no references of views, whose counts are atomic."""

inner_on_views = partial(inner, _nrt=False)
"""``inner`` for such functions."""

merged = partial(inner_on_views, inline="always")
"""``inner_on_views`` for functions that become part of their only caller: what is called is optimised once a level."""


def c_function(signature: Any, function: Callable[..., Any], *, cache: bool = True) -> Any:
    """A function compiled for C, to be called by a pointer; cached on disk where that can be written."""
    try:
        return cfunc(signature, error_model="numpy", cache=cache)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return cfunc(signature, error_model="numpy")(function)


@compiled
def _nothing() -> None:
    """Shows where compiled code is kept."""


def cache_folder() -> str | None:
    """The folder where compiled code of this package is kept; None where none can be written."""
    return _nothing.stats.cache_path


class _Compilation(event.Listener):
    """Settings of a compilation of these packages.

    It says once in a process that it compiles; not where the code of an earlier one is found. The garbage collector
    waits meanwhile: it would walk over all objects of torch many times, an eighth of the time, and find nothing.
    """

    said, depth, collects = False, 0, False

    def on_start(self, event: event.Event) -> None:
        if not _is_ours(event):
            return
        self.depth += 1
        if self.depth == 1:
            self.collects = gc.isenabled()
            gc.disable()
        if not self.said:
            self.said = True
            kept = f"kept in {cache_folder()}" if cache_folder() else "for this process alone, see NUMBA_CACHE_DIR"
            _log.warning("Compiling for a first call, %s; python -m solvers.warm does all of it ahead.", kept)

    def on_end(self, event: event.Event) -> None:
        self.depth -= _is_ours(event)
        if self.depth == 0 and self.collects:
            self.collects = False
            gc.enable()


def _is_ours(event: event.Event) -> bool:
    """Whether a function of these packages is compiled; they compile only under numba's lock."""
    assert event.data is not None
    module = event.data["dispatcher"].py_func.__module__ or "solvers"  # none: a written kernel
    return module.partition(".")[0] in ("solvers", "probconserv")


event.register("numba:compile", _Compilation())
