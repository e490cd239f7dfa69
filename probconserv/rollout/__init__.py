"""Predictions step by step under the balance of an open system."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
