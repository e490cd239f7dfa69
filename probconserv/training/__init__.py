"""The training loop, for any model: ``train`` with checkpoints and exact resumption."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
