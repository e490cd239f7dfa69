"""Flow matching: a generative surrogate whose draws meet a law."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
