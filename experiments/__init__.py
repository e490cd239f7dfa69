"""The papers' tables and figures, and released models: ``load_pretrained("stefan")``, ``load_operator("stokes", …)``."""

from experiments.boundary import load_operator
from experiments.conservation import load_pretrained

__all__ = ["load_operator", "load_pretrained"]
