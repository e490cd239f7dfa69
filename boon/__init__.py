"""Neural operators whose output meets its boundary conditions exactly."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, former=("BoonError", "StoredOperatorError"))
