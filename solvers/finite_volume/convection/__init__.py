"""The convection term on rows: numerical fluxes and reconstructions."""
