"""Studies of one flow: evaluations of its samplers, laws that no field meets, prediction from observations."""
