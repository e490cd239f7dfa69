"""Laws inside other people's tools: labelled data, weather models, scikit-learn, the hub.

Each module imports the package that it is for; none is loaded before one of its names is used.
"""

from probconserv.errors import MissingPackageError
from solvers._lazy import lazy_names

_load, __dir__, __all__ = lazy_names(__name__)


def __getattr__(name: str) -> object:
    import probconserv._linalg  # noqa: F401 - imports linear_operator without its warnings, before others do

    try:
        return _load(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{__name__}.{name} needs the package {error.name}; pip install 'probconserv-boon[tools]' brings it."
        ) from error
