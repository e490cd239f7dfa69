"""Finite volumes: grids, boundary conditions, laws, numerical fluxes and time steps."""
