"""The papers' tables and figures, and the trained networks that ship: ``load_pretrained("stefan")``."""

from experiments.networks import load_pretrained

__all__ = ["load_pretrained"]
