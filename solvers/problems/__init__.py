"""Test problems: closed forms, conservation and boundary problems, and samples of their solutions."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
