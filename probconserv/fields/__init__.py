"""Fields of many points: conversion, laws with many rows on them, and their conditioning."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
