"""Laws, their coefficients and sources, as the user states them and on rows of a flattened batch."""
