"""Surrogates: models that predict a field, with its uncertainty, from observations."""
