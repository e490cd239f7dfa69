"""What the sides of a domain ask for: conditions, parts of a side, their functionals and data on a grid."""
