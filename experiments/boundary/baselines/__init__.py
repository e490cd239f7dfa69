"""Baselines of the boundary-condition experiments that are no FNO of this library."""
