"""Numerical and exact reference solutions of partial differential equations."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
