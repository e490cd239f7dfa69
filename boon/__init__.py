"""Neural operators whose output meets its boundary conditions exactly."""
