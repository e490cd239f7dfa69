"""Probabilistic predictions that obey conservation laws exactly."""
