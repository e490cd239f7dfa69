"""Probabilistic predictions that obey conservation laws exactly."""

try:
    from solvers._lazy import lazy_names
except ImportError as error:  # a user's own package or module of that name
    from importlib.util import find_spec

    raise ImportError(
        f"{__name__} needs the package solvers that it is installed with, but Python finds "
        f"{getattr(find_spec('solvers'), 'origin', None)} first. Rename that file or folder, or start Python elsewhere."
    ) from error

_load, __dir__, __all__ = lazy_names(__name__)


def __getattr__(name: str) -> object:
    import probconserv._linalg  # noqa: F401 - imports linear_operator without its warnings, before others do

    return _load(name)
