"""Covariances, laws and rules fitted to cases that were seen, and whether members of an ensemble explain a law."""
