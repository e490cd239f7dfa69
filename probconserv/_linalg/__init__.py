"""Linear algebra of the update: covariances, gain, densities and compiled passes."""
