"""Steady problems with variable coefficients."""
