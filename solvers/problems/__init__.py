"""Test problems: closed forms, conservation and boundary problems, and samples of their solutions."""

from solvers.problems.conservation import (
    ADVECTION,
    BURGERS,
    DIFFUSION,
    POROUS_MEDIUM,
    PROBLEMS,
    STEFAN,
    Problem,
)

__all__ = [
    "ADVECTION",
    "BURGERS",
    "DIFFUSION",
    "POROUS_MEDIUM",
    "PROBLEMS",
    "STEFAN",
    "Problem",
]
