"""Systems of conservation laws with several unknowns, by finite volumes: ``solve_system`` and ``ShallowWater``."""
