"""Generative surrogates under exact laws."""
