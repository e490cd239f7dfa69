"""The papers' tables and figures, and the trained networks that ship: ``load_pretrained("stefan")``."""

from experiments.conservation import load_pretrained

__all__ = ["load_pretrained"]
