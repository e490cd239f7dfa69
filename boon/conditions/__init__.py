"""Boundary conditions: parts of a side, their functionals and data on a grid."""
