"""Solvers at equal error: the smallest cost at which each of them reaches it."""
