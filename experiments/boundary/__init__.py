"""The boundary-condition experiments: operators whose output meets its boundary conditions."""
