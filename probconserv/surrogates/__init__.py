"""Surrogates: models that predict a field from observations of it, with an uncertainty."""
