"""The papers' tables and figures; released models: ``load_pretrained("stefan")``, ``load_operator("stokes", case)``."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
