"""Test problems: closed forms, conservation problems, problems for operators, and samples of their solutions."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
