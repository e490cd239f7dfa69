"""The papers' tables and figures; released models: ``load_pretrained("stefan")``, ``load_operator("stokes", case)``."""

from experiments.boundary import load_operator
from experiments.conservation import load_pretrained

__all__ = ["load_operator", "load_pretrained"]
