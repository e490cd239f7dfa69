"""Inequality constraints and the projection of a prediction onto them."""
