"""Operators under both constraints: boundary conditions inside, the conservation law outside."""

from experiments.combined.experiment import EXPERIMENTS

__all__ = ["EXPERIMENTS"]
